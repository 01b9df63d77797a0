//! What we write about a job before its offset may move: to a tier, to the parked, to the dead letters. Pure, but for sending.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, ProducerContext, ThreadedProducer};

use super::client::With;
use super::enqueue::Batch;
use super::envelope::{Buried, Envelope};
use super::inbox::{Inbox, Written};
use super::record::{Record, written};
use super::tier;
use super::topics::Names;
use crate::clock::UnixMs;
use crate::job::Job;
use crate::outcome::{Disposition, Failure, RetryAfter};
use crate::queue::runner_files::suspect;
use crate::queue::told::Told;
use crate::queue::{AttemptLines, AttemptRecord};

/// A record of ours.
#[derive(Debug, Default)]
pub(super) struct Write {
    pub(super) topic: String,
    /// None: as the producer chooses by the key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Option<OwnedHeaders>,
    /// What goes in its place where its topic does not take it, being too large.
    pub(super) shorter: Option<Arc<Write>>,
}

/// What is to be there before a delivery is done: under way, or tried again.
#[derive(Debug)]
pub(super) struct Writing {
    /// What follows for the job itself, if anything is to be written of it, and its follow-ups.
    parts: Vec<(Arc<Write>, Part)>,
    /// The job itself is among them, and not as a dead letter.
    pub(super) goes_on: bool,
    pub(super) told: Option<Told>,
    /// How often it failed.
    pub(super) failures: u32,
}

/// How far one of them has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To be sent.
    Here,
    /// With the library.
    Sent,
    /// On all replicas.
    There,
}

/// What our producer is asked about each record.
#[derive(Debug)]
pub(super) enum Sent {
    /// Which delivery it was written for, and which part of what was.
    Settlement(i64, usize),
    /// Which of the jobs that somebody enqueues it is.
    Enqueued(Arc<Batch>, usize),
}

/// Hears what became of our records.
pub(super) struct Deliveries(pub(super) Arc<Inbox>);

/// Our producer.
pub(super) type Producer = ThreadedProducer<With<Deliveries>>;

/// Why a job is written anew.
#[derive(Debug)]
pub(super) enum Why {
    /// Its attempt ended so.
    Settled(Disposition, Option<AttemptRecord>, Option<Box<AttemptLines>>),
    /// An attempt was interrupted: again soon.
    Interrupted,
    /// More is left of its delay than one tier holds.
    Moved,
    /// It cannot start now, and others behind it could: again after so long.
    Crowded(Duration),
    /// Nobody serves its type.
    Unserved,
    /// It is none.
    Malformed(String),
    /// So many runners died while they executed it, the last one while it ran alone.
    Suspect(u32),
}

// === impl Write ===

impl Write {
    /// The record that follows, and its topic; none where nothing is to be written.
    pub(super) fn of(
        why: Why,
        record: &Record,
        job: Option<&Job>,
        bytes: &[u8],
        names: &Names,
        now: UnixMs,
    ) -> Option<Write> {
        let mut envelope = record.clone().into_envelope(job);
        let mut changed = None;
        let topic = match why {
            Why::Settled(Disposition::Ack { .. } | Disposition::Release { started: false, .. }, ..) => return None,
            Why::Settled(Disposition::Retry { at, body, after }, attempt, _) => {
                add_attempt(&mut envelope, attempt);
                match after {
                    RetryAfter::Failure(_) => envelope.failures += 1,
                    RetryAfter::Request { .. } => envelope.retries_requested += 1,
                }
                changed = body;
                tier_for(&mut envelope, at, names, now)
            }
            Why::Settled(Disposition::Release { at, .. }, ..) => interrupted(&mut envelope, job, at, names, now),
            Why::Interrupted => interrupted(&mut envelope, job, now, names, now),
            Why::Settled(Disposition::Bury(failure), attempt, lines) => {
                envelope.lines = lines;
                if attempt.as_ref().is_some_and(|attempt| attempt.failure.is_some()) {
                    envelope.failures += 1;
                }
                add_attempt(&mut envelope, attempt);
                bury(&mut envelope, failure, names, now)
            }
            Why::Malformed(reason) => {
                envelope.job_type = None;
                bury(&mut envelope, Failure::new(crate::outcome::Kind::Malformed, reason), names, now)
            }
            Why::Suspect(deaths) => {
                envelope.attempts = envelope.attempts.saturating_add(deaths);
                envelope.interruptions = envelope.interruptions.saturating_add(deaths);
                bury(&mut envelope, suspect(), names, now)
            }
            Why::Settled(Disposition::Park, ..) | Why::Unserved => {
                envelope.due_at = None;
                envelope.parked_at.get_or_insert(now);
                &names.parked
            }
            Why::Moved => {
                let due = envelope.due_at.unwrap_or(now);
                tier_for(&mut envelope, due, names, now)
            }
            Why::Crowded(delay) => tier_for(&mut envelope, now.plus(delay), names, now),
        };
        let keyed = *topic == names.parked || *topic == names.dead;
        let original = match &changed {
            Some(_) => Some(record.original.as_deref().unwrap_or(bytes)),
            None => record.original.as_deref(),
        };
        Some(Write {
            topic: topic.clone(),
            partition: None,
            key: keyed.then(|| envelope.record.clone().into_bytes()),
            headers: Some(written(&record.headers, &envelope, original)),
            value: Some(changed.map_or_else(|| bytes.to_vec(), String::into_bytes)),
            shorter: None,
        })
    }

