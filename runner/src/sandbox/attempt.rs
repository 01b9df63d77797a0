//! One attempt: an instance, one call, and nothing left of it, unless the handler's instances are reused.

use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use super::host::{Host, handler};
use super::instance::{Bounds, Broken, Instance};
use super::{Attempt, Component, GuestLog, trap};
use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::{Failure, Kind, Outcome, RetryRequest};

const STOPS: &str = "the runner stops";
const BROKE_DOWN: &str = "the sandbox broke down";

/// What came of a call, and what is known of how it went wrong.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) outcome: Outcome,
    frames: Vec<String>,
    last_words: Option<String>,
}

/// Runs one attempt.
pub(super) async fn run(
    component: &Component,
    job: &Arc<Job>,
    max_failures: u32,
    limits: &Limits,
    stop: &CancellationToken,
    log: &Arc<dyn GuestLog>,
) -> Attempt {
    let bounds = Bounds::new(&component.prepared, limits, stop);
    let mut instance = match component.shelf.as_ref().and_then(|shelf| shelf.take(&job.job_type)) {
        Some(mut instance) => {
            instance.begin(Arc::clone(job), bounds.deadline);
            instance
        }
        None => Instance::new(&bounds, Arc::clone(job), Arc::clone(log)),
    };
    let called = match instance.start(&bounds).await {
        Ok(()) => instance.handle_job(job, max_failures, &bounds).await,
        Err(broken) => Err(broken),
    };
    let host = instance.host();
    let memory_peak_bytes = host.meter.memory_peak_bytes();
    let Came { outcome, frames, last_words } = match called {
        Ok(answer) => Came::answered(answer, host, limits),
        Err(broken) => Came::broken(broken, host, limits),
    };
    if let Outcome::Interrupted { reason } = &outcome
        && reason != STOPS
    {
        tracing::warn!(job.id = %job.id, attempt = job.attempt, reason = %reason, "attempt interrupted: {reason}");
    }
    let follow_ups = host.take_follow_ups();
    // What is not kept goes here.
    match &component.shelf {
        Some(shelf) if is_clean(&outcome) => drop(shelf.put(instance)),
        _ => drop(instance),
    }
    Attempt { outcome, duration: bounds.started.elapsed(), memory_peak_bytes, frames, last_words, follow_ups }
}

/// Whether the guest ended the attempt by an answer of its own, so that its instance is as it means it to be.
fn is_clean(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Reject { .. } => true,
        Outcome::Failed(failure) => failure.kind == Kind::Error,
        Outcome::Interrupted { .. } | Outcome::Cancelled => false,
    }
}

// === impl Came ===

impl Came {
    /// Of a call that the guest ended with an answer.
    fn answered(answer: Result<handler::Outcome, String>, host: &mut Host, limits: &Limits) -> Came {
        let outcome = outcome(answer, limits, host);
        let last_words = host.finish().filter(|_| matches!(outcome, Outcome::Failed(_)));
        Came { outcome, frames: Vec::new(), last_words }
    }

    /// Of a call that ended otherwise.
    pub(super) fn broken(broken: Broken, host: &mut Host, limits: &Limits) -> Came {
        let last_words = host.finish();
        let (outcome, frames) = match broken {
            Broken::Failed(error) => trap::outcome(&error, &host.meter, limits, last_words.as_deref()),
            Broken::TimedOut => (trap::timeout(limits), Vec::new()),
            Broken::Stopped => (Outcome::Interrupted { reason: STOPS.into() }, Vec::new()),
            Broken::Panicked => (Outcome::Interrupted { reason: BROKE_DOWN.into() }, Vec::new()),
        };
        Came { outcome, frames, last_words }
    }
}

fn outcome(answer: Result<handler::Outcome, String>, limits: &Limits, host: &mut Host) -> Outcome {
    let over = |text: &str| text.len() as u64 > limits.result_bytes;
    match answer {
        Ok(handler::Outcome::Complete(Some(result))) => {
            if over(&result) {
                return trap::too_much("result", result.len(), limits);
            }
            if serde_json::from_str::<IgnoredAny>(&result).is_ok() {
                return Outcome::Complete { result: Some(result) };
            }
            host.remark("the result is not JSON and is kept as a JSON string");
            let result = serde_json::to_string(&result).expect("a string can always be written as JSON");
            Outcome::Complete { result: Some(result) }
        }
        Ok(handler::Outcome::Complete(None)) => Outcome::Complete { result: None },
        Ok(handler::Outcome::Retry(request)) => {
            if let Some(body) = request.body.as_deref().filter(|body| over(body)) {
                return trap::too_much("changed body", body.len(), limits);
            }
            Outcome::Retry(RetryRequest {
                after: request.after_ms.map(|ms| Duration::from_millis(ms.into())),
                body: request.body,
                reason: request.reason.map(trap::cut),
            })
        }
        Ok(handler::Outcome::Reject(reason)) => Outcome::Reject { reason: trap::cut(reason) },
        Err(message) => Outcome::Failed(Failure::new(Kind::Error, message)),
    }
}
