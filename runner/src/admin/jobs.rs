//! Jobs: lists of them, and one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Problem};
use super::parameters::{Asked, Named, kind, moment};
use crate::clock::UnixMs;
use crate::outcome::Kind;
use crate::queue::{self, Filter, Listed, Shown};

/// How many jobs a page of a list has, and may have.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;

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

// === impl Which ===

impl Which {
    fn filter(self) -> Result<(Filter, u32), ApiError> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let message = format!("`limit` is {limit}, which is not from 1 to {LIMIT_MAX}");
            return Err(ApiError::bad("parameter-refused", message));
        }
        let filter = Filter {
            job_type: self.job_type,
            state: self.state,
            kind: self.kind,
            since: self.since,
            // One more, to know whether there are more.
            limit: Some(limit + 1),
            ..Filter::default()
        };
        Ok((filter, limit))
    }
}

/// List jobs
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(Which), responses(
    (status = 200, body = Jobs),
    (status = 400, body = Problem),
    (status = 501, description = "This queue cannot list such jobs", body = Problem),
))]
pub(super) async fn list(
    State(runner): State<Arc<Runner>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Jobs>, ApiError> {
    let (filter, limit) = which.filter()?;
    let mut jobs = runner.queue.list(filter).await?;
    jobs.truncate(limit as usize);
    Ok(Json(Jobs { jobs, next: None }))
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

/// The job of an id.
///
/// # Errors
///
/// That there is none, or none any more.
pub(super) async fn found(runner: &Runner, id: &str) -> Result<Shown, ApiError> {
    runner.queue.show(id).await?.ok_or_else(|| {
        ApiError::new(axum::http::StatusCode::NOT_FOUND, "job-not-found", format!("there is no job `{id}`"))
    })
}
