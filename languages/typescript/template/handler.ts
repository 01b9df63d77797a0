// A handler: it greets, now or a little later.
import { type Job, log, retry } from "./sandhog.js";

interface Greet {
  name: string;
  later?: boolean;
}

export function handle(job: Job) {
  const { name, later } = job.json<Greet>();
  if (later && job.attempt === 1) {
    // No failure: the job comes again.
    return retry({ after: "5s" });
  }
  log.info(`greeting ${name}`);
  return `Hello, ${name}!`;
}
