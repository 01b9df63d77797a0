// The SDK of Sandhog's handlers in JavaScript and TypeScript. One file, without dependencies; sandhog.d.ts has its types and
// says what everything means.
//
// A handler is a module that exports `handle(job)`, and, if it likes, `setUp()`, `tearDown()` and `jobFailed(job, failure)`.
// `sandhog build` makes a component of it. The same module runs in Node too, for tests: there is no sandbox behind the SDK
// then, and `testing` holds what it did.

/** What the sandbox gives: put there by the entry that `sandhog build` writes. Not there in Node. */
const host = globalThis.__sandhog;

/** Whether the component is made. Until then the modules are run, once for all instances. */
let isServing = false;

// === the job ===

export class Job {
  constructor(fields = {}) {
    const { body = {}, metadata = [], ...others } = fields;
    const text = typeof body === "string" ? body : JSON.stringify(body);
    Object.assign(this, { id: "job", jobType: "job", attempt: 1, failures: 0, maxFailures: 1, enqueuedAtMs: 0, timeoutMs: 30_000 });
    Object.assign(this, others, { body: text, metadata });
  }

  json() {
    try {
      return JSON.parse(this.body);
    } catch (error) {
      throw new Error(`the body is not JSON: ${error.message}`);
    }
  }

  value(name) {
    return this.metadata.find(([found]) => found === name)?.[1];
  }

  header(name) {
    return this.value(`header.${name}`);
  }
}

// === outcomes ===

export class Outcome {
  constructor(tag, val) {
    this.tag = tag;
    this.val = val;
    Object.freeze(this);
  }
}

export function complete(result) {
  if (result === undefined) return new Outcome("complete", null);
  const json = JSON.stringify(result);
  if (json === undefined) throw new TypeError(`a ${typeof result} is no result: it cannot be written as JSON`);
  return new Outcome("complete", json);
}

export function retry({ after, body, reason } = {}) {
  return new Outcome("retry", {
    afterMs: after === undefined ? null : milliseconds(after),
    body: body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body),
    reason: reason ?? null,
  });
}

export function reject(reason) {
  return new Outcome("reject", String(reason));
}

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `"1h 30m"`, or a number of milliseconds. */
function milliseconds(duration) {
  let sum = typeof duration === "number" ? duration : NaN;
  if (typeof duration === "string" && /^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d)\s*)+$/.test(duration)) {
    sum = 0;
    for (const [, amount, unit] of duration.matchAll(/(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)/g)) sum += amount * UNITS[unit];
  }
  if (!(sum >= 0 && sum <= 0xffffffff)) {
    throw new RangeError(`\`${duration}\` is no delay: write one like \`500ms\`, \`30s\`, \`10m\` or \`1h 30m\`, up to 49 days`);
  }
  return Math.round(sum);
}

// === the log ===

const LEVELS = ["trace", "debug", "info", "warn", "error"];

export const log = {};
for (const level of LEVELS) log[level] = (...values) => write(level, values.map(show).join(" "));

function write(level, line) {
  if (!host) testing.log.push([level, line]);
  // There is no log while the component is made, and no job.
  else if (isServing) host.log(level, line);
}

function show(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return described(value);
  if (typeof value === "object" && value !== null) return showObject(value);
  return typeof value === "bigint" ? `${value}n` : String(value);
}

function showObject(value) {
  const inside = [];
  return JSON.stringify(value, function (_, part) {
    while (inside.length > 0 && inside.at(-1) !== this) inside.pop();
    if (typeof part === "bigint") return `${part}n`;
    if (typeof part !== "object" || part === null) return part;
    if (inside.includes(part)) return "[circular]";
    inside.push(part);
    if (part instanceof Error) return message(part);
    if (part instanceof Map) return Object.fromEntries(part);
    return part instanceof Set ? [...part] : part;
  });
}

/** What an exception says to people: of what is thrown anything may come. */
function message(error) {
  if (!(error instanceof Error)) return show(error);
  const own = error.message || error.name;
  const named = error.name === "Error" || error.name === own ? own : `${error.name}: ${own}`;
  return error.cause === undefined ? named : `${named}: ${message(error.cause)}`;
}

/** The frames of `awaited` and what calls it, at the end of a stack. */
const OURS = /(?:(?:\n    at (?:next|fulfilled|reaction|settled) .*)+|\n    at <anonymous> .*)\n    at awaited .*\n    at .*\n    at answered .*\n    at .*$/;

