// The runner's API, and whether it answers.

import { ask } from './dialog.js';

const PATIENCE_MS = 15_000;
const TOKEN = 'sandhog.token';

/** Why a request failed. `status` is 0 where nobody answered. */
export class Problem extends Error {
  constructor(status, { code, message, hint } = {}) {
    super(message ?? (status === 0 ? 'the runner does not answer' : `the runner answered ${status}`));
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

/** What is known of the connection. Changes are told to `onchange`. */
export const connection = { state: 'connecting', answeredAt: Date.now(), onchange: () => {} };

function note(state) {
  if (state !== 'away') connection.answeredAt = Date.now();
  if (connection.state === state) return;
  connection.state = state;
  connection.onchange();
}

/** An answer came: the connection is live, or, without a stream, polled. */
const answered = () => note(streams > 0 ? 'live' : 'polling');

export const get = (path, signal) => call('GET', path, undefined, signal);
export const post = (path, body) => call('POST', path, body);
export const remove = (path) => call('DELETE', path);

/** A path of its parts, and its parameters. Parts may hold anything. */
export function path(parts, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null && value !== ''));
  return `v1/${parts.map(encodeURIComponent).join('/')}${query.size > 0 ? `?${query}` : ''}`;
}

async function call(method, path, body, signal) {
  const signals = [AbortSignal.timeout(PATIENCE_MS), ...(signal ? [signal] : [])];
  const response = await reach(path, {
    method,
    signal: AbortSignal.any(signals),
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  }, signal);
  let value = null;
  try {
    const text = await response.text();
    value = text === '' ? null : JSON.parse(text);
  } catch {
    if (signal?.aborted) throw new DOMException('left', 'AbortError');
    throw new Problem(response.ok ? 0 : response.status);
  }
  if (!response.ok) throw new Problem(response.status, value?.error);
  return value;
}

/** Sends a request; asks for the token where one is needed, until it is right or the person gives up. */
async function reach(path, options, signal) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, credentials: 'omit', cache: 'no-store' });
    } catch (error) {
      if (signal?.aborted) throw error;
      note('away');
      throw new Problem(0);
    }
    answered();
    if (response.status !== 401) return response;
    await response.body?.cancel();
    // Several requests may wait for one answer; the others only try again.
    if (sessionStorage.getItem(TOKEN) === token && !(await askToken(token !== null))) {
      throw new Problem(401, { message: 'a token is needed', hint: 'it stands in the runner\'s configuration: admin.token, or the file of admin.token_file' });
    }
  }
}

let asking = null;

function askToken(wrong) {
  asking ??= ask({
    title: 'Token',
    text: wrong ? 'This token is not right. It is kept in this tab only.' : 'This runner asks for a token. It is kept in this tab only.',
    field: 'Token',
    accept: 'Go on',
  }).then((token) => {
    if (token) sessionStorage.setItem(TOKEN, token.trim());
    return Boolean(token);
  }).finally(() => {
    asking = null;
  });
  return asking;
}

// === the stream of events ===

const STREAM_AGAIN_MS = [1_000, 2_000, 5_000, 10_000];
const LINE_CHARS_MAX = 65_536;

let streams = 0;

/** Hands over events as they come, until `signal`. Tries again when it breaks off; who listens must not rely on it. */
export async function follow(onevent, signal) {
  for (let tried = 0; !signal.aborted; tried += 1) {
    let reader;
    try {
      const response = await reach('v1/events', { signal, headers: { accept: 'text/event-stream' } }, signal);
      if (response.ok && response.body) {
        reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        streams += 1;
        note('live');
        tried = 0;
        await read(reader, onevent);
      }
    } catch {
      // It is tried again, whatever it was: a request beside it says whether the runner is away.
    }
    if (reader) {
      streams -= 1;
      if (connection.state === 'live') note('polling');
    }
    if (!signal.aborted) await pause(STREAM_AGAIN_MS[Math.min(tried, STREAM_AGAIN_MS.length - 1)], signal);
  }
}

async function read(reader, onevent) {
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    if (rest.length > LINE_CHARS_MAX) rest = '';
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      try {
        onevent(JSON.parse(line.slice(5)));
      } catch {
        onevent({});
      }
    }
  }
}

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    resolve();
  }, { once: true });
});
