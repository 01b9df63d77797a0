//! The queue in Kafka: how fast a backlog is drained, how soon a job is started, and what a large backlog costs.
//!
//! Kafka keeps no times of jobs. So a drain is timed by what is committed, which is looked at from outside, and in the same
//! way for a runner and for the bare pipeline beside it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;

use super::drain::{self, open_queue_at};
use super::folder::Folder;
use super::idle::{Heard, delays, hear};
use super::runner::Runner;
use super::{Figure, Session, Subject, Target, attempt, median, millis, quantile, subject};
use crate::job::Job;
use crate::queue::kafka::bare::{BareTopic, Worker};
use crate::queue::kafka::progress::Progress;
use crate::sandbox::bare::Bare;

pub(super) const NAMES: [&str; 4] =
    ["kafka/start-p50", "kafka/start-p99", "kafka/backlog-start", "kafka/backlog-memory"];

/// What was promised: of the bare pipeline, and with transactions of what is done without.
const DRAIN: Target = Target::AtLeast(0.65);
const EXACTLY_ONCE: Target = Target::AtLeast(0.6);

/// The budgets, which the ratio must keep to.
const START_P50_MS: f64 = 5.0;
const START_P99_MS: f64 = 25.0;
const BACKLOG_START_MS: f64 = 2_000.0;
const WITHIN: Target = Target::AtMost(1.0);

/// Ten times the backlog is to take no more memory, but for a quarter.
const MEMORY: Target = Target::AtMost(1.25);

const PARTITIONS: u32 = 8;

/// How often is looked how far a drain is.
const LOOK: Duration = Duration::from_millis(5);

/// How long a drain may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(300);

/// The values of `queue.kafka.delivery`.
const DELIVERIES: [&str; 2] = ["at-least-once", "exactly-once-in-kafka"];

pub(super) fn drain_names(handler: &str) -> [String; 2] {
    [format!("kafka/drain/{handler}"), format!("kafka/drain/{handler}/exactly-once")]
}

pub(super) async fn measure(session: &mut Session<'_>, brokers: &str) -> Result<()> {
    for subject in &session.bench.subjects {
        measure_drains(session, brokers, subject).await?;
    }
    let [p50, p99, backlog_start, backlog_memory] = NAMES;
    if session.wants_any([p50, p99]) {
        session.say(p50);
        measure_starts(session, brokers).await?;
    }
    if session.wants_any([backlog_start, backlog_memory]) {
        session.say(backlog_start);
        measure_backlog(session, brokers).await?;
    }
    Ok(())
}

/// One topic for all, in turns, each for a group of its own.
async fn measure_drains(session: &mut Session<'_>, brokers: &str, subject: &Subject) -> Result<()> {
    let names = drain_names(&subject.name);
    if !session.wants_any(names.iter().map(String::as_str)) {
        return Ok(());
    }
    session.say(&names[0]);
    let bare = Arc::new(attempt::bare(session, subject, true)?);
    // The bare pipeline commits ten times a second: of too few jobs nothing is left when it is first looked at.
    let jobs = drain::jobs(session, subject, &bare).await? * session.bench.sized(1, 4);
    let runs = session.bench.runs(3, 1);
    let mut topic = filled(brokers, jobs, subject, None).await?;
    let (mut rates, mut limits) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..runs {
        for (at, delivery) in DELIVERIES.into_iter().enumerate() {
            if at == 0 || session.wants(&names[at]) {
                session.say(&names[at]);
                rates[at].push(drained(session, &mut topic, subject, delivery, jobs).await?);
            }
        }
        if session.wants(&names[0]) {
            session.say("the bare pipeline");
            limits.push(bare_rate(session, &mut topic, subject, &bare, jobs).await?);
        }
    }
    let [at_least_once, exactly_once] = rates.map(|rates| median(&rates));
    session.report(Figure::new(&names[0], at_least_once, "jobs/s", median(&limits), DRAIN));
    session.report(Figure::new(&names[1], exactly_once, "jobs/s", at_least_once, EXACTLY_ONCE));
    gone(topic).await
}

