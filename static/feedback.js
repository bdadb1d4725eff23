// A thumb up and a thumb down on each hit: votes that the server makes judgments of.

import { call } from './server.js';

const THUMBS = [
  { grade: 1, name: 'up', label: 'Relevant' },
  { grade: 0, name: 'down', label: 'Not relevant' },
];

const SVG = 'http://www.w3.org/2000/svg';
const HAND = 'M7 11v9H4v-9zM7 11l4-7.5c1.4 0 2.5 1.1 2.5 2.5v4h5.2a1.8 1.8 0 0 1 1.8 2.1l-1 6.4a1.8 1.8 0 0 1-1.8 1.5H7';

/** Votes of this page: query and document -> grade. */
const votes = new Map();

function place(query, id) {
  return JSON.stringify([query.trim().split(/\s+/u).join(' '), id]);
}

function hand() {
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', '0 0 24 24');
  drawing.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', HAND);
  drawing.append(path);
  return drawing;
}

/** What a receipt means to the one who voted. */
export function receiptText({ split, grade, votes: { up, down } }) {
  if (split === null) return 'Noted, but this query is kept for measuring: nothing is trained on it';
  if (grade === null) return `Noted: ${up} for and ${down} against leave it open`;
  const use = split === 'dev' ? 'measures with it' : 'trains on it';
  return `Noted as ${grade > 0 ? 'relevant' : 'not relevant'}: the next refresh ${use}`;
}

/** Thumbs for a hit of a query. `say` tells a screen reader. */
export function thumbsView(query, id, say) {
  const view = document.createElement('div');
  view.className = 'thumbs';
  view.setAttribute('role', 'group');
  view.setAttribute('aria-label', 'Does this answer the query?');
  const note = document.createElement('span');
  const key = place(query, id);
  let isSending = false;

  const buttons = THUMBS.map(({ grade, name, label }) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = `thumb ${name}`;
    button.dataset.grade = grade;
    button.title = label;
    button.setAttribute('aria-label', label);
    button.append(hand());
    button.addEventListener('click', () => vote(grade));
    return button;
  });

  function show() {
    for (const button of buttons) {
      button.setAttribute('aria-pressed', votes.get(key) === Number(button.dataset.grade));
      button.setAttribute('aria-disabled', isSending);
    }
  }

  function tell(className, text) {
    note.className = className;
    note.textContent = text;
    say(text);
  }

  async function vote(grade) {
    const earlier = votes.get(key);
    if (isSending || earlier === grade) return;
    isSending = true;
    show();
    try {
      const body = earlier === undefined ? { query, id, grade } : { query, id, grade, replaces: earlier };
      const receipt = await call('/feedback', { body });
      votes.set(key, grade);
      tell('faint', receiptText(receipt));
    } catch (problem) {
      tell('wrong', `Not kept: ${problem.message}`);
    } finally {
      isSending = false;
      show();
    }
  }

  view.append(...buttons, note);
  show();
  return view;
}
