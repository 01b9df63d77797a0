//! Whether the runner lives, and whether it is of use now: for orchestrators, which need no token.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Runner;
use super::error::ApiError;

/// How long the queue may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the runner is of use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Whether it is.
    ok: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// The runner lives
///
/// Answers as soon as the process listens. Asks nobody, so that a queue that is away makes nobody restart the runner.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { ok: true, why: None })
}

/// The runner is ready
///
/// The queue answers, all handlers are loaded that lay in the folder at the start, and it does not drain.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, body = Health), (status = 503, description = "It is not, and why", body = Health),
))]
pub(super) async fn readyz(State(runner): State<Arc<Runner>>) -> Response {
    let why = match () {
        () if runner.is_draining() => Some("it drains".to_owned()),
        () if !runner.is_loaded() => Some("handlers are still being loaded".to_owned()),
        () => match tokio::time::timeout(PATIENCE, runner.sampler.answers()).await {
            Err(_) => Some("the queue does not answer".to_owned()),
            Ok(answer) => answer.err().map(|error| error.to_string()),
        },
    };
    health(why)
}

/// What is answered while there is no runner yet, or none any more.
pub(super) fn without_runner(path: &str) -> Response {
    match path {
        "/healthz" => health(None),
        "/readyz" => health(Some("it starts or stops".to_owned())),
        _ => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not-running", "the runner starts or stops")
            .retry_after(1)
            .into_response(),
    }
}

fn health(why: Option<String>) -> Response {
    let status = if why.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(Health { ok: why.is_none(), why })).into_response()
}
