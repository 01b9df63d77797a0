//! An instance: a store, and what its component exports. It is made for one attempt, or works several jobs, one after the
//! other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};

use super::attempt::Came;
use super::host::{Host, context, failure_hook, handler};
use super::keyvalue::HandlerState;
use super::load::{CONTEXT, FAILURE_HOOK, HANDLER, Prepared};
use super::pools::{Place, Pooled};
use super::refusal::LoadError;
use super::{GuestLog, Level, Source, pools};
use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::{Failure, Kind, Outcome};

const STARTED: &str = "it is started before it is called";

/// An instance, or what one will be made of.
pub(super) struct Instance {
    store: Store<Host>,
    /// What it exports; none before it was started.
    exports: Option<Exports>,
    /// Given back after the store is gone.
    pub(super) place: Place,
    /// How many jobs it was given.
    pub(super) jobs: u32,
    /// Since when it waits for its next job.
    pub(super) waits_since: Instant,
}

struct Exports {
    handler: handler::Guest,
    context: Option<context::Guest>,
    failure_hook: Option<failure_hook::Guest>,
}

/// What bounds the calls of one attempt.
pub(super) struct Bounds<'a> {
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    prepared: &'a Prepared,
    pub(super) limits: &'a Limits,
    stop: &'a CancellationToken,
}

/// How a call ended that its guest did not end with an answer.
pub(super) enum Broken {
    /// A trap, or the engine's own error.
    Failed(wasmtime::Error),
    /// It waited in a call to the host for longer than it may.
    TimedOut,
    /// The runner wants to stop.
    Stopped,
    /// The host broke down.
    Panicked,
}

/// Makes an instance and throws it away, to see whether it can be done. Blocks.
pub(super) fn start_once(prepared: &Prepared, limits: &Limits) -> Result<(), LoadError> {
    let deadline = deadline(Instant::now(), limits);
    // Every pool has room for those that are loaded, beside its places.
    let pooled = &prepared.pooled[0];
    let granted = Arc::clone(&pooled.granted);
    let host = Host::new(None, Arc::new(Unheard), limits, granted, prepared.spare_bytes, deadline);
    let mut store = store(pooled, host);
    let started = block_on(pin!(pooled.pre.instantiate_async(&mut store)), prepared, deadline);
    let broken = match started {
        Ok(instance) => return Exports::load(pooled, &mut store, &instance).map(drop),
        Err(broken) => broken,
    };
    match Came::broken(broken, store.data_mut(), limits).outcome {
        Outcome::Failed(failure) => Err(LoadError::Start { failure }),
        Outcome::Interrupted { reason } => Err(LoadError::Start { failure: Failure::new(Kind::Error, reason) }),
        _ => unreachable!("what broke did not answer"),
    }
}

// === impl Instance ===

impl Instance {
    /// What an instance will be made of, in this thread's pool, or where there is room.
    pub(super) fn new(bounds: &Bounds<'_>, job: Option<Arc<Job>>, log: Arc<dyn GuestLog>) -> Instance {
        let Bounds { prepared, limits, deadline, .. } = *bounds;
        let place = pools::enter(&prepared.pooled);
        let pooled = &prepared.pooled[place.number];
        let host = Host::new(job, log, limits, Arc::clone(&pooled.granted), prepared.spare_bytes, deadline);
        let store = store(pooled, host);
        Instance { store, exports: None, place, jobs: 0, waits_since: bounds.started }
    }

    /// The same for a handler that keeps something from one job to another.
    pub(super) fn keeping(mut self, state: Option<&HandlerState>) -> Instance {
        if let Some(state) = state {
            self.host().keep(state.clone());
        }
        self
    }

    /// Begins another job, or what is none. What is limited for each job is counted anew.
    pub(super) fn begin(&mut self, job: Option<Arc<Job>>, bounds: &Bounds<'_>) {
        self.host().begin(job, bounds.deadline);
    }

    /// Whether it may work a job of this type: types do not share an instance.
    pub(super) fn is_for(&self, job_type: &str) -> bool {
        self.store.data().job.as_ref().is_none_or(|job| job.job_type == job_type)
    }

    /// Whether it was made already.
    pub(super) fn is_started(&self) -> bool {
        self.exports.is_some()
    }

    /// Makes the instance.
    pub(super) async fn start(&mut self, bounds: &Bounds<'_>) -> Result<(), Broken> {
        let (store, pooled) = (&mut self.store, &bounds.prepared.pooled[self.place.number]);
        let call = async {
            let instance = pooled.pre.instantiate_async(&mut *store).await?;
            Exports::load(pooled, store, &instance).map_err(wasmtime::Error::new)
        };
        self.exports = Some(bounded(pin!(call), bounds).await?);
        Ok(())
    }

    /// Sets it up, if it wants that.
    pub(super) async fn set_up(&mut self, bounds: &Bounds<'_>) -> Result<Result<(), String>, Broken> {
        let Some(context) = self.exports().context.clone() else { return Ok(Ok(())) };
        self.begin(None, bounds);
        bounded(pin!(context.call_set_up(&mut self.store)), bounds).await
    }

    /// Ends it after its last job, unless it broke: tears it down, if it wants that. How that went is only said.
    pub(super) async fn end(mut self, bounds: &Bounds<'_>) {
        let Some(context) = self.exports().context.clone() else { return };
        self.begin(None, bounds);
        let torn_down = bounded(pin!(context.call_tear_down(&mut self.store)), bounds).await;
        match torn_down {
            Ok(()) => drop(self.host().finish()),
            Err(broken) => {
                let came = Came::broken(broken, self.host(), bounds.limits);
                self.host().remark(&format!("tear-down: {}", came.reason()));
            }
        }
    }

