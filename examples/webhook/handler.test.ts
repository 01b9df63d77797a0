// `npm test` runs this in Node.
import assert from "node:assert/strict";
import test from "node:test";
import { retryAfter, signature } from "./handler.ts";

test("signs as HMAC-SHA-256 does", () => {
  // RFC 4231, test case 2.
  const expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
  assert.equal(signature("Jefe", "what do ya want for nothing?"), expected);
});

test("waits as long as the server asks, but for a day at most", () => {
  const asked = (value: string) => retryAfter(new Headers({ "retry-after": value }));
  assert.equal(asked("120"), 120_000);
  assert.equal(asked("Wed, 21 Oct 2015 07:28:00 GMT"), 0);
  assert.equal(asked("999999999"), 86_400_000);
  assert.equal(asked("soon"), undefined);
  assert.equal(retryAfter(new Headers()), undefined);
});
