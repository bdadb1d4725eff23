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
  }
}

export async function call(path, { body, signal } = {}) {
  const headers = { Accept: 'application/json' };
  const key = storedKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers['Content-Type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(path, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { title: 'No answer', detail: 'The server cannot be reached. It may be stopping or restarting.' });
  }
  const content = await answer.json().catch((error) => {
    if (error.name === 'AbortError') throw error;
    return {};
  });
  if (!answer.ok) throw new Problem(answer.status, content);
  return content;
}
