//! `sandhog config`

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::fault::Fault;
use super::terminal::{plain, write_json, write_table};
use crate::config::Config;

/// Show the effective configuration, and where each value comes from.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// An object a key, each in a line of its own
    #[arg(long)]
    json: bool,
}

// === impl Show ===

impl Show {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        if self.json {
            for effective in &config.effective {
                let origin = effective.origin.to_string();
                write_json(out, &json!({ "key": effective.key, "value": effective.value, "origin": origin }))?;
            }
            return Ok(());
        }
        let row = |effective: &crate::config::Effective| {
            vec![effective.key.to_owned(), plain(&effective.value), plain(&effective.origin.to_string())]
        };
        Ok(write_table(out, &["KEY", "VALUE", "FROM"], config.effective.iter().map(row).collect())?)
    }
}
