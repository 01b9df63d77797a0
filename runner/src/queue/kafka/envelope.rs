//! What our records say of a job beside its bytes: one header, a JSON object.
//!
//! Records that others write have none. Ours (in the tiers, parked, dead, and what was requeued) carry it from topic to
//! topic. It may be forged by whoever may write to the topics, and then lies about counts and times, no more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::outcome::Failure;
use crate::queue::{AttemptLines, AttemptRecord};

/// The header that holds it.
pub(crate) const HEADER: &str = "sandhog";

/// The header with the bytes as they were enqueued, where the record's value is what a retry made of them.
pub(crate) const ORIGINAL_HEADER: &str = "sandhog-original";

/// The header that says a job's type.
pub(crate) const TYPE_HEADER: &str = "job_type";

/// The header that says a job's id.
pub(crate) const ID_HEADER: &str = "id";

/// The header that says whose follow-up a job is.
pub(crate) const PARENT_HEADER: &str = "sandhog-parent";

/// The header that says how long the chain of follow-ups is that it stands in.
pub(crate) const DEPTH_HEADER: &str = "sandhog-depth";

/// The header that says of which dead letter's report a job descends, or is one.
pub(crate) const REPORT_OF_HEADER: &str = "sandhog-report-of";

/// So many of the first failed attempts are kept.
const FIRST_KEPT: usize = 3;

/// So many of the last ones.
const LAST_KEPT: usize = 10;

/// What is known of a job beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Envelope {
    /// The record id: where the job's first record stands, `TOPIC/PARTITION/OFFSET@TIMESTAMP`. It is the same however often
    /// that is read, so that what is written twice about a job has one key.
    pub record: String,
    /// What people and handlers call it.
    pub id: String,
    /// Its type; none for a malformed one.
    pub job_type: Option<String>,
    /// Where its first record stands.
    pub source: Source,
    /// The key of its first record, if it had one: as text, or in base64 where it is none.
    pub key: Option<Key>,
    /// How many of its attempts were started.
    pub attempts: u32,
    /// How many failed.
    pub failures: u32,
    /// How often a handler asked for a retry.
    pub retries_requested: u32,
    /// How many starts were interrupted.
    pub interruptions: u32,
    /// How often a person requeued it.
    pub requeues: u32,
    /// When it was enqueued.
    #[serde(rename = "enqueued_at_ms")]
    pub enqueued_at: UnixMs,
    /// When its first attempt started, or its first since it was requeued.
    #[serde(rename = "first_started_at_ms", skip_serializing_if = "Option::is_none")]
    pub first_started_at: Option<UnixMs>,
    /// When it is due, for what waits in a tier.
    #[serde(rename = "due_at_ms", skip_serializing_if = "Option::is_none")]
    pub due_at: Option<UnixMs>,
    /// When it was parked.
    #[serde(rename = "parked_at_ms", skip_serializing_if = "Option::is_none")]
    pub parked_at: Option<UnixMs>,
    /// Its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<AttemptRecord>,
    /// The first and the last failed attempts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_attempts: Vec<AttemptRecord>,
    /// How many more attempts failed than stand there.
    pub failed_attempts_omitted: u32,
    /// Why and when it was buried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buried: Option<Buried>,
    /// What the guest said in the attempt before it was buried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Box<AttemptLines>>,
    /// The record had no value at all, which is not the same as an empty one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub null: bool,
}

/// Where a record stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp; 0 if it has none.
    #[serde(rename = "timestamp_ms")]
    pub timestamp: UnixMs,
}

/// The end of a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Buried {
    /// When.
    #[serde(rename = "at_ms")]
    pub at: UnixMs,
    /// Why.
    pub failure: Failure,
}

/// A record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Key {
    /// UTF-8.
    Text(String),
    /// Anything else, in hexadecimal digits.
    Hex(String),
}

// === impl Envelope ===

impl Envelope {
    /// What is known of a job whose first record stands at `source`.
    pub(crate) fn first(source: Source, id: Option<String>, job_type: Option<String>, key: Option<&[u8]>) -> Envelope {
        let Source { topic, partition, offset, .. } = &source;
        let place = format!("{topic}/{partition}/{offset}");
        Envelope {
            record: source.to_string(),
            id: id.unwrap_or(place),
            job_type,
            key: key.map(Key::of),
            enqueued_at: source.timestamp,
            source,
            ..Envelope::default()
        }
    }

    /// As it stands in the header.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope is strings and numbers")
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// Says why it is none of ours.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Envelope, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Notes an attempt that has ended.
    pub(crate) fn add_attempt(&mut self, attempt: AttemptRecord) {
        self.attempts = self.attempts.max(attempt.number);
        self.first_started_at.get_or_insert(attempt.started_at);
        if attempt.failure.is_some() {
            if self.failed_attempts.len() == FIRST_KEPT + LAST_KEPT {
                self.failed_attempts.remove(FIRST_KEPT);
                self.failed_attempts_omitted += 1;
            }
            self.failed_attempts.push(attempt.clone());
        }
        self.last_attempt = Some(attempt);
    }
}

// === impl Source ===

/// The record id of a job whose first record stands here.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { topic, partition, offset, timestamp } = self;
        write!(f, "{topic}/{partition}/{offset}@{}", timestamp.0)
    }
}

// === impl Key ===

impl Key {
    /// A key of a record.
    pub(crate) fn of(bytes: &[u8]) -> Key {
        match std::str::from_utf8(bytes) {
            Ok(text) => Key::Text(text.to_owned()),
            Err(_) => Key::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// The bytes again; none if somebody wrote what are no digits.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Key::Text(text) => Some(text.clone().into_bytes()),
            Key::Hex(digits) => {
                let digits = digits.as_bytes().chunks_exact(2).map(std::str::from_utf8);
                digits.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generation::Generation;
    use crate::outcome::Kind;

    #[test]
    fn envelope_comes_back_as_it_was_written() {
        let source = Source { topic: "jobs".into(), partition: 3, offset: 17, timestamp: UnixMs(1_790_000_000_000) };
        let mut envelope = Envelope::first(source, None, Some("resize".into()), Some(b"\xff\0"));
        assert_eq!((envelope.id.as_str(), envelope.record.as_str()), ("jobs/3/17", "jobs/3/17@1790000000000"));
        for number in 1..=20 {
            envelope.add_attempt(AttemptRecord {
                number,
                started_at: envelope.enqueued_at.plus(Duration::from_secs(number.into())),
                duration_us: 7,
                memory_peak_bytes: 0,
                generation: Generation::named("abcdefabcdef"),
                failure: Some(Failure::new(Kind::Limit("handles".into()), "too many")),
            });
        }
        assert_eq!(Envelope::from_json(&envelope.to_json()).unwrap(), envelope);
        let kept: Vec<u32> = envelope.failed_attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(kept, [1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!((envelope.failed_attempts_omitted, envelope.attempts), (7, 20));
        assert_eq!(envelope.key.and_then(|key| key.bytes()), Some(b"\xff\0".to_vec()));
    }

    #[test]
    fn what_somebody_else_wrote_into_the_header_is_read_or_refused() {
        assert!(Envelope::from_json(b"{}").is_ok());
        for wrong in [&b"5"[..], b"", b"\xff", br#"{"attempts":-1}"#, br#"{"attempts":"1"}"#] {
            assert!(Envelope::from_json(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
