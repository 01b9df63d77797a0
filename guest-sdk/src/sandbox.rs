//! Between the contract's plain data and this crate's types. Called by what [`handler!`](crate::handler) writes.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

use crate::bindings::sandhog::jobs::{log as host, types};
use crate::log::Level;
use crate::outcome::milliseconds;
use crate::{Error, Failure, Handler, Job, Outcome};

/// What the jobs of an instance share, once it is set up.
#[derive(Debug, Default)]
pub struct Shared<H>(RefCell<Option<H>>);

/// Works one job with `handle`.
///
/// # Errors
///
/// The handler's own error, as a message.
pub fn run(job: types::Job, handle: fn(Job) -> Result<Outcome, Error>) -> Result<types::Outcome, String> {
    report_panics();
    handle(job.into()).map(Into::into).map_err(Error::into_message)
}

// === impl Shared ===

impl<H: Handler> Shared<H> {
    /// Nothing yet.
    pub const fn new() -> Shared<H> {
        Shared(RefCell::new(None))
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// The handler's own error, as a message.
    pub fn set_up(&self) -> Result<(), String> {
        report_panics();
        *self.0.borrow_mut() = Some(H::set_up().map_err(Error::into_message)?);
        Ok(())
    }

    /// Works one job with it.
    ///
    /// # Errors
    ///
    /// The handler's own error, as a message.
    pub fn handle(&self, job: types::Job) -> Result<types::Outcome, String> {
        self.with(|handler| handler.handle(job.into())).map(Into::into).map_err(Error::into_message)
    }

    /// Tells it of a failure.
    pub fn job_failed(&self, job: types::Job, failure: types::Failure) {
        self.with(|handler| handler.job_failed(job.into(), failure.into()));
    }

    /// Ends it.
    pub fn tear_down(&self) {
        if let Some(handler) = self.0.take() {
            handler.tear_down();
        }
    }

    fn with<T>(&self, call: impl FnOnce(&mut H) -> T) -> T {
        call(self.0.borrow_mut().as_mut().expect("the runner sets an instance up before its first job"))
    }
}

fn report_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(report)));
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

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Failure {
        let types::Failure { kind, message, buried, metadata } = failure;
        Failure { kind, message, buried, metadata }
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
