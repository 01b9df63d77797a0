//! `sandhog stats`

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::fault::Fault;
use super::terminal::{plain, relative, write_json, write_pairs, write_table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::queue::State;

/// Count jobs by type and state.
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// One object
    #[arg(long)]
    json: bool,
}

// === impl Stats ===

impl Stats {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let stats = super::on_present_queue(config, async |queue| Ok(queue.stats().await?))?;
        if self.json {
            return Ok(write_json(out, &stats)?);
        }
        let mut by_type: BTreeMap<&str, BTreeMap<State, u64>> = BTreeMap::new();
        for count in &stats.counts {
            let job_type = count.job_type.as_deref().unwrap_or("(malformed)");
            *by_type.entry(job_type).or_default().entry(count.state).or_default() += count.jobs;
        }
        let row = |(job_type, counts): (&&str, &BTreeMap<State, u64>)| {
            let counts = State::ALL.iter().map(|state| counts.get(state).copied().unwrap_or(0).to_string());
            std::iter::once(plain(job_type)).chain(counts).collect()
        };
        let header: Vec<String> =
            std::iter::once("TYPE".to_owned()).chain(State::ALL.map(|state| state.as_str().to_uppercase())).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        write_table(out, &header, by_type.iter().map(row).collect())?;
        let now = SystemClock.now();
        let when = |moment: Option<_>| moment.map_or_else(|| "-".to_owned(), |moment| relative(moment, now));
        writeln!(out)?;
        let pairs = [
            ("live runners", stats.runners.to_string()),
            ("oldest ready", when(stats.oldest_ready_at)),
            ("next due", when(stats.next_due_at)),
            ("settled too late", stats.fenced_total.to_string()),
        ];
        Ok(write_pairs(out, &pairs)?)
    }
}
