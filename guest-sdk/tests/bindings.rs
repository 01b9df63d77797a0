//! The bindings in `src/bindings.rs` are made from `wit/` beforehand, so that no handler has to build a generator.
//!
//! After a change of the contract: `SANDHOG_BLESS=1 cargo test --release --workspace --test bindings`.

use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_parser::Resolve;

/// Set to anything, it makes the test write the file instead of comparing it.
const BLESS: &str = "SANDHOG_BLESS";

#[test]
fn bindings_are_those_of_the_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/bindings.rs");
    let made = generate(&root.join("../wit"));
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&committed, made).expect("the source folder can be written");
        return;
    }
    let found = std::fs::read_to_string(&committed).expect("the bindings are committed");
    assert!(
        found == made,
        "`guest-sdk/src/bindings.rs` is stale: run `{BLESS}=1 cargo test --release --workspace --test bindings`"
    );
}

fn generate(wit: &Path) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).expect("the contract is valid WIT");
    let world = resolve.select_world(&[package], Some("job-handler")).expect("the contract has this world");
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        default_bindings_module: Some("$crate::bindings".to_owned()),
        runtime_path: Some("::wit_bindgen::rt".to_owned()),
        ..Default::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("the world can be bound");
    let (_, text) = files.iter().next().expect("one file is made");
    String::from_utf8(text.to_vec()).expect("Rust source is UTF-8")
}
