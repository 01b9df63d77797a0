// What the pages are put together from.

import { h } from './dom.js';
import { count, moment, relative } from './format.js';

const SHAPES = {
  ready: 'M8 3.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9zM8 5a3 3 0 1 1 0 6a3 3 0 1 1 0-6z',
  scheduled: 'M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2zM8 3.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9zM7.3 4.8h1.4v3l2 1.2-.7 1.2-2.7-1.6z',
  parked: 'M4 3h3v10H4zM9 3h3v10H9z',
  running: 'M4 2.5l9 5.5-9 5.5z',
  dead: 'M4 2.6L8 6.6l4-4L13.4 4l-4 4 4 4L12 13.4l-4-4-4 4L2.6 12l4-4-4-4z',
  completed: 'M6.2 12.6L2 8.4 3.4 7l2.8 2.8L12.6 3.4 14 4.8z',
  warning: 'M8 1.5L15 14H1zM7.2 6v4h1.6V6zM7.2 11.2v1.6h1.6v-1.6z',
};

const LIKE = {
  good: 'completed',
  serving: 'completed',
  failed: 'dead',
  bad: 'warning',
  braked: 'warning',
  'not-ready': 'warning',
  paused: 'parked',
  pinned: 'ready',
  new: 'scheduled',
  gone: 'dead',
  interrupted: 'parked',
  retried: 'scheduled',
};

/** A state: a shape, a word, and a colour that says nothing more. */
export function state(word, said = word.replace('-', ' ')) {
  const shape = SHAPES[word] ? word : (LIKE[word] ?? 'ready');
  return h('span', { class: `state is-${shape}` }, icon(shape), h('span', null, said));
}

export const icon = (shape) =>
  h('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true' }, h('path', { d: SHAPES[shape], 'fill-rule': 'evenodd' }));

/** A moment, as how long ago it was; the rest when pointed at. */
export const when = (ms) => (ms == null ? h('span', null, '–') : h('time', { datetime: new Date(ms).toISOString(), title: moment(ms) }, relative(ms)));

/** What a guest or an enqueuer named. Its direction is its own. */
export const name = (text, props = {}) => h('bdi', { class: 'name', ...props }, text);

export const jobLink = (id, dead = false) =>
  h('a', { class: 'mono id', href: `#/${dead ? 'dead' : 'jobs'}/${encodeURIComponent(id)}`, title: id }, h('bdi', null, id));

export const typeLink = (jobType) =>
  jobType == null ? h('em', null, 'no type') : h('a', { href: `#/jobs?type=${encodeURIComponent(jobType)}`, title: jobType }, name(jobType));

export function button(label, onclick, props = {}) {
  return h('button', { type: 'button', class: 'button', onclick, ...props }, label);
}

/** What stands where there is nothing yet, with what to do about it. */
export const empty = (title, ...more) => h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), ...more.map((line) => h('p', null, line)));

export const code = (text) => h('code', null, text);

/** What cannot be told, and why. */
export function problem(error) {
  const is501 = error.status === 501;
  return h('div', { class: is501 ? 'notice' : 'notice bad', role: is501 ? null : 'alert' },
    icon('warning'),
    h('div', null,
      h('p', null, is501 ? 'This queue cannot tell: ' : '', error.message),
      error.hint ? h('p', { class: 'muted' }, error.hint) : null));
}

export const heading = (text, ...beside) => h('div', { class: 'heading' }, h('h1', { tabindex: '-1' }, text), ...beside);

export const fact = (label, ...value) => h('div', { class: 'fact' }, h('dt', null, label), h('dd', null, ...value));

/**
 * A table that is a list of cards on a narrow screen. Roles are said, since what is shown as a block would lose its own.
 * A column is `{ label, class, hidden }`, where `hidden` is a label for those who do not see.
 */
export function table(caption, columns, rows) {
  // Where a queue knows one id twice, both are there.
  const keys = new Map();
  const unique = (key) => {
    const before = keys.get(key) ?? 0;
    keys.set(key, before + 1);
    return before === 0 ? key : `${key} ${before}`;
  };
  const cell = (content, at) =>
    h('td', { role: 'cell', class: columns[at].class, 'data-label': columns[at].label }, content);
  return h('div', { class: 'table' },
    h('table', { role: 'table', 'aria-label': caption },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' },
        columns.map((column) => h('th', { role: 'columnheader', scope: 'col', class: column.class },
          column.label || h('span', { class: 'unseen' }, column.hidden))))),
      h('tbody', { role: 'rowgroup' }, rows.map((row) => h('tr', { role: 'row', key: unique(row.key), class: row.class }, row.cells.map(cell))))));
}

/** From here on a limit is near. */
const NEAR = 0.9;

/** How much of a limit is used, as a bar and in words. */
export function used(label, amount, limit, words) {
  const share = limit > 0 ? Math.min(1, amount / limit) : 0;
  const said = share > NEAR ? `${words}, ${Math.round(share * 100)} %` : words;
  return h('div', { class: 'used' },
    h('div', { class: 'used-words' }, h('span', null, label), h('span', { class: 'number' }, said)),
    h('svg', { class: `bar${share > NEAR ? ' is-high' : ''}`, viewBox: '0 0 100 4', preserveAspectRatio: 'none', role: 'img', 'aria-label': `${label}: ${said}` },
      h('rect', { class: 'bar-all', x: 0, y: 0, width: 100, height: 4 }),
      h('rect', { class: 'bar-used', x: 0, y: 0, width: (share * 100).toFixed(1), height: 4 })));
}

export const number = (value) => h('span', { class: value ? 'number' : 'number none' }, count(value));
