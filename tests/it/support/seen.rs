//! What the command line says with `--json`, as tests read it.

use serde::Deserialize;
use serde_json::Value;

/// A line of `sandhog enqueue --json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Enqueued {
    pub id: String,
    pub duplicate: bool,
}

/// A job, as `sandhog jobs` and `sandhog dead` show it. What only `show` has is empty in a list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Seen {
    pub id: String,
    pub job_type: Option<String>,
    pub state: String,
    pub attempt: u32,
    pub failures: u32,
    pub retries_requested: u32,
    #[serde(rename = "enqueued_at_ms")]
    pub enqueued_at: i64,
    #[serde(rename = "run_at_ms")]
    pub run_at: Option<i64>,
    #[serde(rename = "started_at_ms")]
    pub started_at: Option<i64>,
    pub duration_us: Option<u64>,
    #[serde(rename = "ended_at_ms")]
    pub ended_at: Option<i64>,
    pub generation: Option<String>,
    pub failure: Option<Failure>,
    pub requeues: u32,
    pub result: Option<Value>,
    #[serde(default)]
    pub source: Value,
    #[serde(default)]
    pub metadata: Vec<(String, String)>,
    #[serde(default)]
    pub failed_attempts: Vec<FailedAttempt>,
    #[serde(default)]
    pub failed_attempts_omitted: u32,
    #[serde(default)]
    pub interruptions: u32,
    pub body: Option<String>,
    pub changed_body: Option<String>,
}

/// One of the failed attempts of a job.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FailedAttempt {
    pub number: u32,
    #[serde(rename = "started_at_ms")]
    pub started_at: i64,
    pub duration_us: u64,
    pub generation: String,
    pub failure: Option<Failure>,
}

/// Why an attempt failed or a job was buried.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Failure {
    pub kind: String,
    pub message: String,
}

// === impl Seen ===

impl Seen {
    /// The kind of its failure.
    pub(crate) fn kind(&self) -> &str {
        self.failure.as_ref().map_or("none", |failure| &failure.kind)
    }

    /// The message of its failure.
    pub(crate) fn why(&self) -> &str {
        self.failure.as_ref().map_or("", |failure| &failure.message)
    }
}
