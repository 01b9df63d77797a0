// What the sandbox gives where the manifest grants folders, by `read` or `write`.
import * as folders from "wasi:filesystem/preopens@0.2.12";
import "wasi:filesystem/types@0.2.12";

globalThis.__sandhog.folders = folders;
