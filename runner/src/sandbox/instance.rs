//! One attempt: a fresh instance, one call, and nothing of it left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};

use super::host::{Host, handler};
use super::load::Prepared;
use super::pools::Pooled;
use super::refusal::LoadError;
use super::{Attempt, GuestLog, Level, Source, pools, trap};
use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::{Failure, Kind, Outcome, RetryRequest};

const STOPS: &str = "the runner stops";
const BROKE_DOWN: &str = "the sandbox broke down";

/// How the call of a guest ended.
enum Ended<T> {
    /// By itself: with an answer, or with a trap.
    Itself(wasmtime::Result<T>),
    /// It waited in a call to the host for longer than it may.
    TimedOut,
    /// The runner wants to stop.
    Stopped,
    /// The host broke down.
    Panicked,
}

/// Runs one attempt.
pub(super) async fn run(
    prepared: &Prepared,
    job: &Arc<Job>,
    max_failures: u32,
    limits: &Limits,
    stop: &CancellationToken,
    log: &Arc<dyn GuestLog>,
) -> Attempt {
    let started = Instant::now();
    let deadline = deadline(started, limits);
    let place = pools::enter(&prepared.pooled);
    let mut store = store(prepared, &place, Arc::clone(job), Arc::clone(log), limits, deadline);
    let ended = {
        let metadata: Vec<_> = job.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let job = view(job, &metadata, max_failures, limits);
        let call = async {
            let instance = place.pre.instantiate_async(&mut store).await?;
            let guest = place.handler.load(&mut store, &instance)?;
            guest.call_handle_job(&mut store, job).await
        };
        bounded(pin!(call), prepared, deadline, stop).await
    };
    // The instance goes here, and then its place; what the attempt was charged with and said stays.
    let mut host = store.into_data();
    drop(place);
    let memory_peak_bytes = host.meter.memory_peak_bytes();
    let (outcome, frames, last_words) = match ended {
        Ended::Itself(Ok(answer)) => {
            let outcome = answered(answer, limits, &mut host);
            let last_words = host.finish().filter(|_| matches!(outcome, Outcome::Failed(_)));
            (outcome, Vec::new(), last_words)
        }
        Ended::Itself(Err(error)) => {
            let last_words = host.finish();
            let (outcome, frames) = trap::outcome(&error, &host.meter, limits, last_words.as_deref());
            (outcome, frames, last_words)
        }
        Ended::TimedOut => (trap::timeout(limits), Vec::new(), host.finish()),
        Ended::Stopped => (Outcome::Interrupted { reason: STOPS.into() }, Vec::new(), host.finish()),
        Ended::Panicked => (Outcome::Interrupted { reason: BROKE_DOWN.into() }, Vec::new(), host.finish()),
    };
    if let Outcome::Interrupted { reason } = &outcome
        && reason != STOPS
    {
        tracing::warn!(job.id = %job.id, attempt = job.attempt, reason = %reason, "attempt interrupted: {reason}");
    }
    let (follow_ups, denied) = (host.take_follow_ups(), host.denied());
    Attempt { outcome, duration: started.elapsed(), memory_peak_bytes, frames, last_words, follow_ups, denied }
}

/// Makes an instance and throws it away, to see whether it can be done. Blocks.
pub(super) fn start_once(prepared: &Prepared, limits: &Limits) -> Result<(), LoadError> {
    let deadline = deadline(Instant::now(), limits);
    // Every pool has room for those that are loaded, beside its places.
    let pooled = &prepared.pooled[0];
    let mut store = store(prepared, pooled, Arc::new(Job::default()), Arc::new(Unheard), limits, deadline);
    let ended = {
        let call = async {
            let instance = pooled.pre.instantiate_async(&mut store).await?;
            Ok(pooled.handler.load(&mut store, &instance).map(drop))
        };
        block_on(pin!(call), prepared, deadline)
    };
    let mut host = store.into_data();
    let last_words = host.finish();
    let outcome = match ended {
        Ended::Itself(Ok(Ok(()))) => return Ok(()),
        Ended::Itself(Ok(Err(error))) => return Err(LoadError::HandlerTypes { reason: format!("{error:#}") }),
        Ended::Itself(Err(error)) => trap::outcome(&error, &host.meter, limits, last_words.as_deref()).0,
        Ended::TimedOut => trap::timeout(limits),
        Ended::Stopped | Ended::Panicked => Outcome::Interrupted { reason: BROKE_DOWN.into() },
    };
    match outcome {
        Outcome::Failed(failure) => Err(LoadError::Start { failure }),
        Outcome::Interrupted { reason } => Err(LoadError::Start { failure: Failure::new(Kind::Error, reason) }),
        Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Reject { .. } | Outcome::Cancelled => Ok(()),
    }
}

