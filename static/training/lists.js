// The generations and the jobs, each as a table.

import { element } from '../view.js';
import { badge, button, measured, table, time } from './elements.js';
import { MEASURES, bytes, count, duration, secondsBetween } from './format.js';

/** Measures by generation: its own, and for one that was never measured those that a refresh began with. */
function measuresByGeneration(generations, jobs) {
  const known = new Map(generations.map(({ number, measures }) => [number, measures]));
  const borrowed = new Set();
  for (const job of jobs) {
    const { parent } = generations.find(({ number }) => number === job.generation) ?? {};
    const start = job.measures.find(({ round }) => round === 0);
    if (!start || !known.has(parent) || Object.keys(known.get(parent)).length) continue;
    known.set(parent, start.measures);
    borrowed.add(parent);
  }
  return { known, borrowed };
}

/** `actions`: `activate` and `remove`, each with the generation; `busy` is the number of one that is being changed. */
export function generationsTable(generations, jobs, actions, busy) {
  const { known, borrowed } = measuresByGeneration(generations, jobs);
  const live = generations.find((one) => one.live);
  const base = known.get(live?.number) ?? {};
  const columns = ['Generation', 'Status', ...MEASURES, 'Documents', 'From', 'Created', 'Size', 'Actions'];
  const rows = [...generations].reverse().map((one) => {
    const { number } = one;
    const values = known.get(number);
    const measures = MEASURES.map((name) => {
      const view = measured(values[name], one.live ? undefined : base[name]);
      if (borrowed.has(number)) view.title = 'Measured at the start of a refresh';
      return view;
    });
    const acts = one.live ? [] : [
      button('Make live', () => actions.activate(one), { label: `Make generation ${number} live` }),
      button('Delete', () => actions.remove(one), { className: 'danger', label: `Delete generation ${number}` }),
    ];
    // A button that is disabled would lose the focus.
    for (const act of acts) act.setAttribute('aria-disabled', busy !== null);
    const status = one.live ? badge('live') : badge(one.status);
    const from = one.parent === null ? one.model : `generation ${one.parent}`;
    const cells = [
      String(number), status, ...measures, count(one.documents), from, time(one.created), bytes(one.bytes),
      element('div', 'actions', ...(busy === number ? [element('span', 'faint', 'working…')] : []), ...acts),
    ];
    return { cells, className: one.live ? 'live-row' : '' };
  });
  return table('cards numbers', columns, rows);
}

/** The latest first; `show` is told the id of the one to look at. */
export function jobsTable(jobs, shown, show) {
  if (jobs.length === 0) return element('p', 'faint', 'None yet.');
  const columns = ['Started', 'Outcome', 'Steps', 'Measure', 'Generation', 'Took', 'Curves'];
  const rows = [...jobs].reverse().map((job) => {
    const name = job.plan.measure;
    const start = job.measures.find(({ round }) => round === 0)?.measures[name];
    const later = job.measures.filter(({ round }) => round > 0).map(({ measures }) => measures[name]);
    const best = later.length ? Math.max(...later) : undefined;
    const isRunning = job.state === 'running';
    const look = button(shown === job.id ? 'Shown' : 'Show', () => show(job.id), { label: `Show the refresh of ${job.created}` });
    look.setAttribute('aria-pressed', shown === job.id);
    const outcome = badge(job.state);
    outcome.title = job.reason ?? '';
    const cells = [
      time(job.created), outcome, `${count(job.step)} of ${count(job.steps)}`,
      [element('span', 'faint', `${name} `), measured(best ?? start, best === undefined ? undefined : start)],
      job.generation === null ? '–' : String(job.generation),
      isRunning ? 'running' : duration(secondsBetween(job.created, job.updated)), look,
    ];
    return { cells };
  });
  return table('cards', columns, rows);
}
