//! Makes handlers of the texts in `tests/guests/`, without any toolchain.
//!
//! Each text is a core module in the form that the component model's ABI gives it: exports `memory`, `cabi_realloc` and
//! `sandhog:jobs/handler@1.0.0#handle-job`. The component's type is put in here.

use std::path::PathBuf;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The component of `tests/guests/NAME.wat`, for the world `job-handler`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    encoded(&module(&text(name), &contract(), "job-handler"))
}

/// The obedient guest with `context` and `failure-hook`, a core module. Each setting is a name of a global of `attentive.wat` and
/// its value.
pub(crate) fn attentive(settings: &[(&str, i64)]) -> Vec<u8> {
    let mut more = text("attentive");
    for (name, value) in settings {
        for number in ["i32", "i64"] {
            let global = |value: i64| format!("(global ${name} {number} ({number}.const {value}))");
            more = more.replace(&global(0), &global(*value));
        }
    }
    let clock = "(import \"wasi_snapshot_preview1\" \"clock_time_get\" \
                 (func $clock (param i32 i64 i32) (result i32)))";
    let obedient = text("obedient").replacen("(module", &format!("(module {clock}"), 1);
    let open = obedient.trim_end().strip_suffix(')').expect("it is one module");
    module(&format!("{open}{more})"), &contract(), "job-handler-full")
}

/// The guest that keeps counters, which imports more than the contract has.
pub(crate) fn keeping() -> Vec<u8> {
    let wit = format!(
        "{}\nworld w {{
            include job-handler; import wasi:keyvalue/store@0.2.0-draft; import wasi:keyvalue/atomics@0.2.0-draft;
        }}
        package wasi:keyvalue@0.2.0-draft {{
            interface store {{
                variant error {{ no-such-store, access-denied, other(string) }}
                record key-response {{ keys: list<string>, cursor: option<u64> }}
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {{
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<u64>) -> result<key-response, error>;
                }}
            }}
            interface atomics {{
                use store.{{bucket, error}};
                increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
            }}
        }}",
        contract()
    );
    encoded(&module(&text("keeper"), &wit, "w"))
}

/// The guest that compares and swaps, by the second draft of the same.
pub(crate) fn swapping() -> Vec<u8> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/wit/keyvalue-draft2/keyvalue.wit");
    let package = std::fs::read_to_string(file).unwrap().replacen("draft2;", "draft2 {", 1);
    let wit = format!(
        "{}\nworld w {{
            include job-handler; import wasi:keyvalue/store@0.2.0-draft2; import wasi:keyvalue/atomics@0.2.0-draft2;
        }}
        {package} }}",
        contract()
    );
    encoded(&module(&text("swapper"), &wit, "w"))
}

/// The guest that leaks handles, which imports more than the contract has.
pub(crate) fn leaking_handles() -> Vec<u8> {
    let wit = format!(
        "{}\nworld w {{ include job-handler; import wasi:cli/stderr@0.2.0; }}
        package wasi:io@0.2.0 {{ interface streams {{ resource output-stream; }} }}
        package wasi:cli@0.2.0 {{ interface stderr {{
            use wasi:io/streams@0.2.0.{{output-stream}}; get-stderr: func() -> output-stream;
        }} }}",
        contract()
    );
    module(&text("handles"), &wit, "w")
}

/// The text of `tests/guests/NAME.wat`.
pub(crate) fn text(name: &str) -> String {
    let path = root().join(format!("tests/guests/{name}.wat"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read `{}`: {e}", path.display()))
}

/// The text of the contract.
pub(crate) fn contract() -> String {
    std::fs::read_to_string(root().join("wit/sandhog.wit")).expect("the contract is there")
}

/// A core module that carries its component type: what many toolchains emit. `wit` has the world.
pub(crate) fn module(wat: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap_or_else(|e| panic!("{e}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("contract.wit", wit).unwrap_or_else(|e| panic!("{e:#}"));
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a type can be put in");
    module
}

/// The component of a core module that carries its type.
pub(crate) fn encoded(module: &[u8]) -> Vec<u8> {
    let encoder = ComponentEncoder::default().module(module).unwrap_or_else(|e| panic!("{e:#}"));
    encoder.validate(true).encode().unwrap_or_else(|e| panic!("{e:#}"))
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
