//! What is counted of attempts and dead letters, by job type: written by every thread that runs guests, read when somebody
//! asks.
//!
//! Threads that write one number wait for each other's cache line, at each job. So each thread writes numbers of its own
//! (its *shard*), and who reads adds them up.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::observe::End;
use crate::outcome::{Kind, Outcome};
use crate::registry::Registry;

/// The most types that have numbers of their own.
pub(super) const TYPES_MAX: usize = 1_000;

/// What stands for the types beyond that.
pub(super) const BEYOND: &str = "other";

/// What stands for a type that nobody serves now: anybody can enqueue one, so that its name is no label.
pub(super) const UNKNOWN: &str = "unknown";

/// The most kinds that one type's dead letters are told apart by: ours are fewer, and a newer version's may be more.
const KINDS_MAX: usize = 64;

/// As many threads as have pools of sandboxes; more share.
const SHARDS_MAX: usize = 8;

/// The bounds of the histogram, in microseconds: from what a handler that does nothing takes to the longest timeout.
pub(super) const BOUNDS_US: [u64; 16] = [
    10,
    100,
    1_000,
    5_000,
    25_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];

/// How much a new attempt moves the running mean: one in so many.
const MEAN_OF: u64 = 32;

/// How attempts end, as labels.
pub(super) const OUTCOMES: [&str; 7] =
    ["completed", "retried", "rejected", "failed", "interrupted", "cancelled", "not-ready"];

/// The types, each with its numbers.
pub(super) struct ByType {
    known: ArcSwap<HashMap<Arc<str>, Arc<OfType>>>,
    /// Taken where a type is met for the first time.
    adding: Mutex<()>,
    /// Of the types that the handler of `*` serves.
    of_others: OfType,
    beyond: OfType,
    unknown: OfType,
    registry: Arc<ArcSwap<Registry>>,
    shards: usize,
}

/// The numbers of one type.
pub(super) struct OfType {
    shards: Box<[Shard]>,
    dead: Mutex<BTreeMap<Cow<'static, str>, u64>>,
}

/// What one thread, or a few, counted. Aligned so that no other's is on the same lines.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    ended: [AtomicU64; OUTCOMES.len()],
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    nanos: AtomicU64,
    /// A running mean; 0 before the first.
    mean_nanos: AtomicU64,
    memory_peak_bytes: AtomicU64,
    denied: AtomicU64,
}

/// The numbers of one type, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) ended: [u64; OUTCOMES.len()],
    pub(super) buckets: [u64; BOUNDS_US.len() + 1],
    pub(super) run_time: Duration,
    /// None before an attempt ended.
    pub(super) mean: Option<Duration>,
    pub(super) memory_peak_bytes: u64,
    pub(super) denied: u64,
    pub(super) dead: BTreeMap<Cow<'static, str>, u64>,
}

// === impl ByType ===

impl ByType {
    pub(super) fn new(registry: Arc<ArcSwap<Registry>>, threads: usize) -> ByType {
        let shards = threads.clamp(1, SHARDS_MAX);
        ByType {
            known: ArcSwap::default(),
            adding: Mutex::default(),
            of_others: OfType::new(shards),
            beyond: OfType::new(shards),
            unknown: OfType::new(shards),
            registry,
            shards,
        }
    }

    /// Counts an attempt.
    pub(super) fn ended(&self, job_type: &str, end: &End<'_>) {
        self.of(job_type, |numbers| numbers.ended(end));
    }

    /// Counts a dead letter.
    pub(super) fn buried(&self, job_type: &str, kind: &Kind) {
        self.of(job_type, |numbers| numbers.buried(kind));
    }

    /// All of them, by label, in its order.
    pub(super) fn sums(&self) -> BTreeMap<Arc<str>, Sum> {
        let known = self.known.load();
        let mut sums: BTreeMap<Arc<str>, Sum> =
            known.iter().map(|(job_type, numbers)| (Arc::clone(job_type), numbers.sum())).collect();
        let stand_ins = [(crate::registry::OTHERS, &self.of_others), (BEYOND, &self.beyond), (UNKNOWN, &self.unknown)];
        for (label, numbers) in stand_ins {
            let sum = numbers.sum();
            // A type may be called like what stands for others: then its own numbers stay what they are.
            if sum != Sum::default() && !sums.contains_key(label) {
                sums.insert(label.into(), sum);
            }
        }
        sums
    }

    /// Calls `tell` with a type's numbers, or with those of what stands for it.
    fn of(&self, job_type: &str, tell: impl FnOnce(&OfType)) {
        if let Some(numbers) = self.known.load().get(job_type) {
            return tell(numbers);
        }
        let registry = self.registry.load();
        if registry.claims(job_type) {
            match self.add(job_type, &registry) {
                Some(numbers) => tell(&numbers),
                None => tell(&self.beyond),
            }
        } else if registry.others().is_some() {
            tell(&self.of_others);
        } else {
            tell(&self.unknown);
        }
    }

