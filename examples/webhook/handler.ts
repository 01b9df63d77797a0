// Delivers a payload to somebody's server, signed, so that the server knows who sent it.
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { type Job, config, log, reject, retry } from "./sandhog.js";

interface Webhook {
  url: string;
  payload: unknown;
}

export async function handle(job: Job) {
  const { url, payload } = job.json<Webhook>();
  const secret = config.get("secret");
  if (!secret) throw new Error("the manifest has no `secret`");
  const body = JSON.stringify(payload);
  const headers = {
    "content-type": "application/json",
    // The same on every attempt: the receiver can tell a delivery that it knows.
    "x-delivery": job.id,
    "x-signature": `sha256=${signature(secret, body)}`,
  };

  const response = await fetch(url, { method: "POST", headers, body });
  log.info(`${url} answered ${response.status}`);
  if (response.ok) return { status: response.status, attempts: job.attempt };
  if (response.status === 429 || response.status >= 500) {
    return retry({ after: retryAfter(response.headers), reason: `answered ${response.status}` });
  }
  // What the server does not want now, it will not want later.
  return reject(`answered ${response.status}: ${(await response.text()).slice(0, 200)}`);
}

export function signature(secret: string, body: string): string {
  return bytesToHex(hmac(sha256, utf8ToBytes(secret), utf8ToBytes(body)));
}

/** What the server asks for, in seconds or as a date, up to a day; nothing, for the handler's backoff. */
export function retryAfter(headers: { get(name: string): string | null }): number | undefined {
  const asked = headers.get("retry-after");
  if (asked === null) return undefined;
  const ms = /^\d+$/.test(asked) ? Number(asked) * 1000 : Date.parse(asked) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), 86_400_000);
}
