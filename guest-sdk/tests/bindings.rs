//! The bindings in `src/bindings.rs` and `src/bindings_full.rs` are made from `wit/`, those in `src/state/bindings.rs` from the
//! runner's copy of `wasi:keyvalue`, and those of `http` and `config` from this crate's `wit/`, beforehand, so that no handler has to
//! build a generator.
//!
//! After a change of the contract: `SANDHOG_BLESS=1 cargo test --release --workspace --test bindings`.

use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_bindgen_rust::WithOption;
use wit_parser::Resolve;

/// Set to anything, it makes the tests write the files instead of comparing them.
const BLESS: &str = "SANDHOG_BLESS";

#[test]
fn bindings_are_those_of_the_contract() {
    for (file, world) in [("bindings", "job-handler"), ("bindings_full", "job-handler-full")] {
        check(file, "../wit", world, Some(file));
    }
}

#[test]
fn bindings_of_state_are_those_of_the_runner() {
    check("state/bindings", "../runner/wit/keyvalue", "imports", None);
}

#[test]
fn bindings_of_what_manifests_grant_are_those_of_their_wit() {
    for name in ["config", "http"] {
        check(&format!("{name}/bindings"), &format!("wit/{name}"), "imports", None);
    }
}

/// `module` is what the bindings of a handler's exports are in.
fn check(file: &str, wit: &str, world: &str, module: Option<&str>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join(format!("src/{file}.rs"));
    let made = generate(&root.join(wit), world, module);
    if std::env::var_os(BLESS).is_some() {
        return std::fs::write(&committed, made).expect("the source folder can be written");
    }
    let found = std::fs::read_to_string(&committed).expect("the bindings are committed");
    assert!(
        found == made,
        "`guest-sdk/src/{file}.rs` is stale: run `{BLESS}=1 cargo test --release --workspace --test bindings`"
    );
}

fn generate(wit: &Path, world: &str, module: Option<&str>) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).expect("it is valid WIT");
    let world = resolve.select_world(&[package], Some(world)).expect("it has this world");
    // What all worlds have in common is made once.
    let common = |name: &str| {
        let path = format!("crate::bindings::sandhog::jobs::{name}");
        (format!("sandhog:jobs/{name}@1.0.0"), WithOption::Path(path))
    };
    let shared =
        if module == Some("bindings_full") { ["types", "log", "queue"].map(common).to_vec() } else { Vec::new() };
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: module.is_some(),
        default_bindings_module: module.map(|module| format!("$crate::{module}")),
        runtime_path: Some("::wit_bindgen::rt".to_owned()),
        generate_all: true,
        with: shared,
        ..Default::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("the world can be bound");
    let (_, text) = files.iter().next().expect("one file is made");
    let text = String::from_utf8(text.to_vec()).expect("Rust source is UTF-8");
    // Macros that are exported have one name space in a crate, and both files have one for `handler`.
    if module == Some("bindings_full") {
        text.replace("__export_sandhog_jobs_", "__export_full_sandhog_jobs_")
    } else {
        text
    }
}
