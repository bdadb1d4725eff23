// The page at /training: starts refreshes, shows how they go and went, and which generation answers.

import { markTraining, refreshStatus, restartStatus } from '../header.js';
import { call, isRefusal, storeKey, storedKey } from '../server.js';
import { element } from '../view.js';
import { confirmed } from './dialog.js';
import { button, replaceKeepingFocus } from './elements.js';
import { follow } from './events.js';
import { measure, plural } from './format.js';
import { History } from './history.js';
import { jobView } from './job.js';
import { generationsTable, jobsTable } from './lists.js';

const LOOK_EVERY_MS = 10_000;

const $ = (id) => document.getElementById(id);

let jobs = [];
let generations = [];
let outlook = null;
/** The job whose curves are shown: its history, and how to stop listening to it. */
let shown = null;
let showJob = null;
let busyGeneration = null;
/** Why the last start was refused. */
let refusal = null;
let isDue = false;

// --- What the server says ---

async function load() {
  await take(true);
}

/** What somebody else may have changed. To count the queries of a large set takes the server a while: only if need be. */
async function look() {
  await take(false);
}

async function take(isThorough) {
  const [jobList, generationList] = await Promise.all([call('/admin/jobs'), call('/admin/generations')]);
  const isOtherJob = runningOf(jobList.jobs)?.id !== runningJob()?.id;
  // What keeps a refresh from starting can go away without a job: a vote is one more query to train on.
  const isWanted = isThorough || isOtherJob || outlook.refused !== null;
  const canStart = isWanted ? await call('/admin/refresh') : outlook;
  const isFirst = outlook === null;
  if (isOtherJob || canStart.refused !== outlook?.refused) refusal = null;
  ({ jobs } = jobList);
  ({ generations } = generationList);
  outlook = canStart;
  $('board').hidden = false;
  $('key-form').hidden = true;
  $('trouble').hidden = true;
  if (isFirst) fillForm();
  render();
  tellEnd();
}

async function reload() {
  try {
    await load();
    chooseJob();
  } catch (problem) {
    showTrouble(problem);
  }
}

function showTrouble(problem) {
  if (isRefusal(problem)) {
    askForKey(problem);
    return;
  }
  // The same again would be read out again, and take the focus from the button.
  if (!$('trouble').hidden && $('trouble').children[1].textContent === problem.message) return;
  const again = button('Try again', reload);
  $('trouble').replaceChildren(element('h2', '', problem.title ?? 'Something is wrong'), element('p', '', problem.message), again);
  $('trouble').hidden = false;
}

function askForKey(problem) {
  $('board').hidden = true;
  $('key-detail').textContent = storedKey() === null ? problem.message : `The key of this tab does not open it. ${problem.message}`;
  $('key-form').hidden = false;
  $('forget').hidden = storedKey() === null;
  $('key').focus();
}

// --- The job that is shown ---

const runningOf = (list) => list.find((job) => job.state === 'running');
const runningJob = () => runningOf(jobs);
const jobOf = (id) => jobs.find((job) => job.id === id);

/** The one that the address names, else the one that runs, else the newest. */
function chooseJob() {
  const named = new URLSearchParams(location.search).get('job');
  const job = jobOf(named) ?? runningJob() ?? jobs.at(-1);
  if (job && shown?.id !== job.id) listenTo(job);
}

function selectJob(id) {
  const isNewest = id === (runningJob() ?? jobs.at(-1))?.id;
  history.replaceState(null, '', isNewest ? location.pathname : `${location.pathname}?job=${encodeURIComponent(id)}`);
  listenTo(jobOf(id));
  $('job').scrollIntoView({ block: 'nearest' });
}

