// The last hour as bars, one a minute.

import { h } from './dom.js';
import { count } from './format.js';

/** Sums lists of one length; null where none has a number. */
export function sum(lists, length = 60) {
  return Array.from({ length }, (_, at) => lists.reduce((all, list) => (list[at] == null ? all : (all ?? 0) + list[at]), null));
}

/** What the last whole minute had: the one that goes on is not over. */
export const lastMinute = (list) => list?.[list.length - 2] ?? 0;

/**
 * Bars of what went well, and above the line of what did not below it, so that a shape tells them apart and not a colour.
 */
export function bars(label, good, bad, { width = 120, height = 28, grid = false } = {}) {
  const most = Math.max(1, ...good.map((value) => value ?? 0));
  const worst = Math.max(0, ...bad.map((value) => value ?? 0));
  // What failed has its own quarter, where anything did, so that one among thousands is seen.
  const below = worst > 0 ? Math.max(6, height / 4) : 0;
  const above = height - below - 1;
  const step = width / good.length;
  const up = column(good, most, (at, share) => `M${x(at, step)} ${round(above)}v${round(-share * above)}h${round(step * 0.8)}V${round(above)}z`);
  const down = column(bad, worst, (at, share) => `M${x(at, step)} ${round(above + 1)}v${round(share * below)}h${round(step * 0.8)}V${round(above + 1)}z`);
  const said = `${label}: at most ${count(most === 1 && !good.some(Boolean) ? 0 : most)} done a minute, ${count(lastMinute(good))} in the last` +
    (worst > 0 ? `; at most ${count(worst)} failed a minute, ${count(lastMinute(bad))} in the last` : '; none failed');
  return h('svg', { class: grid ? 'chart is-large' : 'chart', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': said },
    h('title', null, said),
    grid ? [0.25, 0.5, 0.75].map((at) => h('line', { class: 'chart-grid', x1: 0, x2: width, y1: round(above * at), y2: round(above * at) })) : null,
    h('path', { class: 'chart-good', d: up }),
    h('path', { class: 'chart-bad', d: down }),
    h('line', { class: 'chart-line', x1: 0, x2: width, y1: round(above + 0.5), y2: round(above + 0.5) }));
}

/** A line through what was looked at; gaps where it was not. */
export function line(label, values, { width = 120, height = 28 } = {}) {
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  const step = width / Math.max(1, values.length - 1);
  let path = '';
  let gap = true;
  values.forEach((value, at) => {
    if (value == null) {
      gap = true;
      return;
    }
    path += `${gap ? 'M' : 'L'}${round(at * step)} ${round(height - 1 - (value / most) * (height - 3))}`;
    if (gap) path += 'h0.01';
    gap = false;
  });
  const said = `${label}: at most ${count(Math.max(0, ...values.map((value) => value ?? 0)))}`;
  return h('svg', { class: 'chart is-large', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': said },
    h('title', null, said),
    h('path', { class: 'chart-stroke', d: path }),
    h('line', { class: 'chart-line', x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
}

function column(values, most, shape) {
  // A bar of its own for anything at all.
  return values.map((value, at) => (value ? shape(at, Math.max(value / most, 0.06)) : '')).join('');
}

const x = (at, step) => round(at * step + step * 0.1);
const round = (number) => Number(number.toFixed(2));
