//! Bodies that are counted against an attempt's limits, and do not pause for too long.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
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

/// How many pieces of a response are taken along with its head. One is no more than what is read of a connection at once.
const HELD_MAX: usize = 4;

/// A piece of a body as it comes.
type Piece = Result<Frame<Bytes>, hyper::Error>;

/// The body of a response.
pub(super) struct Response {
    body: Incoming,
    /// What came with the head, and whether that was all.
    held: VecDeque<Piece>,
    ended: bool,
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
        Response { body, held: VecDeque::new(), ended: false, budget, wait, timer: None }
    }

    /// Takes along what has come with the head. To be called where the connections are: from the guest's thread each piece, and
    /// the end too, is a way there and back between threads, which takes longer than the whole call.
    pub(super) async fn take_along(mut self) -> Response {
        while self.held.len() < HELD_MAX {
            match self.there().await {
                Some(Some(piece)) => self.held.push_back(piece),
                Some(None) => {
                    self.ended = true;
                    break;
                }
                None => break,
            }
        }
        self
    }

    /// The next piece, if it is here: asked for, it comes when the connection had its turn. None: it is not here yet.
    async fn there(&mut self) -> Option<Option<Piece>> {
        let mut frame = pin!(self.body.frame());
        for turn in 0..2 {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            let polled = std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await;
            if let Poll::Ready(frame) = polled {
                return Some(frame);
            }
        }
        None
    }
}

impl Body for Response {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match self.held.pop_front() {
            Some(held) => Poll::Ready(Some(held)),
            None if self.ended => Poll::Ready(None),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
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
        self.held.is_empty() && (self.ended || self.body.is_end_stream())
    }
}
