//! What it costs to be watched: what a scraper waits for, and what an attempt does for who observes it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;

use super::drain::{open_progress, open_queue};
use super::runner::Runner;
use super::{Figure, Session, Target, attempt, median, subject};
use crate::config::{Config, Environment, Flags};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::observe::{End, Fate, Observer};
use crate::outcome::Outcome;
use crate::queue::{NewJob, Settled};
use crate::registry::Registry;

pub(super) const NAMES: [&str; 2] = ["metrics/scrape-1000-types", "observers/attempt"];

/// The budgets, which the ratios must keep to.
const SCRAPE_MS: f64 = 20.0;
const ATTEMPT_US: f64 = 1.0;
const WITHIN: Target = Target::AtMost(1.0);

const TYPES: usize = 1_000;
const ATTEMPTS: u32 = 500_000;

/// How long the jobs may take: beyond it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks whether the jobs are done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Between two scrapes: more than the queue's counts are shared for, so that each scrape waits for new ones.
const SCRAPE_AGAIN: Duration = Duration::from_millis(1_100);

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [scrape, attempt] = NAMES;
    if session.wants(scrape) {
        session.say(scrape);
        let millis = scrape_millis(session).await?;
        session.report(Figure::new(scrape, millis, "ms", SCRAPE_MS, WITHIN));
    }
    if session.wants(attempt) {
        session.say(attempt);
        let micros = attempt_micros(session)?;
        session.report(Figure::new(attempt, micros, "µs", ATTEMPT_US, WITHIN));
    }
    Ok(())
}

/// Microseconds of one attempt for all who observe it, while the other cores observe attempts at the same type.
fn attempt_micros(session: &Session<'_>) -> Result<f64> {
    let nothing = Environment { variables: std::collections::BTreeMap::new(), cores: session.bench.cores };
    let config = Config::resolve(&Flags::default(), &nothing, None)?;
    let subject = subject::says_so();
    let handler = Arc::new(attempt::handler(session, &config, &subject, true, "")?);
    let (registry, _) = Registry::of([Arc::clone(&handler)]);
    let registry = Arc::new(ArcSwap::from_pointee(registry));
    let observers: [Arc<dyn Observer>; 2] =
        [Events::new(), Arc::new(Metrics::new(registry, session.bench.cores as usize))];
    let (job, outcome) = (subject.job(), Outcome::Complete { result: None });
    let end = End { outcome: &outcome, duration: Duration::from_micros(5), memory_peak_bytes: 1 << 20, denied: 0 };
    let observe = || {
        let begun = Instant::now();
        for _ in 0..ATTEMPTS {
            for observer in &observers {
                observer.started(&handler, &job);
                observer.ended(&handler, &job, &end);
                observer.settled(&job, &Fate::Completed, Settled::Settled);
            }
        }
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(ATTEMPTS)
    };
    let micros = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..session.bench.cores).map(|_| scope.spawn(observe)).collect();
        threads.into_iter().map(|thread| thread.join().expect("observers do not panic")).collect::<Vec<_>>()
    });
    Ok(median(&micros))
}

async fn scrape_millis(session: &Session<'_>) -> Result<f64> {
    let folder = session.folder.inside()?;
    let types: Vec<String> = (0..TYPES).map(|number| format!("type-{number}")).collect();
    folder.write("handlers/many.wasm", &subject::no_op(0))?;
    folder.write("handlers/many.toml", format!("job_types = {types:?}").as_bytes())?;
    let queue = open_queue(session, folder.path()).await?;
    let job = |job_type: &String| NewJob::Job {
        job_type: job_type.clone(),
        body: "{}".to_owned(),
        id: None,
        run_at: None,
        metadata: Vec::new(),
        keep: None,
    };
    queue.enqueue(types.iter().map(job).collect()).await?;
    queue.close().await;
    let mut runner = Runner::start(folder.path(), &[])?;
    runner.ready().await?;
    let progress = open_progress(folder.path())?;
    let begun = Instant::now();
    while progress.completed()? < TYPES as u64 {
        ensure!(begun.elapsed() < PATIENCE, "the jobs are not completed after {PATIENCE:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let socket = socket(folder.path())?;
    let mut times = Vec::new();
    for _ in 0..session.bench.runs(10, 5) {
        tokio::time::sleep(SCRAPE_AGAIN).await;
        let begun = Instant::now();
        let text = scrape(&socket)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        let counted = text.matches("outcome=\"completed\"").count();
        ensure!(counted == TYPES, "the runner tells of {counted} types");
    }
    runner.stop().await?;
    Ok(median(&times))
}

/// The socket of a folder's only runner.
fn socket(folder: &Path) -> Result<PathBuf> {
    let sockets = folder.join("sandhog.db.state/admin");
    let mut entries = std::fs::read_dir(&sockets).with_context(|| format!("cannot read `{}`", sockets.display()))?;
    Ok(entries.next().context("the runner has no socket for commands")??.path())
}

fn scrape(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("the runner cannot be reached")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the runner does not answer")?;
    Ok(answer)
}
