//! What a queue is: it hands out deliveries, and makes durable what became of them.
//!
//! Two implementations, one contract: at least once, always. A job that was accepted is handed out until it is settled as
//! complete or buried.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::job::{Job, name_fault};
use crate::outcome::Kind;
use crate::state::StateStore;

mod health;
pub mod kafka;
mod offsets;
mod open;
mod runner_files;
mod settlement;
mod shown;
pub mod sqlite;
mod told;

pub use open::{open, open_present, open_state};
pub use settlement::{AttemptRecord, KeepLogs, Settled, Settlement};
pub use shown::{AttemptLines, JobSource, Listed, LogLine, Shown};

/// A future that a queue answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is told how a settlement ended: once, on a thread of the queue's, which it must not keep.
pub type OnSettled = Box<dyn FnOnce(Settled) + Send>;

/// A queue of jobs. Several processes may share one.
pub trait Queue: std::fmt::Debug + Send + Sync + 'static {
    /// Waits until there is a job that `demand` has room for, and takes as many as it has room for. A dropped call loses
    /// nothing: what it had taken comes with the next one. Errors that may pass (a locked file, a broker away) are waited
    /// out, and said once in the log.
    fn receive<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<Vec<Delivery>, QueueError>>;

    /// Makes durable what became of a delivery, all of it together, and tells `settled` when it is. Waits out a sick queue.
    fn settle(&self, delivery: Delivery, settlement: Settlement, settled: OnSettled);

    /// Adds jobs, all of them or none, and answers when they are durable, one answer for each in their order. It is under
    /// way from the call on, whether the answer is waited for or not.
    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'static, Result<Vec<Enqueued>, QueueError>>;

    /// Where the state of handlers is. It changes with settlements alone.
    fn state(&self) -> Arc<dyn StateStore>;

    /// How many jobs there are, by type and state.
    fn stats(&self) -> Answer<'_, Result<Stats, QueueError>>;

    /// Whether it can be reached at all, found with as little as can be asked.
    fn answers(&self) -> Answer<'_, Result<(), QueueError>> {
        Box::pin(async move { self.stats().await.map(drop) })
    }

    /// Whether a job of a type that `demand` lists is ready, or any job is running, here or in another runner; found without
    /// counting.
    fn has_work<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<bool, QueueError>>;

    /// Jobs that pass `filter`, oldest first.
    fn list(&self, filter: Filter) -> Answer<'_, Result<Vec<Listed>, QueueError>>;

    /// All that is known of one job, by its id.
    fn show(&self, id: &str) -> Answer<'_, Result<Option<Shown>, QueueError>>;

    /// Sends the dead letters that pass `filter` back, as they were enqueued, with no failures and a new clock; answers
    /// which. Malformed ones stay: asked for by id they are an error, else they are passed over. So are those that were
    /// requeued [`REQUEUES_MAX`] times, unless it is forced.
    fn requeue_dead(&self, filter: Filter, how: Requeue) -> Answer<'_, Result<Requeued, QueueError>>;

    /// Deletes the dead letters that pass `filter`, for good; answers which.
    fn delete_dead(&self, filter: Filter, dry_run: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>>;

    /// For how long the thread that this queue rests on has been at one thing, other than waiting for work. Minutes mean that it
    /// is stuck. Must not block.
    fn stands(&self) -> Duration {
        Duration::ZERO
    }

    /// Cancels the job that `id` names. One that waits is buried at once, one that runs when its runner has broken it off;
    /// whoever runs it is told by [`Queue::cancellations`].
    fn cancel(&self, id: &str) -> Answer<'_, Result<Cancelled, QueueError>>;

    /// Waits until jobs that this runner holds are cancelled, and answers their receipts. It may answer the same more than
    /// once, and some that are settled by now.
    fn cancellations(&self) -> Answer<'_, Vec<Receipt>>;

    /// Has the job that `id` names kept until a moment, should it complete before, whatever else is kept of completed jobs.
    fn keep(&self, id: &str, until: UnixMs) -> Answer<'_, Result<(), QueueError>>;

    /// Whether there was a job of this `id` that ended and is no longer kept, as far as that is remembered.
    fn departed(&self, id: &str) -> Answer<'_, Result<Option<Departed>, QueueError>>;

    /// For how long this runner could not write the queue, or reach it, all in all.
    fn sick(&self) -> Duration {
        Duration::ZERO
    }

    /// Stops receiving: what was taken and not handed out is released, settling goes on. `receive` answers an error from
    /// now on.
    fn stop_receiving(&self) -> Answer<'_, ()>;

    /// Makes durable all that is under way, and gives up what this runner holds.
    fn close(&self) -> Answer<'_, ()>;
}

