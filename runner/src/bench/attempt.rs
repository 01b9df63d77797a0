//! One attempt through [`Handler::run`], beside a bare loop over the same component.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::{Figure, Session, Subject, Target, median, micros};
use crate::config::Config;
use crate::generation::Generation;
use crate::handler::Handler;
use crate::job::Job;
use crate::manifest::Manifest;
use crate::outcome::Outcome;
use crate::sandbox::bare::Bare;
use crate::sandbox::{self, Sandbox};
use crate::telemetry::HandlerLog;

/// What was promised of an attempt, and of two threads.
const ATTEMPT: Target = Target::AtMost(1.25);
const SCALING: Target = Target::AtLeast(0.9);

/// How long one is timed at a time.
const TURN: Duration = Duration::from_millis(100);

/// One component, in the sandbox and bare.
pub(super) struct Pair {
    handler: Handler,
    pub(super) bare: Bare,
    pub(super) job: Job,
    stop: CancellationToken,
}

/// Microseconds of an attempt on each of some threads, in several runs.
#[derive(Default)]
struct Times {
    sandbox: Vec<f64>,
    bare: Vec<f64>,
}

pub(super) fn names(handler: &str) -> Vec<String> {
    let attempts = ["1-thread", "all-cores", "1-thread/no-scan", "all-cores/no-scan"];
    let mut names: Vec<String> = attempts.iter().map(|name| format!("attempt/{handler}/{name}")).collect();
    names.push(format!("scaling/{handler}"));
    names
}

pub(super) async fn measure(session: &mut Session<'_>, subject: &Subject) -> Result<()> {
    let name = &subject.name;
    let cores = session.bench.cores;
    let scaling = format!("scaling/{name}");
    let mut scaled = None;
    for (scan, suffix) in [(true, ""), (false, "/no-scan")] {
        let (one, all) = (format!("attempt/{name}/1-thread{suffix}"), format!("attempt/{name}/all-cores{suffix}"));
        let scales = scan && session.wants(&scaling);
        let mut wanted = vec![(one, 1), (all, cores)];
        wanted.retain(|(name, _)| scales || session.wants(name));
        let Some((first, _)) = wanted.first() else { continue };
        session.say(first);
        let pair = Arc::new(Pair::new(session, subject, scan, "")?);
        let threads: Vec<u32> = wanted.iter().map(|(_, threads)| *threads).collect();
        let times = in_turns(session, &pair, &threads).await?;
        for ((name, _), times) in wanted.iter().zip(&times) {
            session.report(Figure::new(name, median(&times.sandbox), "µs", median(&times.bare), ATTEMPT));
        }
        if let (true, [one, all]) = (scales, times.as_slice()) {
            // Cores beyond the second may be half ones.
            let target = if cores == 2 { SCALING } else { Target::None };
            let limit = f64::from(cores);
            let scale = limit * median(&one.sandbox) / median(&all.sandbox);
            scaled = Some(Figure::new(&scaling, scale, "×", limit, target));
        }
    }
    if let Some(scaled) = scaled {
        session.report(scaled);
    }
    Ok(())
}

/// Times the sandbox and the bare loop on each of some numbers of threads. One after the other, in many short turns, so that
/// whatever else the machine does meanwhile meets them all.
async fn in_turns(session: &Session<'_>, pair: &Arc<Pair>, threads: &[u32]) -> Result<Vec<Times>> {
    let mut times: Vec<Times> = threads.iter().map(|_| Times::default()).collect();
    for _ in 0..session.bench.runs(15, 5) {
        for (&threads, times) in threads.iter().zip(&mut times) {
            let pair = Arc::clone(pair);
            let timed = tokio::task::spawn_blocking(move || -> Result<(f64, f64)> {
                let sandbox = timed(threads, &pair.job, &async |job: &Arc<Job>| pair.attempt(job).await)?;
                let bare = timed(threads, &pair.job, &async |job: &Arc<Job>| Ok(pair.bare.attempt(job).await?))?;
                Ok((sandbox, bare))
            });
            let (sandbox, bare) = timed.await.context("the threads that attempts run on broke down")??;
            times.sandbox.push(sandbox);
            times.bare.push(bare);
        }
    }
    Ok(times)
}

/// A handler with a manifest, in a sandbox of its own.
pub(super) fn handler(
    session: &Session<'_>,
    config: &Config,
    subject: &Subject,
    scan: bool,
    manifest: &str,
) -> Result<Handler> {
    let sandbox_config = sandbox::Config {
        slots: config.slots,
        threads: session.bench.cores,
        memory_ceiling_bytes: config.ceilings.memory_bytes,
        compiled_dir: None,
        timers: Handle::current(),
        guests: Handle::current(),
    };
    let sandbox = if scan { Sandbox::new(sandbox_config) } else { Sandbox::without_page_scan(sandbox_config) }?;
    let manifest = Manifest::parse(manifest, &subject.name, Path::new(""), config)?;
    let component = sandbox.load(&subject.file, &manifest.limits, &manifest.grants)?;
    let component = match &manifest.reuse {
        Some(reuse) => component.reusing(reuse.clone()),
        None => component,
    };
    let generation = Generation::of(&subject.file, None);
    let log = Arc::new(HandlerLog::new(generation.clone()));
    Ok(Handler::new(subject.name.as_str().into(), generation, manifest, component, log))
}

/// One attempt, which must complete.
pub(super) async fn attempt(handler: &Handler, job: &Arc<Job>, stop: &CancellationToken) -> Result<()> {
    match handler.run(job, stop).await.outcome {
        Outcome::Complete { .. } => Ok(()),
        other => bail!("`{}` does not complete its job: {other:?}", handler.name),
    }
}

/// The component in the bare engine.
pub(super) fn bare(session: &Session<'_>, subject: &Subject, scan: bool) -> Result<Bare> {
    let config = &session.bench.config;
    Ok(Bare::new(&subject.file, config.slots, config.ceilings.memory_bytes, scan)?)
}

/// Runs attempts on some threads for a while, one after the other on each; answers how many microseconds one took. Each
/// thread has a job of its own, as slots have.
pub(super) fn timed(threads: u32, job: &Job, attempt: &(impl AsyncFn(&Arc<Job>) -> Result<()> + Sync)) -> Result<f64> {
    let together = Barrier::new(threads as usize);
    let one_thread = || -> Result<f64> {
        let runtime = Builder::new_current_thread().build();
        let job = Arc::new(job.clone());
        together.wait();
        runtime?.block_on(async {
            let begun = Instant::now();
            let mut attempts = 0_u64;
            while begun.elapsed() < TURN {
                attempt(&job).await?;
                attempts += 1;
            }
            Ok(micros(begun.elapsed()) / attempts as f64)
        })
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        let mut sum = 0.0;
        for thread in running {
            sum += thread.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        Ok(sum / f64::from(threads))
    })
}

// === impl Pair ===

impl Pair {
    /// A handler with a manifest, in a sandbox that was set up with the scan of pages or without.
    pub(super) fn new(session: &Session<'_>, subject: &Subject, scan: bool, manifest: &str) -> Result<Pair> {
        let handler = handler(session, &session.bench.config, subject, scan, manifest)?;
        let bare = bare(session, subject, scan)?;
        Ok(Pair { handler, bare, job: subject.job(), stop: CancellationToken::new() })
    }

    pub(super) async fn attempt(&self, job: &Arc<Job>) -> Result<()> {
        attempt(&self.handler, job, &self.stop).await
    }
}
