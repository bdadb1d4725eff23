// Small pieces that several parts of the page are made of.

import { element } from '../view.js';
import { date, difference, measure } from './format.js';

export function button(text, act, { className = '', label } = {}) {
  const made = element('button', className, text);
  made.type = 'button';
  if (label) made.setAttribute('aria-label', label);
  made.addEventListener('click', act);
  return made;
}

export function badge(state) {
  return element('span', `badge ${state}`, state);
}

export function time(rfc3339) {
  const made = element('time', '', date(rfc3339));
  made.dateTime = rfc3339;
  return made;
}

/** A measure, and how it differs from another one. */
export function measured(value, base) {
  const apart = difference(value, base);
  const made = element('span', 'measured', measure(value));
  if (apart) made.append(' ', element('small', apart.className, apart.text));
  return made;
}

const nameOf = (button) => button.getAttribute('aria-label') ?? button.textContent;

/** Puts `views` into `place`; the button that had the focus has it again, by its name, or the place where it is gone. */
export function replaceKeepingFocus(place, views) {
  const held = document.activeElement;
  const hadFocus = held !== place && place.contains(held);
  place.replaceChildren(...views);
  if (!hadFocus) return;
  const again = [...place.querySelectorAll('button')].find((one) => nameOf(one) === nameOf(held));
  place.tabIndex = -1;
  (again ?? place).focus({ preventScroll: true });
}

/** A table whose cells know their column, so that they can stand one below the other on a narrow screen. */
export function table(className, columns, rows) {
  const head = columns.map((column) => {
    const cell = element('th', '', column);
    cell.scope = 'col';
    return cell;
  });
  const body = rows.map(({ cells, className: rowClass = '' }) => {
    const views = cells.map((content, at) => {
      const cell = element(at === 0 ? 'th' : 'td', '', ...[content].flat());
      if (at === 0) cell.scope = 'row';
      else cell.dataset.column = columns[at];
      return cell;
    });
    return element('tr', rowClass, ...views);
  });
  return element('table', className, element('thead', '', element('tr', '', ...head)), element('tbody', '', ...body));
}
