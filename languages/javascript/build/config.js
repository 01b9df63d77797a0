// What the sandbox gives where the manifest grants `config`.
import * as config from "wasi:config/store@0.2.0-rc.1";

globalThis.__sandhog.config = config;
