//! Who is told of attempts while they go on: what counts, charts, traces and streams them.

use std::time::Duration;

use crate::handler::Handler;
use crate::job::Job;
use crate::outcome::{Disposition, Kind, Outcome, RetryAfter};
use crate::queue::Settled;

/// Is told of attempts and settlements, on the job path: no call may block, and all of them together are to cost a job less
/// than a microsecond.
pub trait Observer: Send + Sync + 'static {
    /// The queue handed over so many jobs.
    fn received(&self, _jobs: usize) {}

    /// An attempt starts.
    fn started(&self, _handler: &Handler, _job: &Job) {}

    /// An attempt is over.
    fn ended(&self, _handler: &Handler, _job: &Job, _end: &End<'_>) {}

    /// A settlement is durable, or came too late.
    fn settled(&self, _job: &Job, _fate: &Fate, _settled: Settled) {}
}

/// How an attempt went.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Wall-clock time, from before the instance was made to after it was thrown away.
    pub duration: Duration,
    /// The most memory it had, in bytes.
    pub memory_peak_bytes: u64,
    /// How often it reached for what was not granted.
    pub denied: u32,
}

/// What became of a job by a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Completed,
    /// It failed, and is tried again.
    Failed(Kind),
    /// Its handler asked for another attempt.
    Retried,
    /// It is a dead letter.
    Buried(Kind),
    /// It was interrupted, and comes again.
    Released,
    /// It waits for its handler.
    Parked,
}

// === impl Fate ===

impl Fate {
    /// What a disposition makes of a job.
    pub fn of(disposition: &Disposition) -> Fate {
        match disposition {
            Disposition::Ack { .. } => Fate::Completed,
            Disposition::Retry { after: RetryAfter::Failure(failure), .. } => Fate::Failed(failure.kind.clone()),
            Disposition::Retry { after: RetryAfter::Request { .. }, .. } => Fate::Retried,
            Disposition::Bury(failure) => Fate::Buried(failure.kind.clone()),
            Disposition::Release { .. } => Fate::Released,
            Disposition::Park => Fate::Parked,
        }
    }
}
