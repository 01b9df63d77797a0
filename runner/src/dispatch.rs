//! The one path: every job goes from the queue through its handler back to the queue here, and only here.
//!
//! ```text
//! queue.receive() → Delivery → registry.get(job_type) → handler.run(job) → Outcome
//!       ↑                                                                     │
//!       └──── queue.settle(delivery, disposition) ←── retry::decide(…) ───────┘
//! ```

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::backlog::Share;
use self::backlog::{Backlog, Turn};
use self::slot::Slot;
use crate::clock::Clock;
use crate::observe::{End, Fate, Observer};
use crate::outcome::{Disposition, Failure, Kind, Outcome};
use crate::queue::{AttemptRecord, Delivery, Demand, KeepLogs, Queue, QueueError, Settled, Settlement};
use crate::registry::Registry;
use crate::retry;
use crate::sandbox::Attempt;
use crate::traces::{self, Traces};
use crate::trial::Standing;

mod backlog;
mod log;
mod slot;

/// A random number from -1 to 1.
pub type Jitter = Box<dyn Fn() -> f64 + Send + Sync>;

/// What a dispatcher works with.
pub struct Parts {
    /// Where jobs come from and go to.
    pub queue: Arc<dyn Queue>,
    /// Who serves them.
    pub registry: Arc<ArcSwap<Registry>>,
    /// How many attempts run at a time.
    pub slots: u32,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Spreads backoffs.
    pub jitter: Jitter,
    /// Where guests run: a runtime of their own, so that they stall nothing else.
    pub guests: Box<dyn Spawn>,
    /// Who is told of attempts.
    pub observers: Vec<Arc<dyn Observer>>,
    /// Of which attempts the lines are kept.
    pub keep_logs: KeepLogs,
    /// What makes spans of them, if anything does.
    pub traces: Option<Arc<Traces>>,
}

/// What slots and settlements run on: a runtime; in a simulation, what stands for one.
pub trait Spawn: Send + Sync {
    /// Starts a task. A panic ends it, and nothing else.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// Takes jobs from the queue, runs them, and settles them.
pub struct Dispatcher {
    parts: Parts,
    backlog: Mutex<Backlog>,
    /// There is something to hand out.
    ready: Notify,
    /// There is room for more, other types are served, or something was settled.
    changed: Notify,
    /// Attempts are to be broken off.
    stop: CancellationToken,
    slots: TaskTracker,
    /// What each slot runs.
    running: Mutex<Vec<Arc<Slot>>>,
    settling: TaskTracker,
    /// Handlers are still to come: an empty queue means nothing yet.
    expects_handlers: AtomicBool,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// A dispatcher that has not started yet.
    pub fn new(parts: Parts) -> Arc<Dispatcher> {
        Arc::new(Dispatcher {
            parts,
            backlog: Mutex::new(Backlog::default()),
            ready: Notify::new(),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            slots: TaskTracker::new(),
            running: Mutex::default(),
            settling: TaskTracker::new(),
            expects_handlers: AtomicBool::new(false),
        })
    }

    /// Says that the registry was swapped: what is served has changed.
    pub fn registry_changed(&self) {
        self.backlog().sort_anew(&self.parts.registry.load());
        self.ready.notify_one();
        self.changed.notify_one();
    }

    /// Says whether handlers are still being loaded that lay there at the start. Until then no queue counts as empty.
    pub fn expect_handlers(&self, expected: bool) {
        self.expects_handlers.store(expected, Ordering::Release);
        self.changed.notify_one();
    }

    /// How many jobs are running, and how many are received and not settled.
    pub fn booked(&self) -> (u32, u32) {
        let backlog = self.backlog();
        (backlog.running(), backlog.in_flight())
    }

