//! Where callers leave what the writer is to do, and find what it claimed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::claim::Claimed;
use crate::clock::UnixMs;
use crate::job::Job;
use crate::queue::told::Told;
use crate::queue::{Cancelled, Demand, Enqueued, NewJob, QueueError, Receipt, Settlement};

/// At most this many settlements in one transaction: it bounds how long the file is locked and a heartbeat waits.
const SETTLES_MAX: usize = 2_048;

/// Enqueues are taken until they have this many jobs. One enqueue is never divided.
const ENQUEUED_JOBS_MAX: usize = 4_096;

/// How long settlements wait for others to share a transaction with, where others are sure to come. One for hundreds of jobs
/// costs little more than one for ten, and each takes a turn on a processor that a guest could have.
const GATHER: Duration = Duration::from_micros(1_500);

/// Between the callers and the writer.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
    /// Tells those who wait in `receive` to look again.
    pub(super) changed: Notify,
    /// The same for those who wait in `cancellations`.
    pub(super) cancelled: Notify,
}

/// What is in the inbox. Its vectors are bounded by their callers, each of whom waits for an answer, and by what is in
/// flight.
#[derive(Debug, Default)]
pub(super) struct State {
    settles: Vec<Settle>,
    enqueues: Vec<Enqueue>,
    orders: Vec<Order>,
    /// What somebody waits for in `receive`.
    pub(super) demand: Option<Demand>,
    /// The writer has not seen the demand yet.
    asked: bool,
    /// Claimed, and not picked up yet.
    pub(super) claimed: Vec<Claimed>,
    /// What is held here and was cancelled.
    pub(super) cancelled: Vec<Receipt>,
    /// Why the file can give no jobs.
    pub(super) failure: Option<QueueError>,
    /// `receive` has been stopped.
    pub(super) stopped: bool,
    /// The writer has ended.
    pub(super) ended: bool,
    /// Another process changed something.
    rung: bool,
    /// Runners whose lock was released.
    gone: Vec<i64>,
    asleep: bool,
    /// When the writer took what it works on; none while it waits for work.
    taken_at: Option<Instant>,
    /// So many settlements wake the writer, and no fewer.
    gather: usize,
}

/// What the writer takes out at one time.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) settles: Vec<Settle>,
    pub(super) enqueues: Vec<Enqueue>,
    pub(super) orders: Vec<Order>,
    pub(super) demand: Option<Demand>,
    pub(super) rung: bool,
    pub(super) gone: Vec<i64>,
}

/// A delivery comes back.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) receipt: Receipt,
    pub(super) how: How,
}

/// How it comes back.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are settled, and an allocation for each would cost more")]
pub(super) enum How {
    /// Decided by the one path.
    Settled(Arc<Job>, Settlement, Told),
    /// Dropped unsettled; whether it had been started.
    Dropped { started: bool },
}

/// Jobs to add, together.
#[derive(Debug)]
pub(super) struct Enqueue {
    pub(super) jobs: Vec<NewJob>,
    pub(super) reply: oneshot::Sender<Result<Vec<Enqueued>, QueueError>>,
}

/// What a person or the runner's end asks for.
#[derive(Debug)]
pub(super) enum Order {
    /// Dead letters by record; answers those that still were.
    Requeue(Vec<i64>, oneshot::Sender<Result<Vec<i64>, QueueError>>),
    /// The same, to be deleted.
    Delete(Vec<i64>, oneshot::Sender<Result<Vec<i64>, QueueError>>),
    /// A job, by record, is not to be worked any more.
    Cancel(i64, oneshot::Sender<Result<Cancelled, QueueError>>),
    /// A job, by record, is kept until then.
    Keep(i64, UnixMs, oneshot::Sender<Result<(), QueueError>>),
    /// Put back what was claimed and not picked up.
    StopReceiving(oneshot::Sender<()>),
    /// Do what is under way, give everything up and end; nobody waits where the queue was dropped.
    Close(Option<oneshot::Sender<()>>),
}

// === impl Settle ===

impl Settle {
    /// The jobs that are added with it.
    pub(super) fn follow_ups(&self) -> &[NewJob] {
        match &self.how {
            How::Settled(_, settlement, _) => &settlement.follow_ups,
            How::Dropped { .. } => &[],
        }
    }
}

// === impl Inbox ===

