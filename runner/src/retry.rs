//! What follows an attempt. Pure: it takes the outcome and the time, and answers the disposition.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::job::Job;
use crate::outcome::{Disposition, Failure, Kind, Outcome, RetryAfter};

/// A handler's `[retry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// This many failures and the job is buried. From 1.
    pub max_failures: u32,
    /// How many attempts a job has whose handler asks for retries, interrupted starts not counted; none: as many as it likes,
    /// within `expire_after`.
    pub max_attempts: Option<u32>,
    /// How long after its first start a job may still ask for retries.
    pub expire_after: Duration,
    /// The delay before the next attempt.
    pub backoff: Backoff,
}

/// A delay that grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// The first delay.
    pub first: Duration,
    /// What it grows by each time, from 1.
    pub factor: f64,
    /// Where it stops growing.
    pub max: Duration,
    /// How far it is spread, as a share of itself, from 0 to 1.
    pub jitter: f64,
}

/// Decides what follows an attempt that was started at `started_at` and is over `now`. `jitter` makes a random number
/// from -1 to 1.
pub fn decide(
    policy: &Policy,
    job: &Job,
    outcome: Outcome,
    started_at: UnixMs,
    now: UnixMs,
    jitter: impl FnOnce() -> f64,
) -> Disposition {
    match outcome {
        Outcome::Complete { result } => Disposition::Ack { result },
        Outcome::Reject { reason } => Disposition::Bury(Failure::new(Kind::Rejected, reason)),
        Outcome::Cancelled => Disposition::Bury(Failure::new(Kind::Cancelled, "cancelled while it ran")),
        Outcome::Failed(failure) if is_last(job, policy.max_failures) => Disposition::Bury(failure),
        Outcome::Failed(failure) => Disposition::Retry {
            at: now.plus(policy.backoff.delay(job.failures, jitter())),
            body: None,
            after: RetryAfter::Failure(failure),
        },
        Outcome::NotReady { .. } => Disposition::Park,
        Outcome::Interrupted { .. } => Disposition::Release { at: release_at(job, now), started: true },
        Outcome::Retry(request) => {
            // Neither interrupted starts nor what was before a requeue counts.
            let asked = job.failures.saturating_add(job.retries_requested).saturating_add(1);
            let expires_at = job.first_started_at.unwrap_or(started_at).plus(policy.expire_after);
            if let Some(max) = policy.max_attempts.filter(|max| asked >= *max) {
                let message =
                    format!("asked for a retry after attempt {asked} of {max}{}", because(request.reason.as_deref()));
                return Disposition::Bury(Failure::new(Kind::OutOfAttempts, message));
            }
            if now >= expires_at {
                let message = format!(
                    "asked for a retry {} s after it was first started, of {} s{}",
                    now.since(job.first_started_at.unwrap_or(started_at)).as_secs(),
                    policy.expire_after.as_secs(),
                    because(request.reason.as_deref()),
                );
                return Disposition::Bury(Failure::new(Kind::Expired, message));
            }
            let delay = request.after.unwrap_or_else(|| policy.backoff.delay(job.retries_requested, jitter()));
            Disposition::Retry {
                at: now.plus(delay),
                body: request.body,
                after: RetryAfter::Request { reason: request.reason },
            }
        }
    }
}

/// Whether the job ends if this attempt fails.
pub fn is_last(job: &Job, max_failures: u32) -> bool {
    job.failures.saturating_add(1) >= max_failures
}

/// When an interrupted job comes again: at once the first time, with a backoff where it repeats.
pub fn release_at(job: &Job, now: UnixMs) -> UnixMs {
    match job.interruptions {
        0 => now,
        again => now.plus(Backoff::default().delay(again - 1, 0.0)),
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

// === impl Policy ===

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            // As in both older designs: an error takes the job off the queue.
            max_failures: 1,
            max_attempts: None,
            expire_after: Duration::from_secs(24 * 60 * 60),
            backoff: Backoff::default(),
        }
    }
}

// === impl Backoff ===

