//! `sandhog stats`

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;

use super::fault::Fault;
use super::terminal::{plain, relative, write_json, write_pairs, write_table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::queue::{Blocked, State};

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
            let unnamed = if count.state == State::Dead { "(malformed)" } else { "(unknown)" };
            let job_type = count.job_type.as_deref().unwrap_or(unnamed);
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
        if !stats.blocked.is_empty() {
            write_blocked(out, &stats.blocked)?;
        }
        let now = SystemClock.now();
        let when = |moment: Option<_>| moment.map_or_else(|| "-".to_owned(), |moment| relative(moment, now));
        writeln!(out)?;
        let pairs = [
            ("live runners", number(stats.runners.map(u64::from))),
            ("oldest ready", when(stats.oldest_ready_at)),
            ("next due", when(stats.next_due_at)),
            ("settled too late", number(stats.fenced_total)),
        ];
        write_pairs(out, &pairs)?;
        for note in &stats.notes {
            writeln!(out, "\n{}", plain(note))?;
        }
        Ok(())
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// What somebody has to mend: it stands apart, and in capitals.
fn write_blocked(out: &mut dyn Write, blocked: &[Blocked]) -> io::Result<()> {
    writeln!(out, "\nBLOCKED: these jobs cannot be settled, and hold up what their partition commits")?;
    let row = |blocked: &Blocked| {
        let Blocked { topic, partition, offset, reason, stalls } = blocked;
        vec![plain(&format!("{topic}/{partition}/{offset}")), stalls.to_string(), plain(reason)]
    };
    write_table(out, &["JOB", "BEHIND IT", "WHY"], blocked.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blocked_stands_out_and_gives_the_terminal_no_orders() {
        let reason = "topic `jobs.dead` is gone\u{1b}[2J".to_owned();
        let blocked = Blocked { topic: "jobs".to_owned(), partition: 3, offset: 17, reason, stalls: 4 };
        let mut out = Vec::new();
        write_blocked(&mut out, &[blocked]).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is text");
        assert!(text.contains("BLOCKED") && text.contains("jobs/3/17") && text.contains("topic `jobs.dead` is gone"));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
