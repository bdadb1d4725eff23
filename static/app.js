// The page at /: tries the search of the server that it came from.

import { addressOfState, stateOfAddress } from './address.js';
import { thumbsView } from './feedback.js';
import { readFilter, readPair, writePair } from './filter.js';
import { restartStatus, showGeneration } from './header.js';
import { listenToKeys } from './keyboard.js';
import { call, storeKey, storedKey } from './server.js';
import { element, highlighter, hitView, markLong, timingView } from './view.js';

const TYPING_PAUSE_MS = 160;

const $ = (id) => document.getElementById(id);

/** What the page shows; the address says the same. */
let state = stateOfAddress();
let running = null;
let typingTimer = 0;
let drafting = false;

// --- History ---

/** A query that is being typed takes one entry of the history, however many letters it has. */
function remember(isTyping) {
  const address = addressOfState(state);
  const isShown = address === location.pathname + location.search;
  if (isTyping && drafting) history.replaceState(null, '', address);
  else if (!isShown) history.pushState(null, '', address);
  drafting = isTyping;
}

// --- Filters ---

function addPair(pair) {
  if (!state.pairs.includes(pair)) state.pairs.push(pair);
  change();
}

function removePair(pair) {
  state.pairs = state.pairs.filter((other) => other !== pair);
  change();
}

function showFilters() {
  const chips = state.pairs.map((pair) => {
    const button = element('button', 'chip on', pair, element('span', 'cross', '×'));
    button.type = 'button';
    button.setAttribute('aria-label', `Remove filter ${pair}`);
    button.addEventListener('click', () => removePair(pair));
    return element('li', '', button);
  });
  $('active').replaceChildren(...chips);
}

function openFilters(isOpen) {
  $('filters').hidden = !isOpen;
  $('filters-toggle').setAttribute('aria-expanded', isOpen);
}

function showWrong(id, text) {
  $(`${id}-error`).textContent = text;
  $(id).setAttribute('aria-invalid', text !== '');
}

function addTypedPair() {
  const text = $('pair').value.trim();
  if (!readPair(text)) {
    showWrong('pair', 'Write a key, “=” and a value, such as lang=en');
    return;
  }
  showWrong('pair', '');
  $('pair').value = '';
  addPair(writePair(...readPair(text)));
}

// --- The server ---

async function loadExamples() {
  const { queries } = await call('/search/examples?limit=6').catch(() => ({ queries: [] }));
  const buttons = (queries ?? []).map((query) => {
    const button = element('button', 'example', query);
    button.type = 'button';
    button.addEventListener('click', () => {
      state = { ...state, query, offset: 0 };
      fillForm();
      commit();
    });
    return element('li', '', button);
  });
  $('example-list').replaceChildren(...buttons);
  showExamples();
}

// --- A search ---

/** Takes what the form says into the state. */
function readForm() {
  state.query = $('query').value;
  state.k = Number($('k').value);
  state.exact = $('exact').checked;
  state.raw = $('raw').value.trim();
}

/** Makes the form say what the state is. */
function fillForm() {
  $('query').value = state.query;
  if (![...$('k').options].some((option) => option.value === String(state.k))) $('k').append(new Option(state.k));
  $('k').value = state.k;
  $('exact').checked = state.exact;
  $('raw').value = state.raw;
  if (state.raw) openFilters(true);
  showFilters();
}

/** A setting changed: from the first page again. */
function change() {
  readForm();
  state.offset = 0;
  showFilters();
  commit();
}

function commit() {
  clearTimeout(typingTimer);
  remember(false);
  return search();
}

function typed() {
  clearTimeout(typingTimer);
  readForm();
  state.offset = 0;
  typingTimer = setTimeout(() => {
    remember(true);
    search();
  }, TYPING_PAUSE_MS);
}

async function search() {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  document.title = state.query ? `${state.query} · anced` : 'anced';
  showWrong('raw', '');
  if (!state.query.trim()) {
    clearResults();
    return;
  }
  let filter;
  try {
    filter = readFilter(state.pairs, state.raw);
  } catch (error) {
    openFilters(true);
    showWrong('raw', error.message);
    setBusy(false);
    return;
  }
  const { query, k, offset, exact } = state;
  setBusy(true);
  try {
    const body = { query, k, offset, filter, exact, include: ['title', 'text', 'metadata'] };
    const answer = await call('/search', { body, signal: mine.signal });
    $('key-form').hidden = true;
    showAnswer(answer, { query, k, offset });
  } catch (error) {
    if (error.name !== 'AbortError') showProblem(error);
  } finally {
    if (running === mine) setBusy(false);
  }
}