impl Backoff {
    /// The delay after `before` earlier ones; `jitter` is a random number from -1 to 1.
    pub fn delay(&self, before: u32, jitter: f64) -> Duration {
        let grown = self.first.as_secs_f64() * self.factor.powf(f64::from(before));
        let spread = grown.min(self.max.as_secs_f64()) * (1.0 + self.jitter * jitter.clamp(-1.0, 1.0));
        Duration::try_from_secs_f64(spread.max(0.0)).unwrap_or(self.max)
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(600), jitter: 0.2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::RetryRequest;

    const NOW: UnixMs = UnixMs(1_000_000_000);

    fn job() -> Job {
        Job { id: "1".into(), job_type: "t".into(), body: "{}".into(), attempt: 1, ..Job::default() }
    }

    fn decided(policy: &Policy, job: &Job, outcome: Outcome) -> Disposition {
        decide(policy, job, outcome, NOW.minus(Duration::from_millis(5)), NOW, || 0.0)
    }

    fn trap() -> Failure {
        Failure::new(Kind::Trap, "unreachable")
    }

    fn at(disposition: &Disposition) -> Duration {
        match disposition {
            Disposition::Retry { at, .. } | Disposition::Release { at, .. } => at.since(NOW),
            other => panic!("{other:?} has no time"),
        }
    }

    fn buried(disposition: &Disposition) -> Kind {
        match disposition {
            Disposition::Bury(failure) => failure.kind.clone(),
            other => panic!("{other:?} is no burial"),
        }
    }

    #[test]
    fn completion_is_acknowledged_with_its_result() {
        let complete = Outcome::Complete { result: Some("1".into()) };
        assert_eq!(decided(&Policy::default(), &job(), complete), Disposition::Ack { result: Some("1".into()) });
    }

    #[test]
    fn failure_is_buried_at_max_failures_and_backs_off_before() {
        let policy = Policy { max_failures: 3, ..Policy::default() };
        let of = |failures| decided(&policy, &Job { failures, ..job() }, Outcome::Failed(trap()));
        assert_eq!(at(&of(0)), Duration::from_secs(1));
        assert_eq!(at(&of(1)), Duration::from_secs(2));
        assert_eq!(of(2), Disposition::Bury(trap()));
        assert_eq!(decided(&Policy::default(), &job(), Outcome::Failed(trap())), Disposition::Bury(trap()));
    }

    #[test]
    fn request_is_no_failure_and_brings_its_own_delay_and_body() {
        let request = RetryRequest { after: Some(Duration::from_millis(1_500)), body: Some("2".into()), reason: None };
        let disposition = decided(&Policy::default(), &Job { failures: 5, ..job() }, Outcome::Retry(request));
        assert_eq!(at(&disposition), Duration::from_millis(1_500));
        let Disposition::Retry { body, after: RetryAfter::Request { .. }, .. } = disposition else { panic!() };
        assert_eq!(body.as_deref(), Some("2"));
    }

    #[test]
    fn request_without_a_delay_backs_off_by_attempt() {
        for (retries_requested, seconds) in [(0, 1), (1, 2), (2, 4), (40, 600)] {
            let job = Job { retries_requested, ..job() };
            let disposition = decided(&Policy::default(), &job, Outcome::Retry(RetryRequest::default()));
            assert_eq!(at(&disposition), Duration::from_secs(seconds), "{retries_requested}");
        }
    }

    #[test]
    fn request_ends_with_expire_after_and_max_attempts() {
        let retry = || Outcome::Retry(RetryRequest::default());
        let day = Duration::from_secs(24 * 60 * 60);
        let late = Job { first_started_at: Some(NOW.minus(day)), ..job() };
        assert_eq!(buried(&decided(&Policy::default(), &late, retry())), Kind::Expired);
        let policy = Policy { max_attempts: Some(3), ..Policy::default() };
        assert_eq!(
            buried(&decided(&policy, &Job { failures: 1, retries_requested: 1, ..job() }, retry())),
            Kind::OutOfAttempts
        );
        let interrupted = Job { attempt: 3, interruptions: 1, retries_requested: 1, ..job() };
        assert!(matches!(decided(&policy, &interrupted, retry()), Disposition::Retry { .. }));
    }

    #[test]
    fn rejection_and_cancellation_are_buried_whatever_the_policy() {
        let policy = Policy { max_failures: 25, ..Policy::default() };
        assert_eq!(buried(&decided(&policy, &job(), Outcome::Reject { reason: "no".into() })), Kind::Rejected);
        assert_eq!(buried(&decided(&policy, &job(), Outcome::Cancelled)), Kind::Cancelled);
    }

    #[test]
    fn interruption_is_released_at_once_and_later_where_it_repeats() {
        let of = |interruptions| {
            decided(
                &Policy::default(),
                &Job { interruptions, ..job() },
                Outcome::Interrupted { reason: "drain".into() },
            )
        };
        assert_eq!(at(&of(0)), Duration::ZERO);
        assert_eq!(at(&of(1)), Duration::from_secs(1));
        assert_eq!(at(&of(3)), Duration::from_secs(4));
        assert!(matches!(of(0), Disposition::Release { started: true, .. }));
    }

    #[test]
    fn backoff_grows_to_its_maximum_and_is_spread() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(600));
        assert_eq!(backoff.delay(0, -1.0), Duration::from_millis(800));
        assert_eq!(backoff.delay(0, 1.0), Duration::from_millis(1_200));
    }
}
