// Dead letters: in groups that died alike, one by one, and what can be done with them.

import { get, path, post, remove } from './api.js';
import { ask } from './dialog.js';
import { h } from './dom.js';
import { count, counted } from './format.js';
import { one } from './job.js';
import { firstLine } from './jobs.js';
import { button, empty, heading, jobLink, name, state, table, typeLink, when } from './parts.js';
import { isGoing, later } from './undo.js';

const PAGE = 50;
/** A group that is acted on is read and sent in parts of this many. */
const PART = 500;
const GROUP_MAX = 100_000;

export function dead(parameters) {
  return parameters.type !== undefined || parameters.kind !== undefined || parameters.all !== undefined ? alike(parameters) : groups();
}

/** The page of one dead letter. */
export const letter = (id) => one({
  id,
  page: 'dead',
  title: `Dead letter ${id}`,
  from: ['dead'],
  actions: (shown) => shown.state === 'dead' && letterActions(shown, () => {
    location.hash = '#/dead';
  }),
});

// === groups ===

function groups() {
  let found = null;
  return {
    page: 'dead',
    title: 'Dead letters',
    async load(signal) {
      found = await get(path(['dead', 'groups']), signal);
    },
    wants: (event) => event.event === 'buried' || event.event === undefined,
    draw: () => [heading('Dead letters', found.groups.length > 0 && h('a', { class: 'button', href: '#/dead?all' }, 'One by one')), found.groups.length === 0 ? none() : groupsTable(found.groups)],
  };
}

const none = () => empty('No dead letters.', 'A job that fails for the last time, is rejected or cancelled is kept here until somebody requeues or deletes it.');

const groupsTable = (found) => table('Dead letters that died alike', [
  { label: 'Jobs', class: 'num' },
  { label: 'Type', class: 'wrap' },
  { label: 'Why', class: 'grow' },
  { label: 'Newest' },
  { label: 'Oldest' },
  { label: '', hidden: 'What to do', class: 'acts' },
], found.map((group) => {
  const key = groupKey(group);
  const going = isGoing(key);
  const called = `${counted(group.count, 'dead letter')} of ${group.job_type ?? 'no type'}, ${group.kind}`;
  return {
    key,
    class: going ? 'going' : null,
    cells: [
      h('span', { class: 'number' }, count(group.count)),
      group.job_type == null ? h('em', null, 'no type') : name(group.job_type),
      h('div', null, state('failed', group.kind), h('bdi', { class: 'why' }, group.message)),
      when(group.newest_ms),
      when(group.oldest_ms),
      going ? h('em', null, 'under way') : h('div', { class: 'actions' },
        h('a', { class: 'button', href: alikeAddress(group), 'aria-label': `Look at ${called}` }, 'Look'),
        button('Requeue', () => onGroup(group, 'Requeue', 'requeue'), { disabled: group.kind === 'malformed', 'aria-label': `Requeue ${called}` }),
        button('Delete', () => onGroup(group, 'Delete', 'delete'), { class: 'button is-danger', 'aria-label': `Delete ${called}` })),
    ],
  };
}));

const groupKey = (group) => `group ${JSON.stringify([group.job_type, group.kind, group.message])}`;

function alikeAddress(group) {
  const query = new URLSearchParams({ kind: group.kind, why: group.message });
  if (group.job_type != null) query.set('type', group.job_type);
  return `#/dead?${query}`;
}

/** Acts on the dead letters that the group has when the action is taken: what dies alike meanwhile stays. */
function onGroup(group, label, action) {
  const until = group.newest_ms;
  later({
    text: `${label} ${counted(group.count, 'dead letter')}: ${group.kind} in ${group.job_type ?? 'no type'}`,
    keys: [groupKey(group)],
    async send() {
      const ids = await idsOf(group, until);
      let [changed, stay] = [0, 0];
      for (let at = 0; at < ids.length; at += PART) {
        const answer = await post(path(['dead', action]), { ids: ids.slice(at, at + PART) });
        changed += answer.count;
        stay += answer.stay;
      }
      return { changed, stay };
    },
    done: ({ changed, stay }) => `${counted(changed, 'dead letter')} ${action}d.${stay > 0 ? ` ${count(stay)} stay: they were requeued too often already.` : ''}`,
  });
}

