//! A large backlog, beside a small one: neither the rate nor the memory is to tell them apart.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::drain::{completed, fill, open_progress, open_queue};
use super::runner::Runner;
use super::{Figure, Session, Subject, Target, median};

pub(super) const NAMES: [&str; 2] = ["backlog/rate", "backlog/memory"];

/// What was promised: the same rate, but for a fifth, and so much more memory.
const RATE: Target = Target::AtLeast(0.8);
const MEMORY_MB: f64 = 50.0;
const MEMORY: Target = Target::AtMost(1.0);

/// Small backlogs, one after the other: a few that tell how much memory the runner takes, and then those whose rates count. Of
/// the former most is in flight before the first job ends: how fast they are says nothing of how fast a long one is.
const SMALL: [u64; 6] = [10_000, 10_000, 10_000, 100_000, 100_000, 100_000];
const MEMORY_ROUNDS: usize = 3;

/// How much of the large one is drained.
const DRAINED: u64 = 100_000;

/// How often is looked how far a drain is.
const LOOK: Duration = Duration::from_millis(20);

/// How long a drain may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(300);

/// A drain.
struct Drain {
    /// Jobs a second.
    rate: f64,
    /// The most memory that the runner had.
    peak_megabytes: f64,
}

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    if !session.wants_any(NAMES) {
        return Ok(());
    }
    let [rate, memory] = NAMES;
    session.say(rate);
    let subject = session.bench.built_in().clone();
    let small = small(session, &subject).await?;
    let large = large(session, &subject).await?;
    session.report(Figure::new(rate, large.rate, "jobs/s", small.rate, RATE));
    let grown = (large.peak_megabytes - small.peak_megabytes).max(0.0);
    session.report(Figure::new(memory, grown, "MB", MEMORY_MB, MEMORY));
    Ok(())
}

/// Several small backlogs, one after the other, each added at once.
async fn small(session: &Session<'_>, subject: &Subject) -> Result<Drain> {
    let folder = session.folder.inside()?;
    folder.write(&subject.file_name(), &subject.file)?;
    let queue = open_queue(session, folder.path()).await?;
    let mut runner = Runner::start(folder.path(), &[])?;
    runner.ready().await?;
    let (mut completed, mut peak_megabytes) = (0, 0.0);
    for (round, jobs) in SMALL.into_iter().enumerate() {
        queue.enqueue(subject.new_jobs(0, jobs, false)).await?;
        completed += jobs;
        until_completed(folder.path(), completed).await?;
        if round < MEMORY_ROUNDS {
            peak_megabytes = runner.peak_megabytes()?;
        }
    }
    queue.close().await;
    runner.stop().await?;
    let spans = open_progress(folder.path())?.spans()?;
    let rates: Vec<f64> = spans.iter().skip(MEMORY_ROUNDS).map(|span| span.rate()).collect();
    ensure!(!rates.is_empty(), "the small backlogs left no times");
    Ok(Drain { rate: median(&rates), peak_megabytes })
}

/// The beginning of a large backlog.
async fn large(session: &Session<'_>, subject: &Subject) -> Result<Drain> {
    let folder = session.folder.inside()?;
    folder.write(&subject.file_name(), &subject.file)?;
    fill(session, folder.path(), subject, session.bench.sized(1_000_000, 200_000), false).await?;
    let mut runner = Runner::start(folder.path(), &[])?;
    runner.ready().await?;
    until_completed(folder.path(), DRAINED).await?;
    let peak_megabytes = runner.peak_megabytes()?;
    runner.stop().await?;
    Ok(Drain { rate: completed(&open_progress(folder.path())?)?.rate(), peak_megabytes })
}

async fn until_completed(folder: &Path, jobs: u64) -> Result<()> {
    let (progress, begun) = (open_progress(folder)?, Instant::now());
    while progress.completed()? < jobs {
        ensure!(begun.elapsed() < PATIENCE, "{jobs} jobs are not completed after {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
