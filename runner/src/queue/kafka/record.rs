//! A record of Kafka: what of it is a job, and what must go along where it is written anew.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use super::envelope::{
    DEPTH_HEADER, Envelope, HEADER, ID_HEADER, Key, ORIGINAL_HEADER, PARENT_HEADER, REPORT_OF_HEADER, Source,
    TYPE_HEADER,
};
use super::foreign::survive;
use crate::clock::UnixMs;
use crate::follow_up::{DEPTH, PARENT, REPORT_OF};
use crate::job::{self, Job, Malformed};

/// A record as it was read: what stands beside a job's body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Where it stands, which for ours is not where its job stood first.
    pub place: Source,
    /// What our header says; none for a record of somebody else's.
    pub envelope: Option<Box<Envelope>>,
    /// The bytes as they were enqueued, where a retry changed them.
    pub original: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers but for ours, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What bytes are.
#[derive(Debug)]
pub(crate) enum Read {
    /// A job.
    Job(Job),
    /// None, and why.
    Malformed(Malformed),
}

// === impl Record ===

impl Record {
    /// Reads what stands beside the value.
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Record {
        let timestamp = message.timestamp().to_millis().unwrap_or(0).max(0);
        let place = Source {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: UnixMs(timestamp),
        };
        let mut record = Record { place, key: message.key().map(<[u8]>::to_vec), ..Record::default() };
        if let Some(found) = message.headers() {
            record.add(headers(found));
        }
        record
    }

    /// The same of one that is only to be written, and has no place yet.
    pub(crate) fn of_headers(found: &OwnedHeaders) -> Record {
        let mut record = Record::default();
        record.add(headers(found));
        record
    }

    fn add(&mut self, headers: Vec<(String, Option<Vec<u8>>)>) {
        for (name, value) in headers {
            match name.as_str() {
                // One that is not ours is theirs: it says nothing, and goes along.
                HEADER => match value.as_deref().map(Envelope::from_json) {
                    Some(Ok(envelope)) => self.envelope = Some(Box::new(envelope)),
                    _ => self.headers.push((name, value)),
                },
                ORIGINAL_HEADER => self.original = value,
                _ => self.headers.push((name, value)),
            }
        }
    }

    /// What its value is, if `default_type` is the type of what says none. An empty value and none at all are the same.
    pub(crate) fn content(&self, value: &[u8], default_type: Option<&str>, bytes_max: usize) -> Read {
        match self.read(value, default_type, bytes_max) {
            Ok(job) => Read::Job(job),
            Err(malformed) => Read::Malformed(malformed),
        }
    }

    fn read(&self, value: &[u8], default_type: Option<&str>, bytes_max: usize) -> Result<Job, Malformed> {
        let said = match self.header(TYPE_HEADER) {
            Some(name) => Some(name.filter(|name| job::name_fault(name).is_none()).ok_or(Malformed::BadType(
                "in the record's header is no name of up to 256 bytes without control characters",
            ))?),
            None => default_type,
        };
        let ours = self.envelope.as_deref();
        let said = ours.and_then(|envelope| envelope.job_type.as_deref()).or(said);
        let (body, head) = match said {
            Some(said) => {
                (text(value, bytes_max)?, job::parse_of_type(value, bytes_max, said).ok().map(|(_, head)| head))
            }
            None => job::parse(value, bytes_max).map(|(body, head)| (body, Some(head)))?,
        };
        let (job_type, job_id) = match head {
            Some(head) => (head.job_type, head.job_id),
            None => (said.unwrap_or_default().to_owned(), None),
        };
        let id = self.header(ID_HEADER).flatten().filter(|id| job::name_fault(id).is_none()).map(str::to_owned);
        let id = id.or(job_id);
        Ok(self.job(id, job_type, body))
    }

