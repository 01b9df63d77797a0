//! Records as any program writes and reads them.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::support::patience;

/// A record that is to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

/// A record as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) place: Place,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// Those whose names are UTF-8.
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: Option<i64>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// A producer of one topic, which counts what is acknowledged.
pub(crate) struct Producer {
    producer: ThreadedProducer<Acks>,
    topic: String,
    acknowledged: Mutex<Receiver<(usize, Result<Place, KafkaError>)>>,
}

/// Hears of each record's delivery, by the number it was sent with.
struct Acks(Mutex<Sender<(usize, Result<Place, KafkaError>)>>);

// === impl Record ===

impl Record {
    /// A record without a value.
    pub(crate) fn tombstone() -> Record {
        Record::default()
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    pub(crate) fn key(mut self, key: impl Into<Vec<u8>>) -> Record {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Record {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// A header that has no value at all.
    pub(crate) fn null_header(mut self, name: &str) -> Record {
        self.headers.push((name.to_owned(), None));
        self
    }

    /// A header whose name is not UTF-8, as clients in other languages write it.
    #[expect(
        unsafe_code,
        reason = "the client library takes text only, and passes its bytes on; others take any bytes"
    )]
    pub(crate) fn header_named_by_bytes(mut self, name: Vec<u8>, value: &str) -> Record {
        // SAFETY: nobody reads it as text: it is kept, and its bytes are given to C.
        let name = unsafe { String::from_utf8_unchecked(name) };
        self.headers.push((name, Some(value.as_bytes().to_vec())));
        self
    }

    pub(crate) fn partition(mut self, partition: i32) -> Record {
        self.partition = Some(partition);
        self
    }

    /// In milliseconds since 1970.
    pub(crate) fn timestamp(mut self, timestamp: i64) -> Record {
        self.timestamp = Some(timestamp);
        self
    }
}

impl From<Vec<u8>> for Record {
    fn from(value: Vec<u8>) -> Record {
        Record { value: Some(value), ..Record::default() }
    }
}

impl From<String> for Record {
    fn from(value: String) -> Record {
        value.into_bytes().into()
    }
}

impl From<&str> for Record {
    fn from(value: &str) -> Record {
        value.as_bytes().to_vec().into()
    }
}

impl From<&[u8]> for Record {
    fn from(value: &[u8]) -> Record {
        value.to_vec().into()
    }
}

// === impl Received ===

impl Received {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Received {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let all = (0..headers.count()).map(|at| headers.get(at));
            all.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Received {
            place: Place { partition: message.partition(), offset: message.offset() },
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp: message.timestamp().to_millis(),
        }
    }

    /// The value of a header; none if it is not there, or has none.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(found, _)| found == name)?.1.as_deref()
    }

    /// What Sandhog says of the job, in a record that it wrote.
    pub(crate) fn envelope(&self) -> serde_json::Value {
        let header = self.header("sandhog").unwrap_or_else(|| panic!("no record of ours: {self:?}"));
        serde_json::from_slice(header).unwrap_or_else(|e| panic!("no envelope: {e}: {self:?}"))
    }
}

// === impl Producer ===

impl Producer {
    pub(super) fn new(config: &ClientConfig, topic: &str) -> Producer {
        let (tell, acknowledged) = mpsc::channel();
        let producer = config.create_with_context(Acks(Mutex::new(tell))).unwrap();
        Producer { producer, topic: topic.to_owned(), acknowledged: Mutex::new(acknowledged) }
    }

    /// Sends a record under a number, without waiting for anything but room.
    pub(crate) fn send(&self, number: usize, record: &Record) {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        let mut base: BaseRecord<'_, Vec<u8>, Vec<u8>, Box<usize>> =
            BaseRecord::with_opaque_to(&self.topic, Box::new(number)).headers(headers);
        base.key = record.key.as_ref();
        base.payload = record.value.as_ref();
        base.partition = record.partition;
        base.timestamp = record.timestamp;
        loop {
            match self.producer.send(base) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => base = again,
                Err((error, _)) => panic!("cannot send to `{}`: {error}", self.topic),
            }
            crate::support::pause();
        }
    }

    /// What was acknowledged since the last call, with the numbers; a record that could not be written fails the test.
    pub(crate) fn acknowledged(&self) -> Vec<(usize, Place)> {
        let acknowledged = self.acknowledged.lock().expect("nobody panics holding it");
        let all = acknowledged.try_iter();
        all.map(|(number, place)| (number, place.unwrap_or_else(|e| panic!("record {number}: {e}")))).collect()
    }

    /// Waits until everything is written that was sent, and answers what was acknowledged since the last call.
    pub(crate) fn flush(&self) -> Vec<(usize, Place)> {
        self.producer.flush(patience().max(Duration::from_secs(120))).unwrap();
        self.acknowledged()
    }

    /// Sends all, numbered from 0, and waits until they are written.
    pub(crate) fn send_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<(usize, Place)> {
        for (number, record) in records.into_iter().enumerate() {
            self.send(number, &record);
        }
        self.flush()
    }
}

// === impl Acks ===

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let place = match result {
            Ok(message) => Ok(Place { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        let tell = self.0.lock().expect("nobody panics holding it");
        // The producer may be gone.
        tell.send((*number, place)).ok();
    }
}
