// One job: how far it is, its curves and its measures.

import { element } from '../view.js';
import { lossChart, measuresChart } from './charts.js';
import { badge, button, measured, replaceKeepingFocus, table, time } from './elements.js';
import { MEASURES, count, duration, loss, measure, plural, secondsBetween } from './format.js';

const $ = (id) => document.getElementById(id);
const WORDS = {
  encode: ['encoding', 'texts'], mine: ['mining', 'queries'], train: ['training', 'steps'],
  measure: ['measuring', 'texts'], build: ['building', 'texts'], gate: ['comparing', 'queries'], swap: ['going live', ''],
};
const OBJECTIVES = { Pairwise: 'pairwise', InBatch: 'in-batch' };
const IN_ROUND = ['encode', 'mine', 'train'];
const AT_END = ['measure', 'build', 'gate', 'swap'];

/** Shows jobs. `actions` are what the buttons do: `cancel`, `resume` and `discard`, each with the job. */
export function jobView(actions) {
  const charts = { loss: lossChart($('loss-chart')), measures: measuresChart($('measures-chart')) };
  return (job, history, isBroken) => {
    $('job').hidden = false;
    showHead(job, actions, isBroken);
    showStages(job, history);
    const measures = measuresOf(job, history);
    showTiles(job, history, measures);
    charts.loss.set(history, job.steps);
    charts.measures.set(measures, job.plan.rounds);
    showRounds(job, history, measures);
  };
}

/** Those that were told, and those of the record: the events of a long job may begin late. */
function measuresOf(job, history) {
  return new Map([...job.measures.map(({ round, measures }) => [round, measures]), ...history.measures]);
}

function showHead(job, actions, isBroken) {
  $('job-title').replaceChildren('Refresh of ', time(job.created));
  $('job-state').replaceWith(Object.assign(badge(job.state), { id: 'job-state' }));
  const { plan } = job;
  const facts = [
    `${plural(plan.rounds, 'round')} of ${plural(Math.round(job.steps / plan.rounds), 'step')}`,
    `${OBJECTIVES[plan.recipe.loss.objective] ?? plan.recipe.loss.objective} loss`,
    `batch ${plan.recipe.batch * plan.recipe.accumulation}`,
    job.resumes ? `resumed ${plural(job.resumes, 'time')}` : null,
  ];
  $('job-facts').textContent = facts.filter(Boolean).join(' · ');
  const isRunning = job.state === 'running';
  const buttons = [];
  if (isRunning) buttons.push(button('Cancel', () => actions.cancel(job)));
  if (job.resumable) {
    buttons.push(button('Resume', () => actions.resume(job), { className: 'primary' }));
    buttons.push(button('Discard', () => actions.discard(job)));
  }
  replaceButtons($('job-actions'), buttons);
  $('job-reason').textContent = isBroken && isRunning ? 'The connection broke; trying again…' : job.reason ?? '';
  $('job-reason').className = job.state === 'failed' ? 'wrong' : 'faint';
  $('job-reason').hidden = !$('job-reason').textContent;
}

/** Leaves buttons alone that are there already: one that has the focus keeps it. */
function replaceButtons(place, buttons) {
  const texts = (list) => [...list].map((one) => one.textContent).join('|');
  if (texts(place.children) !== texts(buttons)) replaceKeepingFocus(place, buttons);
}

function showStages(job, history) {
  $('progress').hidden = job.state !== 'running';
  $('bar').max = Math.max(1, job.steps);
  $('bar').value = history.steps.at(-1) ?? job.step;
  const { stage } = history;
  if (!stage) {
    $('stages').replaceChildren(element('b', '', 'Starting'));
    $('stage-detail').textContent = '';
    return;
  }
  const isEnd = AT_END.includes(stage.name);
  const names = isEnd ? AT_END : IN_ROUND;
  const at = names.indexOf(stage.name);
  const chips = names.map((name, place) => {
    const chip = element('span', place < at ? 'stage past' : place === at ? 'stage now' : 'stage', name);
    if (place === at) chip.setAttribute('aria-current', 'step');
    return chip;
  });
  const title = isEnd ? 'Finish' : `Round ${stage.round} of ${job.plan.rounds}`;
  $('stages').replaceChildren(element('b', '', title), ...chips);
  const [doing, unit] = WORDS[stage.name] ?? [stage.name, ''];
  const total = stage.name === 'train' ? Math.floor(job.steps / job.plan.rounds) : stage.total;
  const pace = stage.name === 'train' ? history.pace() : null;
  const parts = [total && stage.done ? `${doing} ${count(stage.done)} of ${count(total)} ${unit}` : doing];
  if (pace) parts.push(`${pace.toFixed(pace < 1 ? 2 : 1)} s a step`);
  $('stage-detail').textContent = parts.join(', ');
}

/** The round whose checkpoint the measure chooses: the last one of equals; none before the first. */
function bestOf(measures, name, done) {
  if (done) return done.best_round;
  const rounds = [...measures].filter(([round]) => round > 0);
  return rounds.reduce((best, one) => ((one[1][name] ?? 0) >= (best?.[1][name] ?? 0) ? one : best), null)?.[0];
}

function showTiles(job, history, measures) {
  const chosen = job.plan.measure;
  const start = measures.get(0)?.[chosen];
  const bestRound = bestOf(measures, chosen, history.done);
  const best = measures.get(bestRound)?.[chosen];
  const step = history.steps.at(-1) ?? job.step;
  const isRunning = job.state === 'running';
  const seconds = isRunning ? (Date.now() - new Date(job.updated)) / 1000 : secondsBetween(job.created, job.updated);
  const tiles = [
    [`${chosen}, best round`, [measured(best ?? start, bestRound ? start : undefined)],
      bestRound ? `round ${bestRound}; ${measure(start)} at the start` : Number.isFinite(start) ? 'at the start' : 'not measured yet'],
    ['Loss, smoothed', [loss(history.smooth.at(-1) ?? job.loss ?? NaN)], history.losses.length ? `${loss(history.losses[0])} at first` : ''],
    ['Steps', [count(step)], `of ${count(job.steps)}`],
    [isRunning ? 'Running for' : 'Took', [duration(seconds)], history.data ? `${count(history.data.train)} train queries` : ''],
  ];
  $('tiles').replaceChildren(...tiles.map(([name, value, note]) => element('div', '',
    element('dt', '', name), element('dd', '', ...value), element('dd', 'faint', note))));
}

function showRounds(job, history, measures) {
  $('by-round').hidden = measures.size === 0;
  const hard = history.done?.overlap ?? [];
  const hasHard = hard.some((share) => share !== null);
  const columns = ['Round', ...MEASURES, ...(hasHard ? ['Hard negatives'] : [])];
  const base = measures.get(0);
  const sorted = [...measures].sort(([one], [other]) => one - other);
  const rows = sorted.map(([round, values]) => {
    const isBest = history.done?.best_round === round;
    const cells = [round === 0 ? 'start' : isBest ? [String(round), ' ', element('small', 'faint', 'best')] : String(round)];
    cells.push(...MEASURES.map((name) => measured(values[name], round === 0 ? undefined : base?.[name])));
    if (hasHard) {
      const share = round > 0 ? hard[round - 1] : null;
      const view = element('span', '', Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : '–');
      view.title = 'The share of its negatives that the last checkpoint ranks among the 100 best of their query';
      cells.push(view);
    }
    return { cells };
  });
  $('by-round').replaceChildren(table('numbers', columns, rows));
}
