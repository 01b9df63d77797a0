//! A job, and what makes bytes one. Plain data, no I/O.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::clock::UnixMs;

/// One unit of work, as one attempt sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// What people and handlers call it. The same on every attempt.
    pub id: String,
    /// Selects the handler.
    pub job_type: String,
    /// As it was enqueued, byte for byte, or as the last retry left it. Never logged.
    pub body: String,
    /// Which start of this job this one is, from 1, interrupted ones included.
    pub attempt: u32,
    /// How many attempts failed so far.
    pub failures: u32,
    /// How often its handler asked for a retry, since it was enqueued or last requeued.
    pub retries_requested: u32,
    /// How many starts were interrupted by the runner, which are nobody's failure.
    pub interruptions: u32,
    /// When it was enqueued.
    pub enqueued_at: UnixMs,
    /// When its first attempt started, or its first since a person requeued it; none before that. `expire_after` counts
    /// from here.
    pub first_started_at: Option<UnixMs>,
    /// Pairs of a name and a value, as in the contract's `job.metadata`.
    pub metadata: Vec<(String, String)>,
}

/// What the queue needs to know of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The object's `job_type`.
    pub job_type: String,
    /// The object's `job_id`, if it is a string: the identity that the first older design gave a job.
    pub job_id: Option<String>,
}

/// The longest job type and the longest id, in bytes: they are names, and stand in indexes and labels.
pub const NAME_BYTES_MAX: usize = 256;

/// Why bytes are no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing there.
    #[error("empty")]
    Empty,
    /// Over the limit on bodies.
    #[error("{size} bytes, which is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not text.
    #[error("not UTF-8: byte {at} is no character")]
    NotUtf8 {
        /// Where the first bad byte stands, from 0.
        at: usize,
    },
    /// Text, but not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// No `job_type`.
    #[error("no `job_type`")]
    NoType,
    /// A `job_type` that cannot select a handler.
    #[error("`job_type` {0}")]
    BadType(&'static str),
    /// A `job_type` that is not the one which was said elsewhere.
    #[error("`job_type` is `{found}`, and the job was said to be of type `{said}`")]
    OtherType {
        /// The body's.
        found: String,
        /// The one that was said.
        said: String,
    },
    /// A `job_id` that cannot name a job.
    #[error("`job_id` {0}")]
    BadId(&'static str),
}

/// Reads the head of a job's bytes, without a copy of the rest. `limit` is the largest body in bytes.
///
/// # Errors
///
/// Says why the bytes are no job. They are to be kept exactly.
pub fn parse(bytes: &[u8], limit: usize) -> Result<(&str, Head), Malformed> {
    parse_head(bytes, limit, None)
}

/// The same for an object whose type was said elsewhere: it needs no `job_type` of its own, and one that it has must be
/// equal.
///
/// # Errors
///
/// Says why the bytes are no job of that type.
pub fn parse_of_type<'a>(bytes: &'a [u8], limit: usize, job_type: &str) -> Result<(&'a str, Head), Malformed> {
    parse_head(bytes, limit, Some(job_type))
}

fn parse_head<'a>(bytes: &'a [u8], limit: usize, said: Option<&str>) -> Result<(&'a str, Head), Malformed> {
    if bytes.len() > limit {
        return Err(Malformed::TooLarge { size: bytes.len(), limit });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Malformed::NotUtf8 { at: e.valid_up_to() })?;
    if text.trim_ascii().is_empty() {
        return Err(Malformed::Empty);
    }
    let not_json = |e: serde_json::Error| Malformed::NotJson(e.to_string());
    if !text.trim_ascii_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
        return Err(Malformed::NotAnObject);
    }
    let RawHead(found) = serde_json::from_str(text).map_err(not_json)?;
    let (job_type, job_id) = found?;
    Ok((text, head(job_type, job_id, said)?))
}

/// Says why `name` cannot be a job type or an id, if it cannot.
pub fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("is longer than 256 bytes")
    } else if name.chars().any(char::is_control) {
        Some("has a control character in it")
    } else {
        None
    }
}

/// The head as it is found in a JSON object, which is read key by key: what is neither `job_type` nor `job_id` is skipped, to
/// any depth, without recursion.
struct RawHead(Result<(Option<Name>, Option<Name>), Malformed>);

impl<'de> Deserialize<'de> for RawHead {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RawHead, D::Error> {
        deserializer.deserialize_map(HeadVisitor)
    }
}

struct HeadVisitor;

/// A value of `job_type` or `job_id`.
enum Name {
    Text(String),
    Null,
    Other,
}

