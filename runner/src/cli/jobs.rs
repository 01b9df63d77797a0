//! `sandhog jobs`

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::cancel::Cancel;
use super::fault::Fault;
use super::terminal::{self, moment, plain, plain_cut, plain_lines, relative, took};
use super::terminal::{write_json, write_pairs, write_table};
use super::wait::Wait;
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::{Config, quantity};
use crate::queue::{AttemptLines, Filter, Listed, Shown, State};

/// Look at jobs; without a command, list them.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    #[command(subcommand)]
    command: Option<JobsCommand>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List jobs, oldest first
    List(List),
    Show(Show),
    Cancel(Cancel),
    Wait(Wait),
}

#[derive(Debug, Default, PartialEq, Args)]
struct List {
    /// Only jobs in this state
    #[arg(long, value_parser = state())]
    state: Option<State>,
    /// Only jobs of this type
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
    /// Only jobs that ended, or were enqueued if they have not, since: 30m ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixMs>,
    /// At most this many [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// An object a job, each in a line of its own
    #[arg(long)]
    json: bool,
}

/// Show all that is known of a job: its attempts, its failures, its result.
///
/// Its body only on request.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The job's id
    id: String,
    /// Print the body and nothing else, byte for byte; on a terminal without control characters. With --json: beside the rest
    #[arg(long)]
    body: bool,
    /// One object
    #[arg(long)]
    json: bool,
}

/// Reads a state by its name.
fn state() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.map(State::as_str)).map(|name| {
        let named = State::ALL.into_iter().find(|state| state.as_str() == name);
        named.expect("the parser knows no other names")
    })
}

/// Reads a moment for `--since`.
pub(super) fn since(text: &str) -> Result<UnixMs, String> {
    quantity::parse_moment(text, SystemClock.now()).map_err(|fault| format!("it {fault}"))
}

/// Writes a list of jobs; a line of JSON each, or a table.
pub(super) fn write_list(out: &mut dyn Write, jobs: &[Listed], as_json: bool) -> io::Result<()> {
    if as_json {
        return jobs.iter().try_for_each(|job| write_json(out, job));
    }
    if jobs.is_empty() {
        terminal::note(format_args!("no jobs"));
        return Ok(());
    }
    let now = SystemClock.now();
    let row = |job: &Listed| {
        let when = job.ended_at.or(job.run_at.filter(|at| *at > now)).unwrap_or(job.enqueued_at);
        vec![
            plain(&job.id),
            plain_cut(job.job_type.as_deref().unwrap_or("(malformed)"), 40),
            job.state.as_str().to_owned(),
            job.attempt.to_string(),
            relative(when, now),
            job.duration_us.map_or_else(|| "-".to_owned(), |us| took(Duration::from_micros(us))),
            job.failure.as_ref().map_or_else(String::new, |f| plain_cut(&format!("{}: {}", f.kind, f.message), 60)),
        ]
    };
    let header = ["ID", "TYPE", "STATE", "ATTEMPT", "WHEN", "RAN", "WHY"];
    write_table(out, &header, jobs.iter().map(row).collect())
}

// === impl Jobs ===

impl Jobs {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        if self.command.is_some() && self.list != List::default() {
            return Err(Fault::usage("options of the list stand behind `list`, and others behind their command"));
        }
        match self.command {
            Some(JobsCommand::List(list)) => list.run(config, out),
            Some(JobsCommand::Show(show)) => show.run(config, out),
            Some(JobsCommand::Cancel(cancel)) => cancel.run(config),
            Some(JobsCommand::Wait(wait)) => wait.run(config, out),
            None => self.list.run(config, out),
        }
    }
}

// === impl List ===

impl List {
    fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let limit = self.limit.unwrap_or(super::LIST_LIMIT);
        let filter = Filter {
            job_type: self.job_type,
            state: self.state,
            since: self.since,
            // One more, to know whether there are more.
            limit: Some(limit.saturating_add(1)),
            ..Filter::default()
        };
        let mut jobs = super::on_present_queue(config, async |queue| Ok(queue.list(filter).await?))?;
        let more = jobs.len() > limit as usize;
        jobs.truncate(limit as usize);
        write_list(out, &jobs, self.json)?;
        if more {
            out.flush()?;
            terminal::note(format_args!("there are more: `--limit` is {limit}"));
        }
        Ok(())
    }
}

