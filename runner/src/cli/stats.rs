//! `sandhog stats`

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};

use super::client::runners;
use super::fault::Fault;
use super::terminal::{plain, relative, took, write_json, write_pairs, write_table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::queue::{self, Blocked, State};

/// Count jobs by type and state, and say what the runners do that run on this state folder.
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// One object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct All {
    #[serde(flatten)]
    stats: queue::Stats,
    /// The runners that run on this state folder.
    here: Vec<Here>,
}

/// What a runner does now.
#[derive(Debug, Serialize, Deserialize)]
struct Here {
    #[serde(default)]
    pid: u32,
    slots: u32,
    busy: u32,
    in_flight: u32,
    draining: bool,
    uptime_ms: u64,
}

// === impl Here ===

impl Here {
    /// Those that answer: what else is counted is there without them.
    async fn of(config: &Config) -> Vec<Here> {
        let mut here = Vec::new();
        for runner in runners(config, None) {
            let Ok(Some(mut answer)) = runner.ask(Method::GET, "/v1/stats").await else { continue };
            if let Ok(found) = serde_json::from_value::<Here>(answer.body["runner"].take()) {
                here.push(Here { pid: runner.pid, ..found });
            }
        }
        here
    }
}

// === impl Stats ===

impl Stats {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let (stats, here) = super::on_present_queue(config, async |queue| {
            let here = Here::of(config).await;
            Ok((queue.stats().await?, here))
        })?;
        if self.json {
            return Ok(write_json(out, &All { stats, here })?);
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
        write_here(out, &here)?;
        for note in &stats.notes {
            writeln!(out, "\n{}", plain(note))?;
        }
        Ok(())
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn write_here(out: &mut dyn Write, here: &[Here]) -> io::Result<()> {
    if here.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let row = |runner: &Here| {
        let state = if runner.draining { "drains" } else { "runs" };
        let uptime = took(Duration::from_millis(runner.uptime_ms));
        let busy = format!("{} of {}", runner.busy, runner.slots);
        vec![runner.pid.to_string(), state.to_owned(), busy, runner.in_flight.to_string(), uptime]
    };
    write_table(out, &["RUNNER", "STATE", "BUSY SLOTS", "IN FLIGHT", "SINCE"], here.iter().map(row).collect())
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
