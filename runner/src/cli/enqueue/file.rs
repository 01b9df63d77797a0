//! `sandhog enqueue --file`

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::Enqueue;
use crate::cli::fault::Fault;
use crate::cli::lines::{self, Line};
use crate::cli::on_queue;
use crate::cli::terminal::{note, plain, write_json};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, quantity};
use crate::job::{self, Malformed};
use crate::queue::{Answer, Enqueued, NewJob, Queue, QueueError};

/// Jobs that are added at one time.
const BATCH_JOBS: usize = 4_000;

/// Bytes of bodies that are added at one time.
const BATCH_BYTES: usize = 16 << 20;

/// The longest line that is kept as a dead letter. What is longer cannot be buried, only skipped.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Bad lines that are named one by one.
const FAULTS_SHOWN: u64 = 20;

/// A batch: what is to be added, and the number of its line.
#[derive(Default)]
struct Batch {
    jobs: Vec<NewJob>,
    lines: Vec<u64>,
    bytes: usize,
}

/// A batch that is being added.
struct Adding {
    /// The number of each line, and whether it is bad.
    lines: Vec<(u64, bool)>,
    answers: Answer<'static, Result<Vec<Enqueued>, QueueError>>,
}

/// What became of a file.
#[derive(Default)]
struct Tally {
    added: u64,
    duplicates: u64,
    buried: u64,
    skipped: u64,
    /// Whoever read the ids has gone away: `… | head`. The jobs are added all the same.
    unread: bool,
}

/// Adds the jobs of a file.
pub(super) fn enqueue(options: &Enqueue, path: &Path, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
    let mut file = lines::open(path)?;
    check(options, path, &mut file, config)?;
    let tally = on_queue(config, async |queue| add(options, path, &mut file, config, queue, out).await)?;
    let mut summary = format!("added {} {}", tally.added, plural(tally.added, "job"));
    for (count, what) in [
        (tally.duplicates, "not added again (a job of the same id is there)"),
        (tally.buried, "kept as malformed dead letters"),
        (tally.skipped, "left out as bad"),
    ] {
        if count > 0 {
            summary = format!("{summary}, {count} {what}");
        }
    }
    note(format_args!("{summary}"));
    Ok(())
}

/// The first pass: nothing is remembered of a line but that it was bad.
fn check(options: &Enqueue, path: &Path, file: &mut File, config: &Config) -> Result<(), Fault> {
    let unreadable = || format!("cannot read `{}`", path.display());
    let bar = progress(file, "checking");
    let mut lines = lines::lines(file, line_bytes_max(config)).with_context(unreadable)?;
    let (mut bad, mut cut) = (0, 0);
    while let Some(line) = lines.next().with_context(unreadable)? {
        if let Err(malformed) = parse(&line, config) {
            bad += 1;
            cut += u64::from(line.cut);
            if bad <= FAULTS_SHOWN {
                bar.suspend(|| note(format_args!("line {}: {}", line.number, plain(&malformed.to_string()))));
            }
        }
        bar.set_position(lines.bytes_read());
    }
    bar.finish_and_clear();
    if bad > FAULTS_SHOWN {
        note(format_args!("and {} more", bad - FAULTS_SHOWN));
    }
    let message = format!("{bad} bad {} in `{}`: nothing was added", plural(bad, "line"), path.display());
    match bad {
        0 => Ok(()),
        _ if options.skip_bad => Ok(()),
        _ if options.bury_bad && cut > 0 => {
            let longest = quantity::format_size(line_bytes_max(config) as u64);
            let message =
                format!("{cut} {} longer than {longest} cannot be kept: nothing was added", plural(cut, "line"));
            Err(Fault::failed(message).with_hint("`--skip-bad` leaves bad lines out"))
        }
        _ if options.bury_bad => Ok(()),
        _ => Err(Fault::failed(message)
            .with_hint("`--skip-bad` leaves bad lines out, `--bury-bad` keeps them as dead letters")),
    }
}

