//! `sandhog test`: a case is a file with a job, and with what the handler is expected to do. `docs/languages.md` has its keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::follow_up::{self, FollowUps};
use crate::job::{Head, Job};
use crate::manifest::Manifest;
use crate::outcome::Outcome;
use crate::queue::NewJob;
use crate::sandbox::{Attempt, Component, GuestLog, HandlerState, Level, Source};
use crate::state::{Changes, Given};

/// A case, as it stands in its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The job's body: an object, or a string for any other text.
    job: Box<RawValue>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    job_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enqueued_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// What the handler kept from jobs before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, String>,
    /// What is compared; none: nothing was recorded yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<Did>,
}

/// What a handler did with a job. In a case only what is there is compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Did {
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    after_ms: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    follow_ups: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Value>,
}

/// The lines that a guest wrote. The sandbox bounds them.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

/// When the job of a case was enqueued, if it does not say: the same each time.
const ENQUEUED_AT: UnixMs = UnixMs(1_767_225_600_000);

/// What the job of a case is called, if it does not say.
const ID: &str = "test";

// === impl Case ===

impl Case {
    /// The job's body.
    pub(crate) fn body(&self) -> String {
        // What is a string is the text in it.
        serde_json::from_str::<String>(self.job.get()).unwrap_or_else(|_| self.job.get().to_owned())
    }

    /// The job's type, if the case says it.
    pub(crate) fn job_type(&self) -> Option<&str> {
        self.job_type.as_deref()
    }

    /// Runs the job, whose body has this head. Answers what the handler did, and how long it took.
    pub(crate) async fn run(&self, head: Head, component: Component, manifest: &Manifest) -> (Did, Duration) {
        let job = Arc::new(Job {
            id: self.id.clone().or(head.job_id).unwrap_or_else(|| ID.to_owned()),
            job_type: head.job_type,
            body: self.body(),
            attempt: self.attempt.unwrap_or(1),
            failures: self.failures.unwrap_or(0),
            enqueued_at: self.enqueued_at_ms.map_or(ENQUEUED_AT, UnixMs),
            metadata: self.metadata.clone().into_iter().collect(),
            ..Job::default()
        });
        let given = Given(self.state.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect());
        let component = match manifest.grants.state {
            true => {
                let (store, quota) = (Arc::new(given.clone()), manifest.limits.state);
                component.with_state(HandlerState { store, handler: "test".into(), quota })
            }
            false => component,
        };
        let lines = Arc::new(Lines::default());
        let log: Arc<dyn GuestLog> = Arc::<Lines>::clone(&lines);
        let (stop, limits) = (CancellationToken::new(), &manifest.limits);
        let attempt = component.run(&job, manifest.retry.max_failures, limits, &stop, &log).await;
        let (log, took) = (lines.0.lock().expect("no writer panics").clone(), attempt.duration);
        (Did::of(attempt, log, given), took)
    }
}

// === impl Did ===

impl Did {
    fn of(attempt: Attempt, log: Vec<String>, given: Given) -> Did {
        let mut did = Did { log: Some(json!(log)), ..Did::default() };
        let name = match attempt.outcome {
            Outcome::Complete { result } => {
                did.result = Some(result.map_or(Value::Null, as_json));
                "complete"
            }
            Outcome::Retry(request) => {
                did.after_ms = Some(json!(request.after.map(milliseconds)));
                did.reason = request.reason.map(Value::from);
                did.body = request.body.map(as_json);
                "retry"
            }
            Outcome::Reject { reason } => {
                did.reason = Some(json!(reason));
                "reject"
            }
            Outcome::Failed(failure) => {
                did.kind = Some(json!(failure.kind.as_str()));
                did.message = Some(json!(failure.message));
                "failed"
            }
            Outcome::Interrupted { reason } => {
                did.reason = Some(json!(reason.to_string()));
                "interrupted"
            }
            Outcome::Cancelled => "cancelled",
            Outcome::NotReady { reason } => {
                did.reason = Some(json!(reason));
                "not-ready"
            }
        };
        did.outcome = Some(json!(name));
        did.follow_ups = Some(follow_ups(attempt.follow_ups));
        did.state = Some(kept(given, attempt.state.as_deref()));
        did
    }

