//! What the runner can be watched by: what was counted of its attempts, and how things stand, in the words of Prometheus.
//!
//! `docs/metrics.md` has every metric and what it should make one do; a test compares it with what is written here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::by_type::ByType;
use crate::clock::UnixMs;
use crate::handler::Handler;
use crate::job::Job;
use crate::observe::{End, Fate, Observer};
use crate::queue::{Enqueued, Settled, Stats};
use crate::registry::Registry;
use crate::reload::tally::Tally;
use crate::sandbox::Occupancy;
use crate::traces;

mod by_type;
mod exposition;
mod families;

/// What a scraper is told that the text is, in each of the formats.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counts attempts and settlements, and writes what is known when somebody asks.
pub struct Metrics {
    by_type: ByType,
    received: AtomicU64,
    settled: AtomicU64,
    fenced: AtomicU64,
    conflicted: AtomicU64,
    enqueued: AtomicU64,
    registry: Arc<ArcSwap<Registry>>,
}

/// How things stand when somebody asks, beside what was counted. What is not known is left out.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// What time it is.
    pub now: UnixMs,
    /// What the queue counted, and how long ago.
    pub stats: Option<(Arc<Stats>, Duration)>,
    /// For how long, all in all, the queue could not be written.
    pub queue_sick: Duration,
    /// How many attempts may run at one time.
    pub slots: u32,
    /// How many run.
    pub running: u32,
    /// How many jobs are received and not settled.
    pub in_flight: u32,
    /// How full the pool of sandboxes is.
    pub pool: Option<Occupancy>,
    /// What loading handlers came to.
    pub loads: Option<Arc<Tally>>,
    /// What became of spans, where there are any.
    pub traces: Option<traces::Counts>,
    /// Whether it stops when what runs has ended.
    pub draining: bool,
    /// For how long it has been there.
    pub uptime: Duration,
}

// === impl Metrics ===

impl Metrics {
    /// Metrics of a runner whose guests run on so many threads, for the types that `registry` has.
    pub fn new(registry: Arc<ArcSwap<Registry>>, threads: usize) -> Metrics {
        Metrics {
            by_type: ByType::new(Arc::clone(&registry), threads),
            received: AtomicU64::default(),
            settled: AtomicU64::default(),
            fenced: AtomicU64::default(),
            conflicted: AtomicU64::default(),
            enqueued: AtomicU64::default(),
            registry,
        }
    }

    /// Counts what the API added of these.
    pub fn enqueued(&self, jobs: &[Enqueued]) {
        let added = jobs.iter().filter(|job| !job.duplicate).count();
        self.enqueued.fetch_add(added as u64, Relaxed);
    }

    /// What a scraper is answered: in `OpenMetrics`, or in the older format.
    pub fn render(&self, readings: &Readings, openmetrics: bool) -> String {
        exposition::write(families::of(self, readings), openmetrics)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Observer for Metrics {
    fn received(&self, jobs: usize) {
        self.received.fetch_add(jobs as u64, Relaxed);
    }

    fn ended(&self, _: &Handler, job: &Job, end: &End<'_>) {
        self.by_type.ended(&job.job_type, end);
    }

    fn settled(&self, job: &Job, fate: &Fate, settled: Settled) {
        let count = match settled {
            Settled::Settled => &self.settled,
            Settled::Fenced => &self.fenced,
            Settled::Conflicted => &self.conflicted,
        };
        count.fetch_add(1, Relaxed);
        if let (Fate::Buried(kind), Settled::Settled) = (fate, settled) {
            self.by_type.buried(&job.job_type, kind);
        }
    }
}

/// How many handlers stand in which state.
fn handlers(registry: &Registry, refused: u64) -> BTreeMap<&'static str, u64> {
    let mut states: BTreeMap<&'static str, u64> =
        ["serving", "paused", "braked", "not-ready", "refused"].map(|state| (state, 0)).into();
    let mut seen: BTreeMap<&str, &Handler> = BTreeMap::new();
    for handler in registry.types().map(|(_, handler)| handler).chain(registry.others()) {
        seen.insert(&handler.name, handler);
    }
    for handler in seen.values() {
        let state = if handler.trial().is_braked() {
            "braked"
        } else if handler.not_ready().is_some() {
            "not-ready"
        } else if handler.is_paused() {
            "paused"
        } else {
            "serving"
        };
        *states.entry(state).or_default() += 1;
    }
    states.insert("refused", refused);
    states
}

#[cfg(test)]
mod tests;
