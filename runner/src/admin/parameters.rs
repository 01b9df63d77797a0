//! What a request says in its path and behind the `?`, and what is said of it where it makes no sense.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error};

use super::error::ApiError;
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::quantity;
use crate::job::name_fault;
use crate::outcome::Kind;

/// What stands behind the `?`: what is unknown, or stands there twice, is refused.
#[derive(Debug, Clone)]
pub(super) struct Asked<T>(pub(super) T);

/// The name in the path, of a job or of a handler.
#[derive(Debug, Clone)]
pub(super) struct Named(pub(super) String);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asked<T>, ApiError> {
        let asked = Query::try_from_uri(&parts.uri);
        asked.map(|Query(asked)| Asked(asked)).map_err(|rejected| {
            let text = rejected.body_text();
            let why = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, why)| why);
            ApiError::bad("parameter-refused", format!("what stands behind the `?` makes no sense: {why}"))
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad("name-refused", "the name in the path is not UTF-8"))?;
        match name_fault(&name) {
            Some(fault) => Err(ApiError::bad("name-refused", format!("the name in the path {fault}"))),
            None => Ok(Named(name)),
        }
    }
}

/// Reads `30s`.
pub(super) fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    quantity::parse_duration(&text).map(Some).map_err(|fault| D::Error::custom(format!("{text:?} {fault}")))
}

/// Reads `30m ago`, or a date and time.
pub(super) fn moment<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMs>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let moment = quantity::parse_moment(&text, SystemClock.now());
    moment.map(Some).map_err(|fault| D::Error::custom(format!("{text:?} {fault}")))
}

/// Reads the class of a failure.
pub(super) fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Kind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let kind = Kind::parse(&text).filter(|kind| name_fault(&kind.as_str()).is_none());
    kind.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is no kind of failure")))
}
