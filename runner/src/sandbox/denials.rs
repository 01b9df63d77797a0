//! What an attempt was denied: counted, and said once among the guest's lines.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Source;
use super::lines::Lines;

/// The denials of one attempt.
pub(super) struct Denials {
    count: AtomicU32,
    lines: Arc<Mutex<Lines>>,
}

// === impl Denials ===

impl Denials {
    pub(super) fn new(lines: Arc<Mutex<Lines>>) -> Arc<Denials> {
        Arc::new(Denials { count: AtomicU32::new(0), lines })
    }

    /// Counts one. The first is said; more of them would be a way to flood the log.
    pub(super) fn deny(&self, what: fmt::Arguments<'_>) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.remark(Source::Log, &format!("denied: {what}"));
        }
    }

    /// Another job begins.
    pub(super) fn begin(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}
