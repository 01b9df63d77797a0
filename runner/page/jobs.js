// The list of jobs: by state and type, newest first, page by page.

import { get, path } from './api.js';
import { h } from './dom.js';
import { counted, duration, relative, span } from './format.js';
import { code, empty, heading, jobLink, problem, state, table, typeLink, when } from './parts.js';

const PAGE = 50;
const STATES = ['ready', 'scheduled', 'parked', 'running', 'dead', 'completed'];

export function jobs(parameters) {
  let found = null;
  const filter = { state: STATES.includes(parameters.state) ? parameters.state : '', type: parameters.type ?? '', cursor: parameters.cursor ?? '' };
  return {
    page: 'jobs',
    title: 'Jobs',
    async load(signal) {
      found = await get(path(['jobs'], { ...filter, order: 'newest', limit: PAGE }), signal);
    },
    // Older pages hold still.
    wants: () => filter.cursor === '',
    draw: () => [heading('Jobs'), form(filter), found.jobs.length === 0 ? none(filter) : list(found.jobs), pages(filter, found)],
    failed: (error) => [form(filter), problem(error)],
  };
}

export function address(parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return query.size > 0 ? `#/jobs?${query}` : '#/jobs';
}

function form(filter) {
  const apply = (event) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const id = data.get('id').trim();
    location.hash = id ? `#/jobs/${encodeURIComponent(id)}` : address({ state: data.get('state'), type: data.get('type').trim() });
  };
  return h('form', { key: 'filter', class: 'filter', role: 'search', 'aria-label': 'Jobs', onsubmit: apply },
    h('label', { class: 'field' }, h('span', null, 'State'),
      h('select', { name: 'state', onchange: (event) => event.currentTarget.form.requestSubmit() },
        h('option', { value: '', selected: filter.state === '' }, 'any'),
        STATES.map((each) => h('option', { value: each, selected: filter.state === each }, each)))),
    h('label', { class: 'field' }, h('span', null, 'Type'), h('input', { name: 'type', value: filter.type, autocomplete: 'off', spellcheck: 'false', maxlength: '256', placeholder: 'any' })),
    h('label', { class: 'field is-wide' }, h('span', null, 'Id'), h('input', { name: 'id', class: 'mono', autocomplete: 'off', spellcheck: 'false', placeholder: 'open one job' })),
    h('button', { type: 'submit', class: 'button' }, 'Show'),
    filter.state || filter.type ? h('a', { class: 'button', href: '#/jobs' }, 'Clear') : null);
}

function none(filter) {
  if (filter.cursor) return empty('No older jobs.');
  if (filter.state || filter.type) return empty('No job is like that now.', 'Completed jobs are kept for a while only: queue.keep_completed in the configuration.');
  return empty('No jobs.', ['Put one in: ', code(`sandhog enqueue '{"job_type": "greet", "name": "you"}'`)]);
}

export const list = (jobs) => table('Jobs', [
  { label: 'State' },
  { label: 'Type', class: 'wrap' },
  { label: 'Id', class: 'grow' },
  { label: 'Attempt', class: 'num' },
  { label: 'Enqueued' },
  { label: 'What of it', class: 'wide' },
], jobs.map((each) => ({
  key: each.id,
  cells: [
    state(each.state),
    typeLink(each.job_type),
    jobLink(each.id, each.state === 'dead'),
    h('span', { class: 'number' }, each.attempt),
    when(each.enqueued_at_ms),
    what(each),
  ],
})));

function what(each) {
  if (each.failure && each.state !== 'completed') {
    return h('span', { class: 'cut', title: each.failure.message }, h('strong', null, each.failure.kind), ' ', h('bdi', null, firstLine(each.failure.message)),
      each.state === 'scheduled' && each.run_at_ms != null ? h('span', { class: 'muted' }, ` · again ${relative(each.run_at_ms)}`) : null);
  }
  if (each.state === 'completed') return h('span', { class: 'muted' }, `took ${duration(each.duration_us)}`, each.failures > 0 ? `, after ${counted(each.failures, 'failure')}` : '');
  if (each.state === 'scheduled') return h('span', { class: 'muted' }, `due ${relative(each.run_at_ms)}`);
  if (each.state === 'parked') return h('span', { class: 'muted' }, 'no handler runs it now');
  if (each.state === 'running') return h('span', { class: 'muted' }, each.started_at_ms == null ? 'runs' : `for ${span(Date.now() - each.started_at_ms)}`);
  return h('span', { class: 'muted' }, '–');
}

export const firstLine = (text) => {
  const end = text.indexOf('\n');
  return end < 0 ? text : text.slice(0, end);
};

function pages(filter, found) {
  const { cursor, ...rest } = filter;
  if (!cursor && !found.next) return null;
  return h('nav', { class: 'pages', 'aria-label': 'Pages of the list' },
    cursor ? h('a', { class: 'button', href: address(rest) }, 'Newest') : null,
    found.next ? h('a', { class: 'button', href: address({ ...rest, cursor: found.next }) }, 'Older') : h('span', { class: 'muted' }, 'these are the oldest'));
}
