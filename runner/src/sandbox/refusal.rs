//! Why a file is no handler, and what to do about it.

use super::load::{CONTRACT, HANDLER, VERSION};
use crate::outcome::Failure;

/// Why a file is no handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// More than is looked at.
    #[error("the file has {size} bytes, which is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Something else.
    #[error("not a component, but {what}")]
    NotWasm {
        /// What it looks like.
        what: &'static str,
    },
    /// Compiled code, which only the runner's own cache may hold.
    #[error("compiled code, which is never loaded from a file that others can write")]
    Precompiled,
    /// The end is missing.
    #[error("the file is cut short: {reason}")]
    Cut {
        /// Where it ends.
        reason: String,
    },
    /// WebAssembly that breaks the rules, or uses a proposal that is not allowed here.
    #[error("not valid: {reason}")]
    Invalid {
        /// What is wrong, and where.
        reason: String,
    },
    /// A core module of which no component can be made.
    #[error("a core module{} that does not carry a component type", made_with(.language.as_deref()))]
    NoType {
        /// The language it was written in, by its own account.
        language: Option<String>,
    },
    /// A core module with a type that it does not fit.
    #[error("cannot make a component of the core module: {reason}")]
    Encode {
        /// What does not fit.
        reason: String,
    },
    /// Made for another version of the contract.
    #[error("made for `{found}`, where this runner speaks `{CONTRACT}@{VERSION}`")]
    WorldVersion {
        /// What it names.
        found: String,
    },
    /// It wants what is not there.
    #[error("imports {}, which this runner does not offer", quoted(.names))]
    Imports {
        /// The imports.
        names: Vec<String>,
    },
    /// It wants what its manifest does not grant.
    #[error("imports {}, which its manifest does not grant", quoted(.names))]
    NotGranted {
        /// The imports.
        names: Vec<String>,
        /// The lines of `[grants]` that would.
        lines: Vec<&'static str>,
    },
    /// The network cannot be had as it was granted.
    #[error("cannot grant the network: {reason}")]
    Network {
        /// Why not.
        reason: String,
    },
    /// A folder that is not there, or not what it seems.
    #[error("cannot grant the folder `{path}` as `{name}`: {reason}")]
    Folder {
        /// What the handler calls it.
        name: String,
        /// Where it is.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An import of a known package, but not by a known name or not of the known type.
    #[error("an import does not fit what this runner offers: {reason}")]
    ImportTypes {
        /// Which, and how.
        reason: String,
    },
    /// Not of any of the worlds.
    #[error("missing export `{HANDLER}`; it exports {}", quoted(.found))]
    NoHandler {
        /// What it exports.
        found: Vec<String>,
    },
    /// An export of the contract, but not of the contract's type.
    #[error("the export `{export}` is not what it is in the contract: {reason}")]
    ExportTypes {
        /// Which.
        export: &'static str,
        /// How it differs.
        reason: String,
    },
    /// It needs more than it may have, before it even runs.
    #[error("needs {wanted} {what}, where the limit is {limit}")]
    TooBig {
        /// Of what.
        what: &'static str,
        /// How much it needs.
        wanted: u64,
        /// How much there is.
        limit: u64,
    },
    /// An instance could not be made, under the limits that attempts have.
    #[error("cannot be instantiated: {}: {}", .failure.kind, .failure.message)]
    Start {
        /// How it went wrong.
        failure: Failure,
    },
}

// === impl LoadError ===

impl LoadError {
    /// An export is not of the contract's type.
    pub(super) fn export_types(export: &'static str, error: &wasmtime::Error) -> LoadError {
        LoadError::ExportTypes { export, reason: format!("{error:#}") }
    }

    /// What is wrong and what to do about it, in one line.
    pub fn with_hint(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self}; {hint}"))
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            LoadError::Precompiled => "use the `.wasm` file that it was made from".to_owned(),
            LoadError::Cut { .. } => "copy the file again, under another name first, then rename it".to_owned(),
            LoadError::NoType { language } => component_hint(language.as_deref()),
            LoadError::WorldVersion { .. } => format!("build it against version {VERSION} of the contract"),
            LoadError::Imports { .. } => {
                "a handler may import `sandhog:jobs/{log,queue}`, `wasi:{cli,io,clocks,filesystem,random,sockets}@0.2` and, if \
                 granted, `wasi:http/{types,outgoing-handler}@0.2` and `wasi:config/store@0.2.0-rc.1`; build it without the rest"
                    .to_owned()
            }
            LoadError::NotGranted { lines, .. } => {
                format!("write into `[grants]` of its manifest: {}", lines.join("; "))
            }
            LoadError::ImportTypes { .. } | LoadError::ExportTypes { .. } => {
                format!("build it against the unchanged contract, `{CONTRACT}@{VERSION}`")
            }
            LoadError::NoHandler { .. } => "build it for the world `job-handler`".to_owned(),
            LoadError::TooBig { what: "bytes of memory", .. } => "raise `memory` in its manifest".to_owned(),
            LoadError::Folder { hint, .. } => return hint.clone(),
            LoadError::Network { .. } => {
                "`https` needs the system's certificates, or `SSL_CERT_FILE`".to_owned()
            }
            LoadError::Empty
            | LoadError::TooLarge { .. }
            | LoadError::NotWasm { .. }
            | LoadError::Invalid { .. }
            | LoadError::Encode { .. }
            | LoadError::TooBig { .. }
            | LoadError::Start { .. } => return None,
        })
    }
}

fn component_hint(language: Option<&str>) -> String {
    let other = match language {
        Some("Rust") => "or `cargo build --release --target wasm32-wasip2`",
        Some(language) if language.starts_with('C') => {
            "or link it with the object file of the world's type that `wit-bindgen c` makes"
        }
        _ => "or embed the world: `wasm-tools component embed --world job-handler wit FILE`",
    };
    format!("build it by `sandhog build` in the folder of its source, {other}")
}

fn made_with(language: Option<&str>) -> String {
    language.map(|language| format!(" (written in {language})")).unwrap_or_default()
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