/** The same with its stack. */
function described(error) {
  const stack = error instanceof Error && error.stack ? error.stack.trimEnd() : "";
  // Node's begins with the message, QuickJS's does not, and ends with how the handler came to be called.
  return stack.startsWith("    at") ? `${message(error)}\n${stack.replace(OURS, "")}` : stack || message(error);
}

// === follow-up jobs ===

export function enqueue(job, { after, id, key, headers = {} } = {}) {
  const options = [];
  if (after !== undefined) options.push(["after-ms", String(milliseconds(after))]);
  if (id !== undefined) options.push(["id", String(id)]);
  if (key !== undefined) options.push(["key", String(key)]);
  for (const [name, value] of Object.entries(headers)) options.push([`header.${name}`, String(value)]);
  const body = typeof job === "string" ? job : JSON.stringify(job);
  if (host) return told(() => host.enqueue(body, options), "cannot enqueue");
  testing.enqueued.push({ job: JSON.parse(body), options: Object.fromEntries(options) });
  return String(id ?? `${testing.enqueued.length}`);
}

/** Calls the host; what it answers instead of a value is thrown, in words. */
function told(call, what) {
  try {
    return call();
  } catch (error) {
    throw new Error(`${what}: ${reason(error)}`);
  }
}

function reason(error) {
  const payload = error?.payload;
  if (payload === undefined) return message(error);
  if (typeof payload !== "object" || payload === null) return String(payload);
  const detail = payload.val;
  return typeof detail === "string" ? `${payload.tag}: ${detail}` : payload.tag;
}

// === what the manifest grants ===

function granted(name, line) {
  const part = host[name];
  if (part === undefined) throw new Error(`${name} is not granted: say \`${line}\` under [grants] in the manifest, and build again`);
  return part;
}

export const config = {
  get(name) {
    if (!host) return testing.config[name];
    return told(() => granted("config", "config = { … }").get(name), `cannot read \`${name}\``) ?? undefined;
  },
  all() {
    if (!host) return { ...testing.config };
    return Object.fromEntries(told(() => granted("config", "config = { … }").getAll(), "cannot read the configuration"));
  },
};

export const env = {
  get(name) {
    if (!host) return globalThis.process?.env[name];
    return host.environment().find(([found]) => found === name)?.[1];
  },
};

/** One bucket an attempt: a handle belongs to the instance, which may work many jobs. */
const bucket = () => granted("state", "state = true").open("");

export const state = {
  get(key) {
    const bytes = state.getBytes(key);
    return bytes === undefined ? undefined : decoded(bytes);
  },
  getBytes(key) {
    if (!host) return testing.state.get(key);
    return told(() => lent(bucket(), (open) => open.get(key)), `cannot read \`${key}\``) ?? undefined;
  },
  set(key, value) {
    const bytes = bytesOf(value);
    if (!host) return void testing.state.set(key, bytes);
    told(() => lent(bucket(), (open) => open.set(key, bytes)), `cannot write \`${key}\``);
  },
  delete(key) {
    if (!host) return void testing.state.delete(key);
    told(() => lent(bucket(), (open) => open.delete(key)), `cannot delete \`${key}\``);
  },
  increment(key, delta = 1) {
    if (host) return told(() => lent(bucket(), (open) => host.increment(open, key, delta)), `cannot increment \`${key}\``);
    const sum = Number(state.get(key) ?? "0") + delta;
    state.set(key, String(sum));
    return sum;
  },
  keys() {
    if (!host) return [...testing.state.keys()].sort();
    return told(() => lent(bucket(), listKeys), "cannot list the keys");
  },
};

function listKeys(open) {
  const keys = [];
  for (let cursor = null; ; ) {
    const page = open.listKeys(cursor);
    keys.push(...page.keys);
    if (page.cursor === null) return keys;
    cursor = page.cursor;
  }
}

/** Handles are few: each is given back as soon as it was used. */
function lent(handle, use) {
  try {
    return use(handle);
  } finally {
    handle[Symbol.dispose]();
  }
}

// === files ===

const CHUNK = 1 << 20;

