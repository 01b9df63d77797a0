//! What the log says of jobs as they are settled.

use tracing::field::display;

use crate::handler::Handler;
use crate::job::Job;
use crate::outcome::{Disposition, Outcome, RetryAfter};
use crate::traces::Context;
use crate::trial::FAILURES_MAX;

/// How much of a guest's last message stands in the line that says that its handler is paused.
const LAST_MESSAGE_CHARS_MAX: usize = 200;

/// One line for what a person may want to know; a completed job is not worth one.
pub(super) fn settlement(job: &Job, disposition: &Disposition, span: Option<Context>) {
    let (trace_id, span_id) = (span.map(|span| display(span.trace_id())), span.map(|span| display(span.span_id())));
    match disposition {
        Disposition::Ack { .. } => tracing::debug!(
            job.id = %job.id, job.type = %job.job_type, attempt = job.attempt, trace_id, span_id, "job `{}` completed", job.id
        ),
        Disposition::Bury(failure) => tracing::warn!(
            job.id = %job.id, job.type = %job.job_type, attempt = job.attempt, trace_id, span_id, kind = %failure.kind,
            "job `{}` buried: {}: {}", job.id, failure.kind, failure.message
        ),
        Disposition::Retry { after: RetryAfter::Failure(failure), .. } => tracing::info!(
            job.id = %job.id, job.type = %job.job_type, attempt = job.attempt, trace_id, span_id, kind = %failure.kind,
            "job `{}` failed and will be retried: {}: {}", job.id, failure.kind, failure.message
        ),
        Disposition::Retry { after: RetryAfter::Request { reason }, .. } => tracing::debug!(
            job.id = %job.id, job.type = %job.job_type, attempt = job.attempt, trace_id, span_id,
            "job `{}` asked for a retry{}", job.id, reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default()
        ),
        Disposition::Release { .. } => tracing::info!(
            job.id = %job.id, job.type = %job.job_type, attempt = job.attempt, trace_id, span_id, "job `{}` interrupted and released", job.id
        ),
        Disposition::Park => tracing::debug!(
            job.id = %job.id, job.type = %job.job_type, "job `{}` parked: nobody serves its type now", job.id
        ),
    }
}

/// Says that a handler is paused, why, and what to do.
pub(super) fn brake(handler: &Handler, outcome: &Outcome) {
    let Outcome::Failed(failure) = outcome else { return };
    let (name, generation, kind) = (&handler.name, &handler.generation, &failure.kind);
    let message: String = failure.message.chars().take(LAST_MESSAGE_CHARS_MAX).collect();
    tracing::warn!(
        handler.name = %name, handler.generation = %generation, kind = %kind,
        "handler `{name}` is paused: the first {FAILURES_MAX} attempts of generation {generation} all failed ({kind}, at \
         last: {message}), where the generation before had completed; its jobs wait for a good file, for `sandhog handlers \
         rollback {name}`, or for `sandhog handlers resume {name}`"
    );
}