    /// Receives and works jobs until `drain` is cancelled, or until the queue is empty if `until_empty`; then finishes what
    /// runs, for at most `drain_timeout`, and releases the rest. `stop_at_once` breaks off what runs.
    ///
    /// # Errors
    ///
    /// What the queue says will not pass by itself.
    pub async fn run(
        self: &Arc<Dispatcher>,
        drain: &CancellationToken,
        stop_at_once: &CancellationToken,
        drain_timeout: Duration,
        until_empty: bool,
    ) -> Result<(), QueueError> {
        for _ in 0..self.parts.slots {
            self.spawn_slot();
        }
        let work = async {
            let received = self.receive(drain, until_empty).await;
            self.drain(stop_at_once, drain_timeout).await;
            received
        };
        tokio::select! {
            biased;
            received = work => received,
            () = self.hear_cancellations() => unreachable!("it hears as long as it is polled"),
        }
    }

    /// Breaks off the attempt at the job of this id that runs here, so that it is buried as cancelled. Whether there is one.
    pub fn cancel_running(&self, id: &str) -> bool {
        self.running().iter().any(|slot| slot.cancel(|_, job| job.id == id))
    }

    async fn hear_cancellations(self: &Arc<Dispatcher>) {
        loop {
            for receipt in self.parts.queue.cancellations().await {
                if self.running().iter().any(|slot| slot.cancel(|running, _| running == receipt)) {
                    continue;
                }
                let waited = self.backlog().remove(receipt);
                if let Some(delivery) = waited {
                    let failure = Failure::new(Kind::Cancelled, "cancelled before it was started");
                    self.settle(delivery, Settlement::new(Disposition::Bury(failure), None), None, None);
                    self.changed.notify_one();
                }
            }
        }
    }

    async fn receive(self: &Arc<Dispatcher>, drain: &CancellationToken, until_empty: bool) -> Result<(), QueueError> {
        loop {
            let mut demand = self.backlog().demand(&self.parts.registry.load());
            demand.loading = self.expects_handlers.load(Ordering::Acquire);
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(()),
                deliveries = self.parts.queue.receive(&demand) => self.take_in(deliveries?),
                () = self.changed.notified() => {}
                empty = self.emptied(&demand), if until_empty => return empty,
            }
        }
    }

    fn take_in(self: &Arc<Dispatcher>, deliveries: Vec<Delivery>) {
        self.observe(|observer| observer.received(deliveries.len()));
        let mut unserved = Vec::new();
        {
            let mut backlog = self.backlog();
            // Read under the lock: whoever swaps it sorts anew what is taken in here.
            let registry = self.parts.registry.load();
            for delivery in deliveries {
                match registry.get(&delivery.job.job_type).filter(|handler| !handler.is_paused()) {
                    Some(handler) => backlog.push(delivery, &handler.name, handler.share()),
                    None => unserved.push(delivery),
                }
            }
        }
        self.ready.notify_one();
        for delivery in unserved {
            self.settle(delivery, Settlement::new(Disposition::Park, None), None, None);
        }
    }

    /// Waits until all is done that `--until-empty` waits for.
    async fn emptied(&self, demand: &Demand) -> Result<(), QueueError> {
        /// Jobs that other runners hold end without our being told.
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        loop {
            let all_here = !self.expects_handlers.load(Ordering::Acquire);
            if all_here && self.backlog().in_flight() == 0 && !self.parts.queue.has_work(demand).await? {
                return Ok(());
            }
            self.parts.clock.sleep(LOOK_AGAIN).await;
        }
    }

    /// Works one job after the other. A panic ends the slot, not the runner: the delivery is released as it is dropped, and
    /// another slot takes this one's place.
    fn spawn_slot(self: &Arc<Dispatcher>) {
        let dispatcher = Arc::clone(self);
        let replace = Replace(Arc::clone(self));
        let running = Arc::new(Slot::new(&self.stop));
        {
            let mut all = self.running();
            // Of a slot that panicked, nobody else knows any more.
            all.retain(|slot| Arc::strong_count(slot) > 1);
            all.push(Arc::clone(&running));
        }
        let slot = async move {
            while let Some((delivery, turn)) = dispatcher.next().await {
                dispatcher.work(delivery, turn, &running).await;
            }
            replace.never();
        };
        self.parts.guests.spawn(Box::pin(self.slots.track_future(slot)));
    }