function showAnswer(answer, asked) {
  showGeneration(answer.generation);
  showMessage();
  $('timing').replaceChildren(...timingView(answer.took_ms));
  $('timing').hidden = false;
  const pattern = highlighter(asked.query);
  const { hits } = answer;
  $('hits').start = asked.offset + 1;
  const views = hits.map((hit, at) => {
    const thumbs = thumbsView(asked.query, hit.id, say);
    return hitView(hit, asked.offset + at + 1, pattern, addPair, thumbs);
  });
  $('hits').replaceChildren(...views);
  $('hits').querySelector('.hit')?.setAttribute('tabindex', '0');
  for (const text of document.querySelectorAll('.hit .text')) markLong(text);
  if (hits.length === 0) {
    const isPast = asked.offset > 0;
    const isFiltered = state.pairs.length > 0 || state.raw;
    showMessage('Nothing found', isPast ? 'There are no more results.' : isFiltered ? 'No document passes the filter.' : 'No document answers this query.');
  }
  showPages(hits.length, asked);
  showExamples();
  say(`${hits.length} results`);
}

function showProblem(problem) {
  clearResults();
  if (problem.status === 401) {
    askForKey(problem);
    return;
  }
  // The reason stands beside the field that it is about.
  if (problem.status < 500 && /filter/i.test(problem.message) && (state.raw || state.pairs.length)) {
    openFilters(true);
    showWrong('raw', problem.message);
    say(problem.message);
    return;
  }
  // The same request would be refused again where the request is at fault.
  const isOurs = !(problem.status >= 400 && problem.status < 500);
  const retry = isOurs ? element('button', '', 'Try again') : null;
  if (retry) {
    retry.type = 'button';
    retry.addEventListener('click', search);
  }
  // What the page itself trips over is no problem of the server's, and has no title.
  const title = problem.title ?? 'Something is wrong';
  showMessage(title, problem.message, problem.requestId, retry);
  say(`${title}: ${problem.message}`);
}

function askForKey(problem) {
  const wasWrong = storedKey() !== null;
  forgetKey();
  $('key-detail').textContent = wasWrong ? `The key was not accepted. ${problem.message}` : problem.message;
  $('key-form').hidden = false;
  $('examples').hidden = true;
  say(`A key is needed. ${problem.message}`);
  // What is typed on after a pause must not go on in the field of the key.
  const isTyping = drafting && document.activeElement === $('query');
  if (!isTyping) $('key').focus();
}

function forgetKey() {
  storeKey(null);
  $('forget').hidden = true;
}

function clearResults() {
  $('hits').replaceChildren();
  $('timing').hidden = true;
  $('pages').hidden = true;
  showMessage();
  setBusy(false);
  showExamples();
}

function setBusy(isBusy) {
  $('results').setAttribute('aria-busy', isBusy);
}

function say(text) {
  $('said').textContent = text;
}

function showExamples() {
  const isIdle = !state.query.trim() && $('key-form').hidden;
  $('examples').hidden = !isIdle || $('example-list').childElementCount === 0;
}

/** A title and a text where results would be; nothing where no title is given. */
function showMessage(title, text, requestId, action) {
  const lines = title ? [element('h2', '', title), element('p', '', text)] : [];
  if (requestId) lines.push(element('p', 'faint', `Request ${requestId}`));
  if (action) lines.push(action);
  $('message').replaceChildren(...lines);
  $('message').hidden = !title;
}

// --- Pages ---

function showPages(shown, { k, offset }) {
  const isLast = shown < k;
  $('pages').hidden = offset === 0 && isLast;
  $('previous').disabled = offset === 0;
  $('next').disabled = isLast;
  $('range').textContent = shown ? `${offset + 1} to ${offset + shown}` : '';
}

async function turnPage(direction) {
  state.offset = Math.max(0, state.offset + direction * state.k);
  await commit();
  scrollTo({ top: 0 });
  $('hits').querySelector('.hit')?.focus();
}

function clearAll() {
  state = { ...state, query: '', offset: 0 };
  fillForm();
  commit();
  $('query').focus();
}

// --- Start ---

function listen() {
  $('search').addEventListener('submit', (event) => {
    event.preventDefault();
    change();
  });
  $('query').addEventListener('input', typed);
  $('k').addEventListener('change', change);
  $('exact').addEventListener('change', change);
  $('raw').addEventListener('change', change);
  $('pair-add').addEventListener('click', addTypedPair);
  $('pair').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    addTypedPair();
  });
  $('pair').addEventListener('input', () => showWrong('pair', ''));
  $('filters-toggle').addEventListener('click', () => openFilters($('filters').hidden));
  $('previous').addEventListener('click', () => turnPage(-1));
  $('next').addEventListener('click', () => turnPage(1));
  $('key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    storeKey($('key').value);
    $('key').value = '';
    $('key-form').hidden = true;
    start();
    $('query').focus();
  });
  $('forget').addEventListener('click', () => {
    forgetKey();
    start();
  });
  listenToKeys($('query'), clearAll);
  addEventListener('popstate', () => {
    state = stateOfAddress();
    drafting = false;
    clearTimeout(typingTimer);
    fillForm();
    search();
  });
}

function start() {
  $('forget').hidden = storedKey() === null;
  restartStatus();
  loadExamples();
  search();
}

fillForm();
if (state.pairs.length) openFilters(true);
listen();
start();