function listenTo(job) {
  shown?.stop.abort();
  const past = new History(job.plan.rounds);
  const isTold = job.state !== 'running';
  const mine = { id: job.id, history: past, stop: new AbortController(), isBroken: false, isOver: false, isTold };
  shown = mine;
  showJob ??= jobView({ cancel, resume, discard });
  const onEvent = (event) => {
    mine.history.take(event);
    if (event.event === 'live') refreshStatus();
    renderSoon();
  };
  const onBreak = (problem) => {
    mine.isBroken = problem !== null;
    renderSoon();
  };
  follow(job.id, { onEvent, onBreak, signal: mine.stop.signal }).then(() => {
    mine.isOver = true;
    if (shown !== mine || mine.isTold) return;
    load().catch(showTrouble);
    refreshStatus();
  }, showTrouble);
  render();
}

/** Tells how the job that is shown has ended, once: as soon as its events are over and its record says so. */
function tellEnd() {
  const job = shown?.isOver && !shown.isTold ? jobOf(shown.id) : null;
  if (!job || job.state === 'running') return;
  shown.isTold = true;
  const { done } = shown.history;
  const name = job.plan.measure;
  const was = done?.live_measures?.[name];
  const is = done?.measures?.[name];
  const both = Number.isFinite(was) && Number.isFinite(is) ? `: ${name} ${measure(was)} → ${measure(is)}` : '';
  const texts = {
    done: `Generation ${job.generation} is live${both}`,
    rejected: `Generation ${job.generation} is kept, but not live${both}`,
    failed: `The refresh failed: ${job.reason}`,
    stopped: `The refresh was cut off: ${job.reason}`,
    cancelled: 'The refresh was cancelled; it can be resumed',
  };
  notify(texts[job.state] ?? job.state, job.state === 'done' ? 'good' : job.state === 'failed' ? 'bad' : '');
}

function notify(text, className = '') {
  const close = button('×', () => $('notice').replaceChildren(), { className: 'quiet', label: 'Close the notice' });
  $('notice').replaceChildren(element('div', `notice ${className}`, element('p', '', text), close));
}

// --- What the buttons do ---

/** Does what a button is for; a refusal is shown, and what there is now. */
async function act(path, options) {
  try {
    return await call(path, options);
  } catch (problem) {
    if (isRefusal(problem)) {
      askForKey(problem);
      return null;
    }
    notify(`${problem.title}: ${problem.message}`, 'bad');
    await load().catch(showTrouble);
    return null;
  }
}

async function start(event) {
  event.preventDefault();
  if ($('start-button').disabled) return;
  const body = { rounds: Number($('rounds').value), steps: Number($('steps').value), recipe: $('recipe').value };
  $('start-button').disabled = true;
  try {
    const { job } = await call('/admin/refresh', { body });
    await began(job);
  } catch (problem) {
    if (isRefusal(problem)) {
      askForKey(problem);
      return;
    }
    await load().catch(showTrouble);
    refusal = problem.message;
    render();
    if (problem.job) chooseJob();
  }
}

async function began(id) {
  refusal = null;
  $('notice').replaceChildren();
  await load().catch(showTrouble);
  history.replaceState(null, '', location.pathname);
  const job = jobOf(id);
  if (job) listenTo(job);
}

async function cancel(job) {
  if (await act(`/admin/jobs/${job.id}`, { method: 'DELETE' })) notify('The refresh saves its state and ends');
}

async function resume(job) {
  if (await act(`/admin/jobs/${job.id}/resume`, { method: 'POST' })) await began(job.id);
}

async function discard(job) {
  const isSure = await confirmed({
    title: 'Discard this refresh?',
    text: `What it keeps on the disk to go on with is removed, ${plural(job.step, 'step')} of training with it.`,
    yes: 'Discard',
    isDanger: true,
  });
  if (!isSure) return;
  await act(`/admin/jobs/${job.id}`, { method: 'DELETE' });
  await load().catch(showTrouble);
}

async function change(number, path, options, tell) {
  busyGeneration = number;
  render();
  const answer = await act(path, options);
  busyGeneration = null;
  if (answer) tell(answer);
  await load().catch(showTrouble);
  refreshStatus();
}

