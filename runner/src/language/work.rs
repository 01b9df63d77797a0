//! One build at work: it runs tools, and keeps what they say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Found, Imports, Project, Tool};
use crate::build::world;

/// The world that a project's handler is built for, in the folder that [`Work::wit`] writes.
pub(crate) const WORLD: &str = "handler";

/// What a source has beside the handler itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exports {
    /// Set-up and tear-down.
    pub(crate) context: bool,
    /// Job-failed.
    pub(crate) failure_hook: bool,
}

/// One build at work.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    project: &'a Project,
    tools: BTreeMap<&'static str, Found>,
    exports: Exports,
    said: String,
}

/// Why there is nothing built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// A compiler or the like did not do it.
    #[error("`{command}` failed: {status}")]
    Command {
        /// Which, with its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// A tool is there and cannot be run.
    #[error("cannot run `{program}`: {error}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// A file.
    #[error("cannot {what} `{path}`: {error}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The source is not what a handler is in its language.
    #[error("{0}")]
    Source(String),
}

/// How much of what a tool says is kept, in bytes, from its end.
const SAID_BYTES_MAX: usize = 64 << 10;

// === impl Exports ===

impl Exports {
    /// The world of the contract that has these.
    pub(crate) fn world(self) -> &'static str {
        match (self.context, self.failure_hook) {
            (false, false) => "job-handler",
            (true, false) => "job-handler-with-context",
            (false, true) => "job-handler-with-failure-hook",
            (true, true) => "job-handler-full",
        }
    }
}

// === impl Work ===

impl<'a> Work<'a> {
    /// Work on a project with tools that were found.
    pub(crate) fn new(project: &'a Project, tools: BTreeMap<&'static str, Found>, exports: Exports) -> Work<'a> {
        Work { project, tools, exports, said: String::new() }
    }

    /// Looks for tools. Those that are missing come back as the error.
    pub(crate) fn find(project: &Project, tools: &[Tool]) -> Result<BTreeMap<&'static str, Found>, Vec<Tool>> {
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for tool in tools {
            match (tool.find)(project) {
                Some(at) => drop(found.insert(tool.name, at)),
                None => missing.push(*tool),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(missing) }
    }

    /// What is built.
    pub(crate) fn project(&self) -> &'a Project {
        self.project
    }

    /// What the source has beside the handler, as the language found out beforehand.
    pub(crate) fn exports(&self) -> Exports {
        self.exports
    }

    /// A tool that the language asked for.
    pub(crate) fn found(&self, tool: &str) -> &Found {
        self.tools.get(tool).expect("a build starts when all its tools are found")
    }

    /// A run of a tool, in the project's folder.
    pub(crate) fn command(&self, tool: &str) -> Command {
        let mut command = self.found(tool).command();
        command.current_dir(self.project.folder());
        command
    }

    /// Runs a command, and answers what it wrote to stdout. What it wrote to stderr is for people: warnings.
    ///
    /// # Errors
    ///
    /// It cannot be run, or fails; all that it said is in the error.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<Vec<u8>, WorkError> {
        let (stdout, stderr) = output(command)?;
        self.said.push_str(&stderr);
        Ok(stdout)
    }

    /// The same for what talks even where nothing is amiss.
    ///
    /// # Errors
    ///
    /// As for [`Work::run`].
    pub(crate) fn run_talkative(&mut self, command: &mut Command) -> Result<Vec<u8>, WorkError> {
        output(command).map(|(stdout, _)| stdout)
    }

    /// A place in the scratch folder, which is there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, WorkError> {
        let path = self.project.scratch(name);
        let folder = path.parent().expect("it is in the project's folder");
        make_folder(folder)?;
        Ok(path)
    }

    /// Writes the WIT of the project's world, [`WORLD`], and answers its folder.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn wit(&self) -> Result<PathBuf, WorkError> {
        self.wit_for(self.project.imports())
    }

    /// The same for other imports than those that the manifest grants.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn wit_for(&self, imports: Imports) -> Result<PathBuf, WorkError> {
        let folder = self.scratch("wit")?;
        // What another manifest granted once.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WorkError::File { what: "remove", path: folder, error });
            }
            _ => {}
        }
        for (name, text) in world::files(self.exports, imports) {
            write_file(&folder.join(name), text.as_bytes())?;
        }
        Ok(folder)
    }

    /// What the tools said, where the build went well.
    pub(crate) fn into_said(self) -> String {
        tail(&self.said).to_owned()
    }
}

/// Reads a file of the project, or one that a tool made.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, WorkError> {
    fs::read(path).map_err(|error| WorkError::File { what: "read", path: path.to_owned(), error })
}

/// Writes a file, and makes the folders that it is in.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WorkError> {
    make_folder(path.parent().expect("a file is in a folder"))?;
    fs::write(path, bytes).map_err(|error| WorkError::File { what: "write", path: path.to_owned(), error })
}

fn make_folder(folder: &Path) -> Result<(), WorkError> {
    fs::create_dir_all(folder).map_err(|error| WorkError::File { what: "make", path: folder.to_owned(), error })
}

/// Runs a command; answers its two outputs.
pub(super) fn output(command: &mut Command) -> Result<(Vec<u8>, String), WorkError> {
    let output = command.output();
    let output = output
        .map_err(|error| WorkError::Run { program: command.get_program().to_string_lossy().into_owned(), error })?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok((output.stdout, stderr.into_owned()));
    }
    // What goes to stdout is data, but for tools that complain there.
    let said = if stderr.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { stderr };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let (command, status) = (words.join(" "), output.status.to_string());
    Err(WorkError::Command { command, status, said: tail(&said).to_owned() })
}

fn tail(said: &str) -> &str {
    let from = said.len().saturating_sub(SAID_BYTES_MAX);
    &said[said.ceil_char_boundary(from)..]
}
