//! Bodies that are counted against an attempt's limits, and do not pause for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tokio_util::bytes::Bytes;
use wasmtime_wasi_http::Error;

use super::super::denials::Denials;

/// How many bytes an attempt may still send, or receive.
pub(super) struct Budget {
    left: AtomicU64,
    limit: u64,
    /// The limit's key in the configuration.
    name: &'static str,
    denials: Arc<Denials>,
}

/// When something of a request went out last.
pub(super) struct Progress {
    started: Instant,
    last_ms: AtomicU64,
}

/// The body of a request.
pub(in super::super) struct Limited<B> {
    body: B,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
}

/// The body of a response.
pub(super) struct Response {
    body: Incoming,
    budget: Arc<Budget>,
    wait: Duration,
    /// There while it waits.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limit: u64, name: &'static str, denials: &Arc<Denials>) -> Arc<Budget> {
        Arc::new(Budget { left: AtomicU64::new(limit), limit, name, denials: Arc::clone(denials) })
    }

    /// Takes what a frame holds; answers the limit where there is not so much left.
    fn take(&self, frame: &Frame<Bytes>) -> Result<(), u64> {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| {
            self.denials.deny(format_args!("more than {} bytes of HTTP in one attempt (`{}`)", self.limit, self.name));
            self.limit
        })
    }
}

// === impl Progress ===

impl Progress {
    pub(super) fn new() -> Arc<Progress> {
        Arc::new(Progress { started: Instant::now(), last_ms: AtomicU64::new(0) })
    }

    fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

// === impl Limited ===

impl<B> Limited<B> {
    pub(super) fn new(body: B, budget: Arc<Budget>, progress: Arc<Progress>) -> Limited<B> {
        Limited { body, budget, progress }
    }
}

impl Body for Limited<UnsyncBoxBody<Bytes, Error>> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.progress.note();
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            self.budget.take(&frame).map_err(|limit| Error::HttpRequestBodySize(Some(limit)))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Response ===

impl Response {
    pub(super) fn new(body: Incoming, budget: Arc<Budget>, wait: Duration) -> Response {
        Response { body, budget, wait, timer: None }
    }
}

impl Body for Response {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let wait = self.wait;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        self.timer = None;
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|_| Error::HttpResponseIncomplete)?;
            self.budget.take(&frame).map_err(|limit| Error::HttpResponseBodySize(Some(limit)))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
