// A job's events as the server sends them, over a connection that is opened again where it breaks.

import { call, openStream } from '../server.js';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** The messages of a stream of server-sent events; what the format allows beyond id and data is not used here. */
async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const message = { id: null, data: '' };
      for (const line of block.split('\n')) {
        if (line.startsWith('data:')) message.data += line.slice(5).trimStart();
        if (line.startsWith('id:')) message.id = line.slice(3).trim();
      }
      if (message.data) yield message;
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/**
 * Hands every event of a job to `onEvent`, those that were and those that come, until it has ended or `signal` is
 * aborted. `onBreak` gets the problem of a connection that broke, and null once another one stands. A refusal throws.
 */
export async function follow(id, { onEvent, onBreak, signal }) {
  const path = `/admin/jobs/${encodeURIComponent(id)}`;
  let last = null;
  let wait = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const headers = last === null ? {} : { 'Last-Event-ID': last };
      const stream = await openStream(`${path}/events`, { headers, signal });
      onBreak(null);
      let hasEnded = false;
      for await (const message of messages(stream)) {
        if (message.id !== null) last = message.id;
        wait = FIRST_PAUSE_MS;
        const event = JSON.parse(message.data);
        // A job that was gone on with has ended before: only the last one counts.
        hasEnded = event.event === 'ended';
        onEvent(event);
      }
      // A job that was discarded has no events left, its end neither.
      if (hasEnded || (await call(path, { signal })).state !== 'running') return;
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.status >= 400 && problem.status < 500) throw problem;
      onBreak(problem);
    }
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_PAUSE_MS);
  }
}
