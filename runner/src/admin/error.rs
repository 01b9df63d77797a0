//! What the API answers where it cannot do what was asked.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::queue::QueueError;

/// The answer to a request that failed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Problem {
    error: ProblemBody,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct ProblemBody {
    /// The same word for the same fault, for programs.
    #[schema(example = "job-not-found")]
    code: &'static str,
    /// What happened, to what, and why, for people.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Where in the body it is.
    #[serde(flatten)]
    place: Place,
}

/// Where in a body something is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Place {
    /// Which element of the array, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) element: Option<usize>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<usize>,
}

/// Why a request failed: a status and its [`Problem`].
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    retry_after_s: Option<u32>,
    body: Box<ProblemBody>,
}

// === impl ApiError ===

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        let body = ProblemBody { code, message: message.into(), hint: None, place: Place::default() };
        ApiError { status, retry_after_s: None, body: Box::new(body) }
    }

    /// The request itself makes no sense.
    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    #[must_use]
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> ApiError {
        self.body.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(super) fn at(mut self, place: Place) -> ApiError {
        self.body.place = place;
        self
    }

    /// Says when it may be tried again.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u32) -> ApiError {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same of an element of an array, behind so many bytes of it: what is wrong in it stands so much further on.
    #[must_use]
    pub(super) fn within(mut self, before: &[u8], element: usize) -> ApiError {
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let columns = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        let Place { line, column, .. } = self.body.place;
        let (line, column) = (line.unwrap_or(1), column.unwrap_or(1));
        let column = if line == 1 { columns + column } else { column };
        self.body.place = Place { element: Some(element), line: Some(lines + line), column: Some(column) };
        self
    }

    /// What the answer says, without its status.
    pub(super) fn into_body(self) -> ProblemBody {
        *self.body
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> ApiError {
        ApiError::from(&error)
    }
}

impl From<&QueueError> for ApiError {
    fn from(error: &QueueError) -> ApiError {
        let QueueError { message, hint, transient, unsupported } = error;
        let failed = if *unsupported {
            ApiError::new(StatusCode::NOT_IMPLEMENTED, "queue-cannot", message)
        } else if *transient {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "queue-unavailable", message).retry_after(1)
        } else {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "queue-failed", message)
        };
        match hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { status, retry_after_s, body } = self;
        let mut response = (status, Json(Problem { error: *body })).into_response();
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"sandhog\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
