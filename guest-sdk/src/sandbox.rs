//! Between the contract's plain data and this crate's types. Called by what [`handler!`](crate::handler) writes.

use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

use crate::bindings::sandhog::jobs::{log as host, types};
use crate::log::Level;
use crate::outcome::milliseconds;
use crate::{Error, Job, Outcome};

/// Works one job with `handle`.
///
/// # Errors
///
/// The handler's own error, as a message.
pub fn run(job: types::Job, handle: fn(Job) -> Result<Outcome, Error>) -> Result<types::Outcome, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(report)));
    handle(job.into()).map(Into::into).map_err(Error::into_message)
}

/// Writes a line to the runner's log.
pub(crate) fn log(level: Level, line: &str) {
    let level = match level {
        Level::Trace => host::Level::Trace,
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::log(level, line);
}

/// Says where a panic was and why, before it traps: through the log, which every target has. The runner keeps the last line
/// of level error with the failed attempt.
fn report(panic: &PanicHookInfo<'_>) {
    let why = panic.payload_as_str().unwrap_or("of a type that cannot be shown");
    let line = match panic.location() {
        Some(at) => format!("panicked at {}:{}:{}: {why}", at.file(), at.line(), at.column()),
        None => format!("panicked: {why}"),
    };
    log(Level::Error, &line);
}

impl From<types::Job> for Job {
    fn from(job: types::Job) -> Job {
        Job {
            id: job.id,
            job_type: job.job_type,
            body: job.body,
            attempt: job.attempt,
            failures: job.failures,
            max_failures: job.max_failures,
            enqueued_at_ms: job.enqueued_at_ms,
            timeout: Duration::from_millis(job.timeout_ms.into()),
            metadata: job.metadata,
        }
    }
}

impl From<Outcome> for types::Outcome {
    fn from(outcome: Outcome) -> types::Outcome {
        match outcome {
            Outcome::Complete(result) => types::Outcome::Complete(result),
            Outcome::Retry(retry) => types::Outcome::Retry(types::RetryRequest {
                after_ms: retry.after.map(milliseconds),
                body: retry.body,
                reason: retry.reason,
            }),
            Outcome::Reject(reason) => types::Outcome::Reject(reason),
        }
    }
}