    /// The next job to run; none when the runner drains.
    async fn next(&self) -> Option<(Delivery, Turn)> {
        loop {
            let ready = self.ready.notified();
            {
                let mut backlog = self.backlog();
                if let Some(next) = backlog.next() {
                    // One notification wakes one slot: it passes the word on while there is more.
                    if backlog.has_next() {
                        self.ready.notify_one();
                    }
                    return Some(next);
                }
                if backlog.is_closed() {
                    self.ready.notify_one();
                    return None;
                }
            }
            ready.await;
        }
    }

    /// The life of one attempt.
    async fn work(self: &Arc<Dispatcher>, delivery: Delivery, turn: Turn, slot: &Slot) {
        let over = Over { dispatcher: self, turn: &turn };
        // Without a count of its own, which all threads would write for each job.
        let registry = self.parts.registry.load();
        let Some(handler) = registry.get(&delivery.job.job_type).filter(|handler| !handler.is_paused()) else {
            over.after(None);
            return self.settle(delivery, Settlement::new(Disposition::Park, None), Some(turn), None);
        };
        if !delivery.is_held() {
            // Dropped, it is put back, unless another runner has taken it over; and `over` gives its turn back.
            return drop(delivery);
        }
        let executing = delivery.executing();
        let started_at = self.parts.clock.now();
        self.observe(|observer| observer.started(handler, &delivery.job));
        let stop = slot.start(&delivery);
        let traced = self.parts.traces.as_ref().map(|traces| traces.attempt(&delivery.job));
        let span = traced.as_ref().map(|traced| traced.context);
        let job = traced.as_ref().map_or(&delivery.job, |traced| &traced.job);
        let Attempt { outcome, duration, memory_peak_bytes, lines, follow_ups, state, denied, .. } =
            handler.run(job, &stop).await;
        let outcome = slot.end(stop, &self.stop, outcome);
        drop(executing);
        let end = End { outcome: &outcome, duration, memory_peak_bytes, denied };
        self.observe(|observer| observer.ended(handler, &delivery.job, &end));
        let traced = traced.map(|traced| traced.ended(handler, &end));
        let standing = handler.attempted(&outcome);
        if standing == Some(Standing::Braked) {
            log::brake(handler, &outcome);
        }
        if handler.is_paused() {
            self.changed.notify_one();
        }
        over.after(Some(duration));

        let failure = match &outcome {
            Outcome::Failed(failure) => Some(failure.clone()),
            _ => None,
        };
        let lines = lines.filter(|_| self.parts.keep_logs.keeps(&outcome));
        let now = self.parts.clock.now();
        let follow_ups = follow_ups.into_jobs(now);
        let disposition = retry::decide(&handler.retry, &delivery.job, outcome, started_at, now, &self.parts.jitter);
        if let Some(traced) = traced {
            traced.decided(&disposition);
        }
        let attempt = (disposition != Disposition::Park).then(|| AttemptRecord {
            number: delivery.job.attempt,
            started_at,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            memory_peak_bytes,
            generation: handler.generation.clone(),
            failure,
        });
        self.settle(delivery, Settlement { disposition, attempt, follow_ups, state, lines }, Some(turn), span);
    }

