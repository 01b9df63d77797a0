// The SDK as the sandbox has it: with a host, and its own promises, text and timers in place of Node's.
import assert from "node:assert/strict";
import test from "node:test";

const Node = { TextEncoder, TextDecoder };
const logged = [];
let clock = 0;
globalThis.__sandhog = {
  log: (level, line) => logged.push(`${level}: ${line}`),
  enqueue: (job, options) => `${job} ${JSON.stringify(options)}`,
  environment: () => [["LANG", "C"]],
  now: () => clock,
  sleepUntil: (instant) => (clock = instant),
  randomBytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(Date.now() * 7 + count) & 0xff),
};
// Node's own globals come back at once: its test runner needs them.
const names = ["Promise", "console", "crypto", "fetch", "performance", "queueMicrotask", "Headers", "Response"];
names.push("setTimeout", "setInterval", "clearTimeout", "clearInterval", "TextEncoder", "TextDecoder");
const nodes = names.map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
for (const name of names) Object.defineProperty(globalThis, name, { value: undefined, writable: true, configurable: true });
const loading = import("../sdk/sandhog.js");
const sdk = await loading;
const own = Object.fromEntries(names.map((name) => [name, globalThis[name]]));
for (const [name, descriptor] of nodes) Object.defineProperty(globalThis, name, descriptor);

/** What `handle` comes to, with the SDK's promises. */
function run(handle) {
  const { handler } = sdk.serve({ handle });
  return handler.handleJob({ id: "1", jobType: "t", body: "{}", metadata: [] });
}

const err = (message) => (error) => error === message;

test("what is returned is completed with", () => {
  assert.deepEqual(run(() => undefined), { tag: "complete", val: null });
  assert.deepEqual(run(() => null), { tag: "complete", val: "null" });
  assert.deepEqual(run(() => ({ a: 1 })), { tag: "complete", val: '{"a":1}' });
  assert.deepEqual(run(() => sdk.reject("no")), { tag: "reject", val: "no" });
  assert.throws(() => run(() => () => 1), err("TypeError: a function is no result: it cannot be written as JSON"));
});

test("what is thrown is an error with its causes, and its stack is logged", () => {
  logged.length = 0;
  const broken = () => {
    throw new RangeError("out", { cause: new Error("in") });
  };
  assert.throws(() => run(broken), err("RangeError: out: in"));
  assert.match(logged[0], /^error: RangeError: out\n    at .*broken/);
  assert.throws(() => run(() => own.Promise.reject("plain")), err("plain"));
});

test("promises settle in the order that they do elsewhere", () => {
  const order = [];
  const note = (what) => () => void order.push(what);
  run(() => {
    own.setTimeout(note("timer"), 5);
    own.setTimeout(note("sooner"), 1);
    own.Promise.resolve().then(note("first")).then(note("third"));
    own.Promise.resolve().then(note("second")).finally(note("fourth"));
    order.push("now");
    return new own.Promise((resolve) => own.setTimeout(resolve, 9));
  });
  assert.deepEqual(order, ["now", "first", "second", "third", "fourth", "sooner", "timer"]);
});

test("promises are gathered as elsewhere", () => {
  const { Promise: P } = own;
  const value = (promise) => JSON.parse(run(() => promise()).val);
  assert.deepEqual(value(() => P.all([1, P.resolve(2), { then: (resolve) => resolve(3) }])), [1, 2, 3]);
  assert.deepEqual(value(() => P.all([])), []);
  assert.deepEqual(value(() => P.allSettled([1, P.reject("no")])), [
    { status: "fulfilled", value: 1 },
    { status: "rejected", reason: "no" },
  ]);
  assert.equal(value(() => P.any([P.reject(1), P.resolve(2)])), 2);
  assert.equal(value(() => P.race([new P(() => {}), P.resolve(2)])), 2);
  assert.throws(() => run(() => P.any([P.reject(1)])), err("AggregateError: all promises were rejected"));
  assert.throws(() => run(() => P.all([1, P.reject("no")])), err("no"));
});

test("promise that nothing settles is said", () => {
  assert.throws(() => run(() => new own.Promise(() => {})), err("the handler waits for a promise that nothing is going to settle"));
});

test("text is bytes and bytes are text as elsewhere", () => {
  const texts = ["", "a", "ß€😀\u{10ffff}", "\ud800", "a\udc00b", "\ufeffx", "x".repeat(20_000) + "é".repeat(9_000)];
  for (const text of texts) {
    assert.deepEqual(new own.TextEncoder().encode(text), new Node.TextEncoder().encode(text));
  }
  const bytes = [[], [0x61], [0xc3], [0xc3, 0x28], [0xe2, 0x82], [0xe2, 0x82, 0xac], [0xf0, 0x9f, 0x98, 0x80], [0xed, 0xa0, 0x80]];
  bytes.push([0xf8, 0x61], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe0, 0x80, 0x80], [0xf0, 0x80, 0x80, 0x80], [0x80, 0x61], [0xf1, 0x80, 0x61]);
  for (const each of bytes) {
    const expected = new Node.TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(each));
    assert.equal(new own.TextDecoder().decode(Uint8Array.from(each)), expected, each);
  }
  assert.throws(() => new own.TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.of(0xff)), TypeError);
});

test("delays are written as in the manifest", () => {
  const after = (delay) => sdk.retry({ after: delay }).val.afterMs;
  assert.deepEqual(["500ms", "30s", "1.5m", "1h 30m", "2d", 250, "0s"].map(after), [500, 30_000, 90_000, 5_400_000, 172_800_000, 250, 0]);
  for (const bad of ["", "5", "5 parsecs", "-1s", "50d", -1, NaN]) assert.throws(() => after(bad), RangeError, String(bad));
});

test("what is not granted is said with the line that grants it", () => {
  assert.throws(() => run(() => sdk.state.get("a")), (message) => message.includes("say `state = true` under [grants]"));
});
