// The line at the top of each page: which generation is live, and whether a refresh runs.

import { call, isRefusal } from './server.js';
import { element } from './view.js';

const STATUS_EVERY_MS = 30_000;

const number = new Intl.NumberFormat('en');
const live = document.getElementById('live');
const training = document.getElementById('training');

let generationShown = null;
let isRefused = false;

function showStatus(status) {
  const generation = status.generation;
  generationShown = generation?.number ?? null;
  const device = [status.device, status.precision].filter(Boolean).join(' ');
  const facts = [
    generation ? `generation ${generation.number}` : 'no live generation',
    `${number.format(status.documents ?? 0)} documents`,
    device,
    status.model,
  ].filter(Boolean);
  live.replaceChildren(...facts.map((fact) => element('span', '', fact)));
  live.classList.toggle('on', Boolean(generation && status.ready));
  live.title = generation ? `Created ${generation.created}, ${generation.dimension} dimensions` : '';
}

/** Marks the link to the training page while a refresh runs. */
export function markTraining(isRunning) {
  training.classList.toggle('busy', isRunning);
  training.title = isRunning ? 'A refresh runs' : '';
}

/** Asks the server what is live. */
export async function refreshStatus() {
  if (isRefused) return;
  try {
    const [status, { jobs }] = await Promise.all([call('/admin/status'), call('/admin/jobs')]);
    showStatus(status);
    markTraining(jobs.some((job) => job.state === 'running'));
  } catch (problem) {
    // A search key does not open the status: then the answers say which generation is live.
    isRefused = isRefusal(problem);
    live.classList.remove('on');
    live.replaceChildren();
  }
}

/** The generation of an answer: a new one means that the rest of the status changed too. */
export function showGeneration(generation) {
  if (generation === generationShown) return;
  generationShown = generation;
  if (isRefused) live.replaceChildren(element('span', '', `generation ${generation}`));
  else refreshStatus();
}

/** Forgets what was refused: there may be another key now. */
export function restartStatus() {
  isRefused = false;
  generationShown = null;
  return refreshStatus();
}

setInterval(() => document.visibilityState === 'visible' && refreshStatus(), STATUS_EVERY_MS);
