//! The SDKs of Go, C and Zig are written by hand against the contract as the canonical ABI has it. What that is stands in
//! `abi.txt`: where the contract changes, it does, and those who change it are told what to change with it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wit_parser::abi::AbiVariant;
use wit_parser::{Resolve, SizeAlign, Type, TypeDefKind, TypeId, WorldItem};

const TEXT: &str = "a text can be written to";

#[test]
fn sdks_that_are_written_by_hand_are_those_of_the_contract() {
    let mut found = String::new();
    for (folder, world) in [("wit", "job-handler-full"), ("runner/wit/keyvalue", "imports")] {
        describe(folder, world, &mut found);
    }
    let path = project("guest-sdk/tests/abi.txt");
    if std::env::var_os("SANDHOG_BLESS").is_some() {
        return std::fs::write(path, found).expect("the source folder can be written");
    }
    let known = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == known,
        "the contract changed. Change `languages/{{go,c,zig}}/sdk` with it, then run this test with `SANDHOG_BLESS=1`:\n{found}"
    );
}

/// A line for each function, and for each type that has parts: where in memory they are.
fn describe(folder: &str, world: &str, into: &mut String) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(project(folder)).expect("it is valid WIT");
    let world = resolve.select_world(&[package], Some(world)).expect("it has this world");
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let world = &resolve.worlds[world];
    let imports = world.imports.iter().map(|item| (item, AbiVariant::GuestImport));
    for ((key, item), variant) in imports.chain(world.exports.iter().map(|item| (item, AbiVariant::GuestExport))) {
        let WorldItem::Interface { id, .. } = item else { continue };
        let name = resolve.name_world_key(key);
        for function in resolve.interfaces[*id].functions.values() {
            let signature = resolve.wasm_signature(variant, function);
            let (params, results) = (signature.params, signature.results);
            writeln!(into, "{name}#{} {params:?} -> {results:?}", function.name).expect(TEXT);
        }
        for (name, id) in &resolve.interfaces[*id].types {
            if let Some(parts) = parts(&resolve, &sizes, *id) {
                let size = sizes.size(&Type::Id(*id)).size_wasm32();
                writeln!(into, "  {name}: {size} bytes: {parts}").expect(TEXT);
            }
        }
    }
}

fn parts(resolve: &Resolve, sizes: &SizeAlign, id: TypeId) -> Option<String> {
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let offsets = sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
            let names = record.fields.iter().map(|field| &field.name);
            let parts = names.zip(offsets).map(|(name, (offset, _))| format!("{name} at {}", offset.size_wasm32()));
            Some(parts.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Variant(variant) => {
            let payload = sizes.payload_offset(variant.tag(), variant.cases.iter().map(|case| case.ty.as_ref()));
            let cases: Vec<&str> = variant.cases.iter().map(|case| case.name.as_str()).collect();
            Some(format!("{}; payload at {}", cases.join(", "), payload.size_wasm32()))
        }
        TypeDefKind::Enum(cases) => {
            Some(cases.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", "))
        }
        _ => None,
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
