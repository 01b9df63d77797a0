// What the sandbox gives, for `sandhog.js`.
import { log } from "sandhog:jobs/log@1.0.0";
import { enqueue } from "sandhog:jobs/queue@1.0.0";
import { getEnvironment as environment } from "wasi:cli/environment@0.2.12";
import { now, subscribeInstant } from "wasi:clocks/monotonic-clock@0.2.12";
import { getRandomBytes as randomBytes } from "wasi:random/random@0.2.12";

function sleepUntil(instant) {
  const ready = subscribeInstant(instant);
  ready.block();
  ready[Symbol.dispose]();
}

globalThis.__sandhog = { log, enqueue, environment, now, sleepUntil, randomBytes };
