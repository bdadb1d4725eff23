// Numbers, times and sizes as people read them.

const whole = new Intl.NumberFormat('en');
const dates = new Intl.DateTimeFormat('en', { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

/** The measures that the page shows, most telling first. */
export const MEASURES = ['nDCG@10', 'MRR@10', 'Recall@100'];

export function count(number) {
  return whole.format(number);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function measure(value) {
  return Number.isFinite(value) ? value.toFixed(3) : '–';
}

/** A difference with its sign, and which class it has; null where there is nothing to compare. */
export function difference(value, base) {
  if (!Number.isFinite(value) || !Number.isFinite(base)) return null;
  const by = Number((value - base).toFixed(3));
  if (by === 0) return { text: '±0', className: 'same' };
  return { text: `${by > 0 ? '+' : '−'}${Math.abs(by).toFixed(3)}`, className: by > 0 ? 'better' : 'worse' };
}

export function loss(value) {
  return Number.isFinite(value) ? value.toFixed(value < 10 ? 3 : 1) : '–';
}

export function date(rfc3339) {
  return dates.format(new Date(rfc3339));
}

export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(all / 3600), Math.floor(all / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${all % 60} s` : `${all} s`;
}

/** Seconds from one time to another, as the server writes them. */
export function secondsBetween(from, to) {
  return (new Date(to) - new Date(from)) / 1000;
}

export function bytes(number) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const at = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, number)) / 3)));
  const value = number / 1000 ** at;
  return `${value.toFixed(at && value < 10 ? 1 : 0)} ${units[at]}`;
}
