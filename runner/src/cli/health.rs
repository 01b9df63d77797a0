//! `sandhog health`

use std::io::Write;

use clap::Args;
use http::Method;

use super::client::{ask_all, waiting};
use super::fault::Fault;
use super::terminal::plain;
use crate::config::Config;

/// Ask the runners that run on this state folder how they are: for health checks of containers, which have no curl.
///
/// The exit code is 0 if at least one runs and all are well.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Whether they take jobs, and not only whether they live: the queue answers, handlers are loaded, none drains
    #[arg(long)]
    ready: bool,
    /// Only the runner with this process id
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

// === impl Health ===

impl Health {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let answers = waiting(ask_all(config, self.pid, Method::GET, path))?;
        for (runner, answer) in &answers {
            let why = answer.body["why"].as_str();
            let how = if answer.is_good() { "ok" } else { why.unwrap_or("not well") };
            writeln!(out, "{}: {}", runner.pid, plain(how))?;
        }
        if answers.iter().all(|(_, answer)| answer.is_good()) { Ok(()) } else { Err(Fault::Said) }
    }
}
