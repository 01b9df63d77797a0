//! Enqueueing, in bulk and one by one, beside bare inserts.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::drain::open_queue;
use super::{Figure, Session, Subject, Target, median, micros, quantile, runner};
use crate::queue::sqlite::bare::BareQueue;

pub(super) const NAMES: [&str; 2] = ["enqueue/bulk", "enqueue/one-by-one"];

/// What was promised.
const BULK: Target = Target::AtLeast(0.5);

/// Jobs that are enqueued one by one, for one run.
const ONE_BY_ONE: u64 = 100;

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [bulk, one_by_one] = NAMES;
    if session.wants(bulk) {
        session.say(bulk);
        measure_bulk(session, bulk).await?;
    }
    if session.wants(one_by_one) {
        session.say(one_by_one);
        measure_one_by_one(session, one_by_one).await?;
    }
    Ok(())
}

/// A file of jobs, added by a process, as users do it.
async fn measure_bulk(session: &mut Session<'_>, name: &str) -> Result<()> {
    let subject = session.bench.built_in().clone();
    let (runs, jobs) = (session.bench.runs(3, 1), session.bench.sized(200_000, 50_000));
    let lines = lines(&subject, jobs);
    let (mut rates, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        rates.push(bulk(session, &lines, jobs).await?);
        let (subject, folder) = (subject.clone(), session.folder.inside()?);
        let timed = tokio::task::spawn_blocking(move || -> Result<f64> {
            let took = BareQueue::new(&folder.path().join("bare.db"))?.fill(&subject.name, &subject.body, jobs)?;
            Ok(jobs as f64 / took.as_secs_f64())
        });
        limits.push(timed.await.context("bare inserts broke down")??);
    }
    session.report(Figure::new(name, median(&rates), "jobs/s", median(&limits), BULK));
    Ok(())
}

/// The rate of `sandhog enqueue --file`.
pub(super) async fn bulk(session: &Session<'_>, lines: &[u8], jobs: u64) -> Result<f64> {
    let folder = session.folder.inside()?;
    folder.write("jobs.ndjson", lines)?;
    let timed = tokio::task::spawn_blocking(move || -> Result<f64> {
        let begun = Instant::now();
        let mut command = runner::command(folder.path(), &["enqueue", "--file", "jobs.ndjson"])?;
        let output = command.stderr(Stdio::piped()).output().context("cannot start `sandhog enqueue`")?;
        let rate = jobs as f64 / begun.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "`sandhog enqueue` ended with {}:\n{said}", output.status);
        Ok(rate)
    });
    timed.await.context("enqueueing broke down")?
}

/// Each durable before the next.
async fn measure_one_by_one(session: &mut Session<'_>, name: &str) -> Result<()> {
    let subject = session.bench.built_in().clone();
    let folder = session.folder.inside()?;
    let queue = open_queue(session, folder.path()).await?;
    let mut bare = BareQueue::new(&folder.path().join("bare.db"))?;
    let (mut times, mut limits) = (Vec::new(), Vec::new());
    for run in 0..u64::from(session.bench.runs(3, 2)) {
        for number in 0..ONE_BY_ONE {
            let jobs = subject.new_jobs(run * ONE_BY_ONE + number, 1, false);
            let begun = Instant::now();
            queue.enqueue(jobs).await?;
            times.push(micros(begun.elapsed()));
        }
        for _ in 0..ONE_BY_ONE {
            limits.push(micros(bare.fill(&subject.name, &subject.body, 1)?));
        }
    }
    queue.close().await;
    // What it costs is the disk's affair: nothing is promised.
    session.report(Figure::new(name, quantile(&times, 0.5), "µs", quantile(&limits, 0.5), Target::None));
    Ok(())
}

/// A file of so many jobs.
pub(super) fn lines(subject: &Subject, jobs: u64) -> Vec<u8> {
    let mut lines = Vec::new();
    for _ in 0..jobs {
        writeln!(lines, "{}", subject.body).expect("memory can be written to");
    }
    lines
}
