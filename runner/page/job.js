// One job: where it stands, its attempts, and what it left.

import { get, path, remove } from './api.js';
import { ask } from './dialog.js';
import { h, say } from './dom.js';
import { counted, duration, moment, relative, size } from './format.js';
import { button, code, empty, fact, heading, jobLink, problem, state, typeLink, when } from './parts.js';
import { isGoing, now } from './undo.js';

/** Longer texts are shown in part, until somebody wants all of it. */
const TEXT_CHARS = 20_000;
const LIVE = ['ready', 'scheduled', 'parked', 'running'];

export function job(id) {
  let last = null;
  return one({
    id,
    page: 'jobs',
    title: `Job ${id}`,
    from: ['jobs'],
    actions: (shown) => LIVE.includes(shown.state) && button('Cancel', () => cancel(id, shown), { disabled: isGoing(id), class: 'button is-danger' }),
    seen(shown) {
      if (last && last !== shown.state) say(`The job is ${shown.state} now.`);
      last = shown.state;
    },
  });
}

/** A page on one job; `from` is where the API has it, and `actions` what can be done with it. */
export function one({ id, page, title, from, actions, seen }) {
  let shown = null;
  let followUps = [];
  let body = null;
  // The texts that somebody wants whole.
  const whole = new Set();
  const widen = (key) => {
    whole.add(key);
    view.redraw();
  };
  const text = (key, content) => long(key, content, whole.has(key), widen);
  const view = {
    page,
    title,
    async load(signal) {
      shown = await get(path([...from, id], { body: body !== null ? 'true' : null }), signal);
      if (body !== null) body = shown;
      followUps = await followUpsOf(shown, signal);
      seen?.(shown);
    },
    wants: (event) => event.id === id || event.id?.startsWith(`${id}/`) || event.id === undefined,
    draw: () => [
      heading(h('bdi', { class: 'mono' }, id), state(shown.state), h('div', { class: 'actions' }, actions(shown))),
      facts(shown),
      failure(shown),
      attempts(shown),
      result(shown, text),
      family(shown, followUps),
      bodyOf(body, text, async () => {
        body = await get(path([...from, id], { body: 'true' }));
        shown = body;
        view.redraw();
      }),
    ],
    failed: (error) => (error.status === 404 || error.status === 410 ? gone(error) : problem(error)),
  };
  return view;
}

const gone = (error) => empty(error.message, error.hint, ['Jobs that are done are kept for a while only: ', code('queue.keep_completed'), ' says how long.']);

async function cancel(id, shown) {
  const running = shown.state === 'running';
  const agreed = await ask({
    title: 'Cancel this job?',
    text: running ? 'Its attempt is broken off, and the job becomes a dead letter.' : 'It is not run, and becomes a dead letter.',
    accept: 'Cancel the job',
    danger: true,
  });
  if (!agreed) return;
  await now({ keys: [id], send: () => remove(path(['jobs', id])), done: () => (running ? 'Its runner was told to break it off.' : 'The job is cancelled: it is a dead letter now.') });
}

async function followUpsOf(shown, signal) {
  if (shown.attempt === 0) return [];
  try {
    return (await get(path(['jobs', shown.id, 'follow-ups']), signal)).jobs;
  } catch (error) {
    // Not every queue can look jobs up; this one is shown all the same.
    if (error.status === 501) return [];
    throw error;
  }
}

function facts(shown) {
  const source = shown.source ?? {};
  return h('dl', { class: 'facts' },
    fact('Type', typeLink(shown.job_type)),
    fact('Enqueued', when(shown.enqueued_at_ms)),
    shown.run_at_ms != null && LIVE.includes(shown.state) && fact('Due', when(shown.run_at_ms)),
    shown.ended_at_ms != null && fact('Ended', when(shown.ended_at_ms)),
    shown.duration_us != null && fact('Last attempt took', duration(shown.duration_us)),
    fact('Attempts', `${shown.attempt}`, shown.failures > 0 && h('span', { class: 'muted' }, counted(shown.failures, 'failure'))),
    shown.retries_requested > 0 && fact('Retries asked for', `${shown.retries_requested}`),
    shown.interruptions > 0 && fact('Interruptions', `${shown.interruptions}`),
    shown.requeues > 0 && fact('Requeued', counted(shown.requeues, 'time')),
    source.queue && fact('Queue', h('bdi', null, source.partition == null ? source.queue : `${source.queue}/${source.partition}/${source.offset}`)));
}

function failure(shown) {
  if (!shown.failure) return null;
  return section(shown.state === 'dead' ? 'Why it is a dead letter' : 'Last failure',
    h('p', null, state('failed', shown.failure.kind)),
    h('pre', { class: 'text', tabindex: '0' }, shown.failure.message));
}