    /// What a case that was just recorded says: all but what is not there.
    pub(crate) fn recorded(mut self) -> Did {
        self.follow_ups = self.follow_ups.filter(|follow_ups| *follow_ups != json!([]));
        self.state = self.state.filter(|state| *state != json!({}));
        self
    }

    /// Of what was done only what `expected` speaks of.
    pub(crate) fn only(self, expected: &Did) -> Did {
        let only = |value: Option<Value>, expected: &Option<Value>| value.filter(|_| expected.is_some());
        Did {
            outcome: only(self.outcome, &expected.outcome),
            result: only(self.result, &expected.result),
            after_ms: only(self.after_ms, &expected.after_ms),
            reason: only(self.reason, &expected.reason),
            body: only(self.body, &expected.body),
            kind: only(self.kind, &expected.kind),
            message: only(self.message, &expected.message),
            log: only(self.log, &expected.log),
            follow_ups: only(self.follow_ups, &expected.follow_ups),
            state: only(self.state, &expected.state),
        }
    }
}

/// Where a case has `null`, `null` is expected.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Text that is mostly JSON.
fn as_json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn follow_ups(asked: FollowUps) -> Value {
    let shown = |job: NewJob| match job {
        NewJob::Job { body, id, run_at, metadata, .. } => {
            let mut object = json!({ "job": as_json(body), "id": id });
            if let Some(run_at) = run_at {
                object["after_ms"] = json!(run_at.since(UnixMs(0)).as_millis());
            }
            // What every follow-up has of its parent says nothing.
            let own = |(name, _): &&(String, String)| name != follow_up::PARENT && name != follow_up::DEPTH;
            let metadata: BTreeMap<_, _> = metadata.iter().filter(own).map(|(name, value)| (name, value)).collect();
            if !metadata.is_empty() {
                object["metadata"] = json!(metadata);
            }
            object
        }
        _ => Value::Null,
    };
    Value::Array(asked.into_jobs(UnixMs(0)).into_iter().map(shown).collect())
}

/// What is kept after an attempt that changed it so, for people.
fn kept(mut given: Given, changes: Option<&Changes>) -> Value {
    for (key, value) in changes.map(|changes| &changes.writes).into_iter().flatten() {
        match value {
            Some(value) => drop(given.0.insert(key.clone(), value.clone())),
            None => drop(given.0.remove(key)),
        }
    }
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    json!(given.0.iter().map(|(key, value)| (key, text(value))).collect::<BTreeMap<_, _>>())
}

// === impl Lines ===

impl GuestLog for Lines {
    fn line(&self, _: Option<&Job>, source: Source, level: Level, line: &str) {
        let from = match source {
            Source::Log => level.as_str(),
            source => source.as_str(),
        };
        self.0.lock().expect("no writer panics").push(format!("{from}: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(text: &str) -> Did {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn only_what_a_case_speaks_of_is_compared() {
        let all = did(r#"{"outcome": "complete", "result": null, "log": ["info: a"]}"#);
        for expected in ["{}", r#"{"outcome": "complete"}"#, r#"{"result": null}"#] {
            let expected = did(expected);
            assert_eq!(all.clone().only(&expected), expected);
        }
        let other = did(r#"{"result": 1}"#);
        assert_ne!(all.only(&other), other);
    }

    #[test]
    fn key_that_is_not_known_is_refused() {
        assert!(serde_json::from_str::<Did>(r#"{"results": 1}"#).is_err());
        assert!(serde_json::from_str::<Case>(r#"{"job": {}, "expect": {}}"#).is_err());
    }

    #[test]
    fn job_is_any_json_or_a_text() {
        let body = |text: &str| serde_json::from_str::<Case>(text).expect("a case").body();
        assert_eq!(body(r#"{"job": {"a":  1}}"#), r#"{"a":  1}"#);
        assert_eq!(body(r#"{"job": "a,b\n1,2"}"#), "a,b\n1,2");
    }

    #[test]
    fn case_is_written_as_it_was_read() {
        let text = "{\n  \"job\": {\"b\": 1, \"a\": 2},\n  \"attempt\": 2,\n  \"expected\": {\n    \"outcome\": \"complete\",\n    \"result\": null\n  }\n}";
        let case: Case = serde_json::from_str(text).expect("a case");
        assert_eq!(serde_json::to_string_pretty(&case).expect("JSON"), text);
    }
}
