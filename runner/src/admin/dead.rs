//! Dead letters: lists and groups of them, and what people do about them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Runner;
use super::error::{ApiError, Problem};
use super::jobs::{self, Jobs, Shows, Which};
use super::parameters::{Asked, Named, kind, moment};
use crate::clock::UnixMs;
use crate::outcome::Kind;
use crate::queue::{self, Filter, Listed, REQUEUES_MAX, Requeue, Requeued, Shown};

/// How many dead letters are looked through for groups: the newest.
const GROUPED_MAX: u32 = 10_000;

/// How many groups are answered: the largest.
const GROUPS_MAX: usize = 500;

/// Dead letters that are alike.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Group {
    /// Their type; none for malformed ones.
    job_type: Option<String>,
    /// The class of the failure that they died of.
    #[schema(value_type = Option<String>, example = "timeout")]
    kind: Option<Kind>,
    /// The first line of what was said.
    message: String,
    /// How many there are.
    count: u64,
    /// When the first of them was buried.
    oldest_ms: Option<UnixMs>,
    /// When the last was.
    newest_ms: Option<UnixMs>,
    /// The id of the newest.
    id: String,
}

/// Dead letters, by what they died of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Groups {
    groups: Vec<Group>,
    /// There are more dead letters than were looked through, or more groups.
    truncated: bool,
}

/// Which dead letters: all that pass.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Chosen {
    /// Of these ids.
    ids: Vec<String>,
    /// Of this type.
    #[serde(rename = "type")]
    job_type: Option<String>,
    /// Of this kind.
    #[serde(deserialize_with = "kind")]
    #[schema(value_type = Option<String>, example = "timeout")]
    kind: Option<Kind>,
    /// Buried since: how long ago, or a time with its zone.
    #[serde(deserialize_with = "moment")]
    #[schema(value_type = Option<String>, example = "30m")]
    since: Option<UnixMs>,
    /// All of them.
    all: bool,
    /// Only say which.
    dry_run: bool,
    /// Requeue those too that were requeued three times already.
    force: bool,
}

/// What was done with dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    /// How many.
    count: usize,
    /// How many stay, since they were requeued three times already.
    stay: usize,
    /// Whether it was only said.
    dry_run: bool,
    /// The first thousand of them.
    jobs: Vec<Listed>,
}

/// Whether a hopeless one goes back too.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Requeue it though it was requeued three times already.
    #[serde(default)]
    force: bool,
}

/// How many of them are told, however many were changed.
const TOLD_MAX: usize = 1_000;

/// List dead letters
#[utoipa::path(get, path = "/v1/dead", tag = "dead letters", params(Which), responses(
    (status = 200, body = Jobs), (status = 400, body = Problem),
))]
pub(super) async fn list(
    State(runner): State<Arc<Runner>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Jobs>, ApiError> {
    jobs::page(&runner, which.dead()?).await
}

/// Group dead letters by type, kind and message
///
/// Of the newest 10,000; the largest groups come first.
#[utoipa::path(get, path = "/v1/dead/groups", tag = "dead letters", responses((status = 200, body = Groups)))]
pub(super) async fn groups(State(runner): State<Arc<Runner>>) -> Result<Json<Groups>, ApiError> {
    let newest = Filter {
        state: Some(queue::State::Dead),
        limit: Some(GROUPED_MAX + 1),
        newest_first: true,
        ..Filter::default()
    };
    let mut letters = jobs::looked(&runner, newest).await?;
    let more = letters.len() > GROUPED_MAX as usize;
    letters.truncate(GROUPED_MAX as usize);
    let mut groups = grouped(letters);
    let truncated = more || groups.len() > GROUPS_MAX;
    groups.truncate(GROUPS_MAX);
    Ok(Json(Groups { groups, truncated }))
}

/// Show a dead letter
///
/// Its body only if asked for.
#[utoipa::path(get, path = "/v1/dead/{id}", tag = "dead letters", params(("id" = String, Path), Shows), responses(
    (status = 200, body = Shown), (status = 404, body = Problem), (status = 409, description = "The job is no dead letter", body = Problem),
))]
pub(super) async fn show(
    State(runner): State<Arc<Runner>>,
    Named(id): Named,
    Asked(shows): Asked<Shows>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(found(&runner, &id).await?.to_json(shows.body)))
}

