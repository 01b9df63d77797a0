//! Which deliveries this runner has the right to: those of partitions that it holds.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::inbox::Received;
use super::slots::Mark;
use crate::queue::Receipt;

/// A consumer's thread that did not turn for so long may have lost its partitions without having heard of it: the process was
/// stopped, or the machine stood still.
pub(super) const STANDSTILL: Duration = Duration::from_secs(3);

/// In how many parts it is kept what was handed out.
const PARTS: usize = 16;

/// What is held, as seen from any thread.
#[derive(Debug)]
pub(super) struct Right {
    /// Partitions that are held, by their tenure: a number that no other time of holding one has. Every attempt asks.
    tenures: ArcSwap<HashSet<i64>>,
    /// Deliveries that were handed out and are not settled, in parts: every attempt that starts takes the lock of one.
    handed: [Mutex<HashMap<i64, Handed>>; PARTS],
    since: Instant,
    /// When the consumer's thread last turned, in milliseconds since then.
    turned: AtomicI64,
}

#[derive(Debug)]
struct Handed {
    mark: Mark,
    started: bool,
}

// === impl Right ===

impl Right {
    pub(super) fn new() -> Right {
        Right {
            tenures: ArcSwap::default(),
            handed: Default::default(),
            since: Instant::now(),
            turned: AtomicI64::new(0),
        }
    }

    /// The consumer's thread turns. Answers how long it had not.
    pub(super) fn turn(&self) -> Duration {
        let now = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let last = self.turned.swap(now, Ordering::AcqRel);
        Duration::from_millis(u64::try_from(now - last).unwrap_or(0))
    }

    /// How long the consumer's thread has not turned.
    pub(super) fn stands(&self) -> Duration {
        let turned = u64::try_from(self.turned.load(Ordering::Acquire)).unwrap_or(0);
        self.since.elapsed().saturating_sub(Duration::from_millis(turned))
    }

    pub(super) fn gain(&self, tenure: i64) {
        self.change(|tenures| tenures.insert(tenure));
    }

    pub(super) fn lose(&self, tenure: i64) {
        self.change(|tenures| tenures.remove(&tenure));
    }

    /// Whether a delivery may be started. From then on it counts as started: between the two is no moment in which its
    /// partition could be given up.
    pub(super) fn holds(&self, receipt: Receipt) -> bool {
        let stood = self.stands();
        let mut handed = self.handed(receipt.record);
        let holds = stood < STANDSTILL && self.tenures.load().contains(&receipt.fence);
        if let Some(handed) = handed.get_mut(&receipt.record).filter(|_| holds) {
            handed.started = true;
        }
        holds
    }

    /// These are about to be handed out.
    pub(super) fn hand_out(&self, received: &[Received]) {
        for Received { receipt, mark, .. } in received {
            self.handed(receipt.record).insert(receipt.record, Handed { mark: *mark, started: false });
        }
    }

    /// A delivery is started. Answers the mark of its job.
    pub(super) fn start(&self, delivery: i64) -> Mark {
        let mut handed = self.handed(delivery);
        let handed = handed.get_mut(&delivery).expect("what is started was handed out, and is not settled");
        handed.started = true;
        handed.mark
    }

    pub(super) fn was_started(&self, delivery: i64) -> bool {
        self.handed(delivery).get(&delivery).is_some_and(|handed| handed.started)
    }

    /// It is over.
    pub(super) fn settled(&self, delivery: i64) {
        self.handed(delivery).remove(&delivery);
    }

    fn change(&self, change: impl Fn(&mut HashSet<i64>) -> bool) {
        self.tenures.rcu(|tenures| {
            let mut tenures = HashSet::clone(tenures);
            change(&mut tenures);
            tenures
        });
    }

    fn handed(&self, delivery: i64) -> std::sync::MutexGuard<'_, HashMap<i64, Handed>> {
        let part = delivery.rem_euclid(PARTS as i64) as usize;
        self.handed[part].lock().expect("nobody panics while holding what was handed out")
    }
}
