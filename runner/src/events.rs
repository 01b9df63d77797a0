//! What happens to jobs, told to who listens: streams of events, and who waits for the end of one job.
//!
//! Both cost a job one load of a number where nobody listens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast};

use crate::clock::{Clock, SystemClock, UnixMs};
use crate::handler::Handler;
use crate::job::Job;
use crate::observe::{Fate, Observer};
use crate::outcome::Kind;
use crate::queue::Settled;

/// How many events a listener may be behind before it misses some.
const BEHIND_MAX: usize = 1_024;

/// How many events are told a second: as many as a person's tools can take in. What is beyond it is counted.
const A_SECOND_MAX: u64 = 500;

/// Tells listeners what happens to the jobs of this runner.
#[derive(Debug)]
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    listeners: AtomicUsize,
    /// The second, and above it how many events it had: both in one number, so that no lock is needed.
    gate: AtomicU64,
    /// How many events were not told since the last that was.
    skipped: AtomicU64,
    waiting: AtomicUsize,
    waiters: Mutex<HashMap<String, Waited>>,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// What.
    pub event: What,
    /// When.
    pub at_ms: UnixMs,
    /// The job's id.
    pub id: String,
    /// The job's type.
    pub job_type: String,
    /// Which start of the job it is about, from 1.
    pub attempt: u32,
    /// The class of the failure, of what failed or was buried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "timeout")]
    pub kind: Option<Kind>,
    /// How many events before this one were not told, since there were too many.
    pub skipped: u64,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// An attempt started.
    Started,
    /// It is done.
    Completed,
    /// It failed, and is tried again.
    Failed,
    /// Its handler asked for another attempt.
    Retried,
    /// It is a dead letter.
    Buried,
    /// It was interrupted, and comes again.
    Released,
    /// It waits for its handler.
    Parked,
}

/// Hears of events, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    events: Arc<Events>,
    receiver: broadcast::Receiver<Arc<Event>>,
}

/// Waits for the end of a job, until it is dropped.
#[derive(Debug)]
pub struct Waiter {
    events: Arc<Events>,
    id: String,
    ended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waited {
    ended: Arc<Notify>,
    waiters: usize,
}

// === impl Events ===

impl Events {
    /// Nobody listens yet.
    pub fn new() -> Arc<Events> {
        Arc::new(Events {
            sender: broadcast::Sender::new(BEHIND_MAX),
            listeners: AtomicUsize::new(0),
            gate: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
        })
    }

    /// Hears of all events from now on.
    pub fn listen(self: &Arc<Events>) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Listener { events: Arc::clone(self), receiver: self.sender.subscribe() }
    }

    /// Waits for the end of the job `id`, if it runs here.
    pub fn wait_for(self: &Arc<Events>, id: &str) -> Waiter {
        let mut waiters = self.waiters();
        let waited = waiters.entry(id.to_owned()).or_default();
        waited.waiters += 1;
        // Under the lock, so that it is never less than what is in the map.
        self.waiting.fetch_add(1, Ordering::Release);
        Waiter { events: Arc::clone(self), id: id.to_owned(), ended: Arc::clone(&waited.ended) }
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<String, Waited>> {
        // Nothing panics while it is held, and a map that was changed half way still has all that wait.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, job: &Job, event: What, kind: Option<Kind>) {
        let at = SystemClock.now();
        if !self.has_room(at) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let told = Event {
            event,
            at_ms: at,
            id: job.id.clone(),
            job_type: job.job_type.clone(),
            attempt: job.attempt,
            kind,
            skipped: self.skipped.swap(0, Ordering::Relaxed),
        };
        // The last listener may have gone meanwhile.
        self.sender.send(Arc::new(told)).ok();
    }

    /// Whether one more event may be told in this second.
    fn has_room(&self, at: UnixMs) -> bool {
        let second = (at.0 / 1_000).cast_unsigned() & 0xffff_ffff;
        let step = |gate: u64| {
            let (told_in, told) = (gate & 0xffff_ffff, gate >> 32);
            match told_in == second {
                true if told >= A_SECOND_MAX => None,
                true => Some(((told + 1) << 32) | second),
                false => Some((1 << 32) | second),
            }
        };
        self.gate.try_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }
}

impl Observer for Events {
    fn started(&self, _: &Handler, job: &Job) {
        if self.is_heard() {
            self.tell(job, What::Started, None);
        }
    }

