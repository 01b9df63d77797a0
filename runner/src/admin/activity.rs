//! What was done in the last hour.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Runner;
use super::error::{ApiError, Problem};
use super::parameters::Asked;
use crate::activity::{LastHour, TYPES_MAX};
use crate::clock::{Clock, SystemClock};

/// How many types are told, if nobody says.
const TYPES: usize = 100;

/// Of which types.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Busiest {
    /// Only the busiest types, this many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Tell what this runner did in the last hour, by type and minute
///
/// What the page charts. It counts what this process did, and begins with it.
#[utoipa::path(get, path = "/v1/activity", tag = "runner", params(Busiest), responses(
    (status = 200, body = LastHour),
    (status = 400, body = Problem),
))]
pub(super) async fn activity(
    State(runner): State<Arc<Runner>>,
    Asked(Busiest { limit }): Asked<Busiest>,
) -> Result<Json<LastHour>, ApiError> {
    let limit = limit.unwrap_or(TYPES);
    if !(1..=TYPES_MAX).contains(&limit) {
        let message = format!("`limit` is {limit}, which is not from 1 to {TYPES_MAX}");
        return Err(ApiError::bad("parameter-refused", message));
    }
    // Who looks wants to see what waits now, too; where the queue does not answer, that is missing.
    if let Ok(sample) = runner.sampler.sample().await {
        runner.activity.sampled(&sample.stats, SystemClock.now());
    }
    Ok(Json(runner.activity.last_hour(SystemClock.now(), limit)))
}
