//! The thread that sends spans: in batches, and again where nobody was there to take them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::{BATCH, Shared, TracesError};
use crate::config::TracesConfig;

/// How long spans wait for others to be sent with.
const GATHER: Duration = Duration::from_secs(1);

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a receiver that did not take spans is left alone, at first and at most.
const AWAY_FIRST: Duration = Duration::from_millis(500);
const AWAY_MAX: Duration = Duration::from_secs(10);

/// What is read of an answer: it says next to nothing.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends what waits.
pub(super) struct Exporter {
    endpoint: String,
    exporter: SpanExporter,
    answered: Arc<AtomicU16>,
    shared: Arc<Shared>,
}

/// The HTTP client.
struct Client {
    pool: Connections,
    headers: HeaderMap,
    /// The status of the last answer; 0 where there was none.
    answered: Arc<AtomicU16>,
}

/// Where TLS is not wanted, a machine without certificates will do.
enum Connections {
    Plain(Pool<HttpConnector, Full<Bytes>>),
    Tls(Pool<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// What came of a batch.
enum Sent {
    Taken,
    /// Nobody was there, or had the time: it may be sent again.
    Away(String),
    Refused(String),
}

// === impl Exporter ===

impl Exporter {
    /// Starts the thread, which ends once `shared` is closed and all that waits is sent.
    pub(super) fn start(endpoint: &str, config: &TracesConfig, shared: Arc<Shared>) -> Result<(), TracesError> {
        let failed =
            |why: &dyn fmt::Display| TracesError::Client { endpoint: endpoint.to_owned(), why: why.to_string() };
        let answered = Arc::new(AtomicU16::new(0));
        let client = Client::new(endpoint, config, Arc::clone(&answered)).map_err(|error| failed(&error))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .with_retry_policy(RetryPolicy::disabled());
        let mut exporter = exporter.build().map_err(|error| failed(&error))?;
        exporter.set_resource(&resource(config));
        let exporter = Exporter { endpoint: endpoint.to_owned(), exporter, answered, shared };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(TracesError::Thread)?;
        let thread = std::thread::Builder::new().name("traces".to_owned());
        // It is not joined: it may wait for a receiver that does not answer.
        thread.spawn(move || runtime.block_on(exporter.run())).map(drop).map_err(TracesError::Thread)
    }

    async fn run(self) {
        let mut is_away = false;
        loop {
            let closed = self.shared.closed.load(Relaxed);
            let spans = std::mem::take(&mut *self.shared.waiting());
            let mut rest = spans.into_iter().peekable();
            while rest.peek().is_some() {
                self.send(rest.by_ref().take(BATCH).collect(), &mut is_away).await;
            }
            if closed {
                return self.shared.done.notify_one();
            }
            let enough = self.shared.changed.notified();
            if !self.shared.closed.load(Relaxed) {
                // Whether it is over or there are enough makes no difference.
                drop(tokio::time::timeout(GATHER, enough).await);
            }
        }
    }

    /// Sends a batch until it is taken or refused. Meanwhile others gather, or are dropped.
    async fn send(&self, batch: Vec<SpanData>, is_away: &mut bool) {
        let (spans, endpoint, mut wait) = (batch.len() as u64, &self.endpoint, AWAY_FIRST);
        loop {
            match self.try_to_send(batch.clone()).await {
                Sent::Taken => {
                    if std::mem::take(is_away) {
                        tracing::info!("spans are taken again by `{endpoint}`");
                    }
                    self.shared.exported.fetch_add(spans, Relaxed);
                    return;
                }
                Sent::Refused(why) => {
                    // Once, until one is taken again.
                    if !std::mem::replace(is_away, true) {
                        tracing::warn!("`{endpoint}` refuses spans, which are lost: {why}");
                    }
                    self.shared.refused.fetch_add(spans, Relaxed);
                    return;
                }
                Sent::Away(why) => {
                    if !std::mem::replace(is_away, true) {
                        tracing::warn!("cannot send spans to `{endpoint}`, some are kept and sent again: {why}");
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AWAY_MAX);
        }
    }

    async fn try_to_send(&self, batch: Vec<SpanData>) -> Sent {
        self.answered.store(0, Relaxed);
        let exported = self.exporter.export(batch).await;
        let status = self.answered.load(Relaxed);
        match exported {
            Ok(()) => Sent::Taken,
            Err(_) if status == 0 => Sent::Away("it does not answer".to_owned()),
            Err(_) if matches!(status, 408 | 429 | 500..) => Sent::Away(format!("it answers {status}")),
            Err(_) => Sent::Refused(format!("it answers {status}")),
        }
    }
}

/// Who sends them.
fn resource(config: &TracesConfig) -> Resource {
    let pair = |(name, value): (&String, &String)| KeyValue::new(name.clone(), value.clone());
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .with_attributes(config.resource.iter().map(pair))
        .with_attribute(KeyValue::new("service.name", config.service_name.clone()))
        .build()
}

// === impl Client ===

impl Client {
    fn new(endpoint: &str, config: &TracesConfig, answered: Arc<AtomicU16>) -> std::io::Result<Client> {
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_max_idle_per_host(1);
        let pool = if endpoint.starts_with("http:") {
            Connections::Plain(pool.build_http())
        } else {
            let tls = HttpsConnectorBuilder::new().with_native_roots()?.https_only().enable_http1();
            Connections::Tls(pool.build(tls.build()))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name: HeaderName = name.parse().expect("it was checked with the configuration");
            let mut value: HeaderValue = value.expose().parse().expect("it was checked with the configuration");
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Client { pool, headers, answered })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        // The library adds what it finds in the environment, which may be meant for another receiver.
        let ours = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
        let kept = ours.into_iter().filter_map(|name| head.headers.remove(&name).map(|value| (name, value))).collect();
        head.headers = kept;
        head.headers.extend(self.headers.clone());
        let request = Request::from_parts(head, Full::new(body));
        let response = match &self.pool {
            Connections::Plain(pool) => pool.request(request).await?,
            Connections::Tls(pool) => pool.request(request).await?,
        };
        self.answered.store(response.status().as_u16(), Relaxed);
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let in_time = tokio::time::timeout(PATIENCE, self.send(request)).await;
            in_time.unwrap_or_else(|_| Err("it does not answer in time".into()))
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
