//! Jobs that come in: one, or an array of them. Streams are in `upload`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Place, Problem};
use super::guard;
use super::parameters::{Asked, duration};
use super::site::Caller;
use super::upload::{self, Line};
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::job::{self, Malformed, name_fault};
use crate::queue::{Enqueued, NewJob};

/// How long a client may take for a body that is no stream.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// A body that is said to be no longer may be read beside any number of others.
const LIGHT_BYTES_MAX: u64 = 64 << 10;

/// More jobs are a stream: all of an array are one transaction, which others wait for.
const ARRAY_MAX: usize = 10_000;

/// Request headers that begin so are headers of the job.
const HEADER_PREFIX: &str = "sandhog-header-";

/// The longest trace context. That of W3C has 55 characters, and its state up to 512.
const TRACE_BYTES_MAX: usize = 512;

/// How jobs are enqueued.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Run them so long from now.
    #[serde(default, deserialize_with = "duration")]
    #[param(value_type = Option<String>, example = "10m")]
    after: Option<Duration>,
    /// Keep them so long after they completed, whatever `queue.keep_completed` says.
    #[serde(default, deserialize_with = "duration")]
    #[param(value_type = Option<String>, example = "1h")]
    keep: Option<Duration>,
    /// Of a stream: answer only for what was not enqueued, and at the end how many were.
    #[serde(default)]
    pub(super) quiet: bool,
}

/// What is the same for all jobs of a request.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    id: Option<String>,
    run_at: Option<UnixMs>,
    metadata: Vec<(String, String)>,
    keep: Option<Duration>,
    body_bytes_max: usize,
}

/// What became of an array of jobs, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllEnqueued {
    jobs: Vec<Enqueued>,
}

/// A job: its bytes are stored as they are, and are what the handler sees.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"job_type": "greet", "name": "Ada"}))]
pub(super) struct JobObject {
    /// Selects the handler.
    job_type: String,
    /// Under which it is one job however often it is enqueued.
    job_id: Option<String>,
}

/// A job, or an array of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is only described")]
pub(super) enum Sent {
    One(JobObject),
    Several(Vec<JobObject>),
}

/// What became of a job, or of an array of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Accepted {
    One(Enqueued),
    Several(AllEnqueued),
}

/// Enqueue a job, or several
///
/// The body is the job itself, an object with a `job_type`; an array of at most 10,000, of which all are added or none; or,
/// as `application/x-ndjson`, a stream of any length, a job a line, which is answered with a line for each, as soon as it is
/// durable. A header `Idempotency-Key` is the id of one job; `Sandhog-Header-NAME` a header of all of them. While the runner
/// drains it still enqueues.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs",
    params(How, ("Idempotency-Key" = Option<String>, Header, description = "The id of the job, under which it is one however often it is sent")),
    request_body(content((Sent = "application/json"), (String = "application/x-ndjson"))),
    responses(
    (status = 201, description = "All of it is durable", body = Accepted),
    (status = 200, description = "There is a job of this id already: nothing was added; or the answers to a stream", content((Enqueued = "application/json"), (Line = "application/x-ndjson"))),
    (status = 400, description = "It is no job, and where", body = Problem),
    (status = 408, description = "The body comes too slowly", body = Problem),
    (status = 413, body = Problem),
    (status = 415, description = "The `Content-Type` is none of these", body = Problem),
    (status = 429, description = "The backlog is full", body = Problem),
    (status = 503, description = "The queue cannot be written to now", body = Problem),
))]
pub(super) async fn enqueue(
    State(runner): State<Arc<Runner>>,
    Extension(caller): Extension<Caller>,
    Asked(how): Asked<How>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let is_stream = is_stream(&headers)?;
    let manner = Manner::of(&how, &headers, runner.config.body_bytes_max)?;
    has_room(&runner).await?;
    if is_stream {
        manner.for_many()?;
        return upload::answer(runner, caller, manner, how.quiet, body).await;
    }
    let _heavy = match body.size_hint().upper() {
        Some(most) if most <= LIGHT_BYTES_MAX => None,
        _ => Some(runner.room.uploads.enter().await?),
    };
    let body = read(body, runner.config.admin.body_bytes_max).await?;
    if body.trim_ascii_start().first() == Some(&b'[') {
        manner.for_many()?;
        let jobs = runner.queue.enqueue(manner.jobs(&body)?).await?;
        runner.metrics.enqueued(&jobs);
        return Ok((StatusCode::CREATED, Json(Accepted::Several(AllEnqueued { jobs }))).into_response());
    }
    let mut enqueued = runner.queue.enqueue(vec![manner.job(&body)?]).await?;
    runner.metrics.enqueued(&enqueued);
    let enqueued = enqueued.pop().expect("a queue answers for each job");
    let status = if enqueued.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Accepted::One(enqueued))).into_response())
}