function attempts(shown) {
  const logs = new Map((shown.logs ?? []).map((of) => [of.attempt, of]));
  const failed = shown.failed_attempts ?? [];
  const entries = failed.map((of) => ({ ...of, state: 'failed' }));
  if (shown.started_at_ms != null && !entries.some((of) => of.number === shown.attempt)) {
    const ended = shown.duration_us != null && shown.state !== 'running';
    const word = { running: 'running', completed: 'completed', dead: shown.failure?.kind ?? 'dead' }[shown.state] ?? (ended ? 'retried' : 'interrupted');
    entries.push({ number: shown.attempt, started_at_ms: shown.started_at_ms, duration_us: ended ? shown.duration_us : null, generation: shown.generation, state: shown.state === 'dead' ? 'failed' : word, word });
  }
  for (const [number, of] of logs) {
    if (!entries.some((entry) => entry.number === number)) entries.push({ number, started_at_ms: of.started_at_ms, state: 'retried' });
  }
  entries.sort((one, other) => one.number - other.number);
  if (entries.length === 0) return section('Attempts', h('p', { class: 'muted' }, shown.state === 'parked' ? 'None yet: no handler runs its type now.' : 'None yet.'));
  const longest = Math.max(1, ...entries.map((of) => of.duration_us ?? 0));
  return section('Attempts',
    shown.failed_attempts_omitted > 0 && h('p', { class: 'muted' }, `${counted(shown.failed_attempts_omitted, 'more failed attempt')} between these ${shown.failed_attempts_omitted === 1 ? 'is' : 'are'} not kept.`),
    h('ol', { class: 'timeline' }, entries.map((of) => attempt(of, logs.get(of.number), longest))));
}

function attempt(of, lines, longest) {
  return h('li', { key: of.number },
    h('div', { class: 'attempt' },
      h('span', { class: 'number' }, `#${of.number}`),
      state(of.state, of.failure?.kind ?? of.word ?? of.state),
      of.started_at_ms != null && h('span', { title: relative(of.started_at_ms) }, moment(of.started_at_ms)),
      of.duration_us != null && h('span', { class: 'number' }, duration(of.duration_us)),
      of.duration_us != null && h('svg', { class: 'length', viewBox: '0 0 100 4', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        h('rect', { x: 0, y: 0, width: Math.max(1, (of.duration_us / longest) * 100).toFixed(1), height: 4 })),
      of.memory_peak_bytes > 0 && h('span', { class: 'muted' }, size(of.memory_peak_bytes)),
      of.generation && h('span', { class: 'muted mono' }, of.generation)),
    of.failure && h('pre', { class: 'text', tabindex: '0' }, of.failure.message),
    lines && log(lines));
}

const log = (of) => h('details', { class: 'log', open: true },
  h('summary', null, counted(of.lines.length, 'log line')),
  of.cut && h('p', { class: 'muted' }, 'Earlier lines were cut.'),
  h('ol', { tabindex: '0', 'aria-label': 'Log lines' }, of.lines.map((line) => h('li', { class: `is-${line.level}` },
    h('span', { class: 'muted number' }, `+${duration(line.at_ms * 1_000)}`),
    h('span', { class: 'level' }, line.level ?? ''),
    h('span', { class: 'line' }, line.line)))));

function result(shown, text) {
  if (shown.result === null || shown.result === undefined) return null;
  return section('Result', text('result', JSON.stringify(shown.result, null, 2)));
}

/** A text, at first only so much of it. */
function long(key, text, whole, widen) {
  const cut = !whole && text.length > TEXT_CHARS;
  return [
    h('pre', { class: 'text', tabindex: '0', key }, cut ? text.slice(0, TEXT_CHARS) : text),
    cut && button(`Show all of it (${size(text.length)})`, () => widen(key)),
  ];
}

function bodyOf(body, text, show) {
  if (body === null) return section('Body', button('Show the body', show), h('p', { class: 'muted' }, 'It is asked for only now, since it may hold what is nobody else’s business.'));
  return section('Body',
    body.body_base64 != null && h('p', { class: 'muted' }, 'It is no text: these are its bytes, in Base64.'),
    text('body', body.body ?? body.body_base64 ?? ''),
    body.changed_body != null && [h('h3', null, 'What the last retry made of it'), text('changed', body.changed_body)]);
}

function family(shown, followUps) {
  const metadata = shown.metadata ?? [];
  const parent = metadata.find(([name]) => name === 'parent')?.[1];
  return [
    parent && section('Follows from', h('p', null, jobLink(parent))),
    followUps.length > 0 && section('Follow-up jobs', h('ul', { class: 'plain' }, followUps.map((each) => h('li', { key: each.id }, state(each.state), ' ', typeLink(each.job_type), ' ', jobLink(each.id, each.state === 'dead'))))),
    metadata.length > 0 && section('Metadata', h('dl', { class: 'pairs' }, metadata.map(([name, value], at) => [
      h('dt', { key: `n${at}` }, h('bdi', null, name)), h('dd', { key: `v${at}`, class: 'mono' }, h('bdi', null, value))]))),
  ];
}

const section = (title, ...content) => h('section', { key: title }, h('h2', null, title), ...content);