    /// Settles a delivery, without holding up the slot that ran it until that is durable.
    fn settle(
        self: &Arc<Dispatcher>,
        delivery: Delivery,
        settlement: Settlement,
        turn: Option<Turn>,
        span: Option<traces::Context>,
    ) {
        log::settlement(&delivery.job, &settlement.disposition, span);
        let job = Arc::clone(&delivery.job);
        let (dispatcher, under_way) = (Arc::clone(self), self.settling.token());
        let fate = Fate::of(&settlement.disposition);
        let settled = move |settled| {
            dispatcher.observe(|observer| observer.settled(&job, &fate, settled));
            match settled {
                Settled::Settled => {}
                Settled::Fenced => tracing::warn!(
                    job.id = %job.id, job.type = %job.job_type, attempt = job.attempt,
                    "the right to job `{}` was lost before it was settled: this attempt changes nothing", job.id
                ),
                Settled::Conflicted => tracing::debug!(
                    job.id = %job.id, job.type = %job.job_type, attempt = job.attempt,
                    "job `{}` runs again: another attempt changed the state that it relies on", job.id
                ),
            }
            if turn.is_some_and(|turn| dispatcher.backlog().settled(&turn)) {
                dispatcher.changed.notify_one();
            }
            drop(under_way);
        };
        self.parts.queue.settle(delivery, settlement, Box::new(settled));
    }

    /// Finishes what runs, releases what waits.
    async fn drain(&self, stop_at_once: &CancellationToken, drain_timeout: Duration) {
        let waited = self.backlog().close();
        self.ready.notify_one();
        drop(waited);
        self.parts.queue.stop_receiving().await;
        self.slots.close();
        let running = self.backlog().running();
        if running > 0 {
            tracing::info!(jobs = running, "draining: {running} running jobs have {drain_timeout:?} to end");
        }
        tokio::select! {
            biased;
            () = self.slots.wait() => {}
            () = stop_at_once.cancelled() => self.break_off("told to stop at once"),
            () = self.parts.clock.sleep(drain_timeout) => self.break_off("the drain timeout is over"),
        }
        self.slots.wait().await;
        self.settling.close();
        tokio::select! {
            biased;
            () = self.settling.wait() => {}
            () = given_up(&*self.parts.clock, stop_at_once, drain_timeout) => tracing::warn!(
                settlements = self.settling.len(), "the queue takes no settlements: what they settle will run again"
            ),
        }
    }

    fn observe(&self, tell: impl Fn(&dyn Observer)) {
        for observer in &self.parts.observers {
            tell(observer.as_ref());
        }
    }

    fn break_off(&self, why: &str) {
        let running = self.backlog().running();
        tracing::warn!(jobs = running, "{why}: {running} running jobs are interrupted and released");
        self.stop.cancel();
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        // No code panics while it holds the lock, and if it did the counts would still be nearer the truth than none.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a stopping runner has waited long enough for a sick queue: for the drain timeout, or, told to stop at once,
/// for no longer than a well queue takes.
pub async fn given_up(clock: &dyn Clock, stop_at_once: &CancellationToken, drain_timeout: Duration) {
    const AT_ONCE: Duration = Duration::from_secs(1);
    let told = async {
        stop_at_once.cancelled().await;
        clock.sleep(AT_ONCE).await;
    };
    tokio::select! {
        biased;
        () = told => {}
        () = clock.sleep(drain_timeout.max(AT_ONCE)) => {}
    }
}

// === impl Spawn ===

impl Spawn for Handle {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(Handle::spawn(self, task));
    }
}

/// Starts another slot when it is dropped by a panic.
struct Replace(Arc<Dispatcher>);

impl Replace {
    fn never(self) {
        std::mem::forget(self);
    }
}

impl Drop for Replace {
    fn drop(&mut self) {
        // A runtime that ends drops its tasks too, and would drop the new one at once.
        if std::thread::panicking() {
            tracing::error!("a slot panicked: its job is released and another slot takes its place");
            self.0.spawn_slot();
        }
    }
}

/// Gives a turn back, whatever happens.
struct Over<'a> {
    dispatcher: &'a Dispatcher,
    turn: &'a Turn,
}

impl Over<'_> {
    fn after(self, duration: Option<Duration>) {
        self.dispatcher.backlog().ran(self.turn, duration);
        std::mem::forget(self);
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        {
            let mut backlog = self.dispatcher.backlog();
            backlog.ran(self.turn, None);
            backlog.settled(self.turn);
        }
        // No settlement will say that there is room again.
        self.dispatcher.changed.notify_one();
    }
}
