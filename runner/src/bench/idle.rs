//! An idle runner: how soon it starts what another process enqueues, and what it costs when nobody does.
//!
//! The handler writes a line when it starts, and the time is taken when that line arrives here through the runner's log: an
//! upper bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::drain::open_queue;
use super::runner::{Hear, Runner};
use super::{Figure, Session, Target, millis, quantile, subject};
use crate::queue::Queue;

pub(super) const NAMES: [&str; 4] = ["idle/start-p50", "idle/start-p99", "idle/cpu", "idle/memory"];

/// The budgets, which the ratio must keep to.
const START_P50_MS: f64 = 1.5;
const START_P99_MS: f64 = 8.0;
const CPU_PERCENT: f64 = 1.0;
const MEMORY_MB: f64 = 100.0;
const WITHIN: Target = Target::AtMost(1.0);

/// 200 jobs a second.
const PAUSE: Duration = Duration::from_millis(5);

/// How long nothing happens.
const REST: Duration = Duration::from_secs(5);

/// How often is looked whether all jobs were started.
const LOOK: Duration = Duration::from_millis(20);

/// How long they may take after the last one.
const PATIENCE: Duration = Duration::from_secs(60);

/// When each job's line came, by its id.
pub(super) type Heard = Arc<Mutex<HashMap<String, Instant>>>;

/// What is read of a line of the log.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "job.id")]
    job_id: Option<String>,
    message: Option<String>,
}

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    if !session.wants_any(NAMES) {
        return Ok(());
    }
    let [p50, p99, cpu, memory] = NAMES;
    let subject = subject::says_so();
    let folder = session.folder.inside()?;
    folder.write(&subject.file_name(), &subject.file)?;
    let heard = Heard::default();
    let mut runner = Runner::start_heard(folder.path(), &[], hear(&heard))?;
    runner.ready().await?;
    if session.wants_any([p50, p99, memory]) {
        session.say(p50);
        let queue = open_queue(session, folder.path()).await?;
        let times = delays(session, &*queue, &heard).await?;
        queue.close().await;
        session.report(Figure::new(p50, quantile(&times, 0.5), "ms", START_P50_MS, WITHIN));
        session.report(Figure::new(p99, quantile(&times, 0.99), "ms", START_P99_MS, WITHIN));
    }
    if session.wants(cpu) {
        session.say(cpu);
        let (begun, used) = (Instant::now(), runner.cpu_seconds()?);
        tokio::time::sleep(REST).await;
        let percent = (runner.cpu_seconds()? - used) / begun.elapsed().as_secs_f64() * 100.0;
        session.report(Figure::new(cpu, percent, "%", CPU_PERCENT, WITHIN));
    }
    session.report(Figure::new(memory, runner.resident_megabytes()?, "MB", MEMORY_MB, WITHIN));
    runner.stop().await
}

/// Notes when each job's line came.
pub(super) fn hear(heard: &Heard) -> Hear {
    let heard = Arc::clone(heard);
    Box::new(move |now, line| {
        let Ok(Line { job_id: Some(id), message: Some(message) }) = serde_json::from_str(line) else { return };
        if message == "started" {
            heard.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(now);
        }
    })
}

/// Enqueues 200 jobs a second for a while, for a runner that is ready. Answers the milliseconds from the answer that each is
/// durable to its line. A job may be started before the answer is here.
pub(super) async fn delays(session: &Session<'_>, queue: &dyn Queue, heard: &Heard) -> Result<Vec<f64>> {
    let subject = subject::says_so();
    let jobs = session.bench.sized(2_000, 600);
    let mut enqueued = Vec::new();
    let begun = tokio::time::Instant::now();
    for number in 0..jobs {
        tokio::time::sleep_until(begun + PAUSE * number).await;
        let answers = queue.enqueue(subject.new_jobs(number.into(), 1, false)).await?;
        let now = Instant::now();
        enqueued.extend(answers.into_iter().map(|answer| (answer.id, now)));
    }
    let last = Instant::now();
    loop {
        let times = heard_after(&enqueued, heard);
        if times.len() == enqueued.len() {
            return Ok(times);
        }
        ensure!(last.elapsed() < PATIENCE, "only {} of {jobs} jobs were started within {PATIENCE:?}", times.len());
        tokio::time::sleep(LOOK).await;
    }
}

/// Milliseconds to the line of each job whose line is here.
fn heard_after(enqueued: &[(String, Instant)], heard: &Heard) -> Vec<f64> {
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let delay = |(id, enqueued): &(String, Instant)| Some(millis(heard.get(id)?.saturating_duration_since(*enqueued)));
    enqueued.iter().filter_map(delay).collect()
}
