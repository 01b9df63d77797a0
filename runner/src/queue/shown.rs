//! What people, and reports, are shown of a job.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AttemptRecord, State};
use crate::clock::UnixMs;
use crate::generation::Generation;
use crate::outcome::Failure;
use crate::sandbox::{Level, Source};

/// One line of a list of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its type; none for a malformed one.
    pub job_type: Option<String>,
    /// Where it stands.
    pub state: State,
    /// How often it was started.
    pub attempt: u32,
    /// How often it failed.
    pub failures: u32,
    /// How often a handler asked for a retry.
    pub retries_requested: u32,
    /// When it was enqueued.
    #[serde(rename = "enqueued_at_ms")]
    pub enqueued_at: UnixMs,
    /// When it is due, for what waits.
    #[serde(rename = "run_at_ms")]
    pub run_at: Option<UnixMs>,
    /// When its last attempt started.
    #[serde(rename = "started_at_ms")]
    pub started_at: Option<UnixMs>,
    /// How long its last attempt ran, in microseconds.
    pub duration_us: Option<u64>,
    /// When it was completed or buried.
    #[serde(rename = "ended_at_ms")]
    pub ended_at: Option<UnixMs>,
    /// The generation of the handler that ran it last.
    #[schema(value_type = Option<String>)]
    pub generation: Option<Generation>,
    /// Why it was buried, or why its last attempt failed.
    pub failure: Option<Failure>,
    /// How often a person requeued it.
    pub requeues: u32,
    /// Where it stands in its list, for [`Filter::after`](super::Filter::after); none where the queue has no lists of it.
    #[serde(skip)]
    pub cursor: Option<String>,
}

/// All that is known of a job.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Shown {
    /// What a list shows.
    #[serde(flatten)]
    pub listed: Listed,
    /// Its bytes, as they were enqueued.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// What a retry made of them, if one did.
    #[serde(skip)]
    pub changed_body: Option<String>,
    /// The handler's result, as JSON.
    #[schema(value_type = Option<Value>)]
    pub result: Option<Box<serde_json::value::RawValue>>,
    /// Where it came from.
    pub source: JobSource,
    /// Pairs as in the contract's `job.metadata`.
    pub metadata: Vec<(String, String)>,
    /// The first 3 and the last 10 failed attempts.
    pub failed_attempts: Vec<AttemptRecord>,
    /// How many more attempts failed than are shown.
    pub failed_attempts_omitted: u32,
    /// How many starts were interrupted.
    pub interruptions: u32,
    /// What is kept of what its attempts said, in their order.
    pub logs: Vec<AttemptLines>,
}

/// What is kept of what the guest said in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptLines {
    /// Which start it was.
    pub attempt: u32,
    /// Its last lines.
    pub lines: Vec<LogLine>,
    /// There were more before them.
    pub cut: bool,
}

/// One line of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// When, since the attempt's start.
    pub at_ms: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    #[schema(value_type = String)]
    pub level: Level,
    /// `log`, `stdout` or `stderr`.
    #[schema(value_type = String)]
    pub source: Source,
    /// What it said.
    pub line: String,
}

/// Where a job came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct JobSource {
    /// The queue; on Kafka the topic.
    pub queue: String,
    /// On Kafka the partition of its first record; none of a job that began in no record of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The same, its offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

// === impl Shown ===

impl Shown {
    /// The one form in which programs are shown a job: what `--json` prints, and what a report holds.
    pub fn to_json(&self, with_body: bool) -> Value {
        let mut value = serde_json::to_value(self).expect("it is strings and numbers");
        if let (Value::Object(object), true) = (&mut value, with_body) {
            // JSON cannot hold bytes that are no text.
            match std::str::from_utf8(&self.body) {
                Ok(text) => object.insert("body".to_owned(), json!(text)),
                Err(_) => object.insert("body_base64".to_owned(), json!(BASE64.encode(&self.body))),
            };
            if let Some(changed) = &self.changed_body {
                object.insert("changed_body".to_owned(), json!(changed));
            }
        }
        value
    }
}

// === impl JobSource ===

impl fmt::Display for JobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.queue)?;
        match (self.partition, self.offset) {
            (Some(partition), Some(offset)) => write!(f, "/{partition}/{offset}"),
            _ => Ok(()),
        }
    }
}