fn deadline(started: Instant, limits: &Limits) -> Instant {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    started.checked_add(limits.timeout).unwrap_or(started + NEVER)
}

fn store(
    prepared: &Prepared,
    pooled: &Pooled,
    job: Arc<Job>,
    log: Arc<dyn GuestLog>,
    limits: &Limits,
    deadline: Instant,
) -> Store<Host> {
    let mut store =
        Store::new(pooled.pre.engine(), Host::new(job, log, limits, Arc::clone(&pooled.granted), prepared.spare_bytes));
    store.limiter(|host| &mut host.meter);
    store.set_hostcall_fuel(usize::try_from(limits.host_call_bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(limits.handles as usize);
    store.set_epoch_deadline(1);
    // The ticks are only the occasion to look: what counts is the time, and whether the runner wants to stop, which
    // `bounded` looks at whenever the guest gives its thread back.
    store.epoch_deadline_callback(move |_| {
        Ok(if Instant::now() >= deadline {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
        })
    });
    store
}

fn view<'a>(job: &'a Job, metadata: &'a [(&'a str, &'a str)], max_failures: u32, limits: &Limits) -> handler::Job<'a> {
    handler::Job {
        id: &job.id,
        job_type: &job.job_type,
        body: &job.body,
        attempt: job.attempt,
        failures: job.failures,
        max_failures,
        enqueued_at_ms: u64::try_from(job.enqueued_at.0).unwrap_or(0),
        timeout_ms: u32::try_from(limits.timeout.as_millis()).unwrap_or(u32::MAX),
        metadata,
    }
}

/// Polls a guest until it is done, or until its time is over while it waits, or the runner wants to stop.
///
/// Most guests are done with the first poll: only for others there is a timer.
async fn bounded<T>(
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    prepared: &Prepared,
    deadline: Instant,
    stop: &CancellationToken,
) -> Ended<T> {
    let first = std::future::poll_fn(|cx| Poll::Ready(poll_once(call.as_mut(), prepared, cx))).await;
    if let Poll::Ready(ended) = first {
        return ended;
    }
    let timer = {
        let _timers = prepared.timers.enter();
        tokio::time::sleep_until(deadline.into())
    };
    let (mut timer, mut stopped) = (pin!(timer), pin!(stop.cancelled()));
    // It was polled just now; a second time at once would run it without giving the thread back.
    let mut just_polled = true;
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ended::Stopped);
        }
        if !std::mem::take(&mut just_polled) {
            let polled = poll_once(call.as_mut(), prepared, cx);
            if polled.is_ready() {
                return polled;
            }
        }
        timer.as_mut().poll(cx).map(|()| Ended::TimedOut)
    })
    .await
}

/// The same on a thread without a runtime.
fn block_on<T>(
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    prepared: &Prepared,
    deadline: Instant,
) -> Ended<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(ended) = poll_once(call.as_mut(), prepared, &mut Context::from_waker(&waker)) {
            return ended;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ended::TimedOut;
        }
        std::thread::park_timeout(left);
    }
}

fn poll_once<T>(
    call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    prepared: &Prepared,
    cx: &mut Context<'_>,
) -> Poll<Ended<T>> {
    // A guest's own timers and connections are on another runtime, as guests may occupy theirs.
    let _waits = prepared.waits.as_ref().map(Handle::enter);
    match catch_unwind(AssertUnwindSafe(|| call.poll(cx))) {
        Ok(polled) => polled.map(Ended::Itself),
        Err(_) => Poll::Ready(Ended::Panicked),
    }
}

fn answered(answer: Result<handler::Outcome, String>, limits: &Limits, host: &mut Host) -> Outcome {
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

/// Who listens while a component is loaded.
struct Unheard;

impl GuestLog for Unheard {
    fn line(&self, _: &Job, source: Source, level: Level, line: &str) {
        tracing::debug!(source = source.as_str(), ?level, line, "a component says something while it is loaded");
    }
}
