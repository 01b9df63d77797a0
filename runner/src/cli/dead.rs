//! `sandhog dead`

use std::collections::HashSet;
use std::io::Write;

use clap::{Args, Subcommand};

use super::fault::Fault;
use super::jobs::{Show, since, write_list};
use super::terminal::note;
use crate::clock::UnixMs;
use crate::config::Config;
use crate::outcome::Kind;
use crate::queue::{self, Filter, REQUEUES_MAX, Requeued, State};

/// Look at dead letters, send them back, or delete them; without a command, list them.
#[derive(Debug, Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    command: Option<DeadCommand>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first
    List(List),
    /// Show all that is known of a dead letter
    Show(Show),
    Requeue(Requeue),
    /// Delete dead letters for good
    Delete(Change),
}

#[derive(Debug, Default, PartialEq, Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// At most this many [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// An object a dead letter, each in a line of its own
    #[arg(long)]
    json: bool,
}

/// Send dead letters back: no failures, a new clock, the same id.
///
/// Malformed ones are no jobs, and stay. So do those that were requeued three times already, and died again.
#[derive(Debug, Args)]
struct Requeue {
    #[command(flatten)]
    change: Change,
    /// Those too that were requeued three times already
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Change {
    /// Of these ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// All of them
    #[arg(long, conflicts_with_all = ["ids", "job_type", "kind", "since"])]
    all: bool,
    /// Only say which
    #[arg(long)]
    dry_run: bool,
    /// An object a dead letter, each in a line of its own
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, PartialEq, Args)]
struct Which {
    /// Only those of this type
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
    /// Only those of this kind: error, trap, timeout, out-of-memory, limit:NAME, rejected, cancelled, out-of-attempts, expired, malformed, suspect
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// Only those buried since: 30m ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixMs>,
}

const SAVE_BODY: &str = "`sandhog dead show ID --body > FILE` has its bytes, to be mended and enqueued anew";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Requeue { force: bool },
    Delete,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "there is no such kind: `--help` has them".to_owned())
}

// === impl Dead ===

impl Dead {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        if self.command.is_some() && self.list != List::default() {
            return Err(Fault::usage("options of the list stand behind `list`, and others behind their command"));
        }
        match self.command {
            Some(DeadCommand::List(list)) => list.run(config, out),
            Some(DeadCommand::Show(show)) => show.run(config, out),
            Some(DeadCommand::Requeue(Requeue { change, force })) => change.run(Act::Requeue { force }, config, out),
            Some(DeadCommand::Delete(change)) => change.run(Act::Delete, config, out),
            None => self.list.run(config, out),
        }
    }
}

// === impl List ===

impl List {
    fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let limit = self.limit.unwrap_or(super::LIST_LIMIT);
        // One more, to know whether there are more.
        let filter = Filter { limit: Some(limit.saturating_add(1)), ..self.which.filter(Vec::new()) };
        let mut letters = super::on_present_queue(config, async |queue| Ok(queue.list(filter).await?))?;
        let more = letters.len() > limit as usize;
        letters.truncate(limit as usize);
        write_list(out, &letters, self.json)?;
        if more {
            out.flush()?;
            note(format_args!("there are more: `--limit` is {limit}"));
        }
        Ok(())
    }
}

// === impl Change ===

impl Change {
    fn run(self, act: Act, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let which = &self.which;
        if !self.all && self.ids.is_empty() && which.job_type.is_none() && which.kind.is_none() && which.since.is_none()
        {
            return Err(Fault::usage("which dead letters is not said")
                .with_hint("name ids, or `--type`, `--kind`, `--since`, or `--all`"));
        }
        if act != Act::Delete && self.which.kind == Some(Kind::Malformed) {
            return Err(Fault::usage("what is malformed is no job and cannot be requeued").with_hint(SAVE_BODY));
        }
        let filter = self.which.filter(self.ids.clone());
        let Requeued { letters, stay } = super::on_present_queue(config, async |queue| {
            let dry_run = self.dry_run;
            Ok(match act {
                Act::Requeue { force } => queue.requeue_dead(filter, queue::Requeue { dry_run, force }).await?,
                Act::Delete => Requeued { letters: queue.delete_dead(filter, dry_run).await?, stay: 0 },
            })
        })?;
        if self.json || !letters.is_empty() {
            write_list(out, &letters, self.json)?;
            out.flush()?;
        }
        let count = letters.len();
        let noun = if count == 1 { "dead letter" } else { "dead letters" };
        let done = match (act, self.dry_run) {
            (Act::Requeue { .. }, false) => "requeued",
            (Act::Requeue { .. }, true) => "would requeue",
            (Act::Delete, false) => "deleted",
            (Act::Delete, true) => "would delete",
        };
        note(format_args!("{done} {count} {noun}"));
        if stay > 0 {
            note(format_args!(
                "{stay} stay, which were requeued {REQUEUES_MAX} times already: `--force` sends them back too"
            ));
        }
        let found: HashSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        let missing: Vec<&str> = self.ids.iter().map(String::as_str).filter(|id| !found.contains(id)).collect();
        match missing.as_slice() {
            [] => Ok(()),
            // Said already.
            missing if missing.len() == stay => Err(Fault::failed("not all of them were requeued")),
            missing => Err(Fault::failed(format!("no dead letter has the id `{}`", missing.join("`, `")))),
        }
    }
}

// === impl Which ===

impl Which {
    fn filter(&self, ids: Vec<String>) -> Filter {
        Filter {
            ids,
            job_type: self.job_type.clone(),
            state: Some(State::Dead),
            kind: self.kind.clone(),
            since: self.since,
            ..Filter::default()
        }
    }
}
