//! `sandhog new`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::fault::Fault;
use super::terminal::plain;
use crate::language::{self, name_fault};

/// Write the beginnings of a handler: its source, its manifest, jobs to try, and what its language needs.
///
/// Nothing is downloaded, and nothing that is there is overwritten.
#[derive(Debug, Args)]
pub(super) struct New {
    /// The handler's name, which is its job type too: a folder of this name is made
    #[arg(value_name = "NAME")]
    path: PathBuf,
    /// The language to write it in
    #[arg(long, value_name = "LANG")]
    lang: String,
}

// === impl New ===

impl New {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Fault> {
        let language = language::named(&self.lang).ok_or_else(|| {
            let message = format!("handlers are not written in `{}` here", self.lang);
            Fault::usage(message).with_hint(format!("languages: {}", language::names()))
        })?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(fault) = name_fault(&name) {
            let hint = "it becomes a job type, a file and a package: `resize`, `render-markdown`";
            return Err(Fault::usage(format!("`{name}` cannot be a handler's name: it {fault}")).with_hint(hint));
        }
        language::write(&self.path, &name, &language.template()).map_err(Fault::failed)?;
        let folder = plain(&self.path.display().to_string());
        writeln!(out, "{folder}: a handler in {}", language.title())?;
        writeln!(out, "  sandhog build {folder}")?;
        writeln!(out, "  sandhog invoke {folder} '{{\"name\": \"Ada\"}}'", folder = shown(&self.path, &name))?;
        Ok(())
    }
}

fn shown(folder: &Path, name: &str) -> String {
    plain(&folder.join(format!("{name}.wasm")).display().to_string())
}
