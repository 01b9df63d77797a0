//! Requests of guests: `wasi:http`, to where their handler's grants allow and no further.

mod bare;
mod client;
mod limited;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use wasmtime_wasi::ResourceTable;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

pub(crate) use self::bare::HostCalls;
pub(super) use self::client::Client;
use self::client::Failed;
use self::limited::{Budget, Limited, Progress};
use super::denials::Denials;
use super::granted::Granted;
use crate::grants::{Host, Scheme};
use crate::job::Job;
use crate::limits::Limits;
use crate::traces::{Context, TRACEPARENT, TRACESTATE};

/// The requests of one attempt.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    requests: Requests,
}

struct Requests {
    granted: Arc<Granted>,
    denials: Arc<Denials>,
    calls: u32,
    calls_max: u32,
    /// How long it may wait at once: for a connection, for the first byte, between two.
    wait: Duration,
    /// Where the job stands in a trace, for who is asked to go on with it.
    trace: Vec<(HeaderName, HeaderValue)>,
    to_send: Arc<Budget>,
    to_receive: Arc<Budget>,
}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

// === impl Http ===

impl Http {
    pub(super) fn new(granted: &Arc<Granted>, denials: &Arc<Denials>, limits: &Limits, job: Option<&Job>) -> Http {
        let requests = Requests {
            granted: Arc::clone(granted),
            denials: Arc::clone(denials),
            calls: 0,
            calls_max: limits.http_calls,
            wait: limits.http_wait,
            trace: job.map(|job| trace(&job.metadata)).unwrap_or_default(),
            to_send: Budget::new(limits.http_request_bytes, "limits.http_request", denials),
            to_receive: Budget::new(limits.http_response_bytes, "limits.http_response", denials),
        };
        Http { ctx: WasiHttpCtx::new(), requests }
    }

    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { ctx: &mut self.ctx, table, hooks: &mut self.requests }
    }
}

// === impl Requests ===

impl WasiHttpHooks for Requests {
    fn set_host_header(&mut self) -> bool {
        // The client does, from the URI, which is not the guest's own words.
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let admitted = self.admit(request);
        let options = options.unwrap_or_default();
        let at_most = |wait: Option<Duration>| wait.map_or(self.wait, |wait| wait.min(self.wait));
        let first = at_most(options.connect_timeout) + at_most(options.first_byte_timeout);
        let between = at_most(options.between_bytes_timeout);
        let (denials, granted) = (Arc::clone(&self.denials), Arc::clone(&self.granted));
        let (to_send, to_receive) = (Arc::clone(&self.to_send), Arc::clone(&self.to_receive));
        Box::new(async move {
            let progress = Progress::new();
            let request = admitted?.map(|body| Limited::new(body, to_send, Arc::clone(&progress)));
            // It cannot be that a guest without this grant comes here; if it did, it would not be its runner's fault.
            let client = granted.client.as_ref().ok_or(Error::HttpRequestDenied)?;
            let response = in_time(client.send(request), first, &progress).await.map_err(|failed| {
                failed.denied.iter().for_each(|what| denials.deny(format_args!("http: {what}")));
                failed.error
            })?;
            let (head, body) = response.into_parts();
            let body = limited::Response::new(body, to_receive, between).take_along().await;
            let response = Response::from_parts(head, body.boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as Box<dyn Future<Output = _> + Send>))
        })
    }
}

impl Requests {
    /// The request as it may be sent.
    fn admit(&mut self, mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
        self.calls = self.calls.saturating_add(1);
        if self.calls > self.calls_max {
            let text = format!("more than {} requests in one attempt (`limits.http_calls`)", self.calls_max);
            self.denials.deny(format_args!("http: {text}"));
            return Err(Error::InternalError(Some(text)));
        }
        if request.method() == Method::CONNECT {
            self.denials.deny(format_args!("http: the method CONNECT"));
            return Err(Error::HttpRequestMethodInvalid);
        }
        let (scheme, host, port) = destination(request.uri()).map_err(|fault| {
            self.denials.deny(format_args!("http: a URL whose host {fault}"));
            Error::HttpRequestUriInvalid
        })?;
        let path = request.uri().path();
        if !self.granted.grants.http.iter().any(|grant| grant.covers(scheme, &host, port, path)) {
            // The path is the guest's secret.
            let scheme = scheme.as_str();
            self.denials.deny(format_args!("http: `{scheme}://{host}:{port}`, or a path there, is not granted"));
            return Err(Error::HttpRequestDenied);
        }
        let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let uri = Uri::builder().scheme(scheme.as_str()).authority(format!("{host}{port}")).path_and_query(path);
        *request.uri_mut() = uri.build().map_err(|_| Error::HttpRequestUriInvalid)?;
        if !request.headers().contains_key(TRACEPARENT) {
            request.headers_mut().extend(self.trace.iter().cloned());
        }
        Ok(request)
    }
}

/// What of a job's metadata are headers of the requests that it makes.
fn trace(metadata: &[(String, String)]) -> Vec<(HeaderName, HeaderValue)> {
    if Context::of(metadata).is_none() {
        return Vec::new();
    }
    let header = |(name, value): &(String, String)| {
        let name = [TRACEPARENT, TRACESTATE].into_iter().find(|known| known == name)?;
        Some((HeaderName::from_static(name), value.parse().ok()?))
    };
    metadata.iter().filter_map(header).collect()
}

/// Where a request goes, or what is wrong with its host.
fn destination(uri: &Uri) -> Result<(Scheme, Host, u16), String> {
    let scheme = uri.scheme_str().and_then(Scheme::parse).ok_or("has a scheme that is not known")?;
    let authority = uri.authority().ok_or("is missing")?;
    let (host, port) = Host::parse_with_port(authority.as_str())?;
    Ok((scheme, host, port.unwrap_or(scheme.port())))
}

/// Waits for the head of a response, no longer than `wait` since something was sent.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, Failed>>,
    wait: Duration,
    progress: &Progress,
) -> Result<T, Failed> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let until = progress.last() + wait;
        match tokio::time::timeout_at(until.into(), answer.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) if progress.last() + wait <= Instant::now() => {
                return Err(Failed::new(Error::ConnectionReadTimeout));
            }
            Err(_) => {}
        }
    }
}
