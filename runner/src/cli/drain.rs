//! `sandhog drain`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::client::{ask_all, waiting};
use super::fault::Fault;
use super::terminal::note;
use crate::config::Config;

/// How often it is looked whether they have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Drain the runners that run on this state folder, and wait until they have ended.
///
/// They start nothing new, finish what runs, for at most `drain_timeout`, and end, as at SIGTERM.
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Only the runner with this process id
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
}

// === impl Drain ===

impl Drain {
    pub(super) fn run(self, config: &Config) -> Result<(), Fault> {
        waiting(async {
            let mut told = Vec::new();
            for (runner, answer) in ask_all(config, self.pid, Method::POST, "/v1/drain").await? {
                answer.good()?;
                note(format_args!("runner {} drains", runner.pid));
                told.push(runner);
            }
            for runner in told.iter().filter(|_| !self.no_wait) {
                while runner.ask(Method::GET, "/healthz").await?.is_some() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                note(format_args!("runner {} has ended", runner.pid));
            }
            Ok(())
        })
    }
}
