//! The HTTP client of one generation of a handler: its connections, kept between attempts.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Builder, Client as Pool};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;
use wasmtime_wasi_http::{Error, WasiBody};

use super::super::network::{self, Resolve, Unreachable};
use super::destination;
use super::limited::Limited;
use crate::grants::{Grants, Scheme};

/// How many idle connections are kept to one server.
const IDLE_MAX: usize = 16;
/// For how long.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// The most that the head of a response may be.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub(in super::super) enum Client {
    /// Where no grant wants TLS: then a machine without certificates will do.
    Plain(Pool<Connector, Limited<WasiBody>>),
    Tls(Pool<HttpsConnector<Connector>, Limited<WasiBody>>),
}

/// Makes connections to where the grants allow.
#[derive(Clone)]
pub(in super::super) struct Connector {
    grants: Arc<Grants>,
    resolve: Resolve,
    wait: Duration,
}

// === impl Client ===

impl Client {
    /// A client for these grants, which waits so long for a connection.
    pub(in super::super) fn new(grants: &Arc<Grants>, wait: Duration, resolve: Resolve) -> io::Result<Client> {
        let connector = Connector { grants: Arc::clone(grants), resolve, wait };
        let mut pool: Builder = Pool::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX);
        if grants.http.iter().all(|grant| grant.scheme == Scheme::Http) {
            return Ok(Client::Plain(pool.build(connector)));
        }
        let tls = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1();
        Ok(Client::Tls(pool.build(tls.wrap_connector(connector))))
    }

    /// Sends a request whose destination was checked, and answers when the head of the response is there.
    pub(super) async fn send(&self, request: Request<Limited<WasiBody>>) -> Result<Response<Incoming>, Failed> {
        let sent = match self {
            Client::Plain(pool) => pool.request(request).await,
            Client::Tls(pool) => pool.request(request).await,
        };
        sent.map_err(|error| Failed::of(&error))
    }
}

/// Why a request failed: what the guest is told, and what the log is, if it was denied.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) denied: Option<String>,
}

// === impl Failed ===

impl Failed {
    pub(super) fn new(error: Error) -> Failed {
        Failed { error, denied: None }
    }

    /// Finds what went wrong among an error's sources.
    fn of(error: &hyper_util::client::legacy::Error) -> Failed {
        let mut chain: Vec<&(dyn StdError + 'static)> = vec![error];
        while let Some(source) = chain[chain.len() - 1].source() {
            chain.push(source);
        }
        let sources = || chain.iter();
        if let Some(unreachable) = sources().find_map(|source| source.downcast_ref::<Unreachable>()) {
            return Failed::unreachable(unreachable);
        }
        if let Some(Error::HttpRequestBodySize(size)) = sources().find_map(|source| source.downcast_ref::<Error>()) {
            return Failed::new(Error::HttpRequestBodySize(*size));
        }
        // All that comes from the connector and is not ours is from TLS.
        if error.is_connect() {
            let text = sources().last().map(ToString::to_string).unwrap_or_default();
            if !text.contains("certificate") {
                return Failed::new(Error::TlsProtocolError);
            }
            // The guest is told no more than that it is so.
            let denied = Some(format!("the certificate of the server is not accepted: {text}"));
            return Failed { error: Error::TlsCertificateError, denied };
        }
        let hyper = sources().find_map(|source| source.downcast_ref::<hyper::Error>());
        Failed::new(match hyper {
            Some(error) if error.is_parse_too_large() => Error::HttpResponseHeaderSectionSize(None),
            Some(error) if error.is_parse() => Error::HttpProtocolError,
            _ => Error::ConnectionTerminated,
        })
    }

    fn unreachable(unreachable: &Unreachable) -> Failed {
        let error = match unreachable {
            Unreachable::NotGranted { .. } => Error::HttpRequestDenied,
            Unreachable::Prohibited { .. } => Error::DestinationIpProhibited,
            Unreachable::Unknown { .. } => Error::DnsError { rcode: None, info_code: None },
            Unreachable::TimedOut => Error::ConnectionTimeout,
            Unreachable::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            Unreachable::Io(_) => Error::DestinationUnavailable,
        };
        let is_denied = matches!(unreachable, Unreachable::NotGranted { .. } | Unreachable::Prohibited { .. });
        Failed { error, denied: is_denied.then(|| unreachable.to_string()) }
    }
}

// === impl Connector ===

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TcpStream, Unreachable> {
        let denied = || Unreachable::NotGranted { host: uri.host().unwrap_or_default().to_owned() };
        let (scheme, host, port) = destination(&uri).map_err(|_| denied())?;
        let private = self.grants.may_be_private(scheme, &host, port).ok_or_else(denied)?;
        let connect = async {
            let addresses = network::addresses(&host, private, self.resolve).await?;
            network::connect(&addresses, port, self.wait).await
        };
        tokio::time::timeout(self.wait, connect).await.unwrap_or(Err(Unreachable::TimedOut))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}