export const files = {
  read: (path) => onFile(path, "read", (folder, name) => lent(folder.openAt(FOLLOW, name, {}, { read: true }), readWhole)),
  readText: (path) => decoded(files.read(path)),
  write(path, content) {
    const bytes = bytesOf(content);
    onFile(path, "write", (folder, name) => {
      lent(folder.openAt(FOLLOW, name, { create: true, truncate: true }, { write: true }), (file) => {
        for (let at = 0; at < bytes.length; ) at += file.write(bytes.subarray(at, at + CHUNK), at);
      });
    });
  },
  list: (path) => onFile(path, "list", (folder, name) => lent(folder.openAt(FOLLOW, name || ".", { directory: true }, { read: true }), entries)),
  remove: (path) => onFile(path, "remove", (folder, name) => folder.unlinkFileAt(name)),
};

const FOLLOW = { symlinkFollow: true };

function onFile(path, what, act) {
  if (!host) throw new Error("files are there in the sandbox only: in Node use `node:fs`");
  const folders = granted("folders", 'read = { "/in" = "./in" }').getDirectories();
  try {
    const inside = ([, name]) => path === name || path.startsWith(name === "/" ? name : `${name}/`);
    const found = folders.filter(inside).sort(([, one], [, other]) => other.length - one.length)[0];
    if (found === undefined) throw new Error("no granted folder holds it");
    return act(found[0], path.slice(found[1].length).replace(/^\/+/, ""));
  } catch (error) {
    throw new Error(`cannot ${what} \`${path}\`: ${reason(error)}`);
  } finally {
    for (const [folder] of folders) folder[Symbol.dispose]();
  }
}

function readWhole(file) {
  const parts = [];
  for (let at = 0; ; ) {
    const [part, ended] = file.read(CHUNK, at);
    parts.push(part);
    at += part.length;
    if (ended) return joined(parts);
  }
}

function entries(folder) {
  const names = [];
  lent(folder.readDirectory(), (stream) => {
    for (let entry = stream.readDirectoryEntry(); entry !== null; entry = stream.readDirectoryEntry()) names.push(entry.name);
  });
  return names.sort();
}

function joined(parts) {
  if (parts.length === 1) return Uint8Array.from(parts[0]);
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// === text and bytes ===

function bytesOf(value) {
  if (typeof value === "string") return encoded(value);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  throw new TypeError(`${show(value)} is neither text nor bytes`);
}

function encoded(text) {
  const bytes = new Uint8Array(text.length * 3);
  let to = 0;
  for (let at = 0; at < text.length; at++) {
    let code = text.charCodeAt(at);
    if (code < 0x80) {
      bytes[to++] = code;
      continue;
    }
    code = text.codePointAt(at);
    if (code > 0xffff) at++;
    else if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x800) {
      bytes[to++] = 0xc0 | (code >> 6);
    } else {
      if (code < 0x10000) {
        bytes[to++] = 0xe0 | (code >> 12);
      } else {
        bytes[to++] = 0xf0 | (code >> 18);
        bytes[to++] = 0x80 | ((code >> 12) & 0x3f);
      }
      bytes[to++] = 0x80 | ((code >> 6) & 0x3f);
    }
    bytes[to++] = 0x80 | (code & 0x3f);
  }
  return bytes.slice(0, to);
}

/** UTF-8 as text; what is none becomes U+FFFD, or is refused. */
function decoded(bytes, fatal = false) {
  let text = "";
  let units = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    let code = first;
    let more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
    at++;
    if (more > 0) {
      code = first & (0x3f >> more);
      // Overlong forms, surrogates and what is beyond Unicode show in the second byte.
      let least = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
      let most = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
      for (; more > 0 && bytes[at] >= least && bytes[at] <= most; more--, least = 0x80, most = 0xbf) code = (code << 6) | (bytes[at++] & 0x3f);
    }
    if (more !== 0) {
      if (fatal) throw new TypeError("the bytes are not UTF-8");
      code = 0xfffd;
    }
    if (code > 0xffff) units.push(0xd7c0 + (code >> 10), 0xdc00 | (code & 0x3ff));
    else units.push(code);
    if (units.length > 8_000) {
      text += String.fromCharCode.apply(null, units);
      units = [];
    }
  }
  return text + String.fromCharCode.apply(null, units);
}

// === HTTP ===

const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

