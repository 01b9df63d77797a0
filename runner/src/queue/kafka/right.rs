//! Which deliveries this runner has the right to: those of partitions that it holds.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::queue::Receipt;

/// A consumer's thread that did not turn for so long may have lost its partitions without having heard of it: the process was
/// stopped, or the machine stood still.
pub(super) const STANDSTILL: Duration = Duration::from_secs(3);

/// What is held, as seen from any thread.
#[derive(Debug)]
pub(super) struct Right {
    /// Partitions that are held, by their tenure: a number that no other time of holding one has. Every attempt asks.
    tenures: ArcSwap<HashSet<i64>>,
    /// Deliveries that were started and are not settled.
    started: Mutex<HashSet<i64>>,
    since: Instant,
    /// When the consumer's thread last turned, in milliseconds since then.
    turned: AtomicI64,
}

// === impl Right ===

impl Right {
    pub(super) fn new() -> Right {
        Right {
            tenures: ArcSwap::default(),
            started: Mutex::default(),
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

    pub(super) fn gain(&self, tenure: i64) {
        self.change(|tenures| tenures.insert(tenure));
    }

    pub(super) fn lose(&self, tenure: i64) {
        self.change(|tenures| tenures.remove(&tenure));
    }

    /// Whether a delivery may be started.
    pub(super) fn holds(&self, receipt: Receipt) -> bool {
        let turned = u64::try_from(self.turned.load(Ordering::Acquire)).unwrap_or(0);
        let stood = self.since.elapsed().saturating_sub(Duration::from_millis(turned));
        stood < STANDSTILL && self.tenures.load().contains(&receipt.fence)
    }

    pub(super) fn start(&self, receipt: Receipt) {
        self.started().insert(receipt.record);
    }

    pub(super) fn was_started(&self, delivery: i64) -> bool {
        self.started().contains(&delivery)
    }

    /// They are over. Many at a time: every attempt that starts waits for this.
    pub(super) fn settled(&self, deliveries: impl Iterator<Item = i64>) {
        let mut started = self.started();
        for delivery in deliveries {
            started.remove(&delivery);
        }
    }

    fn change(&self, change: impl Fn(&mut HashSet<i64>) -> bool) {
        self.tenures.rcu(|tenures| {
            let mut tenures = HashSet::clone(tenures);
            change(&mut tenures);
            tenures
        });
    }

    fn started(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.started.lock().expect("nobody panics while holding what was started")
    }
}
