// Handlers: what is served, what it may do, what it used of it; pause, resume, roll back, pin.

import { get, path, post } from './api.js';
import { ask } from './dialog.js';
import { h } from './dom.js';
import { duration, size } from './format.js';
import { button, code, empty, fact, heading, icon, name, state, table, typeLink, used, when } from './parts.js';
import { isGoing, now } from './undo.js';

export function handlers() {
  let found = null;
  let hour = null;
  return {
    page: 'handlers',
    title: 'Handlers',
    async load(signal) {
      [found, hour] = await Promise.all([get(path(['handlers']), signal), get(path(['activity'], { limit: 1_000 }), signal)]);
    },
    // What handlers do is on the other pages; what they are changes without an event.
    wants: () => false,
    draw: () => [heading('Handlers'), found.handlers.length === 0 ? none() : found.handlers.map((each) => card(each, hourOf(each, found.handlers, hour)))],
  };
}

const none = () => empty('No handlers.', ['A handler is a ', code('.wasm'), ' file in the handlers’ folder. ', code('sandhog new greet'), ' makes one to begin with, and ', code('sandhog build'), ' builds it.'],
  'Jobs wait meanwhile: none is lost.');

/** What the attempts of a handler's types came to. */
function hourOf(handler, all, hour) {
  const claimed = new Set(all.flatMap((each) => each.job_types));
  const others = handler.job_types.includes('*');
  const of = hour.types.filter((each) => (each.job_type == null ? others : handler.job_types.includes(each.job_type) || (others && !claimed.has(each.job_type))));
  const most = (field) => of.reduce((most, each) => Math.max(most, each[field] ?? 0), 0);
  return { p99_us: most('p99_us'), slowest_us: most('slowest_us'), memory_peak_bytes: most('memory_peak_bytes') };
}

function card(each, of) {
  const key = `handler ${each.handler}`;
  const why = each.live?.not_ready ?? each.why;
  return h('section', { class: 'card', key, 'aria-label': `Handler ${each.handler}` },
    h('div', { class: 'heading' },
      h('h2', null, name(each.handler)),
      waits(each) && !['paused', 'braked'].includes(each.state) ? state('paused') : null,
      state(each.state, each.state === 'good' ? 'serving' : each.state),
      isGoing(key) ? h('em', null, 'under way') : actions(each, key)),
    why && h('div', { class: 'notice bad' }, icon('warning'), h('pre', { class: 'text' }, why)),
    h('dl', { class: 'facts' },
      fact('Job types', each.job_types.map((jobType, at) => [at > 0 ? ', ' : '', jobType === '*' ? 'all that no other handler claims' : typeLink(jobType)])),
      fact('Generation', each.generation ? code(each.generation) : 'none yet'),
      each.in_folder && each.in_folder !== each.generation && fact('In the folder', code(each.in_folder))),
    usage(each, of),
    details(each, key));
}

/** Whether a person, or the brake, keeps it from its jobs. */
const waits = (each) => each.paused || each.braked;

function usage(each, of) {
  const { timeout_ms: timeout, memory_bytes: memory } = each.limits ?? {};
  if (timeout == null || of.slowest_us === 0) return h('p', { class: 'muted' }, 'No attempt in the last hour.');
  return h('div', { class: 'usage' },
    used('Memory, at most in the last hour', of.memory_peak_bytes, memory, `${size(of.memory_peak_bytes)} of ${size(memory)}`),
    used('Time, the longest of the last hour', of.slowest_us, timeout * 1_000, `${duration(of.slowest_us)} of ${duration(timeout * 1_000)}`),
    used('Time, 99 of 100 now', of.p99_us, timeout * 1_000, of.p99_us ? `${duration(of.p99_us)} of ${duration(timeout * 1_000)}` : 'none in five minutes'));
}

const details = (each, key) => h('details', null,
  h('summary', null, 'Grants, limits, generations'),
  h('div', { class: 'columns' },
    h('div', null, h('h3', null, 'Grants'), (each.grants ?? []).length === 0
      ? h('p', { class: 'muted' }, 'None: it may compute, and log.')
      : h('ul', { class: 'plain mono' }, each.grants.map((grant) => h('li', null, grant)))),
    h('div', null, h('h3', null, 'Limits'), h('dl', { class: 'pairs' }, Object.entries(each.limits ?? {}).map(([limit, value]) => [h('dt', null, words(limit)), h('dd', null, amount(limit, value))])))),
  h('h3', null, 'Generations'),
  table(`Generations of ${each.handler}`, [
    { label: 'Generation', class: 'grow' },
    { label: 'First served' },
    { label: 'Standing' },
    { label: '', hidden: 'What to do', class: 'acts' },
  ], each.generations.map((kept) => ({
    key: kept.generation,
    cells: [
      h('span', { class: 'mono' }, kept.generation),
      when(kept.first_served_at_ms),
      kept.standing,
      each.pinned && kept.generation === each.generation
        ? button('Unpin', () => act(each, key, 'unpin', `\`${each.handler}\` serves what lies in the folder again.`), { 'aria-label': `Unpin ${each.handler}` })
        : button('Pin', () => act(each, key, 'pin', `\`${each.handler}\` stays on ${kept.generation}.`, { generation: kept.generation }), { 'aria-label': `Pin ${each.handler} to ${kept.generation}` }),
    ],
  }))));

function actions(each, key) {
  return h('div', { class: 'actions' },
    waits(each)
      ? button('Resume', () => act(each, key, 'resume', `\`${each.handler}\` is resumed.`), { class: 'button is-main', 'aria-label': `Resume ${each.handler}` })
      : button('Pause', () => act(each, key, 'pause', `\`${each.handler}\` is paused: its jobs wait.`), { 'aria-label': `Pause ${each.handler}` }),
    each.pinned && button('Unpin', () => act(each, key, 'unpin', `\`${each.handler}\` serves what lies in the folder again.`), { 'aria-label': `Unpin ${each.handler}` }),
    button('Roll back', () => rollBack(each, key), { disabled: each.generations.length < 2, title: each.generations.length < 2 ? 'There is no generation before this one' : null, 'aria-label': `Roll back ${each.handler}` }));
}

const act = (each, key, action, done, parameters) => now({ keys: [key], send: () => post(path(['handlers', each.handler, action], parameters)), done: () => done });

async function rollBack(each, key) {
  const agreed = await ask({
    title: `Roll back ${each.handler}?`,
    text: 'The generation before the present one takes over, and stays whatever lies in the folder, until it is unpinned. Attempts that run end as they are.',
    accept: 'Roll back',
  });
  if (agreed) await act(each, key, 'rollback', `\`${each.handler}\` is rolled back, and pinned.`);
}

const words = (limit) => limit.replace(/_(ms|us|bytes)$/, '').replaceAll('_', ' ');

function amount(limit, value) {
  if (limit.endsWith('_ms')) return duration(value * 1_000);
  if (limit.endsWith('_bytes')) return size(value);
  return String(value);
}
