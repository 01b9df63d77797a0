//! What a file is, found out without compiling it.

use wasmparser::{ComponentImport, KnownCustom, Parser, Payload, Validator, WasmFeatures};

use super::load::FileKind;
use super::refusal::LoadError;

/// The largest file that is looked at. Python with its library has 18 MB.
pub(super) const FILE_BYTES_MAX: usize = 256 << 20;

/// What stands in a file at its outermost level.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of a component: its imports. Of a core module: the modules that it imports from.
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    /// Whether a core module carries the type of the component that it is to become.
    pub(super) carries_type: bool,
    /// What it was written in, by its own account.
    pub(super) language: Option<String>,
}

/// Tells what the bytes are by their beginning.
pub(super) fn kind(bytes: &[u8]) -> Result<FileKind, LoadError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { size: bytes.len(), limit: FILE_BYTES_MAX });
    }
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm { what: other(bytes) });
    }
    if Parser::is_component(bytes) {
        Ok(FileKind::Component)
    } else if Parser::is_core_wasm(bytes) {
        Ok(FileKind::CoreModule)
    } else if bytes.len() < 8 {
        Err(LoadError::Cut { reason: format!("{} bytes", bytes.len()) })
    } else {
        Err(LoadError::NotWasm { what: "WebAssembly of a version that is not known here" })
    }
}

/// Checks that the bytes are whole and follow the rules.
pub(super) fn validate(bytes: &[u8]) -> Result<(), LoadError> {
    Validator::new_with_features(WasmFeatures::default()).validate_all(bytes).map(drop).map_err(broken)
}

/// Collects the names in a file that is valid.
pub(super) fn names(bytes: &[u8]) -> Result<Names, LoadError> {
    let mut names = Names::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Toolchains leave their section in the core module within.
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(producers) = section.as_known() {
                    let language = producers.into_iter().flatten().find(|field| field.name == "language");
                    let value = language.and_then(|field| field.values.into_iter().flatten().next());
                    names.language = names.language.or(value.map(|value| value.name.to_owned()));
                }
                names.carries_type |= depth == 0 && is_type_section(section.name());
            }
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let ComponentImport { name, .. } = import.map_err(broken)?;
                    names.imports.push(name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    names.exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ImportSection(imports) if depth == 0 => {
                for import in imports.into_imports() {
                    let module = import.map_err(broken)?.module;
                    if !names.imports.iter().any(|name| name == module) {
                        names.imports.push(module.to_owned());
                    }
                }
            }
            Payload::ExportSection(exports) if depth == 0 => {
                for export in exports {
                    names.exports.push(export.map_err(broken)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// Whether a custom section of this name has the type of the component that a core module is to become.
pub(super) fn is_type_section(name: &str) -> bool {
    name.starts_with("component-type")
}

fn broken(error: wasmparser::BinaryReaderError) -> LoadError {
    let reason = error.to_string();
    if reason.contains("unexpected end") { LoadError::Cut { reason } } else { LoadError::Invalid { reason } }
}

fn other(bytes: &[u8]) -> &'static str {
    const NATIVE: &[u8] = b"\x7fELF";
    if b"\0asm".starts_with(bytes) {
        "the first bytes of a WebAssembly file and nothing more"
    } else if bytes.starts_with(NATIVE) {
        "a native program"
    } else if bytes.trim_ascii_start().starts_with(b"(") && std::str::from_utf8(bytes).is_ok() {
        "WebAssembly as text, which has to be assembled first"
    } else if std::str::from_utf8(bytes).is_ok() {
        "text"
    } else {
        "bytes of another kind"
    }
}
