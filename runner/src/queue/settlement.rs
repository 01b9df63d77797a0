//! What a delivery comes back with, and what the queue answers.

use serde::{Deserialize, Serialize};

use super::{AttemptLines, NewJob};
use crate::clock::UnixMs;
use crate::generation::Generation;
use crate::outcome::{Disposition, Failure, Outcome};
use crate::state::Changes;

/// All that follows from a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// What the queue does next.
    pub disposition: Disposition,
    /// The attempt that came before it; none where there was none (parked, malformed, released unstarted).
    pub attempt: Option<AttemptRecord>,
    /// Jobs that the attempt enqueued: added together with all else, or where it is fenced not at all. What
    /// [`Queue::enqueue`](super::Queue::enqueue) says of ids holds for these.
    pub follow_ups: Vec<NewJob>,
    /// What it changes of its handler's state: made together with all else, or in a conflict nothing of all.
    pub state: Option<Box<Changes>>,
    /// What of the attempt's lines is to be kept with the job.
    pub lines: Option<Box<AttemptLines>>,
}

/// What is kept of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptRecord {
    /// Which start it was, from 1.
    pub number: u32,
    /// When it started.
    #[serde(rename = "started_at_ms")]
    pub started_at: UnixMs,
    /// How long it ran, in microseconds.
    pub duration_us: u64,
    /// The most memory it had, in bytes.
    pub memory_peak_bytes: u64,
    /// The generation of the handler that ran it.
    #[schema(value_type = String)]
    pub generation: Generation,
    /// Why it failed; none if it did not.
    pub failure: Option<Failure>,
}

/// Of which attempts it is kept what their guests said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepLogs {
    /// Of none.
    None,
    /// Of those that failed, were rejected, or were broken off.
    #[default]
    Failed,
    /// Of all.
    All,
}

/// Whether a settlement was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is durable.
    Settled,
    /// The right to the job was lost before: nothing was applied, and the job is somebody else's.
    Fenced,
    /// Another attempt changed the state that this one relies on: nothing was applied, and the job was released, to be run
    /// again.
    Conflicted,
}

// === impl KeepLogs ===

impl KeepLogs {
    /// Whether the lines of an attempt that ended so are kept.
    pub fn keeps(self, outcome: &Outcome) -> bool {
        match self {
            KeepLogs::None => false,
            KeepLogs::Failed => matches!(outcome, Outcome::Failed(_) | Outcome::Reject { .. } | Outcome::Cancelled),
            KeepLogs::All => true,
        }
    }
}

// === impl Settlement ===

impl Settlement {
    /// Of an attempt, or of none, that enqueued nothing.
    pub fn new(disposition: Disposition, attempt: Option<AttemptRecord>) -> Settlement {
        Settlement { disposition, attempt, follow_ups: Vec::new(), state: None, lines: None }
    }
}