impl Inbox {
    /// Looks inside, for a moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the inbox")
    }

    pub(super) fn settle(&self, settle: Settle) {
        let mut state = self.lock();
        if !state.ended {
            state.settles.push(settle);
            if state.settles.len() >= state.gather {
                self.wake(state);
            }
        }
    }

    pub(super) fn enqueue(&self, enqueue: Enqueue) {
        self.put(|state| state.enqueues.push(enqueue));
    }

    pub(super) fn order(&self, order: Order) {
        self.put(|state| state.orders.push(order));
    }

    /// Says that another process changed something.
    pub(super) fn ring(&self) {
        self.put(|state| state.rung = true);
    }

    /// Says that a runner's lock was released.
    pub(super) fn peer_gone(&self, runner: i64) {
        self.put(|state| state.gone.push(runner));
    }

    /// Says what `receive` waits for.
    pub(super) fn demand(&self, mut state: MutexGuard<'_, State>, demand: &Demand) {
        match &mut state.demand {
            Some(known) if known == demand => {}
            known => {
                *known = Some(demand.clone());
                state.asked = true;
                self.wake(state);
            }
        }
    }

    /// Waits for something to do, at most until `deadline`, and takes it. Where that is nothing but settlements, it waits a
    /// moment for as many as `gather`.
    pub(super) fn take(&self, deadline: Option<Instant>, gather: usize) -> Work {
        let mut state = self.lock();
        state.taken_at = None;
        state.asleep = true;
        while state.asleep && state.is_empty() {
            state = match deadline {
                None => self.filled.wait(state).expect("nobody panics while holding the inbox"),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                    self.filled.wait_timeout(state, left).expect("nobody panics while holding the inbox").0
                }
            };
        }
        if state.settles.len() < gather && state.is_only_settles() {
            let until = Instant::now() + GATHER;
            state.gather = gather;
            state.asleep = true;
            while state.asleep {
                let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                state = self.filled.wait_timeout(state, left).expect("nobody panics while holding the inbox").0;
            }
            state.gather = 0;
        }
        state.asleep = false;
        state.taken_at = Some(Instant::now());
        state.take()
    }

    /// For how long the writer has been at what it took.
    pub(super) fn stands(&self) -> Duration {
        self.lock().taken_at.map_or(Duration::ZERO, |taken| taken.elapsed())
    }

    /// The writer ends: nobody may wait for it any more.
    pub(super) fn end(&self) -> Work {
        let mut state = self.lock();
        state.ended = true;
        state.claimed.clear();
        let rest = Work {
            settles: std::mem::take(&mut state.settles),
            enqueues: std::mem::take(&mut state.enqueues),
            orders: std::mem::take(&mut state.orders),
            ..Work::default()
        };
        drop(state);
        self.changed.notify_waiters();
        rest
    }

    fn put(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        // What is left in the box of a writer that ended is dropped, and with it the reply that its caller waits for.
        if !state.ended {
            change(&mut state);
            self.wake(state);
        }
    }

    /// Wakes the writer if it sleeps. It is not woken while it works: it looks again before it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.asleep {
            state.asleep = false;
            drop(state);
            self.filled.notify_one();
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.settles.is_empty() && self.is_only_settles()
    }

    /// Whether there is nothing that somebody waits for but settlements.
    fn is_only_settles(&self) -> bool {
        self.enqueues.is_empty() && self.orders.is_empty() && self.gone.is_empty() && !self.rung && !self.asked
    }

    /// Whether nobody waits for something to be made durable.
    pub(super) fn is_settled(&self) -> bool {
        self.settles.is_empty() && self.enqueues.is_empty()
    }

    /// How many settlements one transaction takes, of which some bring jobs.
    fn settles_for_now(&self) -> usize {
        let mut jobs = 0;
        let fit = self.settles.iter().take(SETTLES_MAX).take_while(|settle| {
            let before = jobs;
            jobs += settle.follow_ups().len();
            before == 0 || jobs <= ENQUEUED_JOBS_MAX
        });
        fit.count()
    }

    /// Takes out what there is to do.
    pub(super) fn take(&mut self) -> Work {
        let mut jobs = 0;
        let enqueues = self.enqueues.iter().take_while(|enqueue| {
            jobs += enqueue.jobs.len();
            jobs <= ENQUEUED_JOBS_MAX || jobs == enqueue.jobs.len()
        });
        let enqueues = enqueues.count();
        self.asked = false;
        let settles = self.settles_for_now();
        Work {
            settles: first(&mut self.settles, settles),
            enqueues: first(&mut self.enqueues, enqueues),
            orders: std::mem::take(&mut self.orders),
            demand: if self.stopped { None } else { self.demand.clone() },
            rung: std::mem::take(&mut self.rung),
            gone: std::mem::take(&mut self.gone),
        }
    }
}

/// The first `many` of `all`, in their order.
fn first<T>(all: &mut Vec<T>, many: usize) -> Vec<T> {
    if all.len() <= many {
        return std::mem::take(all);
    }
    let rest = all.split_off(many);
    std::mem::replace(all, rest)
}