    /// How much it holds, in bytes, but for its headers.
    pub(super) fn bytes(&self) -> usize {
        [&self.key, &self.value].map(|bytes| bytes.as_ref().map_or(0, Vec::len)).iter().sum()
    }

    /// Hands it to the library, which tells what became of it.
    ///
    /// # Errors
    ///
    /// The library does not take it.
    pub(super) fn send<C: ProducerContext<NoCustomPartitioner>>(
        &self,
        producer: &ThreadedProducer<C>,
        sent: C::DeliveryOpaque,
    ) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, sent);
        record.headers.clone_from(&self.headers);
        record.partition = self.partition;
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        producer.send(record).map_err(|(error, _)| error)
    }
}

// === impl Writing ===

impl Writing {
    pub(super) fn new(writes: Vec<Write>, goes_on: bool, told: Option<Told>) -> Writing {
        let parts = writes.into_iter().map(|write| (Arc::new(write), Part::Here)).collect();
        Writing { parts, goes_on, told, failures: 0 }
    }

    /// How much it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.writes().map(|write| write.bytes()).sum()
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = &Arc<Write>> {
        self.parts.iter().map(|(write, _)| write)
    }

    /// The next one that is to be sent.
    pub(super) fn next(&self) -> Option<(usize, Arc<Write>)> {
        let at = self.parts.iter().position(|(_, part)| *part == Part::Here)?;
        Some((at, Arc::clone(&self.parts[at].0)))
    }

    pub(super) fn set(&mut self, at: usize, to: Part) {
        self.parts[at].1 = to;
    }

    /// The same for all of them, which are in one transaction.
    pub(super) fn set_all(&mut self, to: Part) {
        self.parts.iter_mut().for_each(|(_, part)| *part = to);
    }

    /// Puts another in one's place, and perhaps one more beside them.
    pub(super) fn replace(&mut self, at: usize, write: Arc<Write>, more: Option<Write>) {
        self.parts[at] = (write, Part::Here);
        self.parts.extend(more.map(|write| (Arc::new(write), Part::Here)));
    }

    /// Whether anything is with the library.
    pub(super) fn is_sent(&self) -> bool {
        self.parts.iter().any(|(_, part)| *part == Part::Sent)
    }

    /// Whether all of it is on all replicas.
    pub(super) fn is_there(&self) -> bool {
        self.parts.iter().all(|(_, part)| *part == Part::There)
    }
}

/// Whether the library only has too much to do now.
pub(super) fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn add_attempt(envelope: &mut Envelope, attempt: Option<AttemptRecord>) {
    if let Some(attempt) = attempt {
        envelope.add_attempt(attempt);
    }
}

fn tier_for<'a>(envelope: &mut Envelope, due: UnixMs, names: &'a Names, now: UnixMs) -> &'a String {
    envelope.due_at = Some(due);
    envelope.parked_at = None;
    &names.tiers[tier::for_delay(due, now)]
}

fn interrupted<'a>(
    envelope: &mut Envelope,
    job: Option<&Job>,
    at: UnixMs,
    names: &'a Names,
    now: UnixMs,
) -> &'a String {
    envelope.attempts = envelope.attempts.max(job.map_or(0, |job| job.attempt));
    envelope.interruptions += 1;
    envelope.first_started_at.get_or_insert(now);
    tier_for(envelope, at, names, now)
}

fn bury<'a>(envelope: &mut Envelope, failure: Failure, names: &'a Names, now: UnixMs) -> &'a String {
    envelope.due_at = None;
    envelope.buried = Some(Buried { at: now, failure });
    &names.dead
}

// === impl Deliveries ===

impl ProducerContext<NoCustomPartitioner> for With<Deliveries> {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        match *sent {
            Sent::Settlement(delivery, part) => {
                let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
                self.own.0.written(Written { delivery, part, result });
            }
            Sent::Enqueued(batch, at) => batch.answered(at, result),
        }
    }
}
