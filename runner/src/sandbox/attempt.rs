//! One attempt: an instance, one call, and nothing left of it, unless the handler's instances are reused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use super::host::{Host, handler};
use super::instance::{Bounds, Broken, Instance};
use super::{Attempt, Component, GuestLog, trap};
use crate::follow_up::FollowUps;
use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::{Failure, Kind, Outcome, RetryRequest};
use crate::retry;

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
    let (prepared, shelf) = (&component.prepared, component.shelf.as_ref());
    let mut bounds = Bounds::new(prepared, limits, stop);
    let waited = shelf.and_then(|shelf| shelf.take(&job.job_type));
    let anew = || Instance::new(&bounds, Some(Arc::clone(job)), Arc::clone(log)).keeping(component.state.as_ref());
    let mut instance = waited.unwrap_or_else(anew);
    let began_anew = instance.is_started() || prepared.exports.context;
    if !instance.is_started() {
        if let Err(came) = ready(&mut instance, &bounds).await {
            return came.attempt(job, &mut instance, &bounds);
        }
        if shelf.is_some() && prepared.exports.context {
            // Its set-up is for many jobs, and not part of this attempt.
            bounds = Bounds::new(prepared, limits, stop);
        }
    }
    if began_anew {
        instance.begin(Some(Arc::clone(job)), &bounds);
    }
    let called = instance.handle_job(job, max_failures, &bounds).await;
    let came = Came::of(called, instance.host(), limits);
    let clean = is_clean(&came.outcome);
    let mut attempt = came.attempt(job, &mut instance, &bounds);
    let mut left = Some(instance).filter(|_| clean);
    if shelf.is_none() {
        if let Some(instance) = left.take() {
            instance.end(&bounds).await;
        }
        attempt.duration = bounds.started.elapsed();
    }
    if prepared.exports.failure_hook
        && let Some(failure) = failure_of(&attempt.outcome)
    {
        let again = Bounds::new(prepared, limits, stop);
        let buried = failure.kind == Kind::Rejected || retry::is_last(job, max_failures);
        let follow_ups = &mut attempt.follow_ups;
        left = report(left, job, max_failures, (&failure, buried), follow_ups, &again, log).await;
    }
    if let Some(instance) = left {
        let ends = match shelf {
            Some(shelf) => shelf.put(instance, bounds.started + attempt.duration),
            None => Some(instance),
        };
        if let Some(ends) = ends {
            ends.end(&Bounds::new(prepared, limits, stop)).await;
        }
    }
    attempt
}

/// What the handler is told of, if the attempt was a failure, or the job was rejected.
fn failure_of(outcome: &Outcome) -> Option<Cow<'_, Failure>> {
    match outcome {
        Outcome::Failed(failure) => Some(Cow::Borrowed(failure)),
        Outcome::Reject { reason } => Some(Cow::Owned(Failure::new(Kind::Rejected, reason.clone()))),
        _ => None,
    }
}

/// Tells the handler of a failure: in the instance that is left of the attempt, or in another. Answers the instance if it ended
/// that well. What it enqueues comes to `follow_ups` then; how it went changes nothing else, and is only said.
async fn report(
    left: Option<Instance>,
    job: &Arc<Job>,
    max_failures: u32,
    failure: (&Failure, bool),
    follow_ups: &mut FollowUps,
    bounds: &Bounds<'_>,
    log: &Arc<dyn GuestLog>,
) -> Option<Instance> {
    let is_ready = left.is_some();
    let mut instance = left.unwrap_or_else(|| Instance::new(bounds, Some(Arc::clone(job)), Arc::clone(log)));
    let came = if is_ready { Ok(()) } else { ready(&mut instance, bounds).await };
    instance.begin(Some(Arc::clone(job)), bounds);
    // Those of the attempt come first, so that each has a number of its own.
    instance.host().follow_ups.clone_from(follow_ups);
    let came = match came {
        Ok(()) => match instance.job_failed(job, max_failures, failure, bounds).await {
            Ok(()) => {
                *follow_ups = std::mem::take(&mut instance.host().follow_ups);
                // A failure leaves nothing of the state, and neither does being told of it.
                drop(instance.host().take_state());
                instance.host().finish();
                return Some(instance);
            }
            Err(broken) => Came::broken(broken, instance.host(), bounds.limits),
        },
        Err(came) => came,
    };
    instance.host().remark(&format!("failure hook: {}", came.reason()));
    None
}