/// What a runner can take on now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// The job types that are served here, and how many more jobs of each can be in flight. Types with no room are listed
    /// too, with 0: they are served.
    pub types: Vec<(Arc<str>, u32)>,
    /// The same for a handler of `*`: every type that no other handler claims, here or in another live runner.
    pub others: Option<u32>,
    /// Job types whose handler is here and must not run: their jobs are not taken, by a handler of `*` neither, here or in
    /// another live runner, and wait as if nobody served them.
    pub paused: Vec<Arc<str>>,
    /// Handlers are still being loaded: a type that is not served yet may be in a moment.
    pub loading: bool,
}

/// A job as it was handed over, with what settles it.
///
/// It goes into [`Queue::settle`] by value. Dropped unsettled (a panic, a cancelled future) it is released.
#[derive(Debug)]
#[must_use = "a delivery that is not settled is released and comes again"]
pub struct Delivery {
    /// The job.
    pub job: Arc<Job>,
    /// Runners died while they executed it: it must run alone.
    pub alone: bool,
    receipt: Receipt,
    release: Option<Arc<dyn Release>>,
}

/// The queue's own key for a delivery: what is in flight, and a number that no later delivery of the same job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The record.
    pub record: i64,
    /// The fencing number.
    pub fence: i64,
}

/// The queue's side of a delivery.
pub trait Release: std::fmt::Debug + Send + Sync {
    /// Takes back a delivery that was dropped unsettled. Must not block.
    fn release(&self, receipt: Receipt);

    /// Whether the right to a delivery still holds, as far as can be told here and now. Must not block.
    fn holds(&self, _receipt: Receipt) -> bool {
        true
    }

    /// Notes that a delivery is being executed, so that a death of the process can be counted against it. Must not block
    /// for longer than a write to the page cache.
    fn executing(&self, receipt: Receipt, alone: bool) -> u32;

    /// Notes that slot `slot`, as [`Release::executing`] gave it, executes nothing now.
    fn executed(&self, slot: u32);
}

/// Says, as long as it lives, that a delivery is being executed.
#[derive(Debug)]
pub struct Executing<'a> {
    slot: u32,
    queue: &'a dyn Release,
}

/// A job to be added.
#[derive(Debug, Clone, PartialEq)]
pub enum NewJob {
    /// A job.
    Job {
        /// Selects the handler.
        job_type: String,
        /// Byte for byte what the handler will see.
        body: String,
        /// An id that the enqueuer chose (explicitly, or the body's `job_id`), under which it is one job however often it
        /// is enqueued. None: the queue names it.
        id: Option<String>,
        /// When it is to run; none: now.
        run_at: Option<UnixMs>,
        /// Pairs as in the contract's `job.metadata`.
        metadata: Vec<(String, String)>,
        /// How long it is kept after it completed, whatever else is kept of completed jobs; none: as others are.
        keep: Option<Duration>,
    },
    /// Bytes that are no job: kept exactly, as a dead letter.
    Malformed {
        /// The bytes.
        bytes: Vec<u8>,
        /// Why they are no job.
        reason: String,
    },
}

/// What became of a [`NewJob`].
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Enqueued {
    /// The job's id.
    pub id: String,
    /// There was a job of that id already (not ended, or ended within the last 24 hours): nothing was added.
    pub duplicate: bool,
}

/// How people see where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Waits for a slot.
    Ready,
    /// Waits for its time: enqueued for later, or a retry.
    Scheduled,
    /// Waits for a handler of its type: runners live, and none of them serves it.
    Parked,
    /// Handed to a runner.
    Running,
    /// A dead letter.
    Dead,
    /// Done, and still kept.
    Completed,
}

/// Which jobs. Empty: all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Of these ids.
    pub ids: Vec<String>,
    /// Of this type.
    pub job_type: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Buried with this kind.
    pub kind: Option<Kind>,
    /// Ended, or if not ended enqueued, at or after this moment.
    pub since: Option<UnixMs>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Those behind the one whose [`Listed::cursor`] this is.
    pub after: Option<String>,
    /// The newest first, not the oldest.
    pub newest_first: bool,
}

/// What became of a job that somebody cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited, and is a dead letter now.
    Buried,
    /// It runs: its runner is told, and buries it when it has broken it off.
    Asked,
    /// It had ended, so.
    Ended(State),
    /// There is no such job.
    Unknown,
}

/// What is remembered of a job that ended and is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Departed {
    /// When it ended, if that is known.
    #[serde(rename = "ended_at_ms")]
    pub ended_at: Option<UnixMs>,
}

/// How many jobs there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Stats {
    /// By type and state; a type of none are the malformed among the dead, and elsewhere those of whom it is not known.
    pub counts: Vec<Count>,
    /// When the next scheduled job is due.
    #[serde(rename = "next_due_at_ms")]
    pub next_due_at: Option<UnixMs>,
    /// When the oldest ready job became ready.
    #[serde(rename = "oldest_ready_at_ms")]
    pub oldest_ready_at: Option<UnixMs>,
    /// Live runners; none if this queue cannot tell.
    pub runners: Option<u32>,
    /// Settlements that came after their lease was lost, since the file was made; none if this queue does not count them.
    pub fenced_total: Option<u64>,
    /// What holds up a partition of Kafka.
    pub blocked: Vec<Blocked>,
    /// What this queue cannot know of the rest, in sentences.
    pub notes: Vec<String>,
}