/// Jobs a second of a runner that finds them all there.
async fn drained(
    session: &Session<'_>,
    topic: &mut Arc<BareTopic>,
    subject: &Subject,
    delivery: &str,
    jobs: u64,
) -> Result<f64> {
    let group = group(topic);
    let folder = folder(session, topic, &group, delivery, &[subject])?;
    let runner = Runner::start(folder.path(), &[])?;
    let rate = committed_rate(topic, &group, jobs).await?;
    runner.stop().await?;
    Ok(rate)
}

/// Jobs a second of the bare pipeline.
async fn bare_rate(
    session: &Session<'_>,
    topic: &mut Arc<BareTopic>,
    subject: &Subject,
    bare: &Arc<Bare>,
    jobs: u64,
) -> Result<f64> {
    let group = group(topic);
    let drained = {
        let (topic, group, bare, cores) = (Arc::clone(topic), group.clone(), Arc::clone(bare), session.bench.cores);
        let job = Job { metadata: metadata(&topic), ..subject.job() };
        tokio::task::spawn_blocking(move || {
            topic.drain(&group, jobs, cores, &|| worker(job.clone(), Arc::clone(&bare)))
        })
    };
    let drained = async { Ok(drained.await.context("the bare pipeline broke down")??) };
    let (rate, ()) = tokio::try_join!(committed_rate(topic, &group, jobs), drained)?;
    Ok(rate)
}

/// What a guest is told of where its job stood, for one of them.
fn metadata(topic: &BareTopic) -> Vec<(String, String)> {
    let (queue, timestamp) = (topic.name().to_owned(), "1790000000000".to_owned());
    let pairs = [("queue", queue), ("partition", "3".into()), ("offset", "12345".into()), ("timestamp-ms", timestamp)];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Runs each job in a bare sandbox.
fn worker(mut job: Job, bare: Arc<Bare>) -> Worker {
    let runtime = Builder::new_current_thread().build();
    Box::new(move |body| {
        job.body.clear();
        job.body.push_str(body);
        let runtime = runtime.as_ref().map_err(ToString::to_string)?;
        runtime.block_on(bare.attempt(&job)).map_err(|e| format!("{e:#}"))
    })
}

/// Jobs a second, from the first commit that is seen to the last: how long a process takes to start is another figure.
async fn committed_rate(topic: &Arc<BareTopic>, group: &str, jobs: u64) -> Result<f64> {
    let progress = Progress::open(topic, group)?;
    let looked = tokio::task::spawn_blocking(move || -> Result<f64> {
        let begun = Instant::now();
        let mut first = None;
        loop {
            let committed = progress.committed()?;
            let now = Instant::now();
            if committed > 0 {
                let (before, since) = *first.get_or_insert((committed, now));
                if committed >= jobs {
                    ensure!(now > since, "{jobs} jobs are too few to be timed");
                    return Ok((jobs - before) as f64 / (now - since).as_secs_f64());
                }
            }
            ensure!(begun.elapsed() < PATIENCE, "only {committed} of {jobs} jobs ended within {PATIENCE:?}");
            // Kafka tells nobody that something was committed.
            std::thread::park_timeout(LOOK);
        }
    });
    looked.await.context("looking at the offsets broke down")?
}

/// As when the runner is idle, but in Kafka.
async fn measure_starts(session: &mut Session<'_>, brokers: &str) -> Result<()> {
    let subject = subject::says_so();
    let mut topic = filled(brokers, 0, &subject, None).await?;
    let group = group(&mut topic);
    let folder = folder(session, &topic, &group, DELIVERIES[0], &[&subject])?;
    let heard = Heard::default();
    let mut runner = Runner::start_heard(folder.path(), &[], hear(&heard))?;
    runner.ready().await?;
    let queue = open_queue_at(session, topic.url()).await?;
    // A runner that is ready may still be joining its group: the first job says that it has.
    queue.enqueue(subject.new_jobs(0, 1, false)).await?;
    until(|| !heard.lock().unwrap_or_else(PoisonError::into_inner).is_empty()).await?;
    let times = delays(session, &*queue, &heard).await?;
    queue.close().await;
    runner.stop().await?;
    session.report(Figure::new(NAMES[0], quantile(&times, 0.5), "ms", START_P50_MS, WITHIN));
    session.report(Figure::new(NAMES[1], quantile(&times, 0.99), "ms", START_P99_MS, WITHIN));
    gone(topic).await
}

/// A backlog, beside one of a tenth.
async fn measure_backlog(session: &mut Session<'_>, brokers: &str) -> Result<()> {
    let jobs = session.bench.sized(1_000_000, 100_000);
    let (_, small_megabytes) = backlog(session, brokers, jobs / 10).await?;
    let (started, megabytes) = backlog(session, brokers, jobs).await?;
    session.report(Figure::new(NAMES[2], millis(started), "ms", BACKLOG_START_MS, WITHIN));
    session.report(Figure::new(NAMES[3], megabytes, "MB", small_megabytes, MEMORY));
    Ok(())
}

/// How long a runner took from its start to the first job of a backlog, and the most memory that it had until all was done.
async fn backlog(session: &Session<'_>, brokers: &str, jobs: u64) -> Result<(Duration, f64)> {
    let (no_op, says_so) = (session.bench.built_in().clone(), subject::says_so());
    let mut topic = filled(brokers, jobs, &no_op, Some(&says_so)).await?;
    let group = group(&mut topic);
    let folder = folder(session, &topic, &group, DELIVERIES[0], &[&no_op, &says_so])?;
    let first = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&first);
    let begun = Instant::now();
    let hear = Box::new(move |now: Instant, line: &str| {
        if line.contains(r#""message":"started""#) {
            noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
        }
    });
    let runner = Runner::start_heard(folder.path(), &[], hear)?;
    committed_rate(&topic, &group, jobs).await?;
    let megabytes = runner.peak_megabytes()?;
    runner.stop().await?;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).context("no job said that it was started")?;
    gone(topic).await?;
    Ok((first - begun, megabytes))
}

