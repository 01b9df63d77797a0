// What the sandbox gives where the manifest grants `http`. The names of the interfaces are made the real ones afterwards.
import { handle as send } from "w4si:http/outgoing-handler@0.2.11";
import * as types from "w4si:http/types@0.2.11";

globalThis.__sandhog.http = { ...types, handle: send };
