//! What a runner may start: what it claimed since it registered, for as long as its lease holds.
//!
//! A runner that stood still for longer knows it by this at once, before its writer has looked. It is asked at every start,
//! and written at every heartbeat.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use crate::queue::Receipt;

/// The right to start what was claimed.
#[derive(Debug)]
pub(super) struct Right {
    /// What the end of the lease is counted from.
    since: Instant,
    /// In milliseconds; 0 while there is no lease.
    until: AtomicU64,
    /// The last fencing number from before it registered.
    after_fence: AtomicI64,
}

// === impl Right ===

impl Right {
    /// None yet.
    pub(super) fn new(now: Instant) -> Right {
        Right { since: now, until: AtomicU64::new(0), after_fence: AtomicI64::new(0) }
    }

    /// A lease has begun, whose claims have fencing numbers above `after_fence`.
    pub(super) fn begin(&self, after_fence: i64, until: Instant) {
        // In this order, since an older claim must not profit from a newer lease.
        self.end();
        self.after_fence.store(after_fence, Ordering::SeqCst);
        self.renew(until);
    }

    /// The lease holds for longer.
    pub(super) fn renew(&self, until: Instant) {
        let until = until.saturating_duration_since(self.since).as_millis();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The lease was lost, or given up.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// Whether what this receipt stands for may be started now.
    pub(super) fn holds(&self, receipt: Receipt, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        now < self.until.load(Ordering::SeqCst) && receipt.fence > self.after_fence.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_was_claimed_under_a_lease_that_holds_may_be_started() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let claimed = |fence| Receipt { record: 1, fence };
        let right = Right::new(now);
        assert!(!right.holds(claimed(8), now), "there is no lease");
        right.begin(7, at(30));
        assert!(right.holds(claimed(8), at(29)) && !right.holds(claimed(8), at(30)));
        assert!(!right.holds(claimed(7), at(1)), "it was claimed under an earlier one");
        right.renew(at(40));
        assert!(right.holds(claimed(8), at(39)));
        right.end();
        assert!(!right.holds(claimed(8), at(1)));
    }
}
