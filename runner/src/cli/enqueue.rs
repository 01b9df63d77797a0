//! `sandhog enqueue`

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::fault::Fault;
use super::terminal::{note, plain, write_json};
use super::wait;
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::{Config, Place, quantity};
use crate::job::{self, Malformed};
use crate::queue::NewJob;

mod file;

/// Add a job, or a file of jobs.
///
/// The JSON is an object. It is stored byte for byte, and that is what the handler sees. A `job_type` in it must be the
/// TYPE; a string `job_id` in it is the job's id, unless --id says another. The job's id is printed.
///
/// A job has one id for good: if a job of that id is there, or ended within the last 24 hours, nothing is added, and that
/// is said.
#[derive(Debug, Args)]
#[command(after_help = FILE_HELP)]
pub(super) struct Enqueue {
    /// The job's type, which selects its handler
    #[arg(value_name = "TYPE", required_unless_present = "file")]
    job_type: Option<String>,
    /// The job's body, an object; `-` reads it from stdin
    #[arg(value_name = "JSON", default_value = "{}", hide_default_value = false)]
    body: String,
    /// File of jobs, one a line, each with its `job_type`; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["job_type", "body", "id"])]
    file: Option<PathBuf>,
    /// Leave bad lines out, and say which
    #[arg(long, requires = "file", conflicts_with = "job_type")]
    skip_bad: bool,
    /// Keep bad lines as dead letters (`malformed`)
    #[arg(long, requires = "file", conflicts_with_all = ["job_type", "skip_bad"])]
    bury_bad: bool,
    /// Run it this long from now, like 30s or 1h
    #[arg(long, value_name = "D", value_parser = quantity::parse_duration)]
    after: Option<Duration>,
    /// The job's id, under which it is one job however often it is enqueued
    #[arg(long, value_name = "ID", value_parser = name)]
    id: Option<String>,
    /// What the handler sees as `header.NAME` in the job's metadata; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Wait until it has ended, and print its result instead of its id; the exit code is 1 if it became a dead letter
    #[arg(long, conflicts_with_all = ["file", "quiet"])]
    wait: bool,
    /// With --wait: for at most this long, like 30s; it is a failure then
    #[arg(long, value_name = "D", requires = "wait", value_parser = quantity::parse_duration)]
    timeout: Option<Duration>,
    /// Print no ids
    #[arg(long, short)]
    quiet: bool,
    /// Print an object for each job
    #[arg(long)]
    json: bool,
}

const FILE_HELP: &str = "\
A file is read twice: first all of it is checked, then its jobs are added in thousands. If a line is bad, none is added, \
unless --skip-bad or --bury-bad says otherwise. Blank lines are skipped. If the command is killed between two thousands, \
running it again adds the first ones twice, but for jobs with a `job_id`.";

// === impl Enqueue ===

impl Enqueue {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        match &self.file {
            Some(path) => file::enqueue(&self, path, config, out),
            None => self.enqueue_one(config, out),
        }
    }

    fn enqueue_one(&self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let job_type = self.job_type.as_deref().expect("the command line has a type where it has no file");
        if let Some(fault) = job::name_fault(job_type) {
            return Err(Fault::usage(format!("the job type {fault}")));
        }
        if self.wait && matches!(config.queue.place, Place::Kafka(_)) {
            return Err(Fault::failed("a queue in Kafka does not say how one job ended")
                .with_hint("enqueue it without `--wait`; `sandhog dead list` shows what failed"));
        }
        let body = read_body(&self.body, config.body_bytes_max)?;
        let (text, head) = job::parse_of_type(&body, config.body_bytes_max, job_type).map_err(|malformed| {
            Fault::failed(format!("the body is no job: {malformed}")).with_hint(match malformed {
                Malformed::TooLarge { .. } => "the limit is `limits.body` in the configuration",
                _ => "a body is a JSON object, like '{\"n\": 1}'",
            })
        })?;
        let id = self.id.clone().or(head.job_id);
        let job = self.job(head.job_type, text.to_owned(), id, SystemClock.now());
        let (enqueued, ended) = super::on_queue(config, async |queue| {
            let enqueued = queue.enqueue(vec![job]).await?.pop().expect("a queue answers for each job");
            if enqueued.duplicate {
                note(format_args!("note: there is a job `{}` already: nothing was added", plain(&enqueued.id)));
            }
            let ended = match self.wait {
                true => Some(wait::until_ended(queue, &enqueued.id, self.timeout).await?),
                false => None,
            };
            Ok((enqueued, ended))
        })?;
        if let Some(ended) = ended {
            wait::write_ended(out, &ended, self.json)?;
        } else if self.json {
            write_json(out, &enqueued)?;
        } else if !self.quiet {
            writeln!(out, "{}", plain(&enqueued.id))?;
        }
        Ok(())
    }

    fn job(&self, job_type: String, body: String, id: Option<String>, now: UnixMs) -> NewJob {
        let metadata = self.headers.iter().map(|(name, value)| (format!("header.{name}"), value.clone())).collect();
        NewJob::Job {
            job_type,
            body,
            id,
            run_at: self.after.map(|after| now.plus(after)),
            metadata,
            keep: self.wait.then_some(wait::KEEP),
        }
    }
}

/// The body that an argument stands for: itself, or stdin. One byte more than the limit is enough to see that it is over.
pub(super) fn read_body(argument: &str, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut body = Vec::new();
    std::io::stdin().lock().take(bytes_max as u64 + 1).read_to_end(&mut body).context("cannot read stdin")?;
    Ok(body)
}

fn name(text: &str) -> Result<String, String> {
    match job::name_fault(text) {
        Some(fault) => Err(format!("it {fault}")),
        None => Ok(text.to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (header, value) = text.split_once('=').ok_or("it is no NAME=VALUE")?;
    Ok((name(header).map_err(|fault| format!("the name: {fault}"))?, value.to_owned()))
}
