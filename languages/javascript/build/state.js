// What the sandbox gives where the manifest grants `state`.
import { increment } from "wasi:keyvalue/atomics@0.2.0-draft";
import * as state from "wasi:keyvalue/store@0.2.0-draft";

Object.assign(globalThis.__sandhog, { state, increment });
