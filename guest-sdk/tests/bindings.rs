//! The bindings in `src/bindings.rs` are made from `wit/`, and those in `src/state/bindings.rs` from the runner's copy of
//! `wasi:keyvalue`, beforehand, so that no handler has to build a generator.
//!
//! After a change of the contract: `SANDHOG_BLESS=1 cargo test --release --workspace --test bindings`.

use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_parser::Resolve;

/// Set to anything, it makes the tests write the files instead of comparing them.
const BLESS: &str = "SANDHOG_BLESS";

#[test]
fn bindings_are_those_of_the_contract() {
    check("../wit", "job-handler", "src/bindings.rs", Some("$crate::bindings"));
}

#[test]
fn bindings_of_state_are_those_of_the_runner() {
    check("../runner/wit/keyvalue", "imports", "src/state/bindings.rs", None);
}

fn check(wit: &str, world: &str, committed: &str, module: Option<&str>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(committed);
    let made = generate(&root.join(wit), world, module);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, made).expect("the source folder can be written");
        return;
    }
    let found = std::fs::read_to_string(&path).expect("the bindings are committed");
    assert!(
        found == made,
        "`guest-sdk/{committed}` is stale: run `{BLESS}=1 cargo test --release --workspace --test bindings`"
    );
}

fn generate(wit: &Path, world: &str, module: Option<&str>) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).expect("it is valid WIT");
    let world = resolve.select_world(&[package], Some(world)).expect("it has this world");
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: module.is_some(),
        default_bindings_module: module.map(str::to_owned),
        runtime_path: Some("::wit_bindgen::rt".to_owned()),
        ..Default::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("the world can be bound");
    let (_, text) = files.iter().next().expect("one file is made");
    String::from_utf8(text.to_vec()).expect("Rust source is UTF-8")
}