    fn job(&self, id: Option<String>, job_type: String, body: &str) -> Job {
        let mut job = Job { job_type, body: body.to_owned(), metadata: self.metadata(), ..Job::default() };
        match &self.envelope {
            None => {
                let Source { topic, partition, offset, timestamp } = &self.place;
                job.id = id.unwrap_or_else(|| format!("{topic}/{partition}/{offset}"));
                job.attempt = 1;
                job.enqueued_at = *timestamp;
            }
            Some(envelope) => {
                job.id.clone_from(&envelope.id);
                job.attempt = envelope.attempts.saturating_add(1);
                job.failures = envelope.failures;
                job.retries_requested = envelope.retries_requested;
                job.interruptions = envelope.interruptions;
                job.enqueued_at = envelope.enqueued_at;
                job.first_started_at = envelope.first_started_at;
            }
        }
        job
    }

    /// The contract's `job.metadata`.
    pub(crate) fn metadata(&self) -> Vec<(String, String)> {
        let Source { topic, partition, offset, timestamp } = self.source();
        let mut metadata = Vec::with_capacity(5 + self.headers.len());
        let mut add = |name: &str, value: String| metadata.push((name.to_owned(), value));
        add("queue", topic.clone());
        // A job that was enqueued for later has never stood in the job topic.
        if *partition >= 0 {
            add("partition", partition.to_string());
            add("offset", offset.to_string());
        }
        add("timestamp-ms", timestamp.0.to_string());
        let key = match &self.envelope {
            Some(envelope) => envelope.key.as_ref().and_then(Key::bytes),
            None => self.key.clone(),
        };
        match key.map(String::from_utf8) {
            Some(Ok(text)) => add("key", text),
            Some(Err(binary)) => add("key-base64", BASE64.encode(binary.as_bytes())),
            None => {}
        }
        for (name, value) in &self.headers {
            let value = value.as_deref().unwrap_or_default();
            match std::str::from_utf8(value) {
                Ok(text) if matches!(name.as_str(), "traceparent" | "tracestate") => add(name, text.to_owned()),
                Ok(text) if name == PARENT_HEADER => add(PARENT, text.to_owned()),
                Ok(text) if name == DEPTH_HEADER => add(DEPTH, text.to_owned()),
                Ok(text) if name == REPORT_OF_HEADER => add(REPORT_OF, text.to_owned()),
                Ok(text) => add(&format!("header.{name}"), text.to_owned()),
                Err(_) => add(&format!("header-base64.{name}"), BASE64.encode(value)),
            }
        }
        metadata
    }

    /// What it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let header = |(name, value): &(String, Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len);
        let kept = [&self.original, &self.key].map(|bytes| bytes.as_ref().map_or(0, Vec::len));
        self.headers.iter().map(header).sum::<usize>() + kept.iter().sum::<usize>()
    }

    /// Where its job stood first.
    pub(crate) fn source(&self) -> &Source {
        self.envelope.as_ref().map_or(&self.place, |envelope| &envelope.source)
    }

    /// Its envelope; that of a new job if it had none.
    pub(crate) fn into_envelope(self, job: Option<&Job>) -> Envelope {
        match self.envelope {
            Some(envelope) => *envelope,
            None => {
                let (id, job_type) = job.map(|job| (job.id.clone(), job.job_type.clone())).unzip();
                Envelope::first(self.place, id, job_type, self.key.as_deref())
            }
        }
    }

    /// The value of a header that is UTF-8; `Some(None)` where there is one that is not.
    fn header(&self, name: &str) -> Option<Option<&str>> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(value.as_deref().and_then(|value| std::str::from_utf8(value).ok()))
    }
}

fn text(value: &[u8], bytes_max: usize) -> Result<&str, Malformed> {
    if value.len() > bytes_max {
        return Err(Malformed::TooLarge { size: value.len(), limit: bytes_max });
    }
    let text = std::str::from_utf8(value).map_err(|e| Malformed::NotUtf8 { at: e.valid_up_to() })?;
    if text.trim_ascii().is_empty() { Err(Malformed::Empty) } else { Ok(text) }
}