    /// Has it work the job that was begun.
    pub(super) async fn handle_job(
        &mut self,
        job: &Job,
        max_failures: u32,
        bounds: &Bounds<'_>,
    ) -> Result<Result<handler::Outcome, String>, Broken> {
        self.jobs += 1;
        let metadata: Vec<_> = job.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let job = view(job, &metadata, max_failures, bounds.limits);
        let exports = self.exports.as_ref().expect(STARTED);
        bounded(pin!(exports.handler.call_handle_job(&mut self.store, job)), bounds).await
    }

    /// Tells it of a failure of the job that was begun, if it wants that; `buried` says whether the job ends with it.
    pub(super) async fn job_failed(
        &mut self,
        job: &Job,
        max_failures: u32,
        (failure, buried): (&Failure, bool),
        bounds: &Bounds<'_>,
    ) -> Result<(), Broken> {
        let Some(hook) = self.exports().failure_hook.clone() else { return Ok(()) };
        let metadata: Vec<_> = job.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let job = view(job, &metadata, max_failures, bounds.limits);
        let kind = failure.kind.as_str();
        let failure = failure_hook::Failure { kind: &kind, message: &failure.message, buried, metadata: &[] };
        bounded(pin!(hook.call_job_failed(&mut self.store, job, failure)), bounds).await
    }

    fn exports(&self) -> &Exports {
        self.exports.as_ref().expect(STARTED)
    }

    pub(super) fn host(&mut self) -> &mut Host {
        self.store.data_mut()
    }
}

// === impl Exports ===

impl Exports {
    fn load(
        pooled: &Pooled,
        store: &mut Store<Host>,
        instance: &wasmtime::component::Instance,
    ) -> Result<Exports, LoadError> {
        let handler = pooled.handler.load(&mut *store, instance);
        let handler = handler.map_err(|error| LoadError::export_types(HANDLER, &error))?;
        let context = pooled.context.as_ref().map(|context| context.load(&mut *store, instance)).transpose();
        let context = context.map_err(|error| LoadError::export_types(CONTEXT, &error))?;
        let failure_hook = pooled.failure_hook.as_ref().map(|hook| hook.load(&mut *store, instance)).transpose();
        let failure_hook = failure_hook.map_err(|error| LoadError::export_types(FAILURE_HOOK, &error))?;
        Ok(Exports { handler, context, failure_hook })
    }
}

// === impl Bounds ===

impl<'a> Bounds<'a> {
    /// Of what begins now.
    pub(super) fn new(prepared: &'a Prepared, limits: &'a Limits, stop: &'a CancellationToken) -> Bounds<'a> {
        let started = Instant::now();
        Bounds { started, deadline: deadline(started, limits), prepared, limits, stop }
    }
}

fn deadline(started: Instant, limits: &Limits) -> Instant {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    started.checked_add(limits.timeout).unwrap_or(started + NEVER)
}

fn store(pooled: &Pooled, host: Host) -> Store<Host> {
    let limits = &host.limits;
    let (call_bytes, handles) =
        (usize::try_from(limits.host_call_bytes).unwrap_or(usize::MAX), limits.handles as usize);
    let mut store = Store::new(pooled.pre.engine(), host);
    store.limiter(|host| &mut host.meter);
    store.set_hostcall_fuel(call_bytes);
    store.set_max_component_handles(handles);
    store.set_epoch_deadline(1);
    // The ticks are only the occasion to look: what counts is the time, and whether the runner wants to stop, which
    // `bounded` looks at whenever the guest gives its thread back.
    store.epoch_deadline_callback(|store| {
        Ok(if Instant::now() >= store.data().deadline {
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
    bounds: &Bounds<'_>,
) -> Result<T, Broken> {
    let Bounds { prepared, deadline, stop, .. } = *bounds;
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
            return Poll::Ready(Err(Broken::Stopped));
        }
        if !std::mem::take(&mut just_polled) {
            let polled = poll_once(call.as_mut(), prepared, cx);
            if polled.is_ready() {
                return polled;
            }
        }
        timer.as_mut().poll(cx).map(|()| Err(Broken::TimedOut))
    })
    .await
}

/// The same on a thread without a runtime.
fn block_on<T>(
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    prepared: &Prepared,
    deadline: Instant,
) -> Result<T, Broken> {
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
            return Err(Broken::TimedOut);
        }
        std::thread::park_timeout(left);
    }
}

fn poll_once<T>(
    call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    prepared: &Prepared,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Broken>> {
    // A guest's own timers and connections are on another runtime, as guests may occupy theirs.
    let _waits = prepared.waits.as_ref().map(Handle::enter);
    match catch_unwind(AssertUnwindSafe(|| call.poll(cx))) {
        Ok(polled) => polled.map(|called| called.map_err(Broken::Failed)),
        Err(_) => Poll::Ready(Err(Broken::Panicked)),
    }
}

/// Who listens while a component is loaded.
struct Unheard;

impl GuestLog for Unheard {
    fn line(&self, _: Option<&Job>, source: Source, level: Level, line: &str) {
        tracing::debug!(source = source.as_str(), ?level, line, "a component says something while it is loaded");
    }
}
