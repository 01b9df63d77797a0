//! How an attempt ended, in the handler's own words.

use std::time::Duration;

use serde::Serialize;

use crate::Error;

/// How an attempt ended, in the handler's own words. None of them is a failure: that is an [`Error`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The job is done. The result, if there is one, is JSON. See [`Outcome::complete`] and [`Outcome::done`].
    Complete(Option<String>),
    /// The job is not finished yet: put it back and start it again later. See [`Outcome::retry_after`] and [`Retry`].
    Retry(Retry),
    /// The job will never work: it becomes a dead letter at once, with this reason. See [`Outcome::reject`].
    Reject(String),
}

/// What a handler that is not finished asks for.
///
/// ```
/// # use sandhog_guest::prelude::*;
/// # fn example() -> Result<Outcome, Error> {
/// let pages_left = vec![3, 4];
/// let retry = Retry::after(Duration::from_secs(5)).because("two pages to go").with_body(&pages_left)?;
/// Ok(retry.into())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a retry only takes place when the handler answers it"]
pub struct Retry {
    pub(crate) after: Option<Duration>,
    pub(crate) body: Option<String>,
    pub(crate) reason: Option<String>,
}

// === impl Outcome ===

impl Outcome {
    /// The job is done, and this is its result.
    ///
    /// # Errors
    ///
    /// The result cannot be written as JSON (a map with keys that are no strings, say).
    pub fn complete<T: Serialize + ?Sized>(result: &T) -> Result<Outcome, Error> {
        Ok(Outcome::Complete(Some(json(result, "the result")?)))
    }

    /// The job is done, without a result.
    pub fn done() -> Outcome {
        Outcome::Complete(None)
    }

    /// The job is not finished yet: start it again after `delay`.
    pub fn retry_after(delay: Duration) -> Outcome {
        Retry::after(delay).into()
    }

    /// The job will never work, for this reason.
    pub fn reject(reason: impl Into<String>) -> Outcome {
        Outcome::Reject(reason.into())
    }
}

impl From<Retry> for Outcome {
    fn from(retry: Retry) -> Outcome {
        Outcome::Retry(retry)
    }
}

// === impl Retry ===

impl Retry {
    /// After this delay, in whole milliseconds, rounded up. (The longest is 49 days.)
    pub fn after(delay: Duration) -> Retry {
        Retry { after: Some(delay), ..Retry::default() }
    }

    /// After the backoff of the handler's retry policy.
    pub fn with_backoff() -> Retry {
        Retry::default()
    }

    /// Why, for people who look at the job.
    pub fn because(mut self, reason: impl Into<String>) -> Retry {
        self.reason = Some(reason.into());
        self
    }

    /// What the next attempt sees as its body, to note how far this one came. A dead letter still shows the original.
    ///
    /// # Errors
    ///
    /// The body cannot be written as JSON.
    pub fn with_body<T: Serialize + ?Sized>(mut self, body: &T) -> Result<Retry, Error> {
        self.body = Some(json(body, "the next attempt's body")?);
        Ok(self)
    }
}

/// `value` as JSON; `what` names it where that fails.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T, what: &str) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::from(e).context(format_args!("cannot write {what} as JSON")))
}

/// A delay as the contract has it: whole milliseconds, rounded up, 49 days at most.
pub(crate) fn milliseconds(delay: Duration) -> u32 {
    u32::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
