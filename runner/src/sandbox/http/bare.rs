//! The same requests without a guest: what a call costs over the client that guests have, to measure theirs against.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi_http::WasiBody;

use super::super::denials::Denials;
use super::super::lines::Lines;
use super::super::network::{self, Network};
use super::super::{GuestLog, Level, Source};
use super::client::Client;
use super::limited::{Budget, Limited, Progress};
use crate::grants::Grants;
use crate::job::Job;
use crate::limits::Limits;

/// How long a connection may take.
const WAIT: Duration = Duration::from_secs(10);

/// Calls a server over and over. As for guests, a thread of its own has the connections.
pub(crate) struct HostCalls {
    client: Client,
    network: Network,
    uri: Uri,
    unlimited: Arc<Budget>,
}

/// Hears nothing.
struct Silence;

// === impl HostCalls ===

impl HostCalls {
    /// Calls of this URL, which the grants cover.
    ///
    /// # Errors
    ///
    /// That there is no thread, or that the URL is none.
    pub(crate) fn new(grants: &Grants, url: &str) -> Result<HostCalls, String> {
        let network = Network::start().map_err(|error| error.to_string())?;
        let client = Client::new(&Arc::new(grants.clone()), WAIT, network::system);
        let client = client.map_err(|error| error.to_string())?;
        let lines = Lines::new(None, Arc::new(Silence), std::time::Instant::now(), &Limits::default());
        let unlimited = Budget::new(u64::MAX, "", &Denials::new(Arc::new(Mutex::new(lines))));
        let uri = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
        Ok(HostCalls { client, network, uri, unlimited })
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub(crate) async fn call(&self) -> Result<(), String> {
        let body: WasiBody = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let body = Limited::new(body, Arc::clone(&self.unlimited), Progress::new());
        let mut request = Request::new(body);
        request.uri_mut().clone_from(&self.uri);
        let call = async {
            let response = self.client.send(request).await.map_err(|failed| format!("{:?}", failed.error))?;
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            if body.to_bytes().is_empty() { Err("the answer is empty".to_owned()) } else { Ok(()) }
        };
        let mut call = pin!(call);
        std::future::poll_fn(|cx| {
            let _connections = self.network.handle().enter();
            call.as_mut().poll(cx).map(Ok::<_, String>)
        })
        .await?
    }
}

impl GuestLog for Silence {
    fn line(&self, _: Option<&Job>, _: Source, _: Level, _: &str) {}
}
