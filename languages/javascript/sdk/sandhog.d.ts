// What a handler in TypeScript or JavaScript finds in `./sandhog.js`, and which of the usual globals there are in the
// sandbox. A `tsconfig.json` with `"lib": ["ES2023"]` and `"types": []` has nothing else.

/** Whatever JSON can say. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined };

/** `"500ms"`, `"30s"`, `"10m"`, `"1h 30m"`; or a number of milliseconds. Up to 49 days. */
export type Delay = string | number;

/** One unit of work, as one attempt sees it. */
export class Job {
  /** Makes a job, for tests: what is not named has a default. A `body` that is not text is written as JSON. */
  constructor(fields?: Partial<Omit<Job, "body" | "json" | "value" | "header">> & { body?: unknown });
  /** Names the job. The same on every attempt: it can serve as an idempotency key. */
  readonly id: string;
  /** The string that selected this handler. */
  readonly jobType: string;
  /** The job as it was enqueued, or as the last retry left it. */
  readonly body: string;
  /** Which start of the job this is, from 1, interrupted ones included: above 1 the work may have been half done before. */
  readonly attempt: number;
  /** How many attempts failed so far. */
  readonly failures: number;
  /** With this many failures the job is buried. */
  readonly maxFailures: number;
  /** When the job was enqueued: Unix time in milliseconds. */
  readonly enqueuedAtMs: number;
  /** How long this attempt may take, in milliseconds. */
  readonly timeoutMs: number;
  /** Pairs of a name and a value. A name may come more than once. */
  readonly metadata: [name: string, value: string][];
  /** The body as JSON. Throws where it is none. */
  json<T = any>(): T;
  /** The first value of this name in `metadata`: `queue`, `key`, `parent`, … */
  value(name: string): string | undefined;
  /** A header that the enqueuer sent along. */
  header(name: string): string | undefined;
}

/** How an attempt ended: what `complete`, `retry` and `reject` make. */
export class Outcome {
  private constructor();
  readonly tag: "complete" | "retry" | "reject";
  readonly val: unknown;
}

/** The job is done, with a result that is kept as JSON, or without. Returning the result itself does the same. */
export function complete(result?: unknown): Outcome;

/** The job is not finished yet: it is put back, which is no failure. */
export function retry(request?: {
  /** How long to wait. Without it: the handler's backoff. */
  after?: Delay;
  /** What the next attempt sees as its body. Without it: the same as this one. */
  body?: unknown;
  /** Why, for people who look at the job. */
  reason?: string;
}): Outcome;

/** The job will never work: it becomes a dead letter at once. */
export function reject(reason: string): Outcome;

/** The job's log. `console.log` and its kin write to it too. */
export const log: Record<"trace" | "debug" | "info" | "warn" | "error", (...values: unknown[]) => void>;

/**
 * Enqueues a follow-up job, an object with a `job_type` that the manifest grants (`enqueue = ["…"]`), and answers its id. It is
 * there when this attempt is settled as complete, retry or reject, and is discarded otherwise. Throws what the queue says.
 */
export function enqueue(
  job: { job_type: string; [key: string]: unknown } | string,
  options?: { after?: Delay; id?: string; key?: string; headers?: Record<string, string> },
): string;

/** What the manifest says under `grants.config`. */
export const config: {
  get(name: string): string | undefined;
  all(): Record<string, string>;
};

/** The environment, as the manifest grants it (`grants.env`). */
export const env: { get(name: string): string | undefined };

/** What the handler keeps from job to job (`grants.state = true`): kept with the settlement as complete or retry. */
export const state: {
  get(key: string): string | undefined;
  getBytes(key: string): Uint8Array | undefined;
  set(key: string, value: string | Uint8Array | ArrayBuffer): void;
  delete(key: string): void;
  /** Adds to a number, from 0 where there is none, and answers the sum. */
  increment(key: string, delta?: number): number;
  /** All keys, in their order. */
  keys(): string[];
};

