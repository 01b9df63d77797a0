//! The writer while its file takes nothing: what waits, who is told, and when it is tried again.

use std::time::Duration;

use tracing::{info, warn};

use super::super::fault;
use super::super::inbox::{Enqueue, Order, Work};
use super::{Writer, answer};
use crate::queue::QueueError;

/// How long a sick file is left alone before it is tried again, at first and at most.
const SICK_FIRST: Duration = Duration::from_millis(50);
const SICK_MAX: Duration = Duration::from_secs(5);

/// The file took nothing when it was tried last.
#[derive(Debug)]
pub(super) struct Sick {
    pub(super) delay: Duration,
}

// === impl Writer ===

impl Writer {
    /// How long a sick file is left alone before the next piece of work.
    pub(in super::super) fn pause(&self) -> Option<Duration> {
        self.sick.as_ref().map(|sick| sick.delay)
    }

    /// The file did not take it. Settlements wait; who enqueues is told.
    pub(super) fn fail(&mut self, work: Work, error: rusqlite::Error) {
        // What failed may have filled this with what was then not committed.
        self.dry.clear();
        self.served = None;
        let passing = fault::may_pass(&error);
        let doing = "the queue's file takes nothing";
        let error = fault::of(doing, error);
        self.backlog.extend(work.settles);
        for Enqueue { reply, .. } in work.enqueues {
            answer(reply, Err(copy(&error, "cannot enqueue")));
        }
        for order in work.orders {
            match order {
                Order::Requeue(_, reply) => answer(reply, Err(copy(&error, "cannot requeue"))),
                Order::Delete(_, reply) => answer(reply, Err(copy(&error, "cannot delete"))),
                Order::Cancel(_, reply) => answer(reply, Err(copy(&error, "cannot cancel"))),
                Order::Keep(_, _, reply) => answer(reply, Err(copy(&error, "cannot keep the job"))),
                Order::StopReceiving(_) | Order::Close(_) => {}
            }
        }
        // Who only enqueues has its answer, and should not be kept from ending by a look whether the file is well again.
        if self.registration.is_none() && self.waited_for.is_none() && self.backlog.is_empty() {
            return;
        }
        self.sicken(&error);
        if !passing && self.waited_for.is_some() {
            self.refuse(error);
        }
    }

    pub(super) fn sicken(&mut self, error: &QueueError) {
        self.again = true;
        match &mut self.sick {
            Some(sick) => sick.delay = (sick.delay * 2).min(SICK_MAX),
            None => {
                self.sick = Some(Sick { delay: SICK_FIRST });
                self.shared.health.falls_ill(self.shared.clock.instant());
                warn!(error = %error, "the queue `{}` is sick: waiting until it is well again", self.shared.name);
            }
        }
    }

    pub(super) fn well(&mut self) {
        if self.sick.take().is_some()
            && let Some(ill) = self.shared.health.recovers(self.shared.clock.instant())
        {
            let sick_ms = u64::try_from(ill.as_millis()).unwrap_or(u64::MAX);
            info!(sick_ms, "the queue `{}` is well again", self.shared.name);
        }
    }

    /// Tells whoever receives that there is nothing to be had.
    pub(super) fn refuse(&mut self, error: QueueError) {
        let mut inbox = self.shared.inbox.lock();
        inbox.failure = Some(error);
        inbox.demand = None;
        drop(inbox);
        self.waited_for = None;
        self.shared.inbox.changed.notify_waiters();
    }
}

/// The same error, for another caller.
fn copy(error: &QueueError, doing: &str) -> QueueError {
    QueueError {
        message: format!("{doing}: {}", error.message),
        hint: error.hint.clone(),
        transient: error.transient,
        unsupported: false,
    }
}
