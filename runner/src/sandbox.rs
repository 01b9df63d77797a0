//! The sandbox: a file becomes a [`Component`], and every attempt gets a fresh instance of it, unless its instances are
//! reused. All knowledge of wasmtime is behind this module.
//!
//! In reading order: `engine` (what is allowed at all), `file` (what a file is), `encode` (a core module becomes a
//! component), `quiet` (so that an attempt changes no page tables), `compiled` (the cache), `pools` (one for each thread),
//! `load` (all of these in turn; `refusal` is why not), `host` (what a guest may call), `granted` (what it may do by its
//! manifest), `http`, `sockets`, `network` (where that leads), `denials`, `limits`, `lines` (what it says), `instance`,
//! `attempt` (one job in one of them), `trap` (how it went wrong), `shelf` (where instances wait for their next job). `bare` is
//! none of it, but what it is measured against.

mod attempt;
pub(crate) mod bare;
mod compiled;
mod denials;
mod encode;
mod engine;
mod file;
mod granted;
mod host;
mod http;
mod instance;
mod keyvalue;
mod limits;
mod lines;
mod load;
mod network;
mod pools;
pub mod quiet;
mod refusal;
mod shelf;
mod sockets;
#[cfg(test)]
mod tests;
mod trap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub(crate) use self::encode::{component_of, exports_without_type};
pub use self::engine::loads_at_once;
pub(crate) use self::engine::{page_map_scan_is_safe, swap_is_listed};
pub(crate) use self::http::HostCalls;
pub use self::keyvalue::HandlerState;
pub use self::load::{Facts, FileKind, Inspection, Quiet};
pub use self::refusal::LoadError;
use crate::follow_up::FollowUps;
use crate::grants::Grants;
use crate::job::Job;
use crate::limits::{Limits, Reuse};
use crate::outcome::Outcome;
use crate::queue::AttemptLines;
use crate::state::Changes;

/// What a sandbox is set up with.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many attempts may run at one time. Whoever calls [`Component::run`] keeps to it; beyond it (and a few more for
    /// loading) attempts are interrupted.
    pub slots: u32,
    /// How many threads attempts run on, more or less. Each has a pool of instances of its own, up to eight: threads that
    /// share one are hardly faster than one thread.
    pub threads: u32,
    /// The most memory that any handler's limits may allow.
    pub memory_ceiling_bytes: u64,
    /// Where compiled code is kept: a directory of ours with mode 0700, made where there is none. None: no cache.
    pub compiled_dir: Option<PathBuf>,
    /// The runtime, with time enabled, whose clock ends an attempt that waits. Not the one that guests run on, since they
    /// may occupy all of it; and it must outlive that one.
    pub timers: tokio::runtime::Handle,
    /// The runtime that guests run on. Instances that wait are set up and torn down there.
    pub guests: tokio::runtime::Handle,
}

/// Makes components of files. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<load::Loader>,
}

/// A file that was compiled, checked and started once. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    prepared: Arc<load::Prepared>,
    /// Where instances wait for their next job, if they are reused.
    shelf: Option<Arc<shelf::Shelf>>,
    /// What it keeps from one job to another, if that is granted.
    state: Option<HandlerState>,
}

/// How full the sandbox's pools are, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Instances of attempts.
    pub busy: u32,
    /// Instances that wait for their next job.
    pub waiting: u32,
    /// How many of both there is room for; 0 where there was no room for a pool, and instances are made on demand.
    pub size: u32,
}

/// How one attempt went.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall-clock time, from before the instance was made to after it was thrown away.
    pub duration: Duration,
    /// The most that all linear memories were together. With a component that was made quiet, its spare pages count.
    pub memory_peak_bytes: u64,
    /// Where it trapped or was stopped, innermost function first, at most 20; empty for what did not trap.
    pub frames: Vec<String>,
    /// The last lines that a failed attempt wrote to stderr, or its last log line of level error: runtimes put their
    /// exception there.
    pub last_words: Option<String>,
    /// What it said at last, at most [`KEPT_LINES_BYTES_MAX`]; none if it said nothing.
    pub lines: Option<Box<AttemptLines>>,
    /// What the guest asked to be enqueued; nothing where it did not answer, but for what its failure hook asked for.
    pub follow_ups: FollowUps,
    /// What it changed of its handler's state; nothing where it neither completed nor asked for a retry.
    pub state: Option<Box<Changes>>,
    /// How often it reached for what was not granted, as far as that is seen here.
    pub denied: u32,
}

/// The most bytes of an attempt's lines that are kept: its last ones.
pub const KEPT_LINES_BYTES_MAX: usize = 64 << 10;

/// Where a guest's line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The contract's `log`.
    Log,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How grave a guest's line is. Lines of stdout are `Info`, lines of stderr `Warn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What went wrong.
    Error,
}

/// Takes the lines that guests write.
pub trait GuestLog: Send + Sync {
    /// One line, without its end, within the limits, without control characters but tabs. Called while the attempt runs,
    /// so it must not block. What sets an instance up or tears it down works no job.
    fn line(&self, job: Option<&Job>, source: Source, level: Level, line: &str);
}

