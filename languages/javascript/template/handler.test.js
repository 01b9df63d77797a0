// `npm test` runs the handler in Node, without a sandbox.
import assert from "node:assert/strict";
import test from "node:test";
import { handle } from "./handler.js";
import { Job, retry } from "./sandhog.js";

test("greets by name", () => {
  assert.equal(handle(new Job({ body: { name: "Ada" } })), "Hello, Ada!");
});

test("greets later, if asked to", () => {
  assert.deepEqual(handle(new Job({ body: { name: "Ada", later: true } })), retry({ after: "5s" }));
});
