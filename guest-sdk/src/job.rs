//! A job, as one attempt sees it.

use std::time::Duration;

use serde::Deserialize;

use crate::Error;

/// One unit of work, as one attempt sees it.
///
/// The runner makes it; a test makes one with [`Job::new`] and changes what matters.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Job {
    /// Names the job. The same on every attempt, so that it can serve as an idempotency key.
    pub id: String,
    /// The string that selected this handler.
    pub job_type: String,
    /// The job as it was enqueued, byte for byte, or as the last retry left it. See [`Job::parse`].
    pub body: String,
    /// How many times the job was started, this one included. Above 1 the work may have been half done before.
    pub attempt: u32,
    /// How many attempts failed so far.
    pub failures: u32,
    /// The job is buried with this many failures.
    pub max_failures: u32,
    /// When the job was enqueued: Unix time in milliseconds.
    pub enqueued_at_ms: u64,
    /// How long this attempt may take.
    pub timeout: Duration,
    /// Pairs of a name and a value, such as `queue` or `traceparent`. See [`Job::metadata`] and [`Job::header`].
    pub metadata: Vec<(String, String)>,
}

// === impl Job ===

impl Job {
    /// A job for a test: its first attempt, with the defaults of the runner. The body is a JSON object as text, or a
    /// `serde_json::Value`.
    pub fn new(job_type: impl Into<String>, body: impl ToString) -> Job {
        Job {
            id: "test".to_owned(),
            job_type: job_type.into(),
            body: body.to_string(),
            attempt: 1,
            failures: 0,
            max_failures: 1,
            enqueued_at_ms: 0,
            timeout: Duration::from_secs(30),
            metadata: Vec::new(),
        }
    }

    /// The same under another id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Job {
        self.id = id.into();
        self
    }

    /// The same as its attempt number `attempt`, from 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Job {
        self.attempt = attempt;
        self
    }

    /// The same with `failures` of `max_failures` failed attempts behind it.
    #[must_use]
    pub fn with_failures(mut self, failures: u32, max_failures: u32) -> Job {
        self.failures = failures;
        self.max_failures = max_failures;
        self
    }

    /// The same with one more pair of metadata.
    #[must_use]
    pub fn with_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Job {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Reads the body as JSON. Parts of it can be borrowed: `T` may hold a `&str` of it.
    ///
    /// # Errors
    ///
    /// The body is no JSON, or not what `T` looks like. Where that can never be mended, answer [`crate::Outcome::reject`]
    /// instead of passing the error on: then the job becomes a dead letter at once.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_str(&self.body).map_err(|e| Error::from(e).context("cannot parse the body"))
    }

    /// The first value of a name in the metadata: `queue`, `partition`, `offset`, `key`, `traceparent` and others.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a header that the enqueuer sent along.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(n, _)| n.strip_prefix("header.") == Some(name)).map(|(_, value)| value.as_str())
    }
}
