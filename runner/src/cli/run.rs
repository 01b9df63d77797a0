//! `sandhog run`

use clap::Args;

use super::fault::Fault;
use crate::app;
use crate::config::Config;
use crate::telemetry;

/// Work jobs until a signal says otherwise.
///
/// SIGTERM and SIGINT drain: nothing new is started, and what runs may end. A second one stops at once: what was
/// interrupted runs again later, and that is no failure.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Folder of handlers [default: ./handlers] [env: `SANDHOG_HANDLERS`]
    #[arg(long, value_name = "DIR", help_heading = "Configuration")]
    pub(super) handlers: Option<String>,
    /// How long a drain waits for attempts to end [default: 30s] [env: `SANDHOG_DRAIN_TIMEOUT`]
    #[arg(long, value_name = "D", help_heading = "Configuration")]
    pub(super) drain_timeout: Option<String>,
    /// End when nothing is ready, running or due; what is parked or scheduled for later is listed
    #[arg(long)]
    until_empty: bool,
}

// === impl Run ===

impl Run {
    pub(super) fn run(self, config: Config) -> Result<(), Fault> {
        telemetry::init(config.log.format, &config.log.level).map_err(anyhow::Error::new)?;
        Ok(app::run(config, self.until_empty)?)
    }
}