async function idsOf(group, until) {
  const ids = [];
  let cursor = null;
  do {
    const page = await get(path(['dead'], { type: group.job_type, kind: group.kind, limit: PART, cursor }));
    for (const each of page.jobs) {
      if (isOf(group, each) && each.ended_at_ms <= until) ids.push(each.id);
    }
    cursor = page.next;
  } while (cursor && ids.length < GROUP_MAX);
  return ids;
}

const isOf = (group, each) => each.job_type === group.job_type && firstLine(each.failure?.message ?? '') === group.message;

// === those that died alike ===

function alike(parameters) {
  let found = null;
  const { type, kind, why, cursor } = parameters;
  const title = type ? `Dead letters of ${type}` : 'Dead letters, one by one';
  return {
    page: 'dead',
    title,
    async load(signal) {
      found = await get(path(['dead'], { type, kind, cursor, limit: PAGE, order: 'newest' }), signal);
    },
    wants: (event) => !cursor && (event.event === 'buried' || event.event === undefined),
    draw() {
      const letters = why === undefined ? found.jobs : found.jobs.filter((each) => firstLine(each.failure?.message ?? '') === why);
      return [
        heading(type ? ['Dead letters of ', name(type)] : title, h('a', { class: 'button', href: '#/dead' }, 'All groups')),
        kind && h('p', null, state('failed', kind), ' ', why && h('bdi', { class: 'why' }, why)),
        letters.length === 0 && !found.next ? none() : letters.length === 0 ? h('p', { class: 'muted' }, 'None of this page died so.') : lettersTable(letters),
        found.next && h('nav', { class: 'pages', 'aria-label': 'Pages of the list' },
          h('a', { class: 'button', href: `#/dead?${new URLSearchParams({ ...parameters, cursor: found.next })}` }, 'Older')),
      ];
    },
  };
}

const lettersTable = (letters) => table('Dead letters', [
  { label: 'Id', class: 'grow' },
  { label: 'Type', class: 'wrap' },
  { label: 'Why', class: 'wide' },
  { label: 'Buried' },
  { label: '', hidden: 'What to do', class: 'acts' },
], letters.map((each) => ({
  key: each.id,
  class: isGoing(each.id) ? 'going' : null,
  cells: [
    jobLink(each.id, true),
    typeLink(each.job_type),
    h('span', { class: 'cut' }, h('strong', null, each.failure?.kind), ' ', h('bdi', null, firstLine(each.failure?.message ?? ''))),
    when(each.ended_at_ms),
    letterActions(each),
  ],
})));

/** Sends it back; one that came back so often that the runner keeps it only if a person insists. */
async function requeue(id) {
  try {
    return await post(path(['dead', id, 'requeue']));
  } catch (error) {
    const insists = error.code === 'requeued-too-often' && await ask({ title: 'Requeue it once more?', text: error.message, accept: 'Requeue' });
    if (!insists) throw error;
    return post(path(['dead', id, 'requeue'], { force: 'true' }));
  }
}

function letterActions(each, then) {
  if (isGoing(each.id)) return h('em', null, 'under way');
  const malformed = each.failure?.kind === 'malformed';
  const act = (label, past, send) => () => later({
    text: `${label} ${each.id}`,
    keys: [each.id],
    send,
    done() {
      // Who still looks at it has nothing to look at.
      if (then && location.hash === `#/dead/${encodeURIComponent(each.id)}`) then();
      return `${each.id} is ${past}.`;
    },
  });
  return h('div', { class: 'actions' },
    button('Requeue', act('Requeue', 'requeued', () => requeue(each.id)), { disabled: malformed, title: malformed ? 'It is no job: no handler could take it' : null, 'aria-label': `Requeue ${each.id}` }),
    button('Delete', act('Delete', 'deleted', () => remove(path(['dead', each.id]))), { class: 'button is-danger', 'aria-label': `Delete ${each.id}` }));
}
