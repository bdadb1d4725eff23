// What the server answered, as elements. Data only ever becomes text nodes, never markup.

import { pairOf } from './filter.js';

const STAGES = ['queue', 'tokenize', 'encode', 'search', 'fetch'];

/** An element of class `className` with `children`, nodes or text. */
export function element(tag, className = '', ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Matches the query's words in a text, a plural too; null where there is none to match. */
export function highlighter(query) {
  const words = [...new Set(query.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [])];
  const unspaced = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;
  const patterns = words.map((word) => {
    if (unspaced.test(word)) return word;
    const stem = word.length > 3 ? word.replace(/s$/u, '') : word;
    return `(?<![\\p{L}\\p{N}])${stem}${word.length > 2 ? '(?:e?s)?' : ''}(?![\\p{L}\\p{N}])`;
  });
  return patterns.length ? new RegExp(`(${patterns.join('|')})`, 'giu') : null;
}

function highlighted(text, pattern) {
  if (!pattern) return [text];
  return text.split(pattern).map((part, at) => (at % 2 ? element('mark', '', part) : part));
}

/** A hit of the API. `onFilter` gets the `key=value` of a metadata chip that was pressed; `thumbs` stand below. */
export function hitView(hit, rank, pattern, onFilter, thumbs) {
  const view = element('article', 'hit');
  view.tabIndex = -1;
  view.setAttribute('aria-label', `Result ${rank}: ${hit.title || hit.text || hit.id}`);
  view.append(element('span', 'rank', String(rank)));
  const content = element('div', 'content');
  if (hit.title) content.append(element('h2', '', ...highlighted(hit.title, pattern)));
  if (hit.text) content.append(element('p', 'text', ...highlighted(hit.text, pattern)));
  const facts = element('div', 'facts', element('span', 'id', hit.id));
  facts.append(...Object.entries(hit.metadata ?? {}).flatMap(([key, value]) => metadataChips(key, value, onFilter)));
  content.append(facts, thumbs);
  const score = element('span', 'score', hit.score.toFixed(3));
  score.title = `Score ${hit.score}`;
  view.append(content, score);
  return element('li', '', view);
}

/**
 * Chips of one metadata key, those of an object with dots as filters write them; pressed, one filters by itself, where a
 * filter can be written for it.
 */
function metadataChips(key, value, onFilter) {
  if (Array.isArray(value)) return value.flatMap((one) => metadataChips(key, one, onFilter));
  if (value === null) return [];
  if (typeof value === 'object') {
    return Object.entries(value).flatMap(([inner, one]) => metadataChips(`${key}.${inner}`, one, onFilter));
  }
  const pair = pairOf(key, value);
  const chip = element(pair === null ? 'span' : 'button', 'chip', element('span', 'faint', key), ` ${value}`);
  if (pair !== null) {
    chip.type = 'button';
    chip.title = `Only documents with ${pair}`;
    chip.addEventListener('click', () => onFilter(pair));
  }
  return [chip];
}

/** A text that does not fit gets a button that shows it whole. */
export function markLong(text) {
  if (text.scrollHeight <= text.clientHeight + 1) return;
  const more = element('button', 'quiet more', 'Whole text');
  more.type = 'button';
  more.setAttribute('aria-expanded', 'false');
  more.addEventListener('click', () => {
    const isWhole = text.classList.toggle('whole');
    more.textContent = isWhole ? 'Less' : 'Whole text';
    more.setAttribute('aria-expanded', isWhole);
  });
  text.after(more);
}

/** The parts of `took_ms` as a bar with a legend. */
export function timingView(took) {
  const parts = STAGES.map((stage) => [stage, took[stage] ?? 0]);
  const rest = (took.total ?? 0) - parts.reduce((sum, [, ms]) => sum + ms, 0);
  if (rest >= 0.05) parts.push(['other', rest]);
  const sum = parts.reduce((all, [, ms]) => all + ms, 0) || 1;
  const bar = element('div', 'bar');
  bar.setAttribute('aria-hidden', 'true');
  const legend = element('ul', 'legend');
  for (const [stage, ms] of parts) {
    const share = element('span', `stage-${stage}`);
    share.style.flexGrow = (100 * ms) / sum;
    bar.append(share);
    legend.append(element('li', '', element('i', `stage-${stage}`), `${stage} `, element('b', '', ms.toFixed(1))));
  }
  const total = element('p', 'total', element('b', '', `${(took.total ?? 0).toFixed(1)} ms`), ' on the server');
  return [total, bar, legend];
}
