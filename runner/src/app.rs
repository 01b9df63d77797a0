//! The runner, put together.
// replaced at merge

use crate::config::Config;

/// Runs until it is told to stop, or until nothing is left to do.
pub fn run(config: Config, until_empty: bool) -> anyhow::Result<()> {
    anyhow::bail!("this build does not run jobs: {} slots, {until_empty}", config.slots)
}
