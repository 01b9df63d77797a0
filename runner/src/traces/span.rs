//! What a span says of an attempt, in the words of OpenTelemetry's conventions for messaging, and in ours.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::{Context, TRACESTATE};
use crate::handler::Handler;
use crate::job::Job;
use crate::observe::End;
use crate::outcome::{Disposition, Outcome, RetryAfter};

/// The span of an attempt that has ended.
pub(super) fn ended(
    (context, parent): (Context, Option<Context>),
    handler: &Handler,
    job: &Job,
    end: &End<'_>,
    started: SystemTime,
) -> SpanData {
    let tracestate = job.metadata.iter().find(|(name, _)| name == TRACESTATE);
    let tracestate = tracestate.and_then(|(_, state)| state.parse::<TraceState>().ok()).unwrap_or_default();
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let trace = TraceId::from_bytes(context.trace.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(trace, span_id(context.span), flags, false, tracestate),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| span_id(parent.span)),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Consumer,
        name: Cow::Owned(format!("attempt {}", job.job_type)),
        start_time: started,
        end_time: started + end.duration,
        attributes: attributes(handler, job, end),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(end.outcome),
        instrumentation_scope: InstrumentationScope::builder("sandhog").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

/// Notes on a span what follows from the attempt.
pub(super) fn decided(span: &mut SpanData, disposition: &Disposition) {
    let event = |name, attributes| Event::new(name, span.end_time, attributes, 0);
    let event = match disposition {
        Disposition::Retry { at, after, .. } => {
            let why = match after {
                RetryAfter::Failure(_) => "failure",
                RetryAfter::Request { .. } => "request",
            };
            let at = KeyValue::new("sandhog.retry.at_ms", at.0);
            event("retry", vec![at, KeyValue::new("sandhog.retry.after", why)])
        }
        Disposition::Bury(failure) => {
            span.status = Status::error(format!("{}: {}", failure.kind, failure.message));
            event("buried", vec![KeyValue::new("sandhog.kind", failure.kind.as_str())])
        }
        Disposition::Release { .. } => event("released", Vec::new()),
        Disposition::Park => event("parked", Vec::new()),
        Disposition::Ack { .. } => return,
    };
    span.events.events.push(event);
}

fn attributes(handler: &Handler, job: &Job, end: &End<'_>) -> Vec<KeyValue> {
    let metadata = |name: &str| job.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let partition = metadata("partition");
    let system = if partition.is_some() { "kafka" } else { "sandhog" };
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("messaging.system", system),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.message.id", job.id.clone()),
        KeyValue::new("messaging.message.body.size", whole(job.body.len() as u64)),
        KeyValue::new("sandhog.job.type", job.job_type.clone()),
        KeyValue::new("sandhog.attempt", i64::from(job.attempt)),
        KeyValue::new("sandhog.handler.name", handler.name.to_string()),
        KeyValue::new("sandhog.handler.generation", handler.generation.to_string()),
        KeyValue::new("sandhog.outcome", end.outcome.as_str()),
        KeyValue::new("sandhog.memory_peak_bytes", whole(end.memory_peak_bytes)),
    ];
    let mut add = |name: &'static str, value: Option<String>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    add("messaging.destination.name", metadata("queue"));
    add("messaging.destination.partition.id", partition);
    add("messaging.kafka.message.key", metadata("key"));
    add("sandhog.parent", metadata("parent"));
    let offset = metadata("offset").and_then(|offset| offset.parse::<i64>().ok());
    attributes.extend(offset.map(|offset| KeyValue::new("messaging.kafka.offset", offset)));
    attributes.extend((end.denied > 0).then(|| KeyValue::new("sandhog.denied", i64::from(end.denied))));
    if let Outcome::Failed(failure) = end.outcome {
        attributes.push(KeyValue::new("error.type", failure.kind.as_str()));
    } else if let Outcome::Reject { .. } = end.outcome {
        attributes.push(KeyValue::new("error.type", "rejected"));
    }
    attributes
}

fn status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Failed(failure) => Status::error(format!("{}: {}", failure.kind, failure.message)),
        Outcome::Reject { reason } => Status::error(format!("rejected: {reason}")),
        Outcome::Cancelled => Status::error("cancelled"),
        Outcome::Complete { .. } | Outcome::Retry(_) | Outcome::Interrupted { .. } | Outcome::NotReady { .. } => {
            Status::Unset
        }
    }
}

fn span_id(span: u64) -> SpanId {
    SpanId::from_bytes(span.to_be_bytes())
}