/// Requeue a dead letter
///
/// It goes back as it was enqueued, with no failures and a new clock, under the same id.
#[utoipa::path(post, path = "/v1/dead/{id}/requeue", tag = "dead letters", params(("id" = String, Path), Force), responses(
    (status = 200, body = Listed),
    (status = 404, body = Problem),
    (status = 409, description = "It is no dead letter, no job, or was requeued three times already", body = Problem),
))]
pub(super) async fn requeue(
    State(runner): State<Arc<Runner>>,
    Named(id): Named,
    Asked(Force { force }): Asked<Force>,
) -> Result<Json<Listed>, ApiError> {
    let letter = found(&runner, &id).await?;
    if letter.listed.job_type.is_none() {
        let message = format!("`{id}` is malformed, and would be again");
        return Err(ApiError::new(StatusCode::CONFLICT, "malformed", message)
            .with_hint("enqueue what it should have been, and delete it"));
    }
    let only = Filter { ids: vec![id.clone()], ..Filter::default() };
    let Requeued { mut letters, stay } = runner.queue.requeue_dead(only, Requeue { dry_run: false, force }).await?;
    match letters.pop() {
        Some(requeued) => Ok(Json(requeued)),
        None if stay > 0 => {
            let message = format!("`{id}` was requeued {REQUEUES_MAX} times already, and died each time");
            Err(ApiError::new(StatusCode::CONFLICT, "requeued-too-often", message)
                .with_hint("`force=true` sends it back"))
        }
        None => Err(not_dead(&id)),
    }
}

/// Delete a dead letter for good
#[utoipa::path(delete, path = "/v1/dead/{id}", tag = "dead letters", params(("id" = String, Path)), responses(
    (status = 200, body = Listed), (status = 404, body = Problem), (status = 409, description = "The job is no dead letter", body = Problem),
))]
pub(super) async fn delete(State(runner): State<Arc<Runner>>, Named(id): Named) -> Result<Json<Listed>, ApiError> {
    found(&runner, &id).await?;
    let only = Filter { ids: vec![id.clone()], ..Filter::default() };
    let mut deleted = runner.queue.delete_dead(only, false).await?;
    deleted.pop().map(Json).ok_or_else(|| not_dead(&id))
}

/// Requeue all dead letters that pass
#[utoipa::path(post, path = "/v1/dead/requeue", tag = "dead letters", request_body = Chosen, responses(
    (status = 200, body = Changed), (status = 400, body = Problem), (status = 409, description = "One that is named is malformed", body = Problem),
))]
pub(super) async fn requeue_all(
    State(runner): State<Arc<Runner>>,
    chosen: Result<Json<Chosen>, JsonRejection>,
) -> Result<Json<Changed>, ApiError> {
    let chosen = read(chosen)?;
    let (dry_run, force) = (chosen.dry_run, chosen.force);
    if !chosen.ids.is_empty() {
        let malformed = jobs::looked(&runner, chosen.filter()?).await?;
        if let Some(malformed) = malformed.iter().find(|letter| letter.job_type.is_none()) {
            let message = format!("`{}` is malformed, and would be again: nothing was requeued", malformed.id);
            return Err(ApiError::new(StatusCode::CONFLICT, "malformed", message));
        }
    }
    let requeued = runner.queue.requeue_dead(chosen.filter()?, Requeue { dry_run, force }).await?;
    Ok(Json(Changed::of(requeued, dry_run)))
}