class Headers {
  constructor(from = []) {
    this.pairs = [];
    const pairs = from instanceof Headers ? from.pairs : Symbol.iterator in from ? from : Object.entries(from);
    for (const [name, value] of pairs) this.append(name, value);
  }
  append(name, value) {
    this.pairs.push([String(name).toLowerCase(), String(value)]);
  }
  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }
  delete(name) {
    this.pairs = this.pairs.filter(([found]) => found !== name.toLowerCase());
  }
  has(name) {
    return this.get(name) !== null;
  }
  get(name) {
    const found = this.pairs.filter(([other]) => other === name.toLowerCase()).map(([, value]) => value);
    return found.length === 0 ? null : found.join(", ");
  }
  forEach(visit) {
    for (const [name, value] of this) visit(value, name, this);
  }
  *[Symbol.iterator]() {
    for (const name of new Set(this.pairs.map(([found]) => found).sort())) yield [name, this.get(name)];
  }
  entries() {
    return this[Symbol.iterator]();
  }
}

class Response {
  constructor(url, status, headers, content) {
    Object.assign(this, { url, status, headers, ok: status >= 200 && status < 300, statusText: "", redirected: false, bodyUsed: false });
    Object.defineProperty(this, "content", { value: content });
  }
  async bytes() {
    return this.content;
  }
  async arrayBuffer() {
    return this.content.slice().buffer;
  }
  async text() {
    return decoded(this.content);
  }
  async json() {
    return JSON.parse(decoded(this.content));
  }
}