    fn settled(&self, job: &Job, fate: &Fate, settled: Settled) {
        if settled != Settled::Settled {
            return;
        }
        if self.waiting.load(Ordering::Acquire) > 0
            && matches!(fate, Fate::Completed | Fate::Buried(_))
            && let Some(waited) = self.waiters().get(&job.id)
        {
            waited.ended.notify_waiters();
        }
        if self.is_heard() {
            let (what, kind) = match fate {
                Fate::Completed => (What::Completed, None),
                Fate::Failed(kind) => (What::Failed, Some(kind.clone())),
                Fate::Retried => (What::Retried, None),
                Fate::Buried(kind) => (What::Buried, Some(kind.clone())),
                Fate::Released => (What::Released, None),
                Fate::Parked => (What::Parked, None),
            };
            self.tell(job, what, kind);
        }
    }
}

// === impl What ===

impl What {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Started => "started",
            What::Completed => "completed",
            What::Failed => "failed",
            What::Retried => "retried",
            What::Buried => "buried",
            What::Released => "released",
            What::Parked => "parked",
        }
    }
}

// === impl Listener ===

impl Listener {
    /// The next event, or how many were missed, since they were not taken in time.
    pub async fn next(&mut self) -> Result<Arc<Event>, u64> {
        match self.receiver.recv().await {
            Ok(event) => Ok(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(missed),
            Err(broadcast::error::RecvError::Closed) => unreachable!("a listener holds the sender"),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Waiter ===

impl Waiter {
    /// Ends when the job ends, if it does so after this was asked and [`Notified::enable`] called.
    pub fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.events.waiters();
        if let Entry::Occupied(mut waited) = waiters.entry(std::mem::take(&mut self.id)) {
            waited.get_mut().waiters -= 1;
            if waited.get().waiters == 0 {
                waited.remove();
            }
        }
        self.events.waiting.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> Job {
        Job { id: id.to_owned(), job_type: "t".to_owned(), attempt: 2, ..Job::default() }
    }

    #[tokio::test]
    async fn what_is_settled_is_told_and_what_is_fenced_is_not() {
        let events = Events::new();
        events.settled(&job("before"), &Fate::Completed, Settled::Settled);
        let mut listener = events.listen();
        events.settled(&job("fenced"), &Fate::Completed, Settled::Fenced);
        events.settled(&job("a"), &Fate::Buried(Kind::Timeout), Settled::Settled);
        let told = listener.next().await.expect("nothing is missed");
        assert_eq!((told.id.as_str(), told.event, told.attempt), ("a", What::Buried, 2));
        assert_eq!(told.kind, Some(Kind::Timeout));
        drop(listener);
        assert!(!events.is_heard());
    }

    #[tokio::test]
    async fn flood_is_thinned_out_and_counted() {
        let events = Events::new();
        let at = UnixMs(5_000);
        let told = (0..2 * A_SECOND_MAX).filter(|_| events.has_room(at)).count();
        assert_eq!(told as u64, A_SECOND_MAX);
        assert!(events.has_room(UnixMs(6_000)));
        events.skipped.store(7, Ordering::Relaxed);
        let mut listener = events.listen();
        events.settled(&job("a"), &Fate::Parked, Settled::Settled);
        assert_eq!(listener.next().await.expect("nothing is missed").skipped, 7);
    }

    #[tokio::test]
    async fn who_waits_for_a_job_hears_of_its_end_and_of_no_other() {
        let events = Events::new();
        let (one, other) = (events.wait_for("a"), events.wait_for("a"));
        let (mut ended, mut other_ended) = (Box::pin(one.ended()), Box::pin(other.ended()));
        assert!(!ended.as_mut().enable() && !other_ended.as_mut().enable());
        events.settled(&job("b"), &Fate::Completed, Settled::Settled);
        events.settled(&job("a"), &Fate::Failed(Kind::Error), Settled::Settled);
        assert!(!ended.as_mut().enable());
        events.settled(&job("a"), &Fate::Completed, Settled::Settled);
        assert!(ended.as_mut().enable() && other_ended.as_mut().enable());
        drop((ended, other_ended));
        drop((one, other));
        assert!(events.waiters().is_empty());
        assert_eq!(events.waiting.load(Ordering::Relaxed), 0);
    }
}
