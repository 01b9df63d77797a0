//! The thread that writes the state of handlers, in a local file, before anything else follows from their attempts: an offset
//! moves only when the state is there. After a crash between the two, the attempt is made again, on what the first one left.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::inbox::{How, Inbox, Settle};
use super::right::Right;
use crate::clock::Clock;
use crate::outcome::Disposition;
use crate::queue::sqlite::state::LocalState;
use crate::queue::told::Told;
use crate::queue::{QueueError, Settled, Settlement};

/// At most this many settlements share a transaction.
const TOGETHER_MAX: usize = 1_000;

/// How long a file that takes nothing is left alone, at first and at most.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Where the settlements wait that change the state of a handler.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

/// Bounded by what is in flight.
#[derive(Debug, Default)]
struct Waiting {
    settles: Vec<Settle>,
    started: bool,
    closed: bool,
}

/// What the thread works with.
pub(super) struct Keeper {
    pub(super) keeping: Arc<Keeping>,
    pub(super) state: Arc<LocalState>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) right: Arc<Right>,
    pub(super) clock: Arc<dyn Clock>,
}

// === impl Keeping ===

impl Keeping {
    /// Takes on a settlement; `keeper` makes the thread's own where it does not run yet: most runners need none.
    pub(super) fn settle(&self, settle: Settle, keeper: impl FnOnce() -> Keeper) {
        let mut waiting = self.lock();
        if waiting.closed {
            // Dropped, it says that nothing was applied.
            return;
        }
        if !waiting.started {
            let keeper = keeper();
            let thread = std::thread::Builder::new().name("queue-state".to_owned()).spawn(move || keeper.run());
            if let Err(error) = thread {
                tracing::error!(error = %error, "cannot start the thread that writes state: the attempt counts for nothing");
                return;
            }
            waiting.started = true;
        }
        waiting.settles.push(settle);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Nothing more is taken on, and what the file does not take at once is given up.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Waits for something to do; none: it is closed, and all is done.
    fn take(&self) -> Option<Vec<Settle>> {
        let mut waiting = self.lock();
        while waiting.settles.is_empty() && !waiting.closed {
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.settles.is_empty() {
            return None;
        }
        let many = waiting.settles.len().min(TOGETHER_MAX);
        Some(waiting.settles.drain(..many).collect())
    }

    /// Waits for so long; false: it was closed.
    fn pause(&self, pause: Duration) -> bool {
        let waiting = self.lock();
        let waited = self.filled.wait_timeout_while(waiting, pause, |waiting| !waiting.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Settlements are put in and taken out whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Keeper ===

impl Keeper {
    fn run(self) {
        while let Some(mut settles) = self.keeping.take() {
            // What is somebody else's by now changes nothing here either.
            let lost = settles.extract_if(.., |settle| !self.right.holds(settle.receipt)).collect::<Vec<_>>();
            lost.into_iter().for_each(|settle| self.inbox.settle(settle));
            let Some(made) = self.apply(&settles) else { continue };
            for (settle, made) in settles.into_iter().zip(made) {
                self.inbox.settle(if made { settle } else { self.conflict(settle) });
            }
        }
    }

    /// Which of them were made; waits out a sick file. None: it is closed meanwhile.
    fn apply(&self, settles: &[Settle]) -> Option<Vec<bool>> {
        let mut pause = AGAIN_FIRST;
        loop {
            match self.state.apply(settles.iter().filter_map(|settle| settle.settlement()?.state.as_deref())) {
                Ok(made) => return Some(made),
                Err(error) => self.say(&error, pause),
            }
            if !self.keeping.pause(pause) {
                return None;
            }
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    fn say(&self, error: &QueueError, pause: Duration) {
        if pause == AGAIN_FIRST {
            tracing::warn!(error = %error, "{error}: what changes the state of handlers waits until it can be written");
        }
    }

    /// Another attempt was faster: the job is released, to be run again.
    fn conflict(&self, settle: Settle) -> Settle {
        let Settle { receipt, how: How::Settled(_, told) } = settle else { return settle };
        let conflicted = move |settled| {
            told.tell(if settled == Settled::Settled { Settled::Conflicted } else { settled });
        };
        let again = Disposition::Release { at: self.clock.now(), started: true };
        Settle { receipt, how: How::Settled(Settlement::new(again, None), Told::by(Box::new(conflicted))) }
    }
}