/// Refuses jobs while more are ready than may. The count is at most a second old: a little more may come in.
pub(super) async fn has_room(runner: &Runner) -> Result<(), ApiError> {
    let Some(limit) = runner.config.queue.backlog else { return Ok(()) };
    // A queue that cannot count says so when it is written to.
    let Ok(sample) = runner.sampler.sample().await else { return Ok(()) };
    let ready = sample.backlog();
    if ready < u64::from(limit) {
        return Ok(());
    }
    let message = format!("{ready} jobs are ready already, and the limit is {limit}");
    Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "backlog-full", message)
        .retry_after(1)
        .with_hint("the limit is `queue.backlog` in the configuration"))
}

/// Whether jobs come as a stream. What a web page can send without asking is neither.
fn is_stream(headers: &HeaderMap) -> Result<bool, ApiError> {
    let media = guard::media(headers).unwrap_or_default();
    if media == "application/json" {
        Ok(false)
    } else if ["application/x-ndjson", "application/jsonl"].contains(&media.as_str()) {
        Ok(true)
    } else {
        let message = "the `Content-Type` says neither a job nor a stream of jobs";
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type-refused", message)
            .with_hint("send `Content-Type: application/json` (`curl --json`), or `application/x-ndjson` for a stream"))
    }
}

/// The whole body, if it is no longer than `limit` and comes in time.
async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body is over the limit of {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", message)
            .with_hint("the limit is `admin.body` in the configuration; a stream of `application/x-ndjson` has none")
    };
    // Said beforehand, nothing of it need be read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::bad("body-broken", format!("the body did not come whole: {error}"))),
        Err(_) => {
            let message = format!("the body did not come within {BODY_PATIENCE:?}");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", message))
        }
    }
}

// === impl Manner ===

impl Manner {
    fn of(how: &How, headers: &HeaderMap, body_bytes_max: usize) -> Result<Manner, ApiError> {
        let id = match headers.get("idempotency-key") {
            None => None,
            Some(key) => Some(text(key).filter(|key| name_fault(key).is_none()).ok_or_else(|| {
                let message = "the `Idempotency-Key` cannot be the id of a job: 1 to 256 bytes of text, without control characters";
                ApiError::bad("idempotency-key-refused", message)
            })?),
        };
        let mut metadata = Vec::new();
        for (name, value) in headers {
            let name = match name.as_str() {
                trace @ ("traceparent" | "tracestate") if value.len() <= TRACE_BYTES_MAX => trace.to_owned(),
                other => match other.strip_prefix(HEADER_PREFIX) {
                    Some(name) if !name.is_empty() => format!("header.{name}"),
                    _ => continue,
                },
            };
            let value = text(value)
                .ok_or_else(|| ApiError::bad("header-refused", format!("the value of `{name}` is not UTF-8")))?;
            metadata.push((name, value));
        }
        let run_at = how.after.map(|after| SystemClock.now().plus(after));
        Ok(Manner { id, run_at, metadata, keep: how.keep, body_bytes_max })
    }

    /// Several jobs cannot have one id.
    fn for_many(&self) -> Result<(), ApiError> {
        match &self.id {
            None => Ok(()),
            Some(_) => Err(ApiError::bad(
                "idempotency-key-refused",
                "an `Idempotency-Key` names one job, and these are several",
            )
            .with_hint("give each a `job_id`")),
        }
    }

