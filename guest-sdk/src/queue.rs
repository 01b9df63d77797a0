//! Follow-up jobs.
//!
//! A job that a handler enqueues becomes visible when this attempt is settled as complete, retry or reject, and is
//! discarded when it fails. Which job types a handler may enqueue is a grant in its manifest (`grants.enqueue = ["notify"]`);
//! without one every call answers an error.
//!
//! Its id is the one that is given, else the body's `job_id`, else `PARENT/ATTEMPT/N`. Its handler finds this job's id as
//! `parent` in its metadata. An attempt may enqueue 1,000 jobs of 16 MiB together, and a chain of jobs that enqueue one
//! another may be 100 long; the runner's configuration may say otherwise.
//!
//! ```
//! # use sandhog_guest::prelude::*;
//! # fn example() -> Result<(), Error> {
//! let page = serde_json::json!({ "page": 2 });
//! queue::enqueue("fetch-page", &page)?;
//! FollowUp::new("fetch-page", &page)?.after(Duration::from_secs(60)).id("page-2").enqueue()?;
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::outcome::milliseconds;

/// A job to be enqueued, with its options.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a follow-up job is enqueued by `enqueue`"]
pub struct FollowUp {
    body: String,
    options: Vec<(String, String)>,
}

/// Enqueues a job and answers its id: [`FollowUp`] without options.
///
/// # Errors
///
/// As for [`FollowUp::new`] and [`FollowUp::enqueue`].
pub fn enqueue<T: Serialize + ?Sized>(job_type: &str, body: &T) -> Result<String, Error> {
    FollowUp::new(job_type, body)?.enqueue()
}

/// What this thread enqueued since the last call. Only there natively: for tests.
#[cfg(not(target_arch = "wasm32"))]
pub fn take_recorded() -> Vec<FollowUp> {
    RECORDED.take()
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static RECORDED: std::cell::RefCell<Vec<FollowUp>> = const { std::cell::RefCell::new(Vec::new()) };
}

// === impl FollowUp ===

impl FollowUp {
    /// A job of this type. The body is written as JSON, and must be an object; `job_type` is added to it.
    ///
    /// # Errors
    ///
    /// The body is no object, cannot be written as JSON, or has another `job_type`.
    pub fn new<T: Serialize + ?Sized>(job_type: &str, body: &T) -> Result<FollowUp, Error> {
        let body = serde_json::to_value(body).map_err(|e| Error::from(e).context("cannot write the body as JSON"))?;
        let Value::Object(mut object) = body else {
            return Err(Error::msg(format_args!("cannot enqueue a `{job_type}`: its body is no JSON object")));
        };
        match object.insert("job_type".to_owned(), job_type.into()) {
            Some(other) if other != *job_type => {
                Err(Error::msg(format_args!("cannot enqueue a `{job_type}`: its body says that it is a {other}")))
            }
            _ => Ok(FollowUp { body: Value::Object(object).to_string(), options: Vec::new() }),
        }
    }

    /// Not before `delay` has passed since the end of this attempt.
    pub fn after(self, delay: Duration) -> FollowUp {
        self.option("after-ms", milliseconds(delay).to_string())
    }

    /// Under this id, under which it is one job however often it is enqueued, where the queue can tell.
    pub fn id(self, id: impl Into<String>) -> FollowUp {
        self.option("id", id)
    }

    /// With this key, for queues that have partitions.
    pub fn key(self, key: impl Into<String>) -> FollowUp {
        self.option("key", key)
    }

    /// With a header, which its handler finds with [`crate::Job::header`].
    pub fn header(self, name: &str, value: impl Into<String>) -> FollowUp {
        self.option(format!("header.{name}"), value)
    }

    /// With an option by its name in the contract.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> FollowUp {
        self.options.push((name.into(), value.into()));
        self
    }

    /// Enqueues it and answers its id. Natively it is recorded instead: see [`take_recorded`].
    ///
    /// # Errors
    ///
    /// The handler has no grant for this job type, the runner does not know an option, the id is this job's own, or a limit
    /// is reached. Nothing is enqueued by this call then, and what was before stays.
    #[cfg(target_arch = "wasm32")]
    pub fn enqueue(self) -> Result<String, Error> {
        crate::bindings::sandhog::jobs::queue::enqueue(&self.body, &self.options)
            .map_err(|reason| Error::msg(reason).context("cannot enqueue a job"))
    }

    /// Enqueues it and answers its id. Natively it is recorded instead: see [`take_recorded`].
    ///
    /// # Errors
    ///
    /// None here; in the sandbox, that the handler has no grant for this job type.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn enqueue(self) -> Result<String, Error> {
        RECORDED.with_borrow_mut(|recorded| {
            recorded.push(self);
            Ok(format!("recorded/{}", recorded.len()))
        })
    }

    /// The job, as JSON, `job_type` included.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Its options, as pairs of a name and a value.
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }
}
