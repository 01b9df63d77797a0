//! Programs that a language needs, which Sandhog finds and never fetches.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Project;

/// Something that must be on the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is there for.
    pub(crate) why: &'static str,
    /// The one command that installs it.
    pub(crate) install: &'static str,
    /// Looks for it.
    pub(crate) find: fn(&Project) -> Option<Found>,
}

/// A tool that was found: what is run, and what always stands in front of its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    program: PathBuf,
    arguments: Vec<OsString>,
}

// === impl Found ===

impl Found {
    /// A program by itself.
    pub(crate) fn program(program: impl Into<PathBuf>) -> Found {
        Found { program: program.into(), arguments: Vec::new() }
    }

    /// The same with arguments that always stand in front: `python3 -m ziglang`.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Found {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.program
    }

    /// A run of it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// What it answers to a short question, such as for its version; nothing if it fails.
    pub(crate) fn says(&self, arguments: &[&str]) -> Option<String> {
        let output = self.command().args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
