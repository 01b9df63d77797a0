// A handler: it greets, now or a little later.
import { log, retry } from "./sandhog.js";

export function handle(job) {
  const { name, later } = job.json();
  if (later && job.attempt === 1) {
    // No failure: the job comes again.
    return retry({ after: "5s" });
  }
  log.info(`greeting ${name}`);
  return `Hello, ${name}!`;
}
