// Actions that wait some seconds before they are sent, so that they can be undone; and what became of them.

import { h, render, say } from './dom.js';
import { button, icon } from './parts.js';

/** How long an action waits. It waits on while it is pointed at, or has the focus. */
export const UNDO_MS = 6_000;
const TOLD_MS = 5_000;
const TOLD_FAILED_MS = 15_000;
const TOASTS_MAX = 5;
const TICK_MS = 250;

let serial = 0;
let toasts = [];
let timer = null;
let changed = () => {};

/** Says who is told when what waits, or was sent, changes. */
export const onChange = (told) => {
  changed = told;
};

/** Whether an action that concerns `key` waits or is under way. */
export const isGoing = (key) => toasts.some((toast) => toast.keys?.has(key) && (toast.stage === 'waits' || toast.stage === 'sent'));

/** Does `send` after some seconds, unless the person says undo. `keys` are what it concerns, `done` says what came of it. */
export function later({ text, keys, send, done }) {
  add({ text, keys: new Set(keys), send, done, stage: 'waits', leftMs: UNDO_MS });
  say(`${text}. Control Z undoes it.`);
  changed();
}

/** Does something at once, and tells how it went. */
export async function now({ send, done, keys = [] }) {
  const toast = add({ text: '', keys: new Set(keys), send, done, stage: 'sent' });
  await run(toast);
}

/** Tells something. */
export const tell = (text, failed = false) => {
  add({ text, stage: failed ? 'failed' : 'done', leftMs: failed ? TOLD_FAILED_MS : TOLD_MS });
  say(text);
};

function add(toast) {
  toast.id = serial += 1;
  toasts.push(toast);
  // Those that only tell make room first; what waits is never dropped, but sent.
  while (toasts.length > TOASTS_MAX) {
    const old = toasts.find((other) => other.stage === 'done' || other.stage === 'failed');
    if (old) drop(old);
    else {
      const waits = toasts.find((other) => other.stage === 'waits');
      if (!waits) break;
      run(waits);
      break;
    }
  }
  timer ??= setInterval(tick, TICK_MS);
  draw();
  return toast;
}

async function run(toast) {
  toast.stage = 'sent';
  draw();
  try {
    const answer = await toast.send();
    toast.text = toast.done(answer);
    toast.stage = 'done';
    toast.leftMs = TOLD_MS;
  } catch (error) {
    toast.text = error.hint ? `${error.message}: ${error.hint}` : error.message;
    toast.stage = 'failed';
    toast.leftMs = TOLD_FAILED_MS;
  }
  say(toast.text);
  draw();
  changed();
}

function undo(toast) {
  drop(toast);
  say(`Undone: ${toast.text}`);
  changed();
}

function drop(toast) {
  toasts = toasts.filter((other) => other !== toast);
  if (toasts.length === 0) {
    clearInterval(timer);
    timer = null;
  }
  draw();
}

function tick() {
  const region = document.getElementById('toasts');
  if (region.matches(':hover') || region.contains(document.activeElement)) return;
  for (const toast of [...toasts]) {
    if (toast.stage === 'sent') continue;
    toast.leftMs -= TICK_MS;
    if (toast.leftMs > 0) continue;
    if (toast.stage === 'waits') run(toast);
    else drop(toast);
  }
  draw();
}

function draw() {
  render(document.getElementById('toasts'), toasts.map((toast) => h('div', { key: toast.id, class: `toast is-${toast.stage}` },
    h('p', null, toast.stage === 'failed' ? icon('warning') : null, toast.stage === 'sent' ? 'Sending…' : toast.text),
    toast.stage === 'waits' ? [
      h('span', { class: 'muted number' }, `in ${Math.ceil(toast.leftMs / 1_000)} s`),
      button('Undo', () => undo(toast), { class: 'button is-main' }),
      button('Now', () => run(toast)),
    ] : null,
    toast.stage === 'done' || toast.stage === 'failed' ? button('Close', () => drop(toast)) : null)));
}

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select, dialog');
  if (event.key !== 'z' || !(event.ctrlKey || event.metaKey) || event.shiftKey || typing) return;
  const last = toasts.findLast((toast) => toast.stage === 'waits');
  if (!last) return;
  event.preventDefault();
  undo(last);
});

// What waits was not sent: who leaves should know.
window.addEventListener('beforeunload', (event) => {
  if (toasts.some((toast) => toast.stage === 'waits' || toast.stage === 'sent')) event.preventDefault();
});
