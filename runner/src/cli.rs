//! The command line. Data goes to stdout, everything else to stderr.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Environment, Flags};
use crate::queue::{self, Queue, QueueError};
use crate::telemetry::{self, Format};

mod bench;
mod build;
mod cancel;
mod check;
mod client;
mod config;
mod dead;
mod drain;
mod enqueue;
mod fault;
mod handlers;
mod health;
mod invoke;
mod jobs;
mod lines;
mod new;
mod run;
mod stats;
mod terminal;
mod test;
mod wait;

use fault::Fault;

/// Run jobs, each in a WebAssembly sandbox of its own.
#[derive(Debug, Parser)]
#[command(name = "sandhog", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file [default: sandhog.toml, if it is there] [env: `SANDHOG_CONFIG`]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Queue [default: sqlite:sandhog.db] [env: `SANDHOG_QUEUE`]
    #[arg(long, global = true, value_name = "URL", help_heading = "Configuration")]
    queue: Option<String>,
}

/// What each does is said where its options are.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Enqueue(enqueue::Enqueue),
    Invoke(invoke::Invoke),
    Check(check::Check),
    Handlers(handlers::Handlers),
    Jobs(jobs::Jobs),
    Dead(dead::Dead),
    Stats(stats::Stats),
    Health(health::Health),
    Drain(drain::Drain),
    Config(config::Show),
    New(new::New),
    Build(build::Build),
    Test(test::Test),
    Bench(bench::Bench),
}

/// How many lines a list has where nothing else is said.
const LIST_LIMIT: u32 = 50;

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = cli.run(&mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // What was found before the fault is data all the same. A reader that has gone away has what it wanted.
            drop(out.flush());
            fault.report()
        }
    }
}

/// Does `work` on the queue that `config` names, and closes it.
fn on_queue<T>(config: &Config, work: impl AsyncFnOnce(&dyn Queue) -> Result<T, Fault>) -> Result<T, Fault> {
    on_opened(queue::open(config), work)
}

/// The same for a queue that is only looked at, or whose jobs are only changed: one that is not there is not made.
fn on_present_queue<T>(config: &Config, work: impl AsyncFnOnce(&dyn Queue) -> Result<T, Fault>) -> Result<T, Fault> {
    on_opened(queue::open_present(config), work)
}

fn on_opened<T>(
    opening: impl Future<Output = Result<Arc<dyn Queue>, QueueError>>,
    work: impl AsyncFnOnce(&dyn Queue) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let queue = opening.await?;
        let done = work(queue.as_ref()).await;
        queue.close().await;
        done
    })
}

// === impl Cli ===

impl Cli {
    fn run(self, out: &mut dyn Write) -> Result<(), Fault> {
        let (handlers, drain_timeout) = match &self.command {
            Command::Run(run) => (run.handlers.clone(), run.drain_timeout.clone()),
            Command::Handlers(handlers) => (handlers.handlers.clone(), None),
            _ => (None, None),
        };
        let flags = Flags { config: self.global.config, queue: self.global.queue, handlers, drain_timeout };
        let config = Config::load(&flags, &Environment::of_process())?;
        if !matches!(self.command, Command::Run(_)) {
            telemetry::init(Format::Text, "warn").context("cannot start the log")?;
        }
        match self.command {
            Command::Run(run) => run.run(config),
            Command::Enqueue(enqueue) => enqueue.run(&config, out),
            Command::Invoke(invoke) => invoke.run(&config, out),
            Command::Check(check) => check.run(&config, out),
            Command::Handlers(handlers) => handlers.run(&config, out),
            Command::Jobs(jobs) => jobs.run(&config, out),
            Command::Dead(dead) => dead.run(&config, out),
            Command::Stats(stats) => stats.run(&config, out),
            Command::Health(health) => health.run(&config, out),
            Command::Drain(drain) => drain.run(&config),
            Command::Config(show) => show.run(&config, out),
            Command::New(new) => new.run(out),
            Command::Build(build) => build.run(&config, out),
            Command::Test(test) => test.run(&config, out),
            Command::Bench(bench) => bench.run(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
