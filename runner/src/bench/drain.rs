//! The whole path, from enqueued to settled, beside a bare pipeline: claims in batches, bare attempts, settlements in
//! batches.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;

use super::attempt::{self, timed};
use super::runner::Runner;
use super::{Figure, Session, Subject, Target, median};
use crate::config::{Config, Environment, Flags};
use crate::job::Job;
use crate::queue::sqlite::bare::{BareQueue, Worker};
use crate::queue::sqlite::progress::{Progress, Span};
use crate::queue::{self, Queue};
use crate::sandbox::bare::Bare;

/// What was promised.
const DRAIN: Target = Target::AtLeast(0.65);

/// Jobs that are enqueued at one time.
const THOUSAND: u64 = 1_000;

/// Jobs that the bare pipeline claims at one time: the better one counts.
const BATCHES: [usize; 2] = [256, 512];

pub(super) fn names(handler: &str) -> [String; 2] {
    [format!("drain/{handler}"), format!("drain/{handler}/unique-ids")]
}

pub(super) async fn measure(session: &mut Session<'_>, subject: &Subject) -> Result<()> {
    let names = names(&subject.name);
    let wanted: Vec<(usize, &String)> = names.iter().enumerate().filter(|(_, name)| session.wants(name)).collect();
    let Some(&(_, first)) = wanted.first() else { return Ok(()) };
    session.say(first);
    let bare = Arc::new(attempt::bare(session, subject, true)?);
    let (runs, jobs) = (session.bench.runs(3, 1), jobs(session, subject, &bare).await?);
    let mut rates = [Vec::new(), Vec::new()];
    let mut limits = [Vec::new(), Vec::new()];
    for _ in 0..runs {
        for (at, name) in &wanted {
            session.say(name);
            rates[*at].push(drained(session, subject, jobs, *at == 1).await?.rate());
        }
        session.say("the bare pipeline");
        for (batch, limits) in BATCHES.into_iter().zip(&mut limits) {
            limits.push(bare_rate(session, subject, &bare, jobs, batch).await?);
        }
    }
    let limit = limits.iter().map(|limits| median(limits)).fold(0.0, f64::max);
    for (at, name) in wanted {
        session.report(Figure::new(name, median(&rates[at]), "jobs/s", limit, DRAIN));
    }
    Ok(())
}

/// So many jobs that a drain is long enough to be timed, and with a slow handler not too long.
pub(super) async fn jobs(session: &Session<'_>, subject: &Subject, bare: &Arc<Bare>) -> Result<u64> {
    let (bare, job) = (Arc::clone(bare), subject.job());
    let timed =
        tokio::task::spawn_blocking(move || timed(1, &job, &async |job: &Arc<Job>| Ok(bare.attempt(job).await?)));
    let attempt_micros = timed.await.context("the thread that attempts run on broke down")??;
    let (most, most_micros) = session.bench.sized((200_000, 10e6), (50_000, 2.5e6));
    Ok(((f64::from(session.bench.cores) * most_micros / attempt_micros) as u64).clamp(100, most))
}

/// Enqueues jobs, has a runner work them all, and answers what their rows say.
pub(super) async fn drained(session: &Session<'_>, subject: &Subject, jobs: u64, unique_ids: bool) -> Result<Span> {
    let folder = session.folder.inside()?;
    folder.write(&subject.file_name(), &subject.file)?;
    fill(session, folder.path(), subject, jobs, unique_ids).await?;
    Runner::start(folder.path(), &["--until-empty"])?.ended().await?;
    completed(&open_progress(folder.path())?)
}

/// What was completed, if all was.
pub(super) fn completed(progress: &Progress) -> Result<Span> {
    let dead = progress.dead()?;
    ensure!(dead == 0, "{dead} jobs became dead letters");
    Span::all(&progress.spans()?).context("no job was completed")
}

/// Enqueues jobs through the queue, in thousands.
pub(super) async fn fill(
    session: &Session<'_>,
    folder: &Path,
    subject: &Subject,
    jobs: u64,
    unique_ids: bool,
) -> Result<()> {
    let queue = open_queue(session, folder).await?;
    let mut from = 0;
    while from < jobs {
        let some = THOUSAND.min(jobs - from);
        queue.enqueue(subject.new_jobs(from, some, unique_ids)).await?;
        from += some;
    }
    queue.close().await;
    Ok(())
}

/// The queue of a folder, as its runner has it.
pub(super) async fn open_queue(session: &Session<'_>, folder: &Path) -> Result<Arc<dyn Queue>> {
    open_queue_at(session, format!("sqlite:{}", folder.join("sandhog.db").display())).await
}

/// The queue of this name, with the defaults.
pub(super) async fn open_queue_at(session: &Session<'_>, url: String) -> Result<Arc<dyn Queue>> {
    let queue = Some(url);
    let nothing = Environment { variables: std::collections::BTreeMap::new(), cores: session.bench.cores };
    let config = Config::resolve(&Flags { queue, ..Flags::default() }, &nothing, None)?;
    Ok(queue::open(&config).await?)
}

pub(super) fn open_progress(folder: &Path) -> Result<Progress> {
    Ok(Progress::open(&folder.join("sandhog.db"))?)
}

/// Jobs a second of the bare pipeline.
async fn bare_rate(session: &Session<'_>, subject: &Subject, bare: &Arc<Bare>, jobs: u64, batch: usize) -> Result<f64> {
    let folder = session.folder.inside()?;
    let (subject, bare, cores) = (subject.clone(), Arc::clone(bare), session.bench.cores);
    let drained = tokio::task::spawn_blocking(move || -> Result<f64> {
        let mut queue = BareQueue::new(&folder.path().join("bare.db"))?;
        queue.fill(&subject.name, &subject.body, jobs)?;
        let took = queue.drain(&subject.name, batch, cores, &|| worker(&subject.name, Arc::clone(&bare)))?;
        Ok(jobs as f64 / took.as_secs_f64())
    });
    drained.await.context("the bare pipeline broke down")?
}

/// Runs each job in a bare sandbox.
fn worker(job_type: &str, bare: Arc<Bare>) -> Worker {
    let runtime = Builder::new_current_thread().build();
    let mut job = Job { job_type: job_type.to_owned(), ..Job::default() };
    Box::new(move |jobs| {
        let runtime = runtime.as_ref().map_err(ToString::to_string)?;
        runtime.block_on(async {
            for waiting in jobs {
                job.id.clone_from(&waiting.id);
                job.body.clone_from(&waiting.body);
                bare.attempt(&job).await.map_err(|e| format!("{e:#}"))?;
            }
            Ok(())
        })
    })
}