/// Makes an instance and sets it up, without a job: to keep it for its first one, or, where instances are not reused, to see
/// whether it can be done.
///
/// # Errors
///
/// Why it cannot be done now.
pub(super) async fn set_up(component: &Component, limits: &Limits, log: &Arc<dyn GuestLog>) -> Result<(), String> {
    let prepared = &component.prepared;
    let bounds = Bounds::new(prepared, limits, &prepared.endings.stop);
    let mut instance = Instance::new(&bounds, None, Arc::clone(log)).keeping(component.state.as_ref());
    ready(&mut instance, &bounds).await.map_err(|came| came.reason())?;
    let ends = match &component.shelf {
        Some(shelf) => shelf.put(instance, Instant::now()),
        None => Some(instance),
    };
    if let Some(ends) = ends {
        ends.end(&Bounds::new(prepared, limits, &prepared.endings.stop)).await;
    }
    Ok(())
}

/// Makes an instance, and sets it up if it wants that.
async fn ready(instance: &mut Instance, bounds: &Bounds<'_>) -> Result<(), Came> {
    let limits = bounds.limits;
    instance.start(bounds).await.map_err(|broken| Came::broken(broken, instance.host(), limits))?;
    let why = match instance.set_up(bounds).await {
        Ok(Ok(())) => {
            instance.host().finish();
            return Ok(());
        }
        Ok(Err(message)) => Came::failed(Failure::new(Kind::Error, message), instance.host()),
        Err(broken) => Came::broken(broken, instance.host(), limits),
    };
    match &why.outcome {
        Outcome::Failed(_) => {
            Err(Came { outcome: Outcome::NotReady { reason: format!("set-up: {}", why.reason()) }, ..why })
        }
        _ => Err(why),
    }
}

/// Whether the guest ended the attempt by an answer of its own, so that its instance is as it means it to be.
fn is_clean(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Reject { .. } => true,
        Outcome::Failed(failure) => failure.kind == Kind::Error,
        Outcome::NotReady { .. } | Outcome::Interrupted { .. } | Outcome::Cancelled => false,
    }
}

// === impl Came ===

impl Came {
    /// Of the call of `handle-job`.
    fn of(called: Result<Result<handler::Outcome, String>, Broken>, host: &mut Host, limits: &Limits) -> Came {
        match called {
            Ok(answer) => {
                let outcome = outcome(answer, limits, host);
                let last_words = host.finish().filter(|_| matches!(outcome, Outcome::Failed(_)));
                Came { outcome, frames: Vec::new(), last_words }
            }
            Err(broken) => Came::broken(broken, host, limits),
        }
    }

    fn failed(failure: Failure, host: &mut Host) -> Came {
        Came { outcome: Outcome::Failed(failure), frames: Vec::new(), last_words: host.finish() }
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

    /// Why it did not end well, for people.
    pub(super) fn reason(&self) -> String {
        match &self.outcome {
            Outcome::Failed(failure) => format!("{}: {}", failure.kind, failure.message),
            Outcome::NotReady { reason } => reason.clone(),
            Outcome::Interrupted { reason } => reason.clone().into_owned(),
            Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Reject { .. } | Outcome::Cancelled => String::new(),
        }
    }

    /// The attempt that this is the end of.
    fn attempt(self, job: &Job, instance: &mut Instance, bounds: &Bounds<'_>) -> Attempt {
        let Came { outcome, frames, last_words } = self;
        if let Outcome::Interrupted { reason } = &outcome
            && reason != STOPS
        {
            tracing::warn!(job.id = %job.id, attempt = job.attempt, reason = %reason, "attempt interrupted: {reason}");
        }
        let host = instance.host();
        let memory_peak_bytes = host.meter.memory_peak_bytes();
        // An attempt that did not answer has enqueued nothing.
        let follow_ups = Some(std::mem::take(&mut host.follow_ups)).filter(|_| outcome.is_answer()).unwrap_or_default();
        // Taken in any case: what is looked at of the state is let go with the attempt.
        let state = host.take_state().filter(|_| outcome.keeps_state());
        let (duration, denied) = (bounds.started.elapsed(), host.denied());
        let lines = host.take_lines(job.attempt);
        Attempt { outcome, duration, memory_peak_bytes, frames, last_words, lines, follow_ups, state, denied }
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
