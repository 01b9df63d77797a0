// The overview: what waits, what runs, what was done in the last hour, by type.

import { get, path } from './api.js';
import { bars, lastMinute, line, sum } from './chart.js';
import { h } from './dom.js';
import { count, counted, duration, relative, span } from './format.js';
import { code, empty, fact, heading, icon, number, table, typeLink } from './parts.js';

const TYPES_MAX = 100;

export function overview() {
  let stats = null;
  let hour = null;
  return {
    page: 'overview',
    title: 'Overview',
    async load(signal) {
      [stats, hour] = await Promise.all([
        get(path(['stats']), signal),
        get(path(['activity'], { limit: TYPES_MAX }), signal),
      ]);
    },
    draw: () => [heading('Overview', about(stats)), ...notices(stats), facts(stats), lastHour(hour), types(stats, hour)],
  };
}

const about = (stats) => h('p', { class: 'muted' },
  `Sandhog ${stats.runner.version}, up for ${span(stats.runner.uptime_ms)}`);

const notice = (bad, ...content) => h('div', { class: bad ? 'notice bad' : 'notice' }, icon('warning'), h('div', null, ...content));

function notices(stats) {
  const parked = stats.counts.filter((of) => of.state === 'parked' && of.jobs > 0);
  const jobs = parked.reduce((all, of) => all + of.jobs, 0);
  const blocked = stats.blocked ?? [];
  return [
    stats.runner.draining && notice(true, h('p', null, h('strong', null, 'Draining: '), 'this runner takes no more jobs, and stops when those that run have ended.')),
    !stats.runner.enabled && notice(false, h('p', null, 'This runner works no jobs (', code('enabled = false'), '): it takes them in and shows them.')),
    stats.counting_failed && notice(true, h('p', null, h('strong', null, 'The queue does not answer: '), stats.counting_failed), h('p', { class: 'muted' }, `what is shown was counted ${span(stats.counted_ms_ago)} ago`)),
    ...blocked.map((at) => notice(true,
      h('p', null, h('strong', null, `Partition ${at.topic}/${at.partition} is held up `), `at offset ${at.offset}: ${at.reason}`),
      h('p', { class: 'muted' }, `${counted(at.stalls, 'other job')} of it cannot be committed`))),
    jobs > 0 && notice(false, h('p', null,
      `${counted(jobs, 'job')} parked, since no handler runs ${jobs === 1 ? 'it' : 'them'} now: `,
      parked.slice(0, 5).map((of, at) => [at > 0 ? ', ' : '', typeLink(of.job_type)]), parked.length > 5 ? ` and ${parked.length - 5} more types` : '',
      '. See ', h('a', { href: '#/handlers' }, 'Handlers'), '.')),
    ...(stats.notes ?? []).map((note) => notice(false, h('p', null, note))),
  ];
}

function facts(stats) {
  const jobs = (...states) => stats.counts.filter((of) => states.includes(of.state)).reduce((all, of) => all + of.jobs, 0);
  return h('dl', { class: 'facts figures' },
    fact('Ready', h('a', { href: '#/jobs?state=ready' }, count(jobs('ready'))), stats.oldest_ready_at_ms != null && h('span', { class: 'muted' }, `oldest ${relative(stats.oldest_ready_at_ms)}`)),
    fact('Scheduled', h('a', { href: '#/jobs?state=scheduled' }, count(jobs('scheduled'))), stats.next_due_at_ms != null && h('span', { class: 'muted' }, `next ${relative(stats.next_due_at_ms)}`)),
    fact('Running', h('a', { href: '#/jobs?state=running' }, count(jobs('running'))), h('span', { class: 'muted' }, `${count(stats.runner.busy)} of ${counted(stats.runner.slots, 'slot')} here`)),
    fact('Dead letters', h('a', { href: '#/dead' }, count(jobs('dead')))),
    fact('Runners', h('span', null, count(stats.runners))),
    stats.fenced_total > 0 && fact('Came too late', h('span', null, count(stats.fenced_total))));
}

