//! Makes a component of a core module that carries its component type, which is what many toolchains emit.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{BinaryReader, Parser, Payload};
use wit_component::{ComponentEncoder, metadata};
use wit_parser::{PackageId, Resolve};

use super::file::{self, Names};
use super::load::FileKind;
use super::refusal::LoadError;

/// The most packages that a component's type may be made of. The contract and all of WASI are some ten.
const PACKAGES_MAX: usize = 1_000;

/// What a core module exports that carries no type; none for what needs none.
///
/// # Errors
///
/// It is no WebAssembly, or not valid.
pub(crate) fn exports_without_type(file: &[u8]) -> Result<Option<Vec<String>>, LoadError> {
    let kind = file::kind(file)?;
    file::validate(file)?;
    let names = file::names(file)?;
    Ok((kind == FileKind::CoreModule && !names.carries_type).then_some(names.exports))
}

/// The component that a file is, or that is made of the core module that it is.
///
/// # Errors
///
/// It is neither, or not valid.
pub(crate) fn component_of(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    match file::kind(file)? {
        FileKind::Component => Ok(file.to_vec()),
        FileKind::CoreModule => component(file, &file::names(file)?),
    }
}

/// The component. `names` are the module's.
pub(super) fn component(module: &[u8], names: &Names) -> Result<Vec<u8>, LoadError> {
    if !names.carries_type {
        let language = names.language.clone();
        return Err(LoadError::NoType { language });
    }
    let adapted = names.imports.iter().any(|import| import == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME);
    check_packages(module)
        .and_then(|()| encode(module, adapted))
        .map_err(|error| LoadError::Encode { reason: format!("{error:#}") })
}

fn encode(module: &[u8], adapted: bool) -> anyhow::Result<Vec<u8>> {
    let mut encoder = ComponentEncoder::default().validate(true).module(module)?;
    if adapted {
        encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
    }
    encoder.encode()
}

/// Refuses types whose packages depend on each other in a circle, or in too long a chain. The encoder follows them by
/// recursion, without an end, and a stack that overflows is the end of the process.
fn check_packages(module: &[u8]) -> anyhow::Result<()> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload?
            && file::is_type_section(section.name())
        {
            check_order(wit_component::decode(type_of(section.data())?)?.resolve())?;
        }
    }
    // Each of the sections may be well, and all of them together not.
    let (_, together) = metadata::decode(module)?;
    check_order(&together.resolve)
}

/// The type in a section: in its older form a version, an encoding and a name stand in front of it.
fn type_of(section: &[u8]) -> anyhow::Result<&[u8]> {
    let mut reader = BinaryReader::new(section, 0);
    if reader.read_u8()? != 3 {
        return Ok(section);
    }
    reader.read_u8()?;
    reader.read_string()?;
    Ok(&section[reader.original_position()..])
}

/// Takes the packages in an order in which each comes behind those that it depends on, if there is one.
fn check_order(resolve: &Resolve) -> anyhow::Result<()> {
    let count = resolve.packages.len();
    anyhow::ensure!(count <= PACKAGES_MAX, "its type has {count} packages, where the limit is {PACKAGES_MAX}");
    let mut missing = vec![0; count];
    let mut dependents: Vec<Vec<PackageId>> = vec![Vec::new(); count];
    for (id, _) in resolve.packages.iter() {
        for dependency in resolve.package_direct_deps(id) {
            missing[id.index()] += 1;
            dependents[dependency.index()].push(id);
        }
    }
    let mut ready: Vec<PackageId> =
        resolve.packages.iter().map(|(id, _)| id).filter(|id| missing[id.index()] == 0).collect();
    let mut ordered = 0;
    while let Some(id) = ready.pop() {
        ordered += 1;
        for dependent in &dependents[id.index()] {
            missing[dependent.index()] -= 1;
            if missing[dependent.index()] == 0 {
                ready.push(*dependent);
            }
        }
    }
    anyhow::ensure!(ordered == count, "the packages of its type depend on each other in a circle");
    Ok(())
}