    /// Adds a type that is served; none if there are too many.
    #[cold]
    fn add(&self, job_type: &str, registry: &Registry) -> Option<Arc<OfType>> {
        let _adding = lock(&self.adding);
        let known = self.known.load();
        if let Some(numbers) = known.get(job_type) {
            return Some(Arc::clone(numbers));
        }
        let mut more = HashMap::clone(&known);
        if more.len() >= TYPES_MAX {
            more.retain(|job_type, _| registry.claims(job_type));
        }
        if more.len() >= TYPES_MAX {
            return None;
        }
        let numbers = Arc::new(OfType::new(self.shards));
        more.insert(job_type.into(), Arc::clone(&numbers));
        self.known.store(Arc::new(more));
        Some(numbers)
    }
}

// === impl OfType ===

impl OfType {
    fn new(shards: usize) -> OfType {
        OfType { shards: (0..shards).map(|_| Shard::default()).collect(), dead: Mutex::default() }
    }

    fn ended(&self, end: &End<'_>) {
        let shard = &self.shards[thread() % self.shards.len()];
        let nanos = u64::try_from(end.duration.as_nanos()).unwrap_or(u64::MAX);
        shard.ended[outcome(end.outcome)].fetch_add(1, Relaxed);
        shard.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        shard.nanos.fetch_add(nanos, Relaxed);
        // Two threads of one shard may each miss what the other does to the mean, which is one attempt of many.
        let mean = shard.mean_nanos.load(Relaxed);
        let mean = if mean == 0 { nanos.max(1) } else { moved(mean, nanos) };
        shard.mean_nanos.store(mean, Relaxed);
        if end.memory_peak_bytes > shard.memory_peak_bytes.load(Relaxed) {
            shard.memory_peak_bytes.fetch_max(end.memory_peak_bytes, Relaxed);
        }
        if end.denied > 0 {
            shard.denied.fetch_add(end.denied.into(), Relaxed);
        }
    }

    fn buried(&self, kind: &Kind) {
        let mut dead = lock(&self.dead);
        let label = kind.as_str();
        if let Some(count) = dead.get_mut(&label) {
            *count += 1;
        } else {
            let label = if dead.len() < KINDS_MAX { Cow::Owned(label.into_owned()) } else { Cow::Borrowed(BEYOND) };
            *dead.entry(label).or_default() += 1;
        }
    }

    fn sum(&self) -> Sum {
        let mut sum = Sum { dead: lock(&self.dead).clone(), ..Sum::default() };
        let (mut nanos, mut means) = (0, Vec::new());
        for shard in &self.shards {
            add_up(&mut sum.ended, &shard.ended);
            add_up(&mut sum.buckets, &shard.buckets);
            nanos += shard.nanos.load(Relaxed);
            means.extend(Some(shard.mean_nanos.load(Relaxed)).filter(|mean| *mean > 0));
            sum.memory_peak_bytes = sum.memory_peak_bytes.max(shard.memory_peak_bytes.load(Relaxed));
            sum.denied += shard.denied.load(Relaxed);
        }
        sum.run_time = Duration::from_nanos(nanos);
        let of = means.len() as u64;
        sum.mean = (of > 0).then(|| Duration::from_nanos(means.iter().map(|mean| mean / of).sum()));
        sum
    }
}

fn add_up<const N: usize>(sums: &mut [u64; N], counts: &[AtomicU64; N]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count.load(Relaxed);
    }
}

fn moved(mean: u64, to: u64) -> u64 {
    if to >= mean { mean + (to - mean) / MEAN_OF } else { (mean - (mean - to) / MEAN_OF).max(1) }
}

/// Which of [`OUTCOMES`] it is.
fn outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Complete { .. } => 0,
        Outcome::Retry(_) => 1,
        Outcome::Reject { .. } => 2,
        Outcome::Failed(_) => 3,
        Outcome::Interrupted { .. } => 4,
        Outcome::Cancelled => 5,
        Outcome::NotReady { .. } => 6,
    }
}

/// The first bucket whose bound it is not over; the last has none.
fn bucket(nanos: u64) -> usize {
    BOUNDS_US.partition_point(|bound| bound * 1_000 < nanos)
}

/// The number of this thread, in the order in which they first counted.
fn thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Relaxed));
    }
    THREAD.get()
}

/// What it guards is whole after every step, so that a panic in between does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_the_first_whose_bound_is_not_passed() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(10_000), 0);
        assert_eq!(bucket(10_001), 1);
        assert_eq!(bucket(3_600_000_000_000), 15);
        assert_eq!(bucket(u64::MAX), 16);
    }

    #[test]
    fn mean_follows_what_changes_and_is_never_none() {
        let mut mean = 1_000_000;
        for _ in 0..1_000 {
            mean = moved(mean, 10);
        }
        assert!((1..=50).contains(&mean), "{mean}");
        for _ in 0..1_000 {
            mean = moved(mean, 1_000_000);
        }
        assert!(mean > 900_000, "{mean}");
    }
}