    /// A job of its bytes.
    pub(super) fn job(&self, bytes: &[u8]) -> Result<NewJob, ApiError> {
        let (text, head) = job::parse(bytes, self.body_bytes_max).map_err(|malformed| refused(bytes, malformed))?;
        Ok(NewJob::Job {
            job_type: head.job_type,
            body: text.to_owned(),
            id: self.id.clone().or(head.job_id),
            run_at: self.run_at,
            metadata: self.metadata.clone(),
            keep: self.keep,
        })
    }

    /// The jobs of an array.
    fn jobs(&self, bytes: &[u8]) -> Result<Vec<NewJob>, ApiError> {
        let elements: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|error| {
            let place = Place { line: Some(error.line()), column: Some(error.column()), element: None };
            ApiError::bad("body-refused", format!("this is no array of jobs: {error}")).at(place)
        })?;
        match elements.len() {
            0 => return Err(ApiError::bad("body-refused", "this is an array of no jobs")),
            many if many > ARRAY_MAX => {
                let message = format!("this is an array of {many} jobs, which is over the limit of {ARRAY_MAX}");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-jobs", message)
                    .with_hint("send them as a stream, `application/x-ndjson`"));
            }
            _ => {}
        }
        let job = |(number, element): (usize, &&RawValue)| {
            let element = element.get().as_bytes();
            self.job(element).map_err(|error| {
                let begins = element.as_ptr() as usize - bytes.as_ptr() as usize;
                error.within(&bytes[..begins], number)
            })
        };
        elements.iter().enumerate().map(job).collect()
    }
}

fn text(value: &HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}

/// Says why bytes are no job, and where.
fn refused(bytes: &[u8], malformed: Malformed) -> ApiError {
    let message = format!("this is no job: {malformed}");
    match malformed {
        Malformed::TooLarge { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "job-too-large", message)
            .with_hint("the limit is `limits.body` in the configuration"),
        Malformed::NotJson(_) => {
            let error = serde_json::from_slice::<&RawValue>(bytes).err();
            let place =
                error.map(|error| Place { line: Some(error.line()), column: Some(error.column()), element: None });
            ApiError::bad("job-refused", message).at(place.unwrap_or_default())
        }
        _ => ApiError::bad("job-refused", message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manner() -> Manner {
        Manner { id: None, run_at: None, metadata: Vec::new(), keep: None, body_bytes_max: 1_000 }
    }

    #[test]
    fn fault_of_an_array_says_which_element_and_where() {
        let of = |text: &str| {
            let error = manner().jobs(text.as_bytes()).expect_err(text);
            let body = serde_json::to_value(error.into_body()).expect("it is strings");
            json!([body["code"], body["element"], body["line"], body["column"]])
        };
        assert_eq!(of("[{\"job_type\":\"a\"},\n  {\"job\":1}]"), json!(["job-refused", 1, 2, 3]));
        assert_eq!(of("[{\"job_type\":\"a\"}, {\"job_type\":5}]"), json!(["job-refused", 1, 1, 20]));
        assert_eq!(of("[{\"job_type\":\"a\"},\n  {\"job\"]"), json!(["body-refused", null, 2, 9]));
        assert_eq!(of("[]"), json!(["body-refused", null, null, null]));
        assert_eq!(of(&format!("[{}1]", "1,".repeat(ARRAY_MAX))), json!(["too-many-jobs", null, null, null]));
    }

    #[test]
    fn headers_become_metadata() {
        let mut headers = HeaderMap::new();
        headers.insert("sandhog-header-Color", HeaderValue::from_static("red"));
        headers
            .insert("traceparent", HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        headers.insert("x-other", HeaderValue::from_static("no"));
        headers.insert("idempotency-key", HeaderValue::from_static("order-7"));
        let manner = Manner::of(&How::default(), &headers, 1_000).expect("all of them make sense");
        let names: Vec<&str> = manner.metadata.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, manner.id.as_deref()), (vec!["header.color", "traceparent"], Some("order-7")));
        assert!(manner.for_many().is_err());
        headers.insert("idempotency-key", HeaderValue::from_bytes(b"\xff").expect("it may be sent"));
        assert!(Manner::of(&How::default(), &headers, 1_000).is_err());
    }
}