async function send(url, { method = "GET", headers = {}, body } = {}) {
  url = String(url);
  const http = granted("http", `http = ["${url}"]`);
  const [, scheme, authority, path] = /^(https?):\/\/([^/?#]+)([^#]*)/i.exec(url) ?? [];
  if (scheme === undefined) throw new TypeError(`\`${url}\` is no URL of http or https`);
  method = method.toUpperCase();
  headers = new Headers(headers);
  if (typeof body === "string" && !headers.has("content-type")) headers.set("content-type", "text/plain;charset=UTF-8");
  const content = body === undefined || body === null ? undefined : bytesOf(body);
  if (content !== undefined) headers.set("content-length", content.length);
  return told(() => {
    const request = new http.OutgoingRequest(http.Fields.fromList(headers.pairs.map(([name, value]) => [name, encoded(value)])));
    request.setMethod(METHODS.includes(method) ? { tag: method.toLowerCase() } : { tag: "other", val: method });
    request.setScheme({ tag: scheme.toUpperCase() });
    request.setAuthority(authority);
    request.setPathWithQuery(path.startsWith("/") ? path : `/${path}`);
    // A body that is not asked for is no body.
    const outgoing = content === undefined ? undefined : request.body();
    const future = http.handle(request, null);
    if (outgoing !== undefined) pour(http, outgoing, content);
    return received(url, future);
  }, `cannot ${method} \`${url}\``);
}

/** Who takes no more of a body has all of it, or has answered already, or is gone: which of them, the answer says. */
function pour(http, outgoing, content) {
  const whatever = (act) => {
    try {
      act();
    } catch (error) {
      if (error.payload === undefined) throw error;
    }
  };
  whatever(() =>
    lent(outgoing.write(), (stream) => {
      for (let at = 0; at < content.length; ) {
        const room = stream.checkWrite();
        if (room === 0) lent(stream.subscribe(), (ready) => ready.block());
        else stream.write(content.subarray(at, (at += Math.min(room, content.length - at))));
      }
      stream.blockingFlush();
    }),
  );
  whatever(() => http.OutgoingBody.finish(outgoing, null));
}

function received(url, future) {
  lent(future.subscribe(), (ready) => ready.block());
  const answer = lent(future, (future) => future.get()).val;
  if (answer.tag === "err") throw { payload: answer.val };
  return lent(answer.val, (response) => {
    const pairs = lent(response.headers(), (fields) => fields.entries());
    const headers = new Headers(pairs.map(([name, value]) => [name, decoded(value)]));
    const content = lent(response.consume(), (body) => lent(body.stream(), drained));
    return new Response(url, response.status(), headers, content);
  });
}

function drained(stream) {
  const parts = [];
  for (;;) {
    try {
      parts.push(stream.blockingRead(CHUNK));
    } catch (error) {
      if (error.payload?.tag !== "closed") throw { payload: { tag: "the response broke off" } };
      return joined(parts);
    }
  }
}

// === time, promises ===

/** Promises whose jobs we run ourselves: the engine's own would never get their turn inside one call of `handle-job`. */
const microtasks = [];
let timers = [];
let timersMade = 0;

class SandhogPromise {
  constructor(run) {
    this.state = "pending";
    this.reactions = [];
    const { resolve, reject } = settlers(this);
    try {
      run(resolve, reject);
    } catch (error) {
      reject(error);
    }
  }
  then(onValue, onError) {
    const next = SandhogPromise.withResolvers();
    const reaction = () => {
      const react = this.state === "fulfilled" ? onValue : onError;
      if (typeof react !== "function") return this.state === "fulfilled" ? next.resolve(this.value) : next.reject(this.value);
      try {
        next.resolve(react(this.value));
      } catch (error) {
        next.reject(error);
      }
    };
    if (this.state === "pending") this.reactions.push(reaction);
    else microtasks.push(reaction);
    return next.promise;
  }
  catch(onError) {
    return this.then(undefined, onError);
  }
  finally(act) {
    const after = (pass) => (value) => SandhogPromise.resolve(act()).then(() => pass(value));
    const raise = (error) => {
      throw error;
    };
    return this.then(after((value) => value), after(raise));
  }
  static withResolvers() {
    const made = {};
    made.promise = new SandhogPromise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
  }
  static resolve(value) {
    return value instanceof SandhogPromise ? value : new SandhogPromise((resolve) => resolve(value));
  }
  static reject(error) {
    return new SandhogPromise((_, reject) => reject(error));
  }
  static try(act, ...values) {
    return new SandhogPromise((resolve) => resolve(act(...values)));
  }
  static all(all) {
    return gathered(all, (each, at, { values, done, reject }) => each.then((value) => done((values[at] = value)), reject));
  }
  static allSettled(all) {
    const kept = (values, at, done, key) => (value) => done((values[at] = { status: key === "value" ? "fulfilled" : "rejected", [key]: value }));
    return gathered(all, (each, at, { values, done }) => each.then(kept(values, at, done, "value"), kept(values, at, done, "reason")));
  }
  static any(all) {
    const swapped = gathered(all, (each, at, { values, done, reject }) => each.then(reject, (error) => done((values[at] = error))));
    return swapped.then((errors) => SandhogPromise.reject(new AggregateError(errors, "all promises were rejected")), (value) => value);
  }
  static race(all) {
    return new SandhogPromise((resolve, reject) => {
      for (const each of all) SandhogPromise.resolve(each).then(resolve, reject);
    });
  }
}
Object.defineProperty(SandhogPromise, "name", { value: "Promise" });

function settlers(promise) {
  let open = true;
  const settle = (state, value) => {
    Object.assign(promise, { state, value });
    microtasks.push(...promise.reactions.splice(0));
  };
  const follow = (value) => {
    if (value === promise) return settle("rejected", new TypeError("a promise waits for itself"));
    const then = (typeof value === "object" && value !== null) || typeof value === "function" ? value.then : undefined;
    if (typeof then !== "function") return settle("fulfilled", value);
    const inner = settlers(promise);
    microtasks.push(() => {
      try {
        then.call(value, inner.resolve, inner.reject);
      } catch (error) {
        inner.reject(error);
      }
    });
  };
  const once = (act) => (value) => {
    if (!open) return;
    open = false;
    try {
      act(value);
    } catch (error) {
      settle("rejected", error);
    }
  };
  return { resolve: once(follow), reject: once((error) => settle("rejected", error)) };
}

function gathered(all, watch) {
  return new SandhogPromise((resolve, reject) => {
    const values = [];
    const list = [...all];
    let left = list.length;
    const done = () => --left === 0 && resolve(values);
    if (left === 0) resolve(values);
    list.forEach((each, at) => watch(SandhogPromise.resolve(each), at, { values, done, reject }));
  });
}

function setTimer(act, delay = 0, values = [], every) {
  const timer = { id: ++timersMade, at: host.now() + Math.max(0, Number(delay) || 0) * 1e6, act: () => act(...values), every };
  timers.push(timer);
  timers.sort((one, other) => one.at - other.at || one.id - other.id);
  return timer.id;
}

const clearTimer = (id) => void (timers = timers.filter((timer) => timer.id !== id));

/** Runs what is ready, and waits for timers, until the promise is settled; then the rest of what is ready. */
function settled(promise) {
  for (;;) {
    for (let at = 0; at < microtasks.length; at++) microtasks[at]();
    microtasks.length = 0;
    if (promise.state !== "pending") return;
    const timer = timers.shift();
    if (timer === undefined) throw new Error("the handler waits for a promise that nothing is going to settle");
    host.sleepUntil(timer.at);
    if (timer.every !== undefined) timers.push({ ...timer, at: timer.at + Math.max(1, timer.every) * 1e6 });
    timer.act();
  }
}

/** The value that a function answers, at once or by a promise. */
function awaited(act) {
  try {
    const value = act();
    if (typeof value?.then !== "function") return value;
    const promise = SandhogPromise.resolve(value);
    settled(promise);
    if (promise.state === "rejected") throw promise.value;
    return promise.value;
  } finally {
    // The next job of this instance has nothing to do with what this one left.
    microtasks.length = 0;
    timers = [];
  }
}

// === randomness ===

/** The engine's own generator is a part of the snapshot: every instance would draw the same numbers. */
let seed;

function random() {
  seed ??= new Uint32Array(Uint8Array.from(host.randomBytes(16)).buffer);
  // sfc32
  const sum = (seed[0] + seed[1] + seed[3]++) | 0;
  seed[0] = seed[1] ^ (seed[1] >>> 9);
  seed[1] = seed[2] + (seed[2] << 3);
  seed[2] = ((seed[2] << 21) | (seed[2] >>> 11)) + sum;
  return (sum >>> 0) / 0x100000000;
}

const crypto = {
  getRandomValues(array) {
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(host.randomBytes(array.byteLength));
    return array;
  },
  randomUUID() {
    const bytes = Uint8Array.from(host.randomBytes(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

// === what the sandbox lacks of the usual globals ===

if (host) {
  Object.assign(globalThis, {
    Promise: SandhogPromise,
    console: { log: log.info, info: log.info, dir: log.info, debug: log.debug, trace: log.trace, warn: log.warn, error: log.error },
    fetch: send,
    Headers,
    Response,
    crypto,
    queueMicrotask: (act) => void microtasks.push(act),
    setTimeout: (act, delay, ...values) => setTimer(act, delay, values),
    setInterval: (act, delay, ...values) => setTimer(act, delay, values, Number(delay) || 0),
    clearTimeout: clearTimer,
    clearInterval: clearTimer,
    TextEncoder: class TextEncoder {
      encoding = "utf-8";
      encode = (text = "") => encoded(String(text));
    },
    TextDecoder: class TextDecoder {
      constructor(encoding = "utf-8", { fatal = false } = {}) {
        if (!/^utf-?8$/i.test(encoding)) throw new RangeError(`\`${encoding}\` is not known here, only utf-8`);
        Object.assign(this, { encoding: "utf-8", fatal });
      }
      decode(bytes = new Uint8Array()) {
        return decoded(bytesOf(bytes), this.fatal);
      }
    },
  });
  Math.random = random;
  globalThis.performance = { now: () => host.now() / 1e6 };
}

// === the entry ===

/** What the component exports, made of what the handler's module does. `sandhog build` writes a file that calls it. */
export function serve(module) {
  if (typeof module.handle !== "function") throw new Error("the handler exports no function `handle`");
  isServing = true;
  seed = undefined;
  return {
    handler: { handleJob: (job) => answered(() => outcomeOf(awaited(() => module.handle(jobOf(job))))) },
    context: {
      setUp: () => answered(() => void awaited(() => module.setUp?.())),
      tearDown: () => mentioned(() => awaited(() => module.tearDown?.())),
    },
    failureHook: { jobFailed: (job, failure) => mentioned(() => awaited(() => module.jobFailed?.(jobOf(job), failure))) },
  };
}

/** The host's record has the fields that a job has: it needs no copy to become one. */
function jobOf(record) {
  return Object.setPrototypeOf(record, Job.prototype);
}

function outcomeOf(value) {
  return value instanceof Outcome ? { tag: value.tag, val: value.val } : outcomeOf(complete(value));
}

/** An exception becomes the `err` of the contract, and its stack stands in the log. */
function answered(act) {
  try {
    return act();
  } catch (error) {
    write("error", described(error));
    throw message(error);
  }
}

function mentioned(act) {
  try {
    act();
  } catch (error) {
    write("error", described(error));
  }
}

// === tests in Node ===

export const testing = {
  log: [],
  enqueued: [],
  config: {},
  state: new Map(),
  reset() {
    this.log.length = this.enqueued.length = 0;
    this.config = {};
    this.state.clear();
  },
};
