//! What a slot runs now, so that it can be broken off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::job::Job;
use crate::outcome::Outcome;
use crate::queue::{Delivery, Receipt};

/// One slot.
#[derive(Debug)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug)]
struct State {
    running: Option<(Receipt, Arc<Job>)>,
    /// Breaks off what runs: alone, or with all others when the runner stops.
    stop: CancellationToken,
}

// === impl Slot ===

impl Slot {
    /// One that runs nothing, and stops with `all`.
    pub(super) fn new(all: &CancellationToken) -> Slot {
        Slot(Mutex::new(State { running: None, stop: all.child_token() }))
    }

    /// It runs this from now on. Answers what stops it.
    pub(super) fn start(&self, delivery: &Delivery) -> CancellationToken {
        let mut state = self.state();
        state.running = Some((delivery.receipt(), Arc::clone(&delivery.job)));
        state.stop.clone()
    }

    /// It runs nothing any more. What was interrupted because somebody cancelled it is cancelled; what had ended by itself
    /// stays as it is.
    pub(super) fn end(&self, stop: CancellationToken, all: &CancellationToken, outcome: Outcome) -> Outcome {
        let mut state = self.state();
        state.running = None;
        if !stop.is_cancelled() || all.is_cancelled() {
            return outcome;
        }
        state.stop = all.child_token();
        match outcome {
            Outcome::Interrupted { .. } => Outcome::Cancelled,
            outcome => outcome,
        }
    }

    /// Breaks off what it runs, if that is `it`; whether it is.
    pub(super) fn cancel(&self, it: impl Fn(Receipt, &Job) -> bool) -> bool {
        let state = self.state();
        let is_it = state.running.as_ref().is_some_and(|(receipt, job)| it(*receipt, job));
        if is_it {
            state.stop.cancel();
        }
        is_it
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
