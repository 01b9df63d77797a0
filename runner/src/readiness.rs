//! Whether instances of a handler can be set up. While they cannot, its jobs wait, and setting one up is tried again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::retry::Backoff;

/// The longest time between two tries.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is known of a handler's set-up. It is ready until one fails.
#[derive(Debug, Default)]
pub struct Readiness {
    /// What is read for every job.
    failing: AtomicBool,
    state: Mutex<Option<NotReady>>,
}

/// Why a handler is not ready.
#[derive(Debug, Clone, PartialEq)]
pub struct NotReady {
    /// What went wrong last, for people.
    pub why: String,
    /// When to try again.
    pub retry_at: Instant,
    /// How often it was tried in vain.
    tries: u32,
}

// === impl Readiness ===

impl Readiness {
    /// Whether jobs may start.
    pub fn is_ready(&self) -> bool {
        !self.failing.load(Ordering::Acquire)
    }

    /// Why they may not.
    pub fn not_ready(&self) -> Option<NotReady> {
        self.state().clone()
    }

    /// Takes down that a set-up failed, or worked. Only a try that was due puts the next one off: several attempts may fail at
    /// the same time.
    pub fn record(&self, set_up: Result<(), String>, now: Instant) {
        let mut state = self.state();
        *state = match (set_up, state.take()) {
            (Ok(()), _) => None,
            (Err(why), Some(before)) if now < before.retry_at => Some(NotReady { why, ..before }),
            (Err(why), before) => {
                let tries = before.map_or(0, |before| before.tries);
                let backoff = Backoff { max: WAIT_MAX, ..Backoff::default() };
                Some(NotReady { why, retry_at: now + backoff.delay(tries, 0.0), tries: tries.saturating_add(1) })
            }
        };
        self.failing.store(state.is_some(), Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, Option<NotReady>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_ever_later_until_one_works() {
        let (readiness, mut now) = (Readiness::default(), Instant::now());
        assert!(readiness.is_ready());
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            readiness.record(Err("away".into()), now);
            let NotReady { why, retry_at, .. } = readiness.not_ready().unwrap();
            assert_eq!((why.as_str(), retry_at), ("away", now + Duration::from_secs(wait)));
            // Another attempt that failed meanwhile.
            readiness.record(Err("still away".into()), now);
            assert_eq!(readiness.not_ready().unwrap().retry_at, retry_at);
            assert!(!readiness.is_ready());
            now = retry_at;
        }
        readiness.record(Ok(()), now);
        assert!(readiness.is_ready() && readiness.not_ready().is_none());
        readiness.record(Err("away".into()), now);
        assert_eq!(readiness.not_ready().unwrap().retry_at, now + Duration::from_secs(1));
    }
}
