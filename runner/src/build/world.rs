//! The WIT that handlers are built against: the contract, and what of WASI a manifest may grant.

use crate::language::{Exports, Imports, WORLD};

const CONTRACT: &str = include_str!("../../../wit/sandhog.wit");
const IO: &str = include_str!("../../../languages/wit/deps/io.wit");
const CLOCKS: &str = include_str!("../../../languages/wit/deps/clocks.wit");
const HTTP: &str = include_str!("../../../languages/wit/deps/http.wit");
const CONFIG: &str = include_str!("../../../languages/wit/deps/config.wit");
const KEYVALUE: &str = concat!(
    include_str!("../../wit/keyvalue/world.wit"),
    include_str!("../../wit/keyvalue/store.wit"),
    include_str!("../../wit/keyvalue/atomics.wit"),
);

/// A folder of WIT, name by name: its world is [`WORLD`], which exports and imports just this and what the contract has.
pub(crate) fn files(exports: Exports, imports: Imports) -> Vec<(&'static str, String)> {
    let mut files = vec![("world.wit", world(exports, imports)), ("deps/sandhog-jobs.wit", CONTRACT.to_owned())];
    if imports.http {
        files.extend([("deps/io.wit", IO), ("deps/clocks.wit", CLOCKS), ("deps/http.wit", HTTP)].map(own));
    }
    files.extend(imports.config.then(|| own(("deps/config.wit", CONFIG))));
    files.extend(imports.state.then(|| own(("deps/keyvalue.wit", KEYVALUE))));
    files
}

fn own((name, text): (&'static str, &str)) -> (&'static str, String) {
    (name, text.to_owned())
}

fn world(exports: Exports, imports: Imports) -> String {
    let wanted = [
        (imports.http, "wasi:http/outgoing-handler@0.2.12"),
        (imports.config, "wasi:config/store@0.2.0-rc.1"),
        (imports.state, "wasi:keyvalue/store@0.2.0-draft"),
        (imports.state, "wasi:keyvalue/atomics@0.2.0-draft"),
    ];
    let lines: String =
        wanted.iter().filter(|(is, _)| *is).map(|(_, interface)| format!("  import {interface};\n")).collect();
    let base = exports.world();
    format!("package sandhog:build;\n\nworld {WORLD} {{\n  include sandhog:jobs/{base}@1.0.0;\n{lines}}}\n")
}

#[cfg(test)]
mod tests {
    use wit_parser::Resolve;

    use super::*;

    #[test]
    fn every_world_is_valid_and_has_what_it_should() {
        for bits in 0..32_u32 {
            let bit = |at: u32| bits & (1 << at) != 0;
            let exports = Exports { context: bit(0), failure_hook: bit(1) };
            let imports = Imports { http: bit(2), config: bit(3), state: bit(4), folders: false };
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(folder.path().join("deps")).expect("a folder");
            for (name, text) in files(exports, imports) {
                std::fs::write(folder.path().join(name), text).expect("the folder is ours");
            }
            let mut resolve = Resolve::default();
            let (package, _) = resolve.push_path(folder.path()).unwrap_or_else(|error| panic!("{error:#}"));
            let world = resolve.select_world(&[package], Some(WORLD)).expect("it has this world");
            let names = |keys: Vec<String>| keys.join(" ");
            let world = &resolve.worlds[world];
            let exported = names(world.exports.keys().map(|key| resolve.name_world_key(key)).collect());
            let imported = names(world.imports.keys().map(|key| resolve.name_world_key(key)).collect());
            assert_eq!(
                (exported.contains("context"), exported.contains("failure-hook")),
                (exports.context, exports.failure_hook)
            );
            for (is, name) in
                [(imports.http, "wasi:http"), (imports.config, "wasi:config"), (imports.state, "keyvalue")]
            {
                assert_eq!(imported.contains(name), is, "{name}: {imported}");
            }
            assert!(imported.contains("sandhog:jobs/log") && imported.contains("sandhog:jobs/queue"), "{imported}");
        }
    }
}