/// A job of a Kafka queue that cannot be settled, and with it all that its partition commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Blocked {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// Why.
    pub reason: String,
    /// How many others of the partition are not done.
    pub stalls: u64,
}

/// Jobs of one type in one state.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Count {
    /// The type; none for malformed ones.
    pub job_type: Option<String>,
    /// The state.
    pub state: State,
    /// How many.
    pub jobs: u64,
}

/// What went wrong with a queue.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    /// What happened, to what, and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it may pass by itself.
    pub transient: bool,
    /// Whether this queue cannot do that at all.
    pub unsupported: bool,
}

/// How dead letters are requeued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeue {
    /// Nothing is changed; only what would be is said.
    pub dry_run: bool,
    /// Those go back too that died again after [`REQUEUES_MAX`] requeues.
    pub force: bool,
}

/// What became of dead letters that were to be requeued.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requeued {
    /// Those that went back, or would.
    pub letters: Vec<Listed>,
    /// How many stay, since they were requeued [`REQUEUES_MAX`] times already.
    pub stay: usize,
}

/// A dead letter that was requeued so often, and died each time, goes back only by force: what requeues all there is every
/// hour must not keep a hopeless job going for ever.
pub const REQUEUES_MAX: u32 = 3;

/// How long completed jobs are kept, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep {
    /// Age; zero: they are deleted as they complete.
    pub age: Duration,
    /// Size of bodies and results together, in bytes, and 256 more for each job.
    pub bytes: u64,
}

/// Says why these cannot be enqueued at all, if they cannot.
fn check_new(jobs: &[NewJob]) -> Result<(), QueueError> {
    for job in jobs {
        if let NewJob::Job { job_type, id, .. } = job {
            let fault = name_fault(job_type).map(|fault| ("job type", job_type, fault));
            let fault = fault.or_else(|| id.as_ref().and_then(|id| Some(("id", id, name_fault(id)?))));
            if let Some((what, name, fault)) = fault {
                let name: String = name.chars().take(40).collect();
                return Err(QueueError::lasting(format!("cannot enqueue: {what} {name:?} {fault}")));
            }
        }
    }
    Ok(())
}

// === impl Delivery ===

impl Delivery {
    /// A delivery of `job`, settled by `receipt` and given back to `release` when dropped.
    pub fn new(job: impl Into<Arc<Job>>, alone: bool, receipt: Receipt, release: Arc<dyn Release>) -> Delivery {
        Delivery { job: job.into(), alone, receipt, release: Some(release) }
    }

    /// The queue's own key for it.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Whether the right to it still holds, as far as can be told here and now. One that waited while its runner stood still
    /// may be somebody else's by now, and is not to be started.
    pub fn is_held(&self) -> bool {
        self.release.as_ref().is_some_and(|queue| queue.holds(self.receipt))
    }

    /// Says, until the guard is dropped, that this delivery is being executed.
    pub fn executing(&self) -> Executing<'_> {
        let queue = self.release.as_deref().expect("a delivery keeps its queue until it is taken apart");
        Executing { slot: queue.executing(self.receipt, self.alone), queue }
    }

    /// Takes it apart, for the queue that settles it: it is not released any more.
    pub fn into_parts(mut self) -> (Arc<Job>, Receipt) {
        self.release = None;
        (Arc::clone(&self.job), self.receipt)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(queue) = self.release.take() {
            queue.release(self.receipt);
        }
    }
}

// === impl Executing ===

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.queue.executed(self.slot);
    }
}

// === impl State ===

impl State {
    /// All of them, in the order of a job's life.
    pub const ALL: [State; 6] =
        [State::Ready, State::Scheduled, State::Parked, State::Running, State::Dead, State::Completed];

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Scheduled => "scheduled",
            State::Parked => "parked",
            State::Running => "running",
            State::Dead => "dead",
            State::Completed => "completed",
        }
    }
}

// === impl QueueError ===

impl QueueError {
    /// An error that will not pass by itself.
    pub fn lasting(message: impl Into<String>) -> QueueError {
        QueueError { message: message.into(), hint: None, transient: false, unsupported: false }
    }

    /// The same that may pass by itself.
    pub fn transient(message: impl Into<String>) -> QueueError {
        QueueError { transient: true, ..QueueError::lasting(message) }
    }

    /// What somebody gave as the place in a list to go on from, and is none.
    fn no_cursor(cursor: &str) -> QueueError {
        let cursor: String = cursor.chars().take(40).collect();
        QueueError::lasting(format!("{cursor:?} is no cursor of a list of jobs"))
    }

    /// What this queue cannot do, and why.
    pub fn unsupported(message: impl Into<String>) -> QueueError {
        QueueError { unsupported: true, ..QueueError::lasting(message) }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> QueueError {
        self.hint = Some(hint.into());
        self
    }
}