/// Why there is no sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// The engine does not want to work here.
    #[error("cannot set up the sandbox: {0}")]
    Engine(String),
    /// The thread that interrupts guests could not be started.
    #[error("cannot start the sandbox's clock thread: {0}")]
    Ticker(String),
}

// === impl Sandbox ===

impl Sandbox {
    /// Sets up the engine, its pool (or, where there is no room for one, none, with a warning), what is linked, and the
    /// thread that interrupts guests.
    ///
    /// # Errors
    ///
    /// When the engine does not work on this machine.
    pub fn new(config: Config) -> Result<Sandbox, SandboxError> {
        Ok(Sandbox { shared: Arc::new(load::Loader::new(config, true)?) })
    }

    /// The same as on a machine with swap, where the kernel cannot be asked which pages a guest wrote.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::new`].
    pub(crate) fn without_page_scan(config: Config) -> Result<Sandbox, SandboxError> {
        Ok(Sandbox { shared: Arc::new(load::Loader::new(config, false)?) })
    }

    /// Makes a component of a file's bytes: a component, or a core module that carries its component type. Compiles it or
    /// takes it from the cache, checks what it needs, and instantiates it once under `limits`. What it may do is what `grants`
    /// say. Blocks, up to seconds.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file, for people.
    pub fn load(&self, file: &[u8], limits: &Limits, grants: &Grants) -> Result<Component, LoadError> {
        let mut facts = Facts::default();
        let prepared = Arc::new(self.shared.load(file, limits, grants, &mut facts)?);
        Ok(Component { prepared, shelf: None, state: None })
    }

    /// The same for people who want to know: what could be found out, even where the file would not load, and why not.
    pub fn inspect(&self, file: &[u8], limits: &Limits, grants: &Grants) -> Inspection {
        let mut facts = Facts::default();
        match self.shared.load(file, limits, grants, &mut facts) {
            Ok(prepared) => Inspection { facts: prepared.facts, error: None },
            Err(error) => Inspection { facts, error: Some(error) },
        }
    }

    /// How full its pools are.
    pub fn occupancy(&self) -> Occupancy {
        self.shared.occupancy()
    }

    /// Waits until the instances of all components that are gone are torn down.
    pub async fn torn_down(&self) {
        let endings = self.shared.endings();
        endings.under_way.close();
        endings.under_way.wait().await;
    }

    /// Breaks off what tears instances down.
    pub fn stop_tearing_down(&self) {
        self.shared.endings().stop.cancel();
    }

    /// Whether swap space was added since the sandbox was set up in a way that is not safe with swap. Then the runner must
    /// drain and start again.
    pub fn swap_appeared(&self) -> bool {
        self.shared.swap_appeared()
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

// === impl Component ===

impl Component {
    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.prepared.facts
    }

    /// The same for a handler that keeps something from one job to another.
    #[must_use]
    pub fn with_state(self, state: HandlerState) -> Component {
        Component { state: Some(state), ..self }
    }

    /// The same, with instances that are used for several jobs, one after the other, as long as these end well: such an
    /// instance keeps the limits and the log of the attempt that it was made for.
    pub fn reusing(self, reuse: Reuse) -> Component {
        let shelf = shelf::Shelf::new(&self.prepared, reuse);
        Component { shelf: Some(shelf), ..self }
    }

    /// Whether instances of it are set up before their first job, for more than one.
    pub fn is_set_up_once(&self) -> bool {
        self.prepared.exports.context && self.shelf.is_some()
    }

    /// Sets up an instance without a job: where instances are reused it waits for its first one, else it is torn down again.
    /// Nothing is done for a component that exports no `context`.
    ///
    /// # Errors
    ///
    /// Why no instance can be set up now, for people.
    pub async fn set_up(&self, limits: &Limits, log: &Arc<dyn GuestLog>) -> Result<(), String> {
        if !self.prepared.exports.context {
            return Ok(());
        }
        let (component, limits, log) = (self.clone(), limits.clone(), Arc::clone(log));
        let set_up = async move { attempt::set_up(&component, &limits, &log).await };
        self.prepared.guests.spawn(set_up).await.unwrap_or_else(|error| Err(format!("set-up: {error}")))
    }

    /// Runs one attempt, in a fresh instance unless instances are reused. Nothing that the guest does makes this fail or
    /// panic: it is all in the outcome.
    ///
    /// To be polled on a runtime of its own, since a guest gives its thread back only every few milliseconds. When `stop`
    /// is cancelled the attempt ends as interrupted, within some milliseconds.
    pub async fn run(
        &self,
        job: &Arc<Job>,
        max_failures: u32,
        limits: &Limits,
        stop: &CancellationToken,
        log: &Arc<dyn GuestLog>,
    ) -> Attempt {
        attempt::run(self, job, max_failures, limits, stop, log).await
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("facts", &self.prepared.facts).finish_non_exhaustive()
    }
}

// === impl Source ===

impl Source {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Log => "log",
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }
}

// === impl Level ===

impl Level {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}