/// A topic with jobs of `subject`; with `first` at the beginning of each partition, if there is one.
async fn filled(brokers: &str, jobs: u64, subject: &Subject, first: Option<&Subject>) -> Result<Arc<BareTopic>> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("sandhog-bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let (brokers, subject, first) = (brokers.to_owned(), subject.clone(), first.cloned());
    let filled = tokio::task::spawn_blocking(move || -> Result<BareTopic> {
        let topic = BareTopic::new(&brokers, &name, PARTITIONS)?;
        let at = |number| if number < u64::from(PARTITIONS) { first.as_ref() } else { None };
        topic.fill(jobs, |number| &at(number).unwrap_or(&subject).body)?;
        Ok(topic)
    });
    Ok(Arc::new(filled.await.context("filling a topic broke down")??))
}

/// Deletes it, where waiting is no harm.
async fn gone(topic: Arc<BareTopic>) -> Result<()> {
    tokio::task::spawn_blocking(|| drop(topic)).await.context("deleting a topic broke down")
}

/// A group that has committed nothing yet.
fn group(topic: &mut Arc<BareTopic>) -> String {
    Arc::get_mut(topic).expect("nothing runs between two runs").group()
}

/// A folder for a runner on the topic.
fn folder(
    session: &Session<'_>,
    topic: &BareTopic,
    group: &str,
    delivery: &str,
    subjects: &[&Subject],
) -> Result<Folder> {
    let folder = session.folder.inside()?;
    for subject in subjects {
        folder.write(&subject.file_name(), &subject.file)?;
    }
    let url = topic.url();
    let text =
        format!("[queue]\nurl = \"{url}\"\n\n[queue.kafka]\nconsumer_group = \"{group}\"\ndelivery = \"{delivery}\"\n");
    folder.write("sandhog.toml", text.as_bytes())?;
    Ok(folder)
}

/// Waits until it is so.
async fn until(so: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !so() {
        ensure!(begun.elapsed() < PATIENCE, "a job was not started within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
