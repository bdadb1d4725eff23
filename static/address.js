// The page's state as its address, so that links and the back button work.

import { readPair } from './filter.js';

const DEFAULT_K = 10;

/** What the address asks for; what it does not say is at its default. */
export function stateOfAddress() {
  const address = new URLSearchParams(location.search);
  const count = (name, fallback) => {
    const value = Number(address.get(name));
    return Number.isSafeInteger(value) && value > 0 ? value : fallback;
  };
  return {
    query: address.get('q') ?? '',
    k: count('k', DEFAULT_K),
    offset: count('offset', 0),
    exact: address.get('exact') === 'true',
    pairs: address.getAll('f').filter((pair) => readPair(pair) !== null),
    raw: address.get('filter') ?? '',
  };
}

/** The address that `state` is read from; defaults are left out. */
export function addressOfState(state) {
  const address = new URLSearchParams();
  if (state.query) address.set('q', state.query);
  if (state.k !== DEFAULT_K) address.set('k', state.k);
  if (state.offset) address.set('offset', state.offset);
  if (state.exact) address.set('exact', 'true');
  for (const pair of state.pairs) address.append('f', pair);
  if (state.raw) address.set('filter', state.raw);
  const text = address.toString();
  return location.pathname + (text ? `?${text}` : '');
}
