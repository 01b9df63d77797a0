//! Spans of attempts, sent to a receiver of OpenTelemetry's OTLP. Off unless configured; then the one thing that a job pays
//! is the question whether they are on.
//!
//! A job's metadata say where it stands in which trace. An attempt is given the job with its own span there instead, so that
//! all that follows from it (jobs, requests over HTTP, lines of the log) is the span's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData};
use tokio::sync::Notify;

use self::context::Sampling;
pub use self::context::{Context, TRACEPARENT, TRACESTATE};
use self::export::Exporter;
use crate::config::TracesConfig;
use crate::handler::Handler;
use crate::job::Job;
use crate::observe::End;
use crate::outcome::Disposition;

mod context;
mod export;
mod span;

/// The most spans that wait to be sent. Those that come while there are so many are dropped.
const WAITING_MAX: usize = 8_192;

/// So many are sent at one time.
const BATCH: usize = 512;

/// Makes spans of attempts, and sends them.
pub struct Traces {
    sampling: Sampling,
    shared: Arc<Shared>,
}

/// What becomes of spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Were taken by the receiver.
    pub exported: u64,
    /// Were dropped, since too many waited.
    pub dropped: u64,
    /// Were not taken by the receiver, and are not to be sent again.
    pub refused: u64,
}

/// An attempt that is under way.
pub struct Attempt<'a> {
    /// The job as the attempt sees it.
    pub job: Arc<Job>,
    /// The attempt's span.
    pub context: Context,
    traces: &'a Traces,
    parent: Option<Context>,
    started: SystemTime,
}

/// An attempt that has ended, before what follows is known.
pub struct Ended<'a> {
    traces: &'a Traces,
    /// None where it is not sampled.
    span: Option<Box<SpanData>>,
}

/// What the threads that make spans and the one that sends them share.
struct Shared {
    waiting: Mutex<Vec<SpanData>>,
    /// There are enough to send, or no more will come.
    changed: Notify,
    closed: AtomicBool,
    /// All is sent that could be.
    done: Notify,
    exported: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// Why there are no spans.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The client for it cannot be made.
    #[error("cannot send spans to `{endpoint}`: {why}")]
    Client {
        /// Where they were to go.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// There is no thread to send them.
    #[error("cannot start the thread that sends spans: {0}")]
    Thread(std::io::Error),
}

// === impl Traces ===

impl Traces {
    /// Starts the thread that sends spans; none if they are not configured.
    ///
    /// # Errors
    ///
    /// Where that cannot be done on this machine. Whether somebody takes them is not asked.
    pub fn start(config: &TracesConfig) -> Result<Option<Arc<Traces>>, TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let shared = Arc::new(Shared::new());
        Exporter::start(endpoint, config, Arc::clone(&shared))?;
        Ok(Some(Arc::new(Traces { sampling: Sampling::new(config), shared })))
    }

    /// Begins an attempt at `job`: below the span that its enqueuer named, or in a trace of its own.
    pub fn attempt(&self, job: &Job) -> Attempt<'_> {
        let ids = RandomIdGenerator::default();
        let parent = Context::of(&job.metadata);
        let trace = parent.map_or_else(|| u128::from_be_bytes(ids.new_trace_id().to_bytes()), |parent| parent.trace);
        let span = u64::from_be_bytes(ids.new_span_id().to_bytes());
        let context = Context { trace, span, sampled: self.sampling.takes(parent, trace) };
        let mut job = job.clone();
        if parent.is_none() {
            // What stands there is no place in a trace, and what stands beside it belongs to none.
            job.metadata.retain(|(name, _)| name != TRACEPARENT && name != TRACESTATE);
        }
        match job.metadata.iter_mut().find(|(name, _)| name == TRACEPARENT) {
            Some((_, text)) => *text = context.to_string(),
            None => job.metadata.push((TRACEPARENT.to_owned(), context.to_string())),
        }
        Attempt { job: Arc::new(job), context, traces: self, parent, started: SystemTime::now() }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Sends what waits, for at most so long. Spans that come later are dropped.
    pub async fn close(&self, patience: Duration) {
        let done = self.shared.done.notified();
        self.shared.closed.store(true, Relaxed);
        self.shared.changed.notify_one();
        if tokio::time::timeout(patience, done).await.is_err() {
            let left = self.shared.waiting().len();
            tracing::warn!(spans = left, "spans were not sent in time: what waits of them is lost");
        }
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").field("sampling", &self.sampling).finish_non_exhaustive()
    }
}

// === impl Attempt ===

impl<'a> Attempt<'a> {
    /// Ends it.
    pub fn ended(self, handler: &Handler, end: &End<'_>) -> Ended<'a> {
        let Attempt { job, context, traces, parent, started } = self;
        let wanted = context.sampled && traces.shared.has_room();
        let span = wanted.then(|| Box::new(span::ended((context, parent), handler, &job, end, started)));
        Ended { traces, span }
    }
}

// === impl Ended ===

impl Ended<'_> {
    /// Sends its span, with what follows from it.
    pub fn decided(self, disposition: &Disposition) {
        let Some(mut span) = self.span else { return };
        span::decided(&mut span, disposition);
        self.traces.shared.send(*span);
    }
}

// === impl Shared ===

impl Shared {
    fn new() -> Shared {
        Shared {
            waiting: Mutex::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
            done: Notify::new(),
            exported: AtomicU64::default(),
            dropped: AtomicU64::default(),
            refused: AtomicU64::default(),
        }
    }

    /// Whether a span would find room. If not, it counts as dropped, and is not made in vain.
    fn has_room(&self) -> bool {
        let has_room = !self.closed.load(Relaxed) && self.waiting().len() < WAITING_MAX;
        if !has_room {
            self.dropped.fetch_add(1, Relaxed);
        }
        has_room
    }

    fn send(&self, span: SpanData) {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.push(span);
        // Else it is looked at now and then.
        let is_batch = waiting.len() == BATCH;
        drop(waiting);
        if is_batch {
            self.changed.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<SpanData>> {
        // Nothing panics while it is held but what cannot allocate.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> Counts {
        let [exported, dropped, refused] =
            [&self.exported, &self.dropped, &self.refused].map(|count| count.load(Relaxed));
        Counts { exported, dropped, refused }
    }
}