/// The second pass.
async fn add(
    options: &Enqueue,
    path: &Path,
    file: &mut File,
    config: &Config,
    queue: &dyn Queue,
    out: &mut dyn Write,
) -> Result<Tally, Fault> {
    let unreadable = || format!("cannot read `{}`", path.display());
    let bar = progress(file, "adding");
    let mut lines = lines::lines(file, line_bytes_max(config)).with_context(unreadable)?;
    let (mut tally, mut batch, mut adding) = (Tally::default(), Batch::default(), None);
    while let Some(line) = lines.next().with_context(unreadable)? {
        let now = SystemClock.now();
        let job = match parse(&line, config) {
            Ok((text, head)) => options.job(head.job_type, text.to_owned(), head.job_id, now),
            Err(_) if options.skip_bad => {
                tally.skipped += 1;
                continue;
            }
            Err(malformed) if options.bury_bad && !line.cut => {
                NewJob::Malformed { bytes: line.bytes.to_vec(), reason: malformed.to_string() }
            }
            // It was not when it was checked.
            Err(malformed) => {
                finish(options, adding, &mut tally, out).await?;
                let message = format!("line {} of `{}` changed: {malformed}", line.number, path.display());
                let added = format!("{} {} were added before that", tally.added, plural(tally.added, "job"));
                return Err(Fault::failed(message).with_hint(added));
            }
        };
        batch.bytes += line.bytes.len();
        batch.lines.push(line.number);
        batch.jobs.push(job);
        if batch.jobs.len() >= BATCH_JOBS || batch.bytes >= BATCH_BYTES {
            // While the queue adds this one, the next is read.
            finish(options, adding, &mut tally, out).await?;
            adding = Some(std::mem::take(&mut batch).add(queue));
            bar.set_position(lines.bytes_read());
        }
    }
    finish(options, adding, &mut tally, out).await?;
    let rest = (!batch.jobs.is_empty()).then(|| batch.add(queue));
    finish(options, rest, &mut tally, out).await?;
    bar.finish_and_clear();
    Ok(tally)
}

/// Waits until a batch is added, and says the ids.
async fn finish(
    options: &Enqueue,
    adding: Option<Adding>,
    tally: &mut Tally,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let Some(Adding { lines, answers }) = adding else { return Ok(()) };
    let answers = answers.await.map_err(|error| {
        let message = format!("cannot add the jobs from line {} on", lines.first().map_or(0, |(line, _)| *line));
        Fault::from(anyhow::Error::new(error).context(message))
    })?;
    for (enqueued, (line, bad)) in answers.iter().zip(lines) {
        *match (enqueued.duplicate, bad) {
            (_, true) => &mut tally.buried,
            (true, false) => &mut tally.duplicates,
            (false, false) => &mut tally.added,
        } += 1;
        if !tally.unread {
            tally.unread = is_unread(say(options, line, enqueued, bad, out))?;
        }
    }
    // What is durable is said at once.
    if !tally.unread {
        tally.unread = is_unread(out.flush())?;
    }
    Ok(())
}

fn parse<'a>(line: &Line<'a>, config: &Config) -> Result<(&'a str, job::Head), Malformed> {
    job::parse(line.bytes, config.body_bytes_max)
}

/// One byte over the limit on bodies must be seen.
fn line_bytes_max(config: &Config) -> usize {
    LINE_BYTES_MAX.max(config.body_bytes_max + 1)
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(file: &File, what: &'static str) -> ProgressBar {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {bytes} of {total_bytes}, {eta} left")
        .expect("the template is sound");
    ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr()).with_style(style).with_message(what)
}

// === impl Batch ===

impl Batch {
    fn add(self, queue: &dyn Queue) -> Adding {
        let bad = self.jobs.iter().map(|job| matches!(job, NewJob::Malformed { .. }));
        let lines = self.lines.into_iter().zip(bad).collect();
        Adding { lines, answers: queue.enqueue(self.jobs) }
    }
}

fn say(options: &Enqueue, line: u64, enqueued: &Enqueued, buried: bool, out: &mut dyn Write) -> io::Result<()> {
    let Enqueued { id, duplicate } = enqueued;
    match (options.json, options.quiet) {
        (true, _) => write_json(out, &json!({ "line": line, "id": id, "duplicate": duplicate, "malformed": buried })),
        (false, true) => Ok(()),
        (false, false) => writeln!(out, "{}", plain(id)),
    }
}

fn is_unread(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(e) => Err(e),
    }
}
