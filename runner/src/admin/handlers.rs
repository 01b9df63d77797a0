//! Handlers: what they are, and what people do with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Runner;
use super::error::{ApiError, Problem};
use crate::handler::Handler;
use crate::reload::overview::ListedHandler;

/// All handlers, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Handlers {
    handlers: Vec<HandlerStatus>,
}

/// A handler: what lies in the folder, what is kept of it, and what this runner serves.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HandlerStatus {
    #[serde(flatten)]
    listed: ListedHandler,
    /// What this runner serves now; none if nothing.
    live: Option<LiveHandler>,
}

/// A handler as a runner serves it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LiveHandler {
    /// The digest of its component and its manifest.
    generation: String,
    /// Whether its jobs wait.
    paused: bool,
    /// Why its instances cannot be set up now, if that is so.
    not_ready: Option<String>,
}

/// List handlers
#[utoipa::path(get, path = "/v1/handlers", tag = "handlers", responses(
    (status = 200, body = Handlers), (status = 500, description = "The folder cannot be read", body = Problem),
))]
pub(super) async fn list(State(runner): State<Arc<Runner>>) -> Result<Json<Handlers>, ApiError> {
    let (overview, config) = (Arc::clone(&runner.handlers), Arc::clone(&runner.config));
    let listed = tokio::task::spawn_blocking(move || overview.list(&config));
    let (listed, damaged) = listed.await.map_err(|_| broke_down())?.map_err(|error| {
        let message = format!("cannot read the handlers' folder: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "folder-unreadable", message)
    })?;
    for (name, error) in damaged {
        tracing::debug!(handler.name = %name, "what is kept of handler `{name}` counts for nothing: {error}");
    }
    let served: std::collections::HashMap<Arc<str>, LiveHandler> = {
        let registry = runner.registry.load();
        let handlers = registry.types().map(|(_, handler)| handler).chain(registry.others());
        handlers.map(|handler| (Arc::clone(&handler.name), LiveHandler::of(handler))).collect()
    };
    let mut served = served;
    let status = |listed: ListedHandler| {
        let live = served.remove(listed.handler.as_str());
        HandlerStatus { listed, live }
    };
    Ok(Json(Handlers { handlers: listed.into_iter().map(status).collect() }))
}

fn broke_down() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "panicked", "the runner made a mistake: its log says where")
}

// === impl LiveHandler ===

impl LiveHandler {
    fn of(handler: &Handler) -> LiveHandler {
        LiveHandler {
            generation: handler.generation.to_string(),
            paused: handler.is_paused(),
            not_ready: handler.not_ready().map(|not_ready| not_ready.why.clone()),
        }
    }
}
