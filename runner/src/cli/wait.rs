//! Waiting for a job to end: `sandhog jobs wait`, `sandhog enqueue --wait`.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;

use super::fault::Fault;
use super::terminal::{plain_lines, write_json};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, quantity};
use crate::queue::{Queue, Shown, State};

/// How long a job is kept that somebody waits for, from each look on: completed, it must not be gone before the next.
pub(super) const KEEP: Duration = Duration::from_secs(60);

/// Looks become rarer, from the first of these to the second: a short job is answered at once, and a long one costs nothing.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Wait until a job has ended, and print its result.
///
/// The exit code is 1 if it became a dead letter.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The job's id
    id: String,
    /// Wait for at most this long, like 30s; it is a failure then
    #[arg(long, value_name = "D", value_parser = quantity::parse_duration)]
    timeout: Option<Duration>,
    /// Print all that is known of it, as one object
    #[arg(long)]
    json: bool,
}

// === impl Wait ===

impl Wait {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let ended = super::on_present_queue(config, async |queue| until_ended(queue, &self.id, self.timeout).await)?;
        write_ended(out, &ended, self.json)
    }
}

/// Waits until the job has ended, for at most `timeout`, and answers what is known of it then.
pub(super) async fn until_ended(queue: &dyn Queue, id: &str, timeout: Option<Duration>) -> Result<Shown, Fault> {
    let started = Instant::now();
    let mut kept: Option<Instant> = None;
    let mut pause = LOOKS.0;
    loop {
        match queue.show(id).await? {
            Some(job) if matches!(job.listed.state, State::Completed | State::Dead) => return Ok(job),
            Some(_) => {}
            None => return Err(absent(queue, id).await?),
        }
        if let Some(timeout) = timeout.filter(|timeout| started.elapsed() >= *timeout) {
            let timeout = quantity::format_duration(timeout);
            return Err(Fault::failed(format!("job `{id}` has not ended within {timeout}"))
                .with_hint("it goes on: `sandhog jobs wait ID` waits for it again, `sandhog jobs cancel ID` ends it"));
        }
        if kept.is_none_or(|kept| kept.elapsed() >= KEEP / 2) {
            queue.keep(id, SystemClock.now().plus(KEEP)).await?;
            kept = Some(Instant::now());
            // It may have ended before that.
            continue;
        }
        let left = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(started.elapsed()));
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

/// Why nothing is known of a job.
async fn absent(queue: &dyn Queue, id: &str) -> Result<Fault, Fault> {
    Ok(match queue.departed(id).await? {
        Some(_) => Fault::failed(format!("job `{id}` has ended, and is no longer kept")).with_hint(
            "completed jobs are forgotten after a while (`queue.keep_completed`); who waits while they run sees them",
        ),
        None => Fault::failed(format!("there is no job `{id}`")),
    })
}

/// Writes what came of a job: its result, or with `json` all that is known.
pub(super) fn write_ended(out: &mut dyn Write, job: &Shown, json: bool) -> Result<(), Fault> {
    let listed = &job.listed;
    if json {
        write_json(out, &job.to_json(false))?;
    }
    match (&listed.failure, listed.state) {
        (_, State::Dead) if json => Err(Fault::Said),
        (failure, State::Dead) => {
            let why = failure.as_ref().map_or_else(String::new, |f| format!(": {}: {}", f.kind, f.message));
            Err(Fault::failed(format!("job `{}` is a dead letter{why}", listed.id))
                .with_hint("`sandhog dead show ID` says more of it"))
        }
        (_, _) if json => Ok(()),
        (_, _) => match &job.result {
            Some(result) => Ok(writeln!(out, "{}", plain_lines(result.get()))?),
            None => Ok(()),
        },
    }
}