const CAUTIONS = {
  rejected: ' It measured worse than the one that was live when it was made.',
  candidate: ' It was never compared with the live one: its refresh was cut off.',
};

async function activate({ number, status }) {
  if (busyGeneration !== null) return;
  const live = generations.find((one) => one.live);
  const isSure = await confirmed({
    title: `Make generation ${number} live?`,
    text: `It answers searches as soon as it is loaded; ${live ? `generation ${live.number} stays on the disk` : 'none is live now'}.${CAUTIONS[status] ?? ''}`,
    yes: 'Make live',
  });
  if (!isSure) return;
  await change(number, `/admin/generations/${number}/activate`, { method: 'POST' }, (done) => {
    notify(`Generation ${done.generation} is live instead of ${done.previous}, after ${done.total_seconds.toFixed(1)} s`, 'good');
  });
}

async function remove({ number }) {
  if (busyGeneration !== null) return;
  const isSure = await confirmed({
    title: `Delete generation ${number}?`,
    text: 'Its checkpoint and its index are removed from the disk; its number is not given again.',
    yes: 'Delete',
    isDanger: true,
  });
  if (!isSure) return;
  await change(number, `/admin/generations/${number}`, { method: 'DELETE' }, () => notify(`Generation ${number} is deleted`));
}

// --- Showing it ---

function fillForm() {
  $('rounds').value = outlook.rounds ?? 3;
  $('steps').value = outlook.steps ?? 200;
  $('recipe').value = outlook.recipe;
}

function renderSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    renderJob();
  });
}

function renderJob() {
  const job = shown && jobOf(shown.id);
  if (job) showJob(job, shown.history, shown.isBroken);
}

function render() {
  const running = runningJob();
  markTraining(Boolean(running));
  $('outlook').textContent = `${plural(outlook.train_queries, 'query', 'queries')} to train on, `
    + `${plural(outlook.dev_queries, 'query', 'queries')} to measure with`;
  $('start-button').disabled = Boolean(running) || Boolean(outlook.refused);
  const busy = running ? 'A refresh runs; the next one can start when it has ended.' : '';
  $('refused').textContent = refusal ?? (busy || outlook.refused || '');
  $('refused').classList.toggle('wrong', refusal !== null || !running);
  renderJob();
  // The button that a question came from gets the focus back: it stays where it is until then.
  if ($('confirm').open) return;
  const table = generationsTable(generations, jobs, { activate, remove }, busyGeneration);
  replaceKeepingFocus($('generations'), [table]);
  const hasOthers = generations.length > 1;
  $('generations-note').textContent = hasOthers ? 'Measured on the dev queries when it was made; differences are to the live one.' : '';
  replaceKeepingFocus($('jobs'), [jobsTable(jobs, shown?.id, selectJob)]);
}

// --- Start ---

$('start').addEventListener('submit', start);
$('key-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const before = storedKey();
  storeKey($('key').value);
  try {
    await load();
  } catch (problem) {
    // A key that opens searches is worth more than one that opens nothing.
    storeKey(before);
    if (!isRefusal(problem)) showTrouble(problem);
    $('key-detail').textContent = 'The key was not accepted.';
    return;
  }
  $('key').value = '';
  $('forget').hidden = false;
  restartStatus();
  chooseJob();
  $('board').focus();
});
$('confirm').addEventListener('close', render);
$('forget').addEventListener('click', () => {
  storeKey(null);
  location.reload();
});
setInterval(async () => {
  if (document.visibilityState !== 'visible' || $('board').hidden) return;
  await look().catch(showTrouble);
  const running = runningJob();
  // Somebody else may have started one, or gone on with the one that is shown.
  const isNews = shown?.id === running?.id ? shown?.isOver : !location.search;
  if (running && isNews) listenTo(running);
}, LOOK_EVERY_MS);
setInterval(() => runningJob() && renderJob(), 1000);

$('forget').hidden = storedKey() === null;
restartStatus();
reload();
