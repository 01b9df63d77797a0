// What every handler of the conformance tests does: what its body says.
import { type Failure, type Job, complete, config, enqueue, files, log, reject, retry, state } from "./sandhog.js";

interface Asked {
  do: string;
  result?: unknown;
  after_ms?: number;
  body?: Record<string, unknown>;
  reason?: string;
  message: string;
  text: string;
  job_type: string;
  options?: { "after-ms"?: number; id?: string; key?: string };
  key: string;
  url: string;
  path: string;
}

type Act = (asked: Asked, job: Job) => unknown;

const acts: Record<string, Act> = {
  complete: ({ result }) => complete(result),
  retry: ({ after_ms, body, reason }) => retry({ after: after_ms, body, reason }),
  reject: ({ message }) => reject(message),
  error({ message }) {
    throw new Error(message);
  },
  async throw({ message }) {
    for await (const _ of waited()) throw new RangeError(message);
  },
  log({ text }) {
    for (const level of ["trace", "debug", "info", "warn", "error"] as const) log[level](text);
    console.log(text);
    console.error(text);
  },
  echo: ({ text }) => text,
  fields: (_, job) => ({
    id: job.id,
    job_type: job.jobType,
    body: job.body,
    attempt: job.attempt,
    failures: job.failures,
    max_failures: job.maxFailures,
    enqueued_at_ms: job.enqueuedAtMs,
    timeout_ms: job.timeoutMs,
    metadata: job.metadata,
  }),
  enqueue({ job_type, body, options = {} }) {
    const { "after-ms": after, id, key } = options;
    return attempted(() => enqueue({ job_type, ...body }, { after, id, key }));
  },
  config: ({ key }) => config.get(key) ?? null,
  state: ({ key }) => state.increment(key),
  async http({ url }) {
    const response = await fetch(url);
    return { status: response.status, body: await response.text() };
  },
  read: ({ path }) => attempted(() => files.readText(path)),
  write: ({ path, text }) => attempted(() => files.write(path, text)),
  grow() {
    for (const all: Uint8Array[] = []; ; ) all.push(new Uint8Array(1 << 20).fill(1));
  },
  spin() {
    for (;;);
  },
};

/** Comes after a while. */
async function* waited(): AsyncGenerator<number> {
  await new Promise((resolve) => setTimeout(resolve, 1, undefined));
  yield 1;
}

function attempted<T>(act: () => T): T | string {
  try {
    return act();
  } catch (error) {
    return (error as Error).message;
  }
}

export function handle(job: Job) {
  const asked = job.json<Asked>();
  return acts[asked.do]!(asked, job);
}

export function setUp() {
  log.info("set up");
}

export function tearDown() {
  log.info("torn down");
}

export function jobFailed(_: Job, failure: Failure) {
  log.info(`failed: ${failure.kind} ${failure.message}`);
}
