//! `sandhog check`

use std::io::Write;

use clap::Args;

use super::fault::Fault;
use crate::config::Config;

/// Says what handlers are made of, and whether they would load.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, _: &Config, _: &mut dyn Write) -> Result<(), Fault> {
        Ok(())
    }
}
