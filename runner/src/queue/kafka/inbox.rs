//! Where callers and the library's threads leave what the consumer's thread is to do, and find what it received.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::sync::{Notify, oneshot};

use super::commit::Committed;
use super::slots::Mark;
use crate::job::Job;
use crate::queue::told::Told;
use crate::queue::{Demand, QueueError, Receipt, Settlement};

/// So many settlements are worth a turn of the thread.
const SETTLES: usize = 64;

/// Between the callers and the consumer's thread.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
    /// Tells those who wait in `receive` to look again.
    pub(super) changed: Notify,
}

/// What is in the inbox. Its vectors are bounded by what is in flight: jobs, and a commit for each membership.
#[derive(Debug, Default)]
pub(super) struct State {
    settles: Vec<Settle>,
    written: Vec<Written>,
    committed: Vec<Committed>,
    orders: Vec<Order>,
    /// What somebody waits for in `receive`.
    pub(super) demand: Option<Demand>,
    /// The thread has not seen the demand yet.
    asked: bool,
    /// Received, and not picked up yet.
    pub(super) received: Vec<Received>,
    /// Why there are no jobs to be had.
    pub(super) failure: Option<QueueError>,
    /// `receive` has been stopped.
    pub(super) stopped: bool,
    /// The thread has ended.
    pub(super) ended: bool,
    woken: bool,
}

/// What the thread takes out at one time.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) settles: Vec<Settle>,
    pub(super) written: Vec<Written>,
    pub(super) committed: Vec<Committed>,
    pub(super) orders: Vec<Order>,
    /// A new demand.
    pub(super) demand: Option<Demand>,
}

/// A job for a delivery.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) job: Arc<Job>,
    pub(super) alone: bool,
    pub(super) receipt: Receipt,
    pub(super) mark: Mark,
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
    Settled(Settlement, Told),
    /// Dropped unsettled; whether it had been started.
    Dropped { started: bool },
}

/// A record that we wrote is on all replicas, or is not.
#[derive(Debug)]
pub(super) struct Written {
    /// The delivery that it was written for.
    pub(super) delivery: i64,
    /// Which part of what was written for it.
    pub(super) part: usize,
    pub(super) result: Result<(), KafkaError>,
}

/// What somebody asks for beside jobs.
#[derive(Debug)]
pub(super) enum Order {
    /// Commit what is done, so that others see it.
    Commit(oneshot::Sender<()>),
    /// Forget what was received and not picked up: it comes again.
    StopReceiving(oneshot::Sender<()>),
    /// Do what is under way, leave the group and end; nobody waits where the queue was dropped.
    Close(Option<oneshot::Sender<()>>),
}

// === impl Settle ===

impl Settle {
    /// What it settles with, if it was not dropped.
    pub(super) fn settlement(&self) -> Option<&Settlement> {
        match &self.how {
            How::Settled(settlement, _) => Some(settlement),
            How::Dropped { .. } => None,
        }
    }
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the inbox")
    }

    /// Says what somebody waits for.
    pub(super) fn demand(&self, mut state: MutexGuard<'_, State>, demand: &Demand) {
        if state.demand.as_ref() != Some(demand) {
            state.demand = Some(demand.clone());
            state.asked = true;
            self.wake_with(state);
        }
    }

    /// Wakes the thread for the first one and for as many as are worth a turn: how long it waits for those between is its own
    /// affair.
    pub(super) fn settle(&self, settle: Settle) {
        let mut state = self.lock();
        state.settles.push(settle);
        let settles = state.settles.len();
        drop(state);
        if settles == 1 || settles == SETTLES {
            self.filled.notify_one();
        }
    }

    pub(super) fn written(&self, written: Written) {
        let mut state = self.lock();
        state.written.push(written);
        self.wake_with(state);
    }

    pub(super) fn committed(&self, committed: Committed) {
        let mut state = self.lock();
        state.committed.push(committed);
        self.wake_with(state);
    }

    pub(super) fn order(&self, order: Order) {
        let mut state = self.lock();
        // Dropped, its answer says that the queue is closed.
        if !state.ended {
            state.orders.push(order);
            self.wake_with(state);
        }
    }

    /// There is something to be read.
    pub(super) fn wake(&self) {
        self.wake_with(self.lock());
    }

    fn wake_with(&self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.woken, true) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Waits until there is something to do, for at most `wait`, and takes it out. Settlements by themselves are waited for
    /// until there are many, for at most `linger` from the first on.
    pub(super) fn take(&self, wait: Duration, linger: Duration) -> Work {
        let mut until = Instant::now() + wait;
        let mut lingers = false;
        let mut state = self.lock();
        while !state.woken && state.settles.len() < SETTLES {
            if !lingers && !state.settles.is_empty() {
                lingers = true;
                until = until.min(Instant::now() + linger);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.filled.wait_timeout(state, left).expect("nobody panics while holding the inbox").0;
        }
        state.woken = false;
        let demand = if std::mem::replace(&mut state.asked, false) { state.demand.clone() } else { None };
        Work {
            settles: std::mem::take(&mut state.settles),
            written: std::mem::take(&mut state.written),
            committed: std::mem::take(&mut state.committed),
            orders: std::mem::take(&mut state.orders),
            demand,
        }
    }

    /// Hands over what was received for the demand that somebody waits with.
    pub(super) fn hand_over(&self, received: Vec<Received>) {
        let mut state = self.lock();
        state.received.extend(received);
        state.demand = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nothing comes any more, and nobody is answered: what is left is dropped, which tells.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let left = (std::mem::take(&mut state.settles), std::mem::take(&mut state.orders));
        drop(state);
        self.changed.notify_waiters();
        drop(left);
    }
}
