//! How many jobs there are, and what the runner does now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Runner;
use super::error::{ApiError, Problem};
use crate::queue::Stats;

/// What the queue counts, and what this runner does.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overall {
    /// What the queue counts.
    #[serde(flatten)]
    queue: Stats,
    /// How long ago that was counted: at most a second, while the queue answers.
    counted_ms_ago: u64,
    /// Why there is no newer count, if the queue does not answer.
    counting_failed: Option<String>,
    /// This runner.
    runner: RunnerStats,
}

/// What one runner does now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunnerStats {
    version: &'static str,
    /// How long it runs.
    uptime_ms: u64,
    /// How many attempts may run at a time.
    slots: u32,
    /// How many do.
    busy: u32,
    /// How many jobs it has received and not settled.
    in_flight: u32,
    /// Whether it works jobs at all (`enabled`).
    enabled: bool,
    /// Whether it takes no more jobs.
    draining: bool,
    /// Whether all handlers are loaded that lay there at the start.
    loaded: bool,
}

/// Count jobs by type and state, and say what the runner does
#[utoipa::path(get, path = "/v1/stats", tag = "runner", responses(
    (status = 200, body = Overall), (status = 503, description = "The queue never answered", body = Problem),
))]
pub(super) async fn stats(State(runner): State<Arc<Runner>>) -> Result<Json<Overall>, ApiError> {
    let sample = runner.sampler.sample().await.map_err(|error| ApiError::from(&*error))?;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (busy, in_flight) = runner.dispatcher.booked();
    Ok(Json(Overall {
        queue: Stats::clone(&sample.stats),
        counted_ms_ago: millis(sample.taken.elapsed()),
        counting_failed: sample.failed.as_ref().map(ToString::to_string),
        runner: RunnerStats {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: millis(runner.started.elapsed()),
            slots: runner.config.slots,
            busy,
            in_flight,
            enabled: runner.config.enabled,
            draining: runner.is_draining(),
            loaded: runner.is_loaded(),
        },
    }))
}

/// Drain
///
/// The runner takes no more jobs, finishes what runs, and ends, as at SIGTERM. Jobs can be enqueued until it has ended.
#[utoipa::path(post, path = "/v1/drain", tag = "runner", responses((status = 202, description = "It drains")))]
pub(super) async fn drain(State(runner): State<Arc<Runner>>) -> axum::http::StatusCode {
    tracing::info!("told to drain over the HTTP API");
    runner.drain.cancel();
    axum::http::StatusCode::ACCEPTED
}
