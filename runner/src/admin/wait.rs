//! Waiting for a job to end: with it a caller can use the queue like a function.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Problem};
use super::jobs;
use super::parameters::{Asked, Named, duration};
use super::site::Caller;
use crate::clock::{Clock, SystemClock};
use crate::queue;

/// How long is waited if nothing is said, and at most.
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);

/// The pauses between looks at the queue, for jobs that end in another runner: of one that ends here this one is told.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How much longer than it is waited for a job is kept: so that who asks again finds it.
const KEPT_LONGER: Duration = Duration::from_secs(60);

/// How long to wait.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HowLong {
    /// At most this long.
    #[serde(default, deserialize_with = "duration")]
    #[param(value_type = Option<String>, example = "30s", default = "30s")]
    timeout: Option<Duration>,
}

/// A job that was waited for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Waited {
    /// Whether it has ended: completed, or a dead letter. If not, the time was over.
    done: bool,
    /// The job, as it stands.
    #[schema(value_type = queue::Shown)]
    job: Value,
}

/// Wait until a job has ended
///
/// Answers as soon as it has, with its result or its failure; or when the time is over, with `done: false`. As long as
/// somebody waits, and a minute longer, the job is kept whatever `queue.keep_completed` says.
#[utoipa::path(get, path = "/v1/jobs/{id}/wait", tag = "jobs", params(("id" = String, Path), HowLong), responses(
    (status = 200, body = Waited),
    (status = 404, body = Problem),
    (status = 410, description = "It ended, and is not kept any more", body = Problem),
    (status = 429, description = "Half of all connections wait already", body = Problem),
    (status = 501, description = "This queue cannot be asked for it", body = Problem),
))]
pub(super) async fn wait(
    State(runner): State<Arc<Runner>>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Asked(how): Asked<HowLong>,
) -> Result<Json<Waited>, ApiError> {
    let timeout = how.timeout.unwrap_or(TIMEOUT);
    if timeout > TIMEOUT_MAX {
        let message = format!("`timeout` is longer than {TIMEOUT_MAX:?}");
        return Err(ApiError::bad("parameter-refused", message).with_hint("ask again when the time is over"));
    }
    let _lasting = caller.lasts()?;
    let deadline = Instant::now() + timeout;
    let waiter = runner.events.wait_for(&id);
    // Before it is looked at: else it could end and go between the two.
    runner.queue.keep(&id, SystemClock.now().plus(timeout + KEPT_LONGER)).await?;
    let mut pause = PAUSE;
    loop {
        let ended = waiter.ended();
        tokio::pin!(ended);
        ended.as_mut().enable();
        let job = jobs::found(&runner, &id).await?;
        let done = job.listed.ended_at.is_some();
        let now = Instant::now();
        if done || now >= deadline || caller.closing.is_cancelled() {
            return Ok(Json(Waited { done, job: job.to_json(false) }));
        }
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep_until(deadline.min(now + pause)) => pause = PAUSE_MAX.min(pause * 2),
            () = caller.closing.cancelled() => {}
        }
    }
}
