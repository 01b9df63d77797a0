//! For how long a queue could not be written, or reached.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Is told when a queue falls ill and when it is well again; says how long it was ill, all in all.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<(Option<Instant>, Duration)>);

// === impl Health ===

impl Health {
    /// It is ill, since `now` if it was well.
    pub(crate) fn falls_ill(&self, now: Instant) {
        self.lock().0.get_or_insert(now);
    }

    /// It is well. Answers for how long it was not, if it was ill.
    pub(crate) fn recovers(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let ill = now.saturating_duration_since(state.0.take()?);
        state.1 += ill;
        Some(ill)
    }

    /// For how long it was ill, all in all.
    pub(crate) fn sick(&self, now: Instant) -> Duration {
        let (since, before) = *self.lock();
        before + since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn lock(&self) -> MutexGuard<'_, (Option<Instant>, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illness_is_added_up_and_counts_from_its_beginning() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.recovers(at(1)), None);
        health.falls_ill(at(2));
        health.falls_ill(at(3));
        assert_eq!(health.sick(at(5)), Duration::from_secs(3));
        assert_eq!(health.recovers(at(6)), Some(Duration::from_secs(4)));
        health.falls_ill(at(10));
        assert_eq!(health.sick(at(11)), Duration::from_secs(5));
    }
}
