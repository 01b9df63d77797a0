//! What happens to jobs, as it happens: a stream of server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Runner;
use super::error::{ApiError, Problem};
use super::parameters::Asked;
use super::site::Caller;
use crate::events::{Event, Listener};

/// Proxies between may cut what is silent for longer, and who has gone away is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those of this job type.
    #[serde(rename = "type")]
    job_type: Option<String>,
}

/// Stream what happens to the jobs of this runner
///
/// Server-sent events: the name of each is what happened, its data an object. At most 500 a second are told; how many were
/// left out before one stands in its `skipped`. Who reads too slowly misses some, and gets `missed` with their number.
#[utoipa::path(get, path = "/v1/events", tag = "runner", params(Which), responses(
    (status = 200, content_type = "text/event-stream", body = Event),
    (status = 429, description = "Half of all connections last already", body = Problem),
))]
pub(super) async fn stream(
    State(runner): State<Arc<Runner>>,
    Extension(caller): Extension<Caller>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let lasting = caller.lasts()?;
    let listener = runner.events.listen();
    let told = stream::unfold(
        (listener, caller, lasting, which.job_type),
        async |(mut listener, caller, lasting, job_type)| {
            let sent = tokio::select! {
                sent = next(&mut listener, job_type.as_deref()) => sent,
                () = caller.closing.cancelled() => return None,
            };
            Some((Ok::<_, Infallible>(sent), (listener, caller, lasting, job_type)))
        },
    );
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(SILENCE)).into_response())
}

async fn next(listener: &mut Listener, job_type: Option<&str>) -> Sent {
    loop {
        match listener.next().await {
            Ok(event) if job_type.is_none_or(|job_type| job_type == event.job_type) => {
                let json = serde_json::to_string(&*event).expect("it is strings and numbers");
                return Sent::default().event(event.event.as_str()).data(json);
            }
            Ok(_) => {}
            Err(missed) => return Sent::default().event("missed").data(missed.to_string()),
        }
    }
}
