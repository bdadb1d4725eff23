// The curves of a job, drawn by uPlot in the page's colours.

import uPlot from '../vendor/uplot/uPlot.esm.js';
import { MEASURES, loss, measure } from './format.js';

const HEIGHT = 220;
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function axis(more) {
  return {
    font: FONT,
    stroke: () => colour('soft'),
    grid: { stroke: () => colour('line'), width: 1 },
    ticks: { show: false },
    border: { show: false },
    gap: 6,
    ...more,
  };
}

/** A little room above and below; a flat curve has some too. */
function padded(least) {
  return (chart, from, to) => {
    if (from === null || to === null) return [0, 1];
    const room = Math.max((to - from) * 0.1, least);
    return [Math.max(0, from - room), to + room];
  };
}

function wholeNumbers(chart, splits) {
  return splits.map((split) => (Number.isInteger(split) ? String(split) : ''));
}

/** No measure is above 1, whatever room a curve has above it. */
function shares(chart, splits) {
  return splits.map((split) => (split > 1.0001 ? '' : String(Number(split.toFixed(4)))));
}

/** A chart that fills `place`, says its newest values where nothing is pointed at, and follows the colour scheme. */
class Chart {
  constructor(place, options, empty) {
    this.place = place;
    this.options = options;
    this.data = empty;
    this.#draw();
    new ResizeObserver(() => {
      if (place.clientWidth && place.clientWidth !== this.plot.width) this.plot.setSize(this.#size());
    }).observe(place);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  set(data, label) {
    this.data = data;
    this.plot.setData(data);
    this.#showNewest();
    this.place.dataset.points = data[0].length;
    this.place.setAttribute('aria-label', label);
  }

  #size() {
    return { width: Math.max(200, this.place.clientWidth), height: HEIGHT };
  }

  #draw() {
    this.plot?.destroy();
    const hooks = { ...this.options.hooks, setCursor: [(plot) => plot.cursor.idx === null && this.#showNewest()] };
    const common = { padding: [8, 22, 0, 0], cursor: { y: false, points: { size: 7 } } };
    this.plot = new uPlot({ ...common, ...this.#size(), ...this.options, hooks }, this.data, this.place);
    this.#showNewest();
  }

  #showNewest() {
    if (this.plot && this.data[0].length) this.plot.setLegend({ idx: this.data[0].length - 1 });
  }
}

/** Lines where rounds begin. */
function roundLines(starts) {
  return (plot) => {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = colour('line');
    ctx.fillStyle = colour('soft');
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = 'left';
    ctx.textBaseline = 'alphabetic';
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const { round, after } of starts()) {
      const x = Math.round(plot.valToPos(after, 'x', true));
      if (after > 0) {
        ctx.beginPath();
        ctx.moveTo(x, plot.bbox.top);
        ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        ctx.stroke();
      }
      ctx.fillText(`round ${round}`, x + 4 * devicePixelRatio, plot.bbox.top + 11 * devicePixelRatio);
    }
    ctx.restore();
  };
}

/** The loss of each step, as it is and smoothed. `set` takes a history and the number of steps to come to. */
export function lossChart(place) {
  let starts = [];
  let total = 1;
  const value = (chart, one) => loss(one);
  const chart = new Chart(place, {
    scales: { x: { time: false, range: () => [0, Math.max(1, total)] }, y: { range: padded(0.05) } },
    axes: [axis({ size: 28, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000] }), axis({ size: 44 })],
    series: [
      { label: 'step' },
      { label: 'loss', stroke: () => colour('faint-curve'), width: 1, points: { show: false }, value },
      { label: 'smoothed', stroke: () => colour('curve-1'), width: 2, points: { show: false }, value },
    ],
    hooks: { drawAxes: [roundLines(() => starts)] },
  }, [[], [], []]);
  return {
    set(history, steps) {
      ({ starts } = history);
      total = steps;
      const last = history.steps.length - 1;
      const label = last < 0 ? 'No steps yet' : `Loss ${loss(history.losses[0])} at step ${history.steps[0]}, `
        + `${loss(history.smooth[last])} smoothed at step ${history.steps[last]}`;
      chart.set([history.steps, history.losses, history.smooth], label);
    },
  };
}

/** The dev measures of each round; `set` takes a map from round to measures and the number of rounds. */
export function measuresChart(place) {
  let rounds = 1;
  const value = (chart, one) => measure(one);
  const dashes = [[], [8, 4], [2, 4]];
  const series = MEASURES.map((label, at) => ({
    label,
    stroke: () => colour(`curve-${at + 1}`),
    width: 2,
    dash: dashes[at],
    points: { show: true, size: 7, fill: () => colour('raised') },
    value,
  }));
  const chart = new Chart(place, {
    scales: { x: { time: false, range: () => [-0.1, rounds + 0.1] }, y: { range: padded(0.02) } },
    axes: [
      axis({ size: 28, incrs: [1, 2, 5, 10, 20, 50, 100], values: wholeNumbers }),
      axis({ size: 44, values: shares }),
    ],
    series: [{ label: 'round' }, ...series],
  }, [[], ...MEASURES.map(() => [])]);
  return {
    set(measures, of) {
      rounds = of;
      const sorted = [...measures].sort(([one], [other]) => one - other);
      const columns = MEASURES.map((name) => sorted.map(([, values]) => values[name] ?? null));
      const label = sorted.length === 0 ? 'No measures yet' : MEASURES.map((name, at) =>
        `${name} ${measure(columns[at][0])} at the start, ${measure(columns[at].at(-1))} after round ${sorted.at(-1)[0]}`);
      chart.set([sorted.map(([round]) => round), ...columns], String(label));
    },
  };
}
