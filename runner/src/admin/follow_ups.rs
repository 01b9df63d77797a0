//! The jobs that follow from a job.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Runner;
use super::error::{ApiError, Problem};
use super::jobs::found;
use super::parameters::Named;
use crate::follow_up::child_id;
use crate::queue::{Filter, Listed};

/// How many attempts are looked at, the last ones, and how many follow-ups of each.
const ATTEMPTS: u32 = 8;
const OF_EACH: u32 = 25;

/// The follow-ups of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FollowUps {
    /// Those that are kept, in the order in which they were asked for.
    jobs: Vec<Listed>,
}

/// List the jobs that follow from a job
///
/// Those whose handler gave them no id of its own: the first 25 of each of the last 8 attempts.
#[utoipa::path(get, path = "/v1/jobs/{id}/follow-ups", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, body = FollowUps),
    (status = 404, body = Problem),
    (status = 410, description = "It ended, and is not kept any more", body = Problem),
    (status = 501, description = "This queue cannot look them up", body = Problem),
))]
pub(super) async fn follow_ups(
    State(runner): State<Arc<Runner>>,
    Named(id): Named,
) -> Result<Json<FollowUps>, ApiError> {
    let attempt = found(&runner, &id).await?.listed.attempt;
    let attempts = attempt.saturating_sub(ATTEMPTS) + 1..=attempt;
    let ids: Vec<String> = attempts
        .flat_map(|attempt| (1..=OF_EACH).map(move |number| (attempt, number)))
        .map(|(attempt, number)| child_id(&id, &format!("{attempt}/{number}")))
        .collect();
    if ids.is_empty() {
        return Ok(Json(FollowUps { jobs: Vec::new() }));
    }
    let mut jobs = runner.queue.list(Filter { ids: ids.clone(), ..Filter::default() }).await?;
    jobs.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
    Ok(Json(FollowUps { jobs }))
}