/** Files of the folders that the manifest grants (`grants.read`, `grants.write`), by absolute paths. */
export const files: {
  read(path: string): Uint8Array;
  readText(path: string): string;
  /** Writes a whole file, which is made if it is not there. */
  write(path: string, content: string | Uint8Array | ArrayBuffer): void;
  /** The names in a folder, in their order. */
  list(path: string): string[];
  remove(path: string): void;
};

/** What `handle` may return: an outcome, or a result to complete with. */
export type Handled = Outcome | unknown;

/** A failed attempt, for `jobFailed`. */
export interface Failure {
  /** What went wrong: `error`, `trap`, `timeout`, `out-of-memory`, `limit:NAME`, `rejected` and others. */
  kind: string;
  /** The same for people. */
  message: string;
  /** Whether the job became a dead letter with this failure. */
  buried: boolean;
  metadata: [name: string, value: string][];
}

/** For tests in Node, where there is no sandbox: what the SDK did, and what it is to answer. */
export const testing: {
  log: [level: string, line: string][];
  enqueued: { job: any; options: Record<string, string> }[];
  config: Record<string, string>;
  state: Map<string, Uint8Array>;
  reset(): void;
};

/** What a handler's module exports. */
export interface Handler {
  handle(job: Job): Handled | Promise<Handled>;
  setUp?(): void | Promise<void>;
  tearDown?(): void | Promise<void>;
  jobFailed?(job: Job, failure: Failure): void | Promise<void>;
}

/** For the entry that `sandhog build` writes. */
export function serve(module: Handler): unknown;

declare global {
  interface Console {
    log(...values: unknown[]): void;
    info(...values: unknown[]): void;
    debug(...values: unknown[]): void;
    trace(...values: unknown[]): void;
    warn(...values: unknown[]): void;
    error(...values: unknown[]): void;
    dir(...values: unknown[]): void;
  }
  var console: Console;

  /**
   * An HTTP request, to where the manifest grants it (`grants.http`). The whole answer is read before the promise settles;
   * requests run one after the other. Redirects are not followed. Rejects where no answer came.
   */
  function fetch(
    url: string,
    init?: {
      method?: string;
      headers?: Headers | Record<string, string> | Iterable<[string, string]>;
      body?: string | Uint8Array | ArrayBuffer | null;
    },
  ): Promise<Response>;

  interface Headers extends Iterable<[string, string]> {
    append(name: string, value: string): void;
    delete(name: string): void;
    entries(): IterableIterator<[string, string]>;
    forEach(visit: (value: string, name: string) => void): void;
    get(name: string): string | null;
    has(name: string): boolean;
    set(name: string, value: string): void;
  }
  var Headers: { new (from?: Headers | Record<string, string> | Iterable<[string, string]>): Headers };

  interface Response {
    readonly url: string;
    readonly status: number;
    readonly ok: boolean;
    readonly headers: Headers;
    arrayBuffer(): Promise<ArrayBuffer>;
    bytes(): Promise<Uint8Array>;
    json(): Promise<any>;
    text(): Promise<string>;
  }

  var crypto: {
    getRandomValues<T extends ArrayBufferView>(array: T): T;
    randomUUID(): string;
  };

  var performance: { now(): number };

  class TextEncoder {
    encode(text?: string): Uint8Array<ArrayBuffer>;
  }
  class TextDecoder {
    constructor(encoding?: "utf-8", options?: { fatal?: boolean });
    decode(bytes?: ArrayBuffer | ArrayBufferView): string;
  }

  function atob(text: string): string;
  function btoa(bytes: string): string;
  function queueMicrotask(act: () => void): void;
  function setTimeout<A extends unknown[]>(act: (...values: A) => void, delayMs?: number, ...values: A): number;
  function setInterval<A extends unknown[]>(act: (...values: A) => void, everyMs?: number, ...values: A): number;
  function clearTimeout(timer: number | undefined): void;
  function clearInterval(timer: number | undefined): void;
}
