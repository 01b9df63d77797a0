//! Jobs that come in: one, several, or a stream of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::value::RawValue;

use super::Runner;
use super::error::{ApiError, Place, Problem};
use crate::job::{self, Malformed};
use crate::queue::{Enqueued, NewJob};

/// How long a client may take for a body that is no stream.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// Enqueue jobs
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", responses(
    (status = 201, description = "It is durable", body = Enqueued),
    (status = 200, description = "There is a job of this id already: nothing was added", body = Enqueued),
    (status = 400, body = Problem),
    (status = 413, body = Problem),
    (status = 429, description = "The backlog is full", body = Problem),
    (status = 503, description = "The queue cannot be written to now", body = Problem),
))]
pub(super) async fn enqueue(State(runner): State<Arc<Runner>>, body: Body) -> Result<Response, ApiError> {
    let limit = runner.config.admin.body_bytes_max;
    let body = read(body, limit).await?;
    let job = parse(&body, runner.config.body_bytes_max)?;
    let mut enqueued = runner.queue.enqueue(vec![job]).await?;
    let enqueued = enqueued.pop().expect("a queue answers for each job");
    let status = if enqueued.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(enqueued)).into_response())
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

/// A job of its bytes.
fn parse(bytes: &[u8], bytes_max: usize) -> Result<NewJob, ApiError> {
    let (text, head) = job::parse(bytes, bytes_max).map_err(|malformed| refused(bytes, malformed))?;
    Ok(NewJob::Job {
        job_type: head.job_type,
        body: text.to_owned(),
        id: head.job_id,
        run_at: None,
        metadata: Vec::new(),
        keep: None,
    })
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
