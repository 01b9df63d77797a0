//! Jobs: lists of them, and one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Problem};
use super::parameters::{Asked, Named, kind, moment};
use crate::clock::UnixMs;
use crate::outcome::Kind;
use crate::queue::{self, Cancelled, Filter, Listed, Shown};

/// How many jobs a page of a list has, and may have.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;

/// The longest cursor: ours are far shorter.
const CURSOR_BYTES_MAX: usize = 1_024;

/// Which jobs, and how many of them.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only jobs in this state.
    state: Option<queue::State>,
    /// Only jobs of this type.
    #[serde(rename = "type")]
    job_type: Option<String>,
    /// Only what failed, or was buried, with this kind.
    #[serde(default, deserialize_with = "kind")]
    #[param(value_type = Option<String>, example = "timeout")]
    kind: Option<Kind>,
    /// Only jobs that ended, or were enqueued if they have not, since: how long ago (`30m`), or a time with its zone.
    #[serde(default, deserialize_with = "moment")]
    #[param(value_type = Option<String>, example = "30m")]
    since: Option<UnixMs>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<u32>,
    /// Those behind the page whose `next` this is.
    cursor: Option<String>,
    /// Which come first, by when they were enqueued.
    #[serde(default)]
    #[param(inline)]
    order: Order,
}

/// Which jobs of a list come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Order {
    #[default]
    Oldest,
    Newest,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Jobs {
    jobs: Vec<Listed>,
    /// What to give as `cursor` for the next page; none at the end.
    next: Option<String>,
}

/// Whether bytes are shown.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Shows {
    /// Whether to show the body.
    #[serde(default)]
    pub(super) body: bool,
}

/// What became of a job that was cancelled.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CancelledJob {
    /// Its id.
    id: String,
    /// `buried`: it waited, and is a dead letter now; `asked`: it runs, and is one when it has been broken off.
    #[schema(example = "buried")]
    cancelled: &'static str,
}

/// List jobs
///
/// A page of them; `next` is the `cursor` of the next one.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(Which), responses(
    (status = 200, body = Jobs),
    (status = 400, body = Problem),
    (status = 501, description = "This queue cannot list such jobs", body = Problem),
))]
pub(super) async fn list(
    State(runner): State<Arc<Runner>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Jobs>, ApiError> {
    page(&runner, which).await
}

/// Show a job
///
/// Its attempts, its failure, its result. Its body only if asked for: as text in `body`, or as `body_base64` if it is none.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path), Shows), responses(
    (status = 200, body = Shown),
    (status = 404, body = Problem),
    (status = 410, description = "It ended, and is not kept any more", body = Problem),
    (status = 501, description = "This queue cannot look it up", body = Problem),
))]
pub(super) async fn show(
    State(runner): State<Arc<Runner>>,
    Named(id): Named,
    Asked(shows): Asked<Shows>,
) -> Result<Json<Value>, ApiError> {
    let job = found(&runner, &id).await?;
    Ok(Json(job.to_json(shows.body)))
}

/// Cancel a job
///
/// One that waits becomes a dead letter at once, of the kind `cancelled`; one that runs when its attempt has been broken off.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, description = "It waited, and is a dead letter now", body = CancelledJob),
    (status = 202, description = "It runs, and is being broken off", body = CancelledJob),
    (status = 404, body = Problem),
    (status = 409, description = "It has ended already", body = Problem),
    (status = 410, description = "It ended, and is not kept any more", body = Problem),
    (status = 501, description = "This queue cannot cancel what waits", body = Problem),
))]
pub(super) async fn cancel(
    State(runner): State<Arc<Runner>>,
    Named(id): Named,
) -> Result<(StatusCode, Json<CancelledJob>), ApiError> {
    let asked = |id| (StatusCode::ACCEPTED, Json(CancelledJob { id, cancelled: "asked" }));
    match runner.queue.cancel(&id).await {
        Ok(Cancelled::Buried) => Ok((StatusCode::OK, Json(CancelledJob { id, cancelled: "buried" }))),
        Ok(Cancelled::Asked) => Ok(asked(id)),
        Ok(Cancelled::Ended(state)) => {
            let message = format!("the job `{id}` has ended already: it is {}", state.as_str());
            Err(ApiError::new(StatusCode::CONFLICT, "job-ended", message))
        }
        Ok(Cancelled::Unknown) => Err(absent(&runner, &id).await),
        // What runs here can be broken off whatever the queue can.
        Err(error) if error.unsupported && runner.dispatcher.cancel_running(&id) => Ok(asked(id)),
        Err(error) => Err(error.into()),
    }
}

/// A page of the jobs that pass.
pub(super) async fn page(runner: &Runner, which: Which) -> Result<Json<Jobs>, ApiError> {
    let (filter, limit) = which.filter()?;
    let mut jobs = looked(runner, filter).await?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next = jobs.last().filter(|_| more).and_then(|last| last.cursor.clone());
    Ok(Json(Jobs { jobs, next }))
}

/// The jobs that pass. Few may look at a time: the queue may have much to read for it.
pub(super) async fn looked(runner: &Runner, filter: Filter) -> Result<Vec<Listed>, ApiError> {
    let _look = runner.room.looks.acquire().await;
    let pages = filter.after.is_some();
    runner.queue.list(filter).await.map_err(|error| match pages && !error.transient && !error.unsupported {
        true => ApiError::bad("cursor-refused", error.message),
        false => error.into(),
    })
}

/// The job of an id.
///
/// # Errors
///
/// That there is none, or none any more.
pub(super) async fn found(runner: &Runner, id: &str) -> Result<Shown, ApiError> {
    let found = {
        let _look = runner.room.looks.acquire().await;
        runner.queue.show(id).await?
    };
    match found {
        Some(job) => Ok(job),
        None => Err(absent(runner, id).await),
    }
}

/// Says whether there was such a job.
async fn absent(runner: &Runner, id: &str) -> ApiError {
    match runner.queue.departed(id).await {
        Ok(Some(_)) => {
            ApiError::new(StatusCode::GONE, "job-gone", format!("the job `{id}` has ended, and is not kept any more"))
                .with_hint("`keep=1h` when it is enqueued keeps it longer, `queue.keep_completed` all of them")
        }
        // A queue that does not remember.
        Ok(None) | Err(_) => ApiError::new(StatusCode::NOT_FOUND, "job-not-found", format!("there is no job `{id}`")),
    }
}

// === impl Which ===

impl Which {
    /// The same of dead letters alone.
    pub(super) fn dead(mut self) -> Result<Which, ApiError> {
        if self.state.is_some_and(|state| state != queue::State::Dead) {
            return Err(ApiError::bad("parameter-refused", "a dead letter has no other `state` than `dead`"));
        }
        self.state = Some(queue::State::Dead);
        Ok(self)
    }

    fn filter(self) -> Result<(Filter, u32), ApiError> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let message = format!("`limit` is {limit}, which is not from 1 to {LIMIT_MAX}");
            return Err(ApiError::bad("parameter-refused", message));
        }
        if self.cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX) {
            return Err(ApiError::bad("parameter-refused", "`cursor` is none of ours: it is too long"));
        }
        let filter = Filter {
            ids: Vec::new(),
            job_type: self.job_type,
            state: self.state,
            kind: self.kind,
            since: self.since,
            // One more, to know whether there are more.
            limit: Some(limit + 1),
            after: self.cursor,
            newest_first: self.order == Order::Newest,
        };
        Ok((filter, limit))
    }
}