// === impl Show ===

impl Show {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let found = super::on_present_queue(config, async |queue| Ok(queue.show(&self.id).await?))?;
        let Some(job) = found else {
            return Err(Fault::failed(format!("there is no job `{}`", self.id))
                .with_hint("completed jobs are forgotten after a while (`queue.keep_completed`), on Kafka at once"));
        };
        match (self.json, self.body) {
            (true, with_body) => Ok(write_json(out, &job.to_json(with_body))?),
            (false, true) => Ok(write_body(out, &job.body)?),
            (false, false) => Ok(write_shown(out, &job)?),
        }
    }
}

fn write_body(out: &mut dyn Write, body: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        writeln!(out, "{}", plain_lines(&String::from_utf8_lossy(body)))
    } else {
        out.write_all(body)
    }
}

fn write_shown(out: &mut dyn Write, job: &Shown) -> io::Result<()> {
    let now = SystemClock.now();
    let listed = &job.listed;
    let mut pairs = vec![
        ("id", plain(&listed.id)),
        ("type", plain(listed.job_type.as_deref().unwrap_or("(malformed)"))),
        ("state", listed.state.as_str().to_owned()),
        ("source", plain(&job.source.to_string())),
        ("enqueued", moment(listed.enqueued_at, now)),
    ];
    let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
    add("due", listed.run_at.filter(|at| *at > now).map(|at| moment(at, now)));
    add("started", listed.started_at.map(|at| moment(at, now)));
    add("ended", listed.ended_at.map(|at| moment(at, now)));
    add("attempt", Some(listed.attempt.to_string()));
    let counts = [
        (listed.failures, "failed"),
        (listed.retries_requested, "asked for a retry"),
        (job.interruptions, "interrupted"),
        (listed.requeues, "requeued"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    add("of these", Some(counts.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty()));
    add("ran", listed.duration_us.map(|us| took(Duration::from_micros(us))));
    add("generation", listed.generation.as_ref().map(|generation| plain(generation.as_str())));
    add("why", listed.failure.as_ref().map(|f| format!("{}: {}", plain(&f.kind.to_string()), plain_lines(&f.message))));
    add("result", job.result.as_ref().map(|result| plain_lines(result.get())));
    add("body", Some(format!("{} (`--body` prints it)", terminal::size(job.body.len() as u64))));
    add("changed body", job.changed_body.as_ref().map(|body| terminal::size(body.len() as u64)));
    for (name, value) in &job.metadata {
        add("metadata", Some(format!("{}={}", plain(name), plain(value))));
    }
    write_pairs(out, &pairs)?;
    if !job.failed_attempts.is_empty() {
        write_failed_attempts(out, job, now)?;
    }
    job.logs.iter().try_for_each(|logs| write_lines(out, logs))
}

fn write_failed_attempts(out: &mut dyn Write, job: &Shown, now: UnixMs) -> io::Result<()> {
    writeln!(out, "\nfailed attempts")?;
    let row = |attempt: &crate::queue::AttemptRecord| {
        let why = attempt.failure.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.kind, f.message));
        vec![
            attempt.number.to_string(),
            relative(attempt.started_at, now),
            took(Duration::from_micros(attempt.duration_us)),
            terminal::size(attempt.memory_peak_bytes),
            plain(attempt.generation.as_str()),
            plain_lines(&why),
        ]
    };
    let header = ["ATTEMPT", "STARTED", "RAN", "MEMORY", "GENERATION", "WHY"];
    write_table(out, &header, job.failed_attempts.iter().map(row).collect())?;
    if job.failed_attempts_omitted > 0 {
        writeln!(out, "{} more failed attempts are not kept", job.failed_attempts_omitted)?;
    }
    Ok(())
}

/// What the guest said in an attempt.
fn write_lines(out: &mut dyn Write, AttemptLines { attempt, lines, cut }: &AttemptLines) -> io::Result<()> {
    writeln!(out, "\nwhat attempt {attempt} said{}", if *cut { ", at last" } else { "" })?;
    for line in lines {
        let at = took(Duration::from_millis(line.at_ms));
        writeln!(out, "{at:>8}  {:<5}  {}", line.level.as_str(), plain(&line.line))?;
    }
    Ok(())
}