/// The headers of a record, in their order. The library panics at a name that is not UTF-8: such a header is left out, since
/// no byte sequence may stop the consumer.
fn headers(headers: &impl Headers) -> Vec<(String, Option<Vec<u8>>)> {
    let one = |at| survive(|| headers.try_get(at).map(owned)).flatten();
    (0..headers.count()).filter_map(one).collect()
}

fn owned(header: Header<'_, &[u8]>) -> (String, Option<Vec<u8>>) {
    (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
}

/// Headers to be written: those of the record, and ours.
pub(crate) fn written(
    headers: &[(String, Option<Vec<u8>>)],
    envelope: &Envelope,
    original: Option<&[u8]>,
) -> OwnedHeaders {
    let mut written = OwnedHeaders::new_with_capacity(headers.len() + 2);
    for (name, value) in headers {
        written = written.insert(Header { key: name, value: value.as_deref() });
    }
    written = written.insert(Header { key: HEADER, value: Some(&envelope.to_json()) });
    match original {
        Some(original) => written.insert(Header { key: ORIGINAL_HEADER, value: Some(original) }),
        None => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &[u8])]) -> Record {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect();
        let place = Source { topic: "jobs".into(), partition: 2, offset: 9, timestamp: UnixMs(1_790_000_000_000) };
        Record { place, headers, ..Record::default() }
    }

    fn job(record: &Record, value: &[u8], default_type: Option<&str>) -> Result<(String, String), Malformed> {
        record.read(value, default_type, 100).map(|job| (job.job_type, job.id))
    }

    #[test]
    fn type_comes_from_header_or_topic_or_body() {
        let named = |job_type: &str, id: &str| Ok((job_type.to_owned(), id.to_owned()));
        let body = br#"{"job_type":"body","job_id":"7"}"#;
        let plain = record(&[]);
        assert_eq!(job(&plain, body, None), named("body", "7"));
        assert_eq!(job(&plain, br#"{"job_type":"body"}"#, None), named("body", "jobs/2/9"));
        assert_eq!(job(&plain, b"any text", Some("topic")), named("topic", "jobs/2/9"));
        assert_eq!(job(&plain, br#"{"job_id":"7"}"#, Some("topic")), named("topic", "7"));
        let said = record(&[("job_type", b"header"), ("id", b"mine")]);
        assert_eq!(job(&said, b"any text", Some("topic")), named("header", "mine"));
        assert_eq!(job(&said, body, None), named("header", "mine"), "what is said elsewhere counts");
        assert_eq!(job(&record(&[("id", b"\xff")]), body, None), named("body", "7"));
    }

    #[test]
    fn record_that_is_no_job_says_why() {
        let plain = record(&[]);
        assert_eq!(job(&plain, b"", Some("topic")), Err(Malformed::Empty));
        assert_eq!(job(&plain, b"\xff", Some("topic")), Err(Malformed::NotUtf8 { at: 0 }));
        assert_eq!(job(&plain, &[b'x'; 101], Some("topic")), Err(Malformed::TooLarge { size: 101, limit: 100 }));
        assert!(matches!(job(&plain, b"any text", None), Err(Malformed::NotJson(_))));
        for bad in [&b"\xff"[..], b"", b"a\0b", &[b'x'; 300]] {
            assert!(matches!(job(&record(&[("job_type", bad)]), b"{}", None), Err(Malformed::BadType(_))));
        }
    }

    #[test]
    fn metadata_says_where_it_came_from_and_what_stood_beside_it() {
        let mut record = record(&[("a", b"1"), ("a", b"\xff"), ("traceparent", b"00-1")]);
        record.key = Some(b"k".to_vec());
        let metadata = record.metadata();
        let pairs: Vec<(&str, &str)> = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let here = [("queue", "jobs"), ("partition", "2"), ("offset", "9"), ("timestamp-ms", "1790000000000")];
        let beside = [("key", "k"), ("header.a", "1"), ("header-base64.a", "/w=="), ("traceparent", "00-1")];
        assert_eq!(pairs, [here, beside].concat());
    }
}