impl<'de> serde::de::Visitor<'de> for HeadVisitor {
    type Value = RawHead;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<RawHead, A::Error> {
        let (mut job_type, mut job_id) = (None, None);
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "job_type" if job_type.is_some() => return twice(map, Malformed::BadType("stands there twice")),
                "job_type" => job_type = Some(name(map.next_value()?)?),
                "job_id" if job_id.is_some() => return twice(map, Malformed::BadId("stands there twice")),
                "job_id" => job_id = Some(name(map.next_value()?)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(RawHead(Ok((job_type, job_id))))
    }
}

/// What a value is, without giving anything else a meaning: a number may be too large for any of ours.
fn name<E: serde::de::Error>(value: &RawValue) -> Result<Name, E> {
    match value.get().as_bytes() {
        [b'"', ..] => serde_json::from_str(value.get()).map(Name::Text).map_err(E::custom),
        b"null" => Ok(Name::Null),
        _ => Ok(Name::Other),
    }
}

/// A key that stands there twice would mean one job to us and another to the handler's parser. The rest is read so that
/// bytes that are no JSON are still called that.
fn twice<'de, A: serde::de::MapAccess<'de>>(mut map: A, malformed: Malformed) -> Result<RawHead, A::Error> {
    map.next_value::<IgnoredAny>()?;
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(RawHead(Err(malformed)))
}

fn head(job_type: Option<Name>, job_id: Option<Name>, said: Option<&str>) -> Result<Head, Malformed> {
    let job_type = match job_type {
        None | Some(Name::Null) => said.ok_or(Malformed::NoType)?.to_owned(),
        Some(Name::Other) => return Err(Malformed::BadType("is not a string")),
        Some(Name::Text(found)) => found,
    };
    // Before it is compared: an error quotes no name that is none.
    if let Some(fault) = name_fault(&job_type) {
        return Err(Malformed::BadType(fault));
    }
    if let Some(said) = said.filter(|said| *said != job_type) {
        return Err(Malformed::OtherType { found: job_type, said: said.to_owned() });
    }
    // A `job_id` that is no string is the enqueuer's own affair: the older design passed it through.
    let job_id = match job_id {
        Some(Name::Text(text)) => Some(text),
        None | Some(Name::Null | Name::Other) => None,
    };
    if let Some(fault) = job_id.as_deref().and_then(name_fault) {
        return Err(Malformed::BadId(fault));
    }
    Ok(Head { job_type, job_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<(&str, Option<&str>), Malformed>) {
        let found = parse(bytes, 1_000_000).map(|(_, head)| head);
        let expected = expected
            .map(|(job_type, job_id)| Head { job_type: job_type.to_owned(), job_id: job_id.map(str::to_owned) });
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }

    #[test]
    fn job_is_an_object_with_a_string_job_type() {
        check(br#"{"job_type":"a"}"#, Ok(("a", None)));
        check(br#"{"n":[{"job_type":"no"}],"job_type":"a\u0062","job_id":"7"}"#, Ok(("ab", Some("7"))));
        check(br#" {"job_type":"a","job_id":7} "#, Ok(("a", None)));
        check(br#"{"job_type":"a","job_id":null}"#, Ok(("a", None)));
        let deep = format!(r#"{{"x":{}{},"job_type":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        check(deep.as_bytes(), Ok(("a", None)));
    }

    #[test]
    fn type_that_was_said_elsewhere_must_be_the_body_s_if_it_has_one() {
        let of = |text: &str| parse_of_type(text.as_bytes(), 1_000, "a").map(|(_, head)| (head.job_type, head.job_id));
        assert_eq!(of("{}"), Ok(("a".to_owned(), None)));
        assert_eq!(of(r#"{"job_type":"a","job_id":"7"}"#), Ok(("a".to_owned(), Some("7".to_owned()))));
        assert_eq!(of(r#"{"job_type":"b"}"#), Err(Malformed::OtherType { found: "b".into(), said: "a".into() }));
        assert_eq!(of(r#"{"job_type":5}"#), Err(Malformed::BadType("is not a string")));
        assert_eq!(of(r#"{"job_type":"b\u001b"}"#), Err(Malformed::BadType("has a control character in it")));
        assert_eq!(of("[]"), Err(Malformed::NotAnObject));
    }

    #[test]
    fn anything_else_is_malformed_and_says_why() {
        check(b"", Err(Malformed::Empty));
        check(b" \n", Err(Malformed::Empty));
        for text in ["null", "[]", "5", "-5", "5.5", "true", r#""x""#, "[[1],{}]"] {
            check(text.as_bytes(), Err(Malformed::NotAnObject));
        }
        check(b"{}", Err(Malformed::NoType));
        check(br#"{"job_type":null}"#, Err(Malformed::NoType));
        for text in [r#"{"job_type":5}"#, r#"{"job_type":{}}"#, r#"{"job_type":["a"]}"#, r#"{"job_type":true}"#] {
            check(text.as_bytes(), Err(Malformed::BadType("is not a string")));
        }
        check(br#"{"job_type":""}"#, Err(Malformed::BadType("is empty")));
        check(br#"{"job_type":"a\u0000b"}"#, Err(Malformed::BadType("has a control character in it")));
        let long = format!(r#"{{"job_type":"{}"}}"#, "x".repeat(10_000));
        check(long.as_bytes(), Err(Malformed::BadType("is longer than 256 bytes")));
        check(br#"{"job_type":"a","job_type":"b"}"#, Err(Malformed::BadType("stands there twice")));
        check(br#"{"job_id":"a","job_id":"b","job_type":"b"}"#, Err(Malformed::BadId("stands there twice")));
        check(b"{\"job_type\":\"a\xff\"}", Err(Malformed::NotUtf8 { at: 14 }));
        assert!(matches!(parse(b"{\"job_type\":\"a\"", 100), Err(Malformed::NotJson(_))));
        assert!(matches!(parse(br#"{"job_type":"a"} x"#, 100), Err(Malformed::NotJson(_))));
        assert!(matches!(parse(br#"{"job_type":"\ud800"}"#, 100), Err(Malformed::NotJson(_))));
        assert!(matches!(parse(&[b'['; 100_000], 1_000_000), Err(Malformed::NotJson(_))));
        assert_eq!(parse(b"{}....", 5), Err(Malformed::TooLarge { size: 6, limit: 5 }));
    }
}
