//! The sandbox.
// replaced at merge

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::Outcome;

/// stub
#[derive(Debug)]
pub struct Config {
    /// stub
    pub slots: u32,
    /// stub
    pub memory_ceiling_bytes: u64,
    /// stub
    pub compiled_dir: Option<PathBuf>,
    /// stub
    pub timers: tokio::runtime::Handle,
}

/// stub
#[derive(Debug, Clone)]
pub struct Sandbox;

/// stub
#[derive(Debug, thiserror::Error)]
#[error("this build has no sandbox")]
pub struct SandboxError;

/// stub
#[derive(Debug, thiserror::Error)]
#[error("this build has no sandbox")]
pub struct LoadError;

/// stub
#[derive(Debug, Clone)]
pub struct Component;

/// stub
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[expect(missing_docs, reason = "a stub")]
pub struct Facts {
    pub kind: Option<FileKind>,
    pub file_bytes: usize,
    pub language: Option<String>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub quiet: Option<Quiet>,
    pub code_bytes: usize,
    pub compile_time: Duration,
    pub from_cache: bool,
    pub memories: Option<u32>,
    pub memory_initial_bytes: Option<u64>,
    pub tables: Option<u32>,
    pub table_initial_elements: Option<u64>,
}

/// stub
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "a stub")]
pub enum FileKind {
    Component,
    CoreModule,
}

/// stub
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[expect(missing_docs, reason = "a stub")]
pub enum Quiet {
    Made { modules: usize },
    Unchanged { reason: String },
}

/// stub
#[derive(Debug)]
#[expect(missing_docs, reason = "a stub")]
pub struct Inspection {
    pub facts: Facts,
    pub error: Option<LoadError>,
}

/// stub
#[derive(Debug)]
pub struct Attempt {
    /// stub
    pub outcome: Outcome,
    /// stub
    pub duration: Duration,
    /// stub
    pub memory_peak_bytes: u64,
    /// stub
    pub frames: Vec<String>,
    /// stub
    pub last_words: Option<String>,
}

/// stub
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "a stub")]
pub enum Source {
    Log,
    Stdout,
    Stderr,
}

/// stub
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "a stub")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// stub
pub trait GuestLog: Send + Sync {
    /// stub
    fn line(&self, job: &Job, source: Source, level: Level, line: &str);
}

#[expect(missing_docs, reason = "a stub")]
impl Sandbox {
    pub fn new(_: Config) -> Result<Sandbox, SandboxError> {
        Err(SandboxError)
    }
    pub fn load(&self, _: &[u8], _: &Limits) -> Result<Component, LoadError> {
        Err(LoadError)
    }
    pub fn inspect(&self, _: &[u8], _: &Limits) -> Inspection {
        Inspection { facts: Facts::default(), error: Some(LoadError) }
    }
}

#[expect(missing_docs, reason = "a stub")]
impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Log => "log",
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }
}

#[expect(missing_docs, reason = "a stub")]
impl Component {
    pub async fn run(&self, _: &Arc<Job>, _: u32, _: &Limits, _: &CancellationToken, _: &Arc<dyn GuestLog>) -> Attempt {
        unreachable!()
    }
}
