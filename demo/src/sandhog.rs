//! The command line of `sandhog`, as a user types it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The program, and the queue that it works on.
#[derive(Debug)]
pub(crate) struct Sandhog {
    /// The program.
    pub program: PathBuf,
    /// The queue's URL.
    pub queue: String,
}

/// How many jobs there are, from `sandhog stats --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    counts: Vec<Count>,
}

#[derive(Debug, Deserialize)]
struct Count {
    state: String,
    jobs: u64,
}

/// A job, from `sandhog jobs list --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    /// None: the bytes were no job.
    pub job_type: Option<String>,
    /// Where it stands.
    pub state: String,
    /// How often the handler asked for a retry.
    pub retries_requested: u32,
    /// Unix time in milliseconds.
    #[serde(rename = "enqueued_at_ms")]
    pub enqueued_at: i64,
    /// Unix time in milliseconds, of the last attempt.
    #[serde(rename = "started_at_ms")]
    pub started_at: Option<i64>,
    /// How long the last attempt ran, in microseconds.
    pub duration_us: Option<u64>,
    /// The handler's.
    pub generation: Option<String>,
    /// Why it was buried.
    pub failure: Option<Failure>,
}

/// Why a job was buried.
#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    /// The class of it.
    pub kind: String,
    /// The same for people.
    pub message: String,
}

/// The most jobs that a list is asked for, so that it has no default limit.
const LIST_MAX: u32 = u32::MAX;

// === impl Sandhog ===

impl Sandhog {
    /// `sandhog WORD… --queue URL`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).args(["--queue", &self.queue]).stdin(Stdio::null());
        command
    }

    /// Enqueues a file of jobs, one a line.
    pub(crate) fn enqueue_file(&self, file: &Path, options: &[&str]) -> Result<()> {
        let mut command = self.command(&["enqueue"]);
        command.arg("--file").arg(file).arg("--quiet").args(options);
        output(command)?;
        Ok(())
    }

    /// Counts the jobs.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let json = output(self.command(&["stats", "--json"]))?;
        serde_json::from_slice(&json).context("cannot read what `sandhog stats` says")
    }

    /// All jobs, ended ones included.
    pub(crate) fn jobs(&self) -> Result<Vec<Listed>> {
        let words = ["jobs", "list", "--json", "--limit", &LIST_MAX.to_string()];
        let json = output(self.command(&words))?;
        let jobs = serde_json::Deserializer::from_slice(&json).into_iter().collect::<Result<_, _>>();
        jobs.context("cannot read what `sandhog jobs list` says")
    }
}

/// Runs a command to its end, for what it writes to stdout.
pub(crate) fn output(mut command: Command) -> Result<Vec<u8>> {
    let done = command.output().with_context(|| format!("cannot start `{}`", command.get_program().display()))?;
    if !done.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let program = command.get_program().display();
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`{program} {}` failed with {}\n{}", words.join(" "), done.status, said.trim_end());
    }
    Ok(done.stdout)
}

// === impl Stats ===

impl Stats {
    /// Jobs that are complete or dead letters.
    pub(crate) fn ended(&self) -> u64 {
        self.sum(|state| matches!(state, "completed" | "dead"))
    }

    /// Jobs that are neither.
    pub(crate) fn unfinished(&self) -> u64 {
        self.sum(|state| !matches!(state, "completed" | "dead"))
    }

    fn sum(&self, counts: impl Fn(&str) -> bool) -> u64 {
        self.counts.iter().filter(|count| counts(&count.state)).map(|count| count.jobs).sum()
    }
}
