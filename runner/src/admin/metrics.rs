//! `GET /metrics`: for scrapers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;

use super::Runner;
use crate::clock::{Clock, SystemClock};
use crate::metrics::{OPENMETRICS, Readings, TEXT};

/// All that is known, in the format that the scraper asks for.
pub(super) async fn metrics(State(runner): State<Arc<Runner>>, headers: HeaderMap) -> impl IntoResponse {
    // A queue that does not answer keeps nobody from the rest.
    let sample = runner.sampler.sample().await.ok();
    let (running, in_flight) = runner.dispatcher.booked();
    let readings = Readings {
        now: SystemClock.now(),
        stats: sample.map(|sample| (Arc::clone(&sample.stats), sample.taken.elapsed())),
        queue_sick: runner.queue.sick(),
        slots: runner.config.slots,
        running,
        in_flight,
        pool: runner.sandbox.as_ref().map(|sandbox| sandbox.occupancy()),
        loads: runner.loads.clone(),
        traces: runner.traces.as_ref().map(|traces| traces.counts()),
        draining: runner.is_draining(),
        uptime: runner.started.elapsed(),
    };
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let openmetrics = { accepts }.any(|accept| accept.contains("application/openmetrics-text"));
    let kind = if openmetrics { OPENMETRICS } else { TEXT };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], runner.metrics.render(&readings, openmetrics))
}
