// What every handler of the conformance tests does: what its body says.
import { complete, config, enqueue, files, log, reject, retry, state } from "./sandhog.js";

const acts = {
  complete: ({ result }) => complete(result),
  retry: ({ after_ms, body, reason }) => retry({ after: after_ms, body, reason }),
  reject: ({ message }) => reject(message),
  error({ message }) {
    throw new Error(message);
  },
  async throw({ message }) {
    await null;
    throw new RangeError(message);
  },
  log({ text }) {
    for (const level of ["trace", "debug", "info", "warn", "error"]) log[level](text);
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
    try {
      return enqueue({ job_type, ...body }, { after, id, key });
    } catch (error) {
      return error.message;
    }
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
    for (const all = []; ; ) all.push(new Uint8Array(1 << 20).fill(1));
  },
  spin() {
    for (;;);
  },
};

function attempted(act) {
  try {
    return act();
  } catch (error) {
    return error.message;
  }
}

export function handle(job) {
  const body = job.json();
  return acts[body.do](body, job);
}

export function setUp() {
  log.info("set up");
}

export function tearDown() {
  log.info("torn down");
}

export function jobFailed(job, failure) {
  log.info(`failed: ${failure.kind} ${failure.message}`);
}
