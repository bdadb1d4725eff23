// What a job's events add up to.

/** How much a step moves the smoothed loss. */
const SMOOTHING = 0.1;
/** Steps of which the pace is the mean. */
const PACE_STEPS = 20;

export class History {
  /** @param rounds how many there will be */
  constructor(rounds) {
    this.rounds = rounds;
    this.steps = [];
    this.losses = [];
    this.smooth = [];
    /** The step that each round begins after. */
    this.starts = [];
    /** Round -> measures by name; 0 is the checkpoint that training started from. */
    this.measures = new Map();
    this.stage = null;
    this.data = null;
    this.done = null;
    this.live = null;
    this.ended = null;
    this.arrivals = [];
  }

  take(event) {
    const act = {
      started: () => {
        this.ended = null;
        this.stage = null;
      },
      data: () => { this.data = event; },
      // What an Inferencer does beside the training is no stage: the job would be in two at once.
      phase: () => { if (!event.beside) this.stage = stageOf(event, this.rounds); },
      step: () => this.#step(event),
      measures: () => { this.measures.set(event.round, event.measures); },
      done: () => { this.done = event; },
      live: () => { this.live = event; },
      ended: () => {
        this.ended = event;
        this.stage = null;
      },
    }[event.event];
    act?.();
  }

  #step({ round, step, loss }) {
    // A run that was gone on with repeats the steps since it saved its state.
    if (this.steps.at(-1) >= step) {
      const at = this.steps.findIndex((other) => other >= step);
      for (const list of [this.steps, this.losses, this.smooth]) list.length = at;
      this.starts = this.starts.filter((start) => start.after < step);
    }
    if (this.starts.at(-1)?.round !== round) this.starts.push({ round, after: step - 1 });
    const before = this.smooth.findLast((value) => value !== null) ?? loss;
    this.steps.push(step);
    this.losses.push(loss);
    this.smooth.push(loss === null ? null : before + SMOOTHING * (loss - before));
    this.stage = { round, name: 'train', done: step - this.starts.at(-1).after, total: null };
    this.arrivals.push(performance.now());
    if (this.arrivals.length > PACE_STEPS + 1) this.arrivals.shift();
  }

  /** Seconds a step, as they arrive; null where they do not arrive one by one. */
  pace() {
    if (this.arrivals.length < 4) return null;
    const seconds = (this.arrivals.at(-1) - this.arrivals[0]) / 1000 / (this.arrivals.length - 1);
    return seconds > 0.005 ? seconds : null;
  }
}

/** Where a job stands: the texts of round 0 are encoded for round 1, those of the last one to measure it. */
function stageOf({ round, phase, done, total }, rounds) {
  if (phase === 'encode') return { round: round + 1, name: round < rounds ? 'encode' : 'measure', done, total };
  return { round: phase === 'build' || phase === 'gate' || phase === 'swap' ? rounds + 1 : round, name: phase, done, total };
}