/// Delete all dead letters that pass, for good
#[utoipa::path(post, path = "/v1/dead/delete", tag = "dead letters", request_body = Chosen, responses(
    (status = 200, body = Changed), (status = 400, body = Problem),
))]
pub(super) async fn delete_all(
    State(runner): State<Arc<Runner>>,
    chosen: Result<Json<Chosen>, JsonRejection>,
) -> Result<Json<Changed>, ApiError> {
    let chosen = read(chosen)?;
    let letters = runner.queue.delete_dead(chosen.filter()?, chosen.dry_run).await?;
    Ok(Json(Changed::of(Requeued { letters, stay: 0 }, chosen.dry_run)))
}

fn read(chosen: Result<Json<Chosen>, JsonRejection>) -> Result<Chosen, ApiError> {
    chosen.map(|Json(chosen)| chosen).map_err(|rejected| {
        let code = match rejected.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "content-type-refused",
            StatusCode::PAYLOAD_TOO_LARGE => "body-too-large",
            _ => {
                return ApiError::bad("body-refused", format!("the body does not say which: {}", rejected.body_text()));
            }
        };
        ApiError::new(rejected.status(), code, rejected.body_text())
    })
}

/// The dead letter of an id.
async fn found(runner: &Runner, id: &str) -> Result<Shown, ApiError> {
    let job = jobs::found(runner, id).await?;
    if job.listed.state == queue::State::Dead { Ok(job) } else { Err(not_dead(id)) }
}

fn not_dead(id: &str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "not-dead", format!("the job `{id}` is no dead letter"))
}

/// Puts together those that are alike. `letters` come newest first.
fn grouped(letters: Vec<Listed>) -> Vec<Group> {
    let mut by_likeness: HashMap<(Option<String>, Option<Kind>, String), Group> = HashMap::new();
    for letter in letters {
        let kind = letter.failure.as_ref().map(|failure| failure.kind.clone());
        let message = letter.failure.as_ref().and_then(|failure| failure.message.lines().next()).unwrap_or_default();
        let likeness = (letter.job_type.clone(), kind.clone(), message.to_owned());
        let group = by_likeness.entry(likeness).or_insert_with(|| Group {
            job_type: letter.job_type,
            kind,
            message: message.to_owned(),
            count: 0,
            oldest_ms: letter.ended_at,
            newest_ms: letter.ended_at,
            id: letter.id,
        });
        group.count += 1;
        group.oldest_ms = group.oldest_ms.min(letter.ended_at);
        group.newest_ms = group.newest_ms.max(letter.ended_at);
    }
    let mut groups: Vec<Group> = by_likeness.into_values().collect();
    groups.sort_by(|a, b| (b.count, b.newest_ms, &a.id).cmp(&(a.count, a.newest_ms, &b.id)));
    groups
}

// === impl Chosen ===

impl Chosen {
    fn filter(&self) -> Result<Filter, ApiError> {
        let Chosen { ids, job_type, kind, since, all, .. } = self;
        let narrows = !ids.is_empty() || job_type.is_some() || kind.is_some() || since.is_some();
        if narrows == *all {
            let message = if *all { "`all` stands beside what narrows it" } else { "which dead letters is not said" };
            return Err(ApiError::bad("body-refused", message)
                .with_hint("name `ids`, or `type`, `kind`, `since`, or `\"all\": true`"));
        }
        Ok(Filter {
            ids: ids.clone(),
            job_type: job_type.clone(),
            state: Some(queue::State::Dead),
            kind: kind.clone(),
            since: *since,
            ..Filter::default()
        })
    }
}

// === impl Changed ===

impl Changed {
    fn of(requeued: Requeued, dry_run: bool) -> Changed {
        let Requeued { letters: mut jobs, stay } = requeued;
        let count = jobs.len();
        jobs.truncate(TOLD_MAX);
        Changed { count, stay, dry_run, jobs }
    }
}
