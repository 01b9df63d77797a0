// Which page is shown, and when it is brought up to date.

import { connection, follow } from './api.js';
import { clean, h, render, say } from './dom.js';
import { relative } from './format.js';
import { heading, problem } from './parts.js';
import { onChange } from './undo.js';
import { dead, letter } from './dead.js';
import { handlers } from './handlers.js';
import { job } from './job.js';
import { jobs } from './jobs.js';
import { overview } from './overview.js';

/** A page asks again this often, whatever the stream says: not everything is an event. */
const POLL_LIVE_MS = 5_000;
const POLL_MS = 2_000;
const POLL_AWAY_MS = 3_000;
/** And at most this often when events say that something happened. */
const EVENT_MS = 1_000;

const main = document.getElementById('main');
let view = null;
let loads = null;
let timer = null;
let loadedAt = 0;
let failure = null;

/** The page that an address names: a `draw` of what `load` asked for. `wants` says whether an event concerns it. */
function route() {
  const [address, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const parameters = Object.fromEntries(new URLSearchParams(query));
  const [page, ...rest] = address.split('/');
  let id = '';
  try {
    id = rest.map(decodeURIComponent).join('/');
  } catch {
    return overview();
  }
  if (page === 'jobs') return id ? job(id) : jobs(parameters);
  if (page === 'dead') return id ? letter(id) : dead(parameters);
  if (page === 'handlers') return handlers();
  return overview();
}

function show() {
  const before = view;
  view = route();
  view.redraw = draw;
  failure = null;
  loadedAt = 0;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.page === view.page) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = clean(`${view.title} · Sandhog`);
  const moved = before && before.title !== view.title;
  if (before?.title !== view.title) render(main, heading(view.title), h('p', { class: 'muted', 'aria-busy': 'true' }, 'Loading…'));
  if (moved) {
    main.querySelector('h1')?.focus();
    window.scrollTo(0, 0);
  }
  refresh();
}

/** Loads what the page shows, and draws it. One at a time; a page that was left is not waited for. */
async function refresh() {
  clearTimeout(timer);
  loads?.abort();
  const mine = view;
  const abort = new AbortController();
  loads = abort;
  try {
    await mine.load(abort.signal);
    if (mine !== view || abort.signal.aborted) return;
    failure = null;
    mine.loaded = true;
    draw();
  } catch (error) {
    if (mine !== view || abort.signal.aborted) return;
    failure = error;
    // What was shown stays while the runner is away: it says since when.
    if (error.status !== 0 || !mine.loaded) draw();
  }
  loadedAt = Date.now();
  loads = null;
  plan(pace());
}

function pace() {
  if (connection.state === 'away') return POLL_AWAY_MS;
  return connection.state === 'live' ? POLL_LIVE_MS : POLL_MS;
}

function plan(ms) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, ms);
}

function draw() {
  if (!view) return;
  if (failure && (failure.status !== 0 || !view.loaded)) {
    if (failure instanceof Error && failure.status === undefined) console.error(failure);
    render(main, heading(view.title), view.failed?.(failure) ?? problem(failure));
    return;
  }
  if (view.loaded) render(main, view.draw());
}

// === what happens meanwhile ===

let planned = false;

function heard(event) {
  if (planned || !view?.loaded || view.wants?.(event) === false) return;
  planned = true;
  setTimeout(() => {
    planned = false;
    if (!document.hidden && !loads) refresh();
  }, Math.max(0, EVENT_MS - (Date.now() - loadedAt)));
}

let stream = null;

function attend() {
  if (document.hidden) {
    stream?.abort();
    stream = null;
    clearTimeout(timer);
  } else if (!stream) {
    stream = new AbortController();
    follow(heard, stream.signal);
    if (view) refresh();
  }
}

const WORDS = { connecting: 'connecting', live: 'live', polling: 'every 2 s', away: 'no answer' };

connection.onchange = () => {
  document.getElementById('connection').dataset.state = connection.state;
  document.getElementById('connection-text').textContent = WORDS[connection.state];
  const away = document.getElementById('away');
  const wasAway = !away.hidden;
  away.hidden = connection.state !== 'away';
  if (connection.state === 'away') {
    tellAway();
    say('The runner does not answer.');
  } else if (wasAway) {
    say('The runner answers again.');
    if (!loads) refresh();
  }
};

function tellAway() {
  const since = new Date(connection.answeredAt);
  document.getElementById('away').textContent =
    `No answer since ${since.toLocaleTimeString('en-GB')} (${relative(connection.answeredAt)}). What is shown is from then; the page tries again.`;
}

setInterval(() => {
  if (connection.state === 'away') tellAway();
}, 5_000);

onChange(() => {
  draw();
  if (!loads) refresh();
});
// Addresses are pages here: the link that skips the navigation must not be one.
document.querySelector('.skip').onclick = (event) => {
  event.preventDefault();
  main.focus();
};
document.addEventListener('visibilitychange', attend);
window.addEventListener('hashchange', show);
show();
attend();
