//! Handlers: what they are, and what people do with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Problem};
use super::parameters::{Asked, Named};
use crate::handler::Handler;
use crate::reload::overview::{ChangeError, ListedHandler};
use crate::reload::record::{Record, Refusal};

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

/// What was done with a handler.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedHandler {
    /// Its name.
    handler: String,
    /// The generation that it is about: the one that is served from now on, was pinned, or was paused.
    generation: String,
}

/// To which generation.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Generation {
    /// The generation, or how its name begins; without, the one that is served.
    generation: Option<String>,
}

/// Pause a handler
///
/// None of its attempts starts, whichever generation is served and after a restart too: its jobs wait. What runs ends.
#[utoipa::path(post, path = "/v1/handlers/{name}/pause", tag = "handlers", params(("name" = String, Path)), responses(
    (status = 200, body = ChangedHandler), (status = 404, body = Problem),
))]
pub(super) async fn pause(State(runner): State<Arc<Runner>>, Named(name): Named) -> Changing {
    change(&runner, name, "paused", Record::pause).await
}

/// Let a handler run that was paused, or its generation that was braked
#[utoipa::path(post, path = "/v1/handlers/{name}/resume", tag = "handlers", params(("name" = String, Path)), responses(
    (status = 200, body = ChangedHandler), (status = 404, body = Problem), (status = 409, description = "It is neither", body = Problem),
))]
pub(super) async fn resume(State(runner): State<Arc<Runner>>, Named(name): Named) -> Changing {
    change(&runner, name, "resumed", Record::resume).await
}

/// Serve the generation before the present one, and stay on it
#[utoipa::path(post, path = "/v1/handlers/{name}/rollback", tag = "handlers", params(("name" = String, Path)), responses(
    (status = 200, body = ChangedHandler), (status = 404, body = Problem), (status = 409, description = "There is none before it", body = Problem),
))]
pub(super) async fn rollback(State(runner): State<Arc<Runner>>, Named(name): Named) -> Changing {
    change(&runner, name, "rolled back", Record::roll_back).await
}

/// Stay on a generation, whatever lies in the folder
#[utoipa::path(post, path = "/v1/handlers/{name}/pin", tag = "handlers", params(("name" = String, Path), Generation), responses(
    (status = 200, body = ChangedHandler), (status = 404, body = Problem), (status = 409, description = "There is no such generation, or several", body = Problem),
))]
pub(super) async fn pin(
    State(runner): State<Arc<Runner>>,
    Named(name): Named,
    Asked(Generation { generation }): Asked<Generation>,
) -> Changing {
    change(&runner, name, "pinned", move |record| record.pin(generation.as_deref())).await
}

/// Serve what lies in the folder again
#[utoipa::path(post, path = "/v1/handlers/{name}/unpin", tag = "handlers", params(("name" = String, Path)), responses(
    (status = 200, body = ChangedHandler), (status = 404, body = Problem), (status = 409, description = "It is not pinned", body = Problem),
))]
pub(super) async fn unpin(State(runner): State<Arc<Runner>>, Named(name): Named) -> Changing {
    change(&runner, name, "unpinned", Record::unpin).await
}

type Changing = Result<Json<ChangedHandler>, ApiError>;

/// Changes what is kept of a handler. The runner follows within about a second.
async fn change(
    runner: &Runner,
    name: String,
    what: &'static str,
    change: impl Fn(&mut Record) -> Result<crate::generation::Generation, Refusal> + Send + 'static,
) -> Changing {
    let (overview, of) = (Arc::clone(&runner.handlers), name.clone());
    let changed = tokio::task::spawn_blocking(move || overview.change(&of, change)).await.map_err(|_| broke_down())?;
    let generation = changed.map_err(|error| {
        let message = format!("handler `{name}` cannot be {what}: {error}");
        match error {
            ChangeError::Refused(Refusal::NeverServed) => {
                ApiError::new(StatusCode::NOT_FOUND, "handler-not-found", message)
            }
            ChangeError::Refused(_) | ChangeError::Lost(_) => {
                ApiError::new(StatusCode::CONFLICT, "handler-refused", message)
            }
            ChangeError::History(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "state-unreadable", message),
        }
    })?;
    tracing::info!(
        handler.name = %name, handler.generation = %generation,
        "handler `{name}` is {what} over the HTTP API, generation {generation}"
    );
    Ok(Json(ChangedHandler { handler: name, generation: generation.to_string() }))
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
