//! How an attempt ended, and what the queue does next. Plain data, no I/O.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;

/// How an attempt ended. Whatever a guest does is one of these; nothing that it does is an error of the runner.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The job is done. The result is JSON.
    Complete {
        /// What the handler answered, as JSON.
        result: Option<String>,
    },
    /// The handler asked for another attempt. Not a failure.
    Retry(RetryRequest),
    /// The handler said that the job will never work.
    Reject {
        /// Why, in the handler's words.
        reason: String,
    },
    /// The attempt failed: an error, a trap, or a limit.
    Failed(Failure),
    /// The runner broke the attempt off (drain, pool exhausted, host fault). Not a failure: the job is released.
    Interrupted {
        /// Why, for the log.
        reason: Cow<'static, str>,
    },
    /// A person cancelled the job while it ran.
    Cancelled,
    /// No instance could be set up, so that the attempt never began: the handler is not ready.
    NotReady {
        /// Why, for people.
        reason: String,
    },
}

/// What a handler that is not finished asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryRequest {
    /// How long to wait; none: the handler's backoff.
    pub after: Option<Duration>,
    /// What the next attempt sees as its body; none: the same.
    pub body: Option<String>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// Why an attempt failed, or a job ended as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// The class of it.
    #[schema(value_type = String, example = "timeout")]
    pub kind: Kind,
    /// The same for people, at most [`MESSAGE_CHARS_MAX`] characters.
    pub message: String,
}

/// The longest message that is kept with an attempt: it comes from a guest, which is not to be trusted with more.
pub const MESSAGE_CHARS_MAX: usize = 1_000;

/// The class of a failure or of a dead letter. Written the same everywhere: see [`Kind::as_str`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The handler answered `err`.
    Error,
    /// The guest trapped, or exited with any code.
    Trap,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The guest asked for more memory than its limit.
    OutOfMemory,
    /// Another limit, by name: `table-elements`, `handles`, `result-bytes`, `host-calls`, …
    Limit(Cow<'static, str>),
    /// The handler rejected the job.
    Rejected,
    /// A person cancelled it.
    Cancelled,
    /// The handler asked for more retries than `max_attempts`.
    OutOfAttempts,
    /// It took longer than `expire_after`, or was parked longer than `park_for`.
    Expired,
    /// The bytes are no job.
    Malformed,
    /// Runners died while they executed it.
    Suspect,
}

/// What the queue does next with a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Disposition {
    /// The job is complete: forget it, but for what is kept of completed jobs.
    Ack {
        /// The handler's result, as JSON.
        result: Option<String>,
    },
    /// Hand it out again at that time.
    Retry {
        /// When.
        at: UnixMs,
        /// What the next attempt sees as its body; none: the same.
        body: Option<String>,
        /// Whether the attempt failed, or asked for it.
        after: RetryAfter,
    },
    /// Keep it as a dead letter.
    Bury(Failure),
    /// Hand it out again at that time; this attempt was interrupted, which is nobody's failure.
    Release {
        /// When.
        at: UnixMs,
        /// Whether the attempt had begun, so that it counts as a start.
        started: bool,
    },
    /// Nobody serves its type, or its handler is paused or not ready: it waits, without an attempt.
    Park,
}

/// What a retry follows.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryAfter {
    /// A failed attempt, which counts.
    Failure(Failure),
    /// The handler's own wish, which does not.
    Request {
        /// Why, in the handler's words.
        reason: Option<String>,
    },
}

// === impl Outcome ===

impl Outcome {
    /// How it is written in metrics and traces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Complete { .. } => "completed",
            Outcome::Retry(_) => "retried",
            Outcome::Reject { .. } => "rejected",
            Outcome::Failed(_) => "failed",
            Outcome::Interrupted { .. } => "interrupted",
            Outcome::Cancelled => "cancelled",
            Outcome::NotReady { .. } => "not-ready",
        }
    }

    /// Whether what the attempt asked for beside it comes to be: where it answered, whatever that was. Failed or broken off,
    /// it may be made again, and would ask twice.
    pub fn is_answer(&self) -> bool {
        matches!(self, Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Reject { .. })
    }

    /// Whether what the attempt changed of its handler's state is kept: where the job went on. A rejected job leaves none of
    /// its work.
    pub fn keeps_state(&self) -> bool {
        matches!(self, Outcome::Complete { .. } | Outcome::Retry(_))
    }
}

// === impl Failure ===

impl Failure {
    /// A failure whose message is cut to what is kept.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: cut(message.into()) }
    }
}

fn cut(mut message: String) -> String {
    if let Some((at, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(at);
    }
    message
}

// === impl Kind ===

impl Kind {
    /// How it is written in dead letters, logs, metrics and on the command line.
    pub fn as_str(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Kind::Error => "error",
            Kind::Trap => "trap",
            Kind::Timeout => "timeout",
            Kind::OutOfMemory => "out-of-memory",
            Kind::Limit(name) => return Cow::Owned(format!("limit:{name}")),
            Kind::Rejected => "rejected",
            Kind::Cancelled => "cancelled",
            Kind::OutOfAttempts => "out-of-attempts",
            Kind::Expired => "expired",
            Kind::Malformed => "malformed",
            Kind::Suspect => "suspect",
        })
    }

    /// Reads what [`Kind::as_str`] wrote; none for a word that this version does not know.
    pub fn parse(text: &str) -> Option<Kind> {
        Some(match text {
            "error" => Kind::Error,
            "trap" => Kind::Trap,
            "timeout" => Kind::Timeout,
            "out-of-memory" => Kind::OutOfMemory,
            "rejected" => Kind::Rejected,
            "cancelled" => Kind::Cancelled,
            "out-of-attempts" => Kind::OutOfAttempts,
            "expired" => Kind::Expired,
            "malformed" => Kind::Malformed,
            "suspect" => Kind::Suspect,
            _ => Kind::Limit(Cow::Owned(text.strip_prefix("limit:")?.to_owned())),
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Kind::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown kind `{text}`")))
    }
}