function lastHour(hour) {
  if (hour.types.length === 0) return null;
  const done = sum(hour.types.map((of) => of.done));
  const failed = sum(hour.types.flatMap((of) => [of.failed, of.buried]));
  const waiting = sum(hour.types.map((of) => of.waiting));
  const looked = waiting.some((value) => value != null);
  return h('section', { class: 'charts', 'aria-label': 'The last hour' },
    h('figure', null,
      h('figcaption', null, h('span', null, 'Done a minute'), legend(done, failed)),
      bars('All types, last hour', done, failed, { width: 600, height: 96, grid: true }),
      axis()),
    looked && h('figure', null,
      h('figcaption', null, h('span', null, 'Waiting'), h('span', { class: 'number' }, `${count(waiting.findLast((value) => value != null))} now`)),
      line('Jobs that waited, last hour', waiting, { width: 300, height: 96 }),
      axis()));
}

const legend = (done, failed) => h('span', { class: 'legend' },
  h('span', { class: 'number' }, `${count(lastMinute(done))} last minute, ${count(Math.max(0, ...done))} at most`),
  h('span', { class: 'number' }, `below the line: failed, ${count(lastMinute(failed))} last minute`));

const axis = () => h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', null, '60 min ago'), h('span', null, 'now'));

function types(stats, hour) {
  const rows = rowsOf(stats, hour);
  if (rows.length === 0) {
    return empty('No jobs yet.', ['Put one in: ', code(`sandhog enqueue '{"job_type": "greet", "name": "you"}'`)],
      ['A handler for it is a file in the handlers’ folder: ', code('sandhog new greet'), ' makes one to begin with.']);
  }
  const shown = rows.slice(0, TYPES_MAX);
  const rest = rows.length - shown.length + hour.types_omitted;
  return h('section', { 'aria-label': 'Job types' },
    table('Job types', [
      { label: 'Type', class: 'grow' },
      { label: 'Waiting', class: 'num' },
      { label: 'Running', class: 'num' },
      { label: 'Dead', class: 'num' },
      { label: 'Last hour', class: 'spark' },
      { label: 'Done/min', class: 'num' },
      { label: 'Failed/min', class: 'num' },
      { label: 'p50', class: 'num' },
      { label: 'p99', class: 'num' },
    ], shown.map(row)),
    rest > 0 && h('p', { class: 'muted' }, `and ${counted(rest, 'more type')} with less to do`));
}

const row = (of) => ({
  key: `t${of.job_type}`,
  cells: [
    of.others ? h('em', null, 'all other types') : typeLink(of.job_type),
    number(of.waiting),
    number(of.running),
    of.dead > 0 ? h('a', { class: 'number', href: of.job_type == null ? '#/dead?kind=malformed' : `#/dead?type=${encodeURIComponent(of.job_type)}` }, count(of.dead)) : number(0),
    of.hour && bars('Last hour', of.hour.done, sum([of.hour.failed, of.hour.buried])),
    number(lastMinute(of.hour?.done)),
    number(lastMinute(of.hour?.failed) + lastMinute(of.hour?.buried)),
    h('span', { class: 'number' }, duration(of.hour?.p50_us)),
    h('span', { class: 'number' }, duration(of.hour?.p99_us)),
  ],
});

function rowsOf(stats, hour) {
  const rows = new Map();
  const of = (jobType) => {
    if (!rows.has(jobType)) rows.set(jobType, { job_type: jobType, waiting: 0, running: 0, dead: 0, hour: null });
    return rows.get(jobType);
  };
  for (const each of hour.types) {
    if (each.job_type == null) rows.set(hour, { job_type: null, others: true, waiting: each.waiting.at(-1), running: each.running.at(-1), dead: null, hour: each });
    else of(each.job_type).hour = each;
  }
  for (const { job_type: jobType, state, jobs } of stats.counts) {
    if (jobs === 0) continue;
    const row = of(jobType);
    if (state === 'running') row.running += jobs;
    else if (state === 'dead') row.dead += jobs;
    else if (state !== 'completed') row.waiting += jobs;
  }
  return [...rows.values()];
}
