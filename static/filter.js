// Filters as people write them, and as the API takes them.

/** Keys of a filter that are none of the metadata. */
const OPERATORS = ['and', 'or', 'not'];

/** `key=value` as [key, value]; a value that reads as a JSON number, boolean or string is one. Null if it is no pair. */
export function readPair(pair) {
  const at = pair.indexOf('=');
  const key = pair.slice(0, at).trim();
  if (at < 0 || !key) return null;
  const text = pair.slice(at + 1).trim();
  try {
    const value = JSON.parse(text);
    return [key, typeof value === 'object' ? text : value];
  } catch {
    return [key, text];
  }
}

/** The inverse of `readPair`: quotes a string only where it would read as something else. */
export function writePair(key, value) {
  const plain = `${key}=${value}`;
  const read = readPair(plain);
  return read && read[1] === value ? plain : `${key}=${JSON.stringify(value)}`;
}

/** The pair that only documents with this value pass; null where the API would read it as something else. */
export function pairOf(key, value) {
  const pair = writePair(key, value);
  const [readKey, readValue] = readPair(pair) ?? [];
  return readKey === key && readValue === value && !OPERATORS.includes(key) ? pair : null;
}

/** The object of the JSON field, or null where it is empty. Throws with a message for people. */
function readRaw(text) {
  if (!text.trim()) return null;
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`Not JSON: ${error.message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error('A filter is a JSON object, such as {"lang": "en"}');
  }
  return value;
}

/** One filter of the pairs (values of one key: any of them) and the JSON field (both must hold). */
export function readFilter(pairs, raw) {
  const byKey = new Map();
  for (const [key, value] of pairs.map(readPair).filter(Boolean)) byKey.set(key, [...(byKey.get(key) ?? []), value]);
  const parts = [...byKey].map(([key, values]) => ({ [key]: values.length === 1 ? values[0] : values }));
  const extra = readRaw(raw);
  if (extra) parts.push(extra);
  if (parts.length === 0) return undefined;
  return parts.length === 1 ? parts[0] : { and: parts };
}
