//! What is served: who comes in, which route a request takes, and how each answer leaves.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_service::Service;

use super::connection::{Busy, Connection, Connections, Lasting, Stream, Watched};
use super::error::ApiError;
use super::guard::{Guard, harden};
use super::listen::Door;
use super::{Runner, health, openapi};

/// How long a client may take for the head of a request, and between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// The longest head of a request, and how many lines it may have.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 64;

/// How long a listener rests when the system has no more files: what is open must end first.
const REST: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) guard: Guard,
    /// The runner; none before it is there, and after.
    pub(super) served: ArcSwapOption<Served>,
    pub(super) connections: Arc<Connections>,
}

/// A runner and the routes to it.
#[derive(Debug)]
pub(super) struct Served {
    router: Router,
    requests: TaskTracker,
    closing: CancellationToken,
}

/// Who asks: goes with each request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    /// The file system let it in.
    is_trusted: bool,
    /// What lasts is to end.
    pub(super) closing: CancellationToken,
}

/// The body of an answer, and what lasts as long as it.
struct Answer {
    body: Body,
    _busy: Busy,
    _request: Option<TaskTrackerToken>,
}

/// Takes in connections by all doors, and serves each, until `end` is cancelled.
pub(super) async fn serve(site: &Arc<Site>, doors: Vec<Door>, end: &CancellationToken) {
    let mut listening = JoinSet::new();
    for door in doors {
        listening.spawn(listen(Arc::clone(site), door));
    }
    end.cancelled().await;
    listening.shutdown().await;
}

async fn listen(site: Arc<Site>, door: Door) {
    // They end with this.
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            accepted = door.accept() => match accepted {
                Ok(stream) => drop(served.spawn(serve_one(Arc::clone(&site), stream, door.is_trusted()))),
                // Who hung up before is no fault of anybody's.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection to the HTTP API: {error}");
                    tokio::time::sleep(REST).await;
                }
            },
            Some(ended) = served.join_next() => if let Err(error) = ended {
                tracing::error!(error = %error, "a connection to the HTTP API broke down");
            },
        }
    }
}

async fn serve_one(site: Arc<Site>, stream: Stream, is_trusted: bool) {
    let admitted = site.connections.admit();
    let connection = Arc::clone(&admitted.connection);
    let stream = Watched::new(stream, &admitted);
    let answer = service_fn(|request| {
        let caller = Caller {
            connections: Arc::clone(&site.connections),
            connection: Arc::clone(&connection),
            is_trusted,
            closing: CancellationToken::new(),
        };
        site.answer(request, caller)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(error = %error, "a connection to the HTTP API ended: {error}");
        },
        () = connection.evicted() => tracing::debug!("an idle connection to the HTTP API is closed for a new one"),
    }
}

// === impl Site ===

impl Site {
    /// The answer to one request. Whatever goes wrong with it is an answer too.
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, Infallible> {
        let begun = Instant::now();
        let busy = caller.connection.busy();
        let served = self.served.load_full();
        let counted = served.as_ref().map(|served| served.requests.token());
        let (parts, body) = request.into_parts();
        // Without what stands behind the `?`, which may hold anything.
        let line =
            tracing::enabled!(tracing::Level::DEBUG).then(|| (parts.method.clone(), parts.uri.path().to_owned()));
        let mut answer = match (self.guard.check(&parts, caller.is_trusted), &served) {
            (Err(refused), _) => refused.into_response(),
            (Ok(()), None) => health::without_runner(parts.uri.path()),
            (Ok(()), Some(served)) => served.answer(Request::from_parts(parts, Body::new(body)), caller).await,
        };
        harden(answer.headers_mut());
        if let Some((method, path)) = line {
            let (status, took) = (answer.status().as_u16(), begun.elapsed());
            tracing::debug!(
                http.method = %method, http.path = %path, http.status = status, duration_us = took.as_micros(),
                "{method} {path}: {status}"
            );
        }
        Ok(answer.map(|body| Body::new(Answer { body, _busy: busy, _request: counted })))
    }
}

// === impl Served ===

impl Served {
    pub(super) fn new(runner: Arc<Runner>) -> Served {
        let router = openapi::routes(runner);
        Served { router, requests: TaskTracker::new(), closing: CancellationToken::new() }
    }

    /// What lasts is to end now.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.requests.close();
    }

    /// Waits until everything is answered.
    pub(super) async fn answered(&self) {
        self.requests.wait().await;
    }

    async fn answer(&self, mut request: Request<Body>, mut caller: Caller) -> Response<Body> {
        caller.closing = self.closing.clone();
        request.extensions_mut().insert(caller);
        let answer = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!("a request to the HTTP API panicked: it is answered as failed, others go on");
                let message = "the runner made a mistake: its log says where";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "panicked", message).into_response()
            }
        }
    }
}

// === impl Caller ===

impl Caller {
    /// Notes that the request lasts by its nature.
    ///
    /// # Errors
    ///
    /// That so many last already that others would find no room.
    pub(super) fn lasts(&self) -> Result<Lasting, ApiError> {
        self.connections.lasts(&self.connection).ok_or_else(|| {
            let message = "as many requests wait or stream events as may at one time";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-waiting", message)
                .retry_after(1)
                .with_hint("it is half of `admin.connections`")
        })
    }
}

// === impl Answer ===

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
