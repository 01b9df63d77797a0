//! Makes a component of a core module that carries its component type, which is what many toolchains emit.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

use super::file::Names;
use super::load::LoadError;

/// The component. `names` are the module's.
pub(super) fn component(module: &[u8], names: &Names) -> Result<Vec<u8>, LoadError> {
    if !names.carries_type {
        let language = names.language.clone();
        return Err(LoadError::NoType { language });
    }
    let adapted = names.imports.iter().any(|import| import == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME);
    encode(module, adapted).map_err(|error| LoadError::Encode { reason: format!("{error:#}") })
}

fn encode(module: &[u8], adapted: bool) -> anyhow::Result<Vec<u8>> {
    let mut encoder = ComponentEncoder::default().validate(true).module(module)?;
    if adapted {
        encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
    }
    encoder.encode()
}
