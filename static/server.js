// Requests to the server that this page came from, and the key for them.

const KEY = 'anced-key';

/** The key of this tab, or null. */
export function storedKey() {
  return sessionStorage.getItem(KEY);
}

/** Keeps `key` for this tab; null forgets it. */
export function storeKey(key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** What the server says against a request, as RFC 9457 problem details. */
export class Problem extends Error {
  constructor(status, details) {
    super(details.detail || details.title || 'The server gave no reason');
    this.status = status;
    this.title = details.title || `Error ${status}`;
    this.requestId = details.request_id;
    this.job = details.job;
  }
}

/** Whether another key would open what this one does not. */
export function isRefusal(problem) {
  return problem.status === 401 || problem.status === 403;
}

function keyHeaders() {
  const key = storedKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** What the server answers, which is JSON. POST where there is a body, GET where no other method is named. */
export async function call(path, { body, method = body ? 'POST' : 'GET', signal } = {}) {
  const answer = await ask(path, { method, body, signal });
  return readJson(answer);
}

/** The server's answer as it begins, for one that is long in coming. */
export async function openStream(path, { headers, signal }) {
  const answer = await ask(path, { headers: { Accept: 'text/event-stream', ...headers }, signal });
  return answer.ok ? answer.body : readJson(answer);
}

async function ask(path, { method, body, headers: more, signal }) {
  const headers = { Accept: 'application/json', ...keyHeaders(), ...more };
  if (body) headers['Content-Type'] = 'application/json';
  try {
    return await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { title: 'No answer', detail: 'The server cannot be reached. It may be stopping or restarting.' });
  }
}

async function readJson(answer) {
  const content = await answer.json().catch((error) => {
    if (error.name === 'AbortError') throw error;
    return {};
  });
  if (!answer.ok) throw new Problem(answer.status, content);
  return content;
}
