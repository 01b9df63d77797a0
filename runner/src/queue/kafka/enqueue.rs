//! Enqueueing: records of the first job topic, or of its tiers where they are for later.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Options;
use super::client::explain;
use super::envelope::{Buried, Envelope, HEADER, ID_HEADER, Source, TYPE_HEADER};
use super::tier;
use super::topics::Names;
use super::write::{Producer, Sent, is_full};
use crate::clock::UnixMs;
use crate::job;
use crate::outcome::{Failure, Kind};
use crate::queue::{Enqueued, NewJob, QueueError};

/// How long the library is given to make room, if nothing of ours makes some.
const FULL: Duration = Duration::from_millis(50);

/// Jobs that are enqueued together, and what became of them so far.
#[derive(Debug)]
pub(super) struct Batch {
    state: Mutex<State>,
    /// One more is answered.
    one: Condvar,
}

#[derive(Debug)]
struct State {
    answers: Vec<Option<Enqueued>>,
    left: usize,
    failure: Option<QueueError>,
    reply: Option<oneshot::Sender<Result<Vec<Enqueued>, QueueError>>>,
}

/// A new record, before it is sent.
struct New {
    topic: String,
    key: Option<String>,
    value: Vec<u8>,
    headers: Option<OwnedHeaders>,
    /// The job's id; none: where it will stand.
    id: Option<String>,
}

/// Sends them, waiting where the library has too much to do: not for a thread that must go on.
pub(super) fn send(
    jobs: Vec<NewJob>,
    options: &Options,
    names: &Names,
    producer: &Producer,
    reply: oneshot::Sender<Result<Vec<Enqueued>, QueueError>>,
) {
    let now = options.clock.now();
    let answers = vec![None; jobs.len()];
    // One more than there are: nothing is answered before all are sent.
    let state = State { answers, left: jobs.len() + 1, failure: None, reply: Some(reply) };
    let batch = Arc::new(Batch { state: Mutex::new(state), one: Condvar::new() });
    for (at, job) in jobs.into_iter().enumerate() {
        let new = New::of(job, names, now);
        if let Some(id) = &new.id {
            batch.name(at, id);
        }
        let mut sent = Box::new(Sent::Enqueued(Arc::clone(&batch), at));
        loop {
            let mut record = BaseRecord::with_opaque_to(&new.topic, sent).payload(new.value.as_slice());
            if let Some(key) = &new.key {
                record = record.key(key.as_bytes());
            }
            if let Some(headers) = &new.headers {
                record = record.headers(headers.clone());
            }
            match producer.send(record) {
                Ok(()) => break,
                Err((error, record)) if is_full(&error) => {
                    sent = record.delivery_opaque;
                    batch.wait_for_room();
                }
                Err((error, _)) => {
                    batch.failed(explain(&error, "cannot enqueue", &new.topic));
                    break;
                }
            }
        }
    }
    batch.count();
}

// === impl Batch ===

impl Batch {
    /// What became of one.
    pub(super) fn answered(&self, at: usize, result: &DeliveryResult<'_>) {
        match result {
            Ok(message) => {
                let place = || format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
                self.with(|state| {
                    state.answers[at].get_or_insert_with(|| Enqueued { id: place(), duplicate: false });
                });
                self.count();
            }
            Err((error, message)) => self.failed(explain(error, "cannot enqueue", message.topic())),
        }
    }

    /// Waits until one of these is answered, which makes room for another.
    fn wait_for_room(&self) {
        let state = self.state.lock().expect("nobody panics while holding a batch");
        drop(self.one.wait_timeout(state, FULL).expect("nobody panics while holding a batch"));
    }

    fn name(&self, at: usize, id: &str) {
        self.with(|state| state.answers[at] = Some(Enqueued { id: id.to_owned(), duplicate: false }));
    }

    fn failed(&self, error: QueueError) {
        self.with(|state| {
            state.failure.get_or_insert(error);
        });
        self.count();
    }

    fn count(&self) {
        let answer = self.with(|state| {
            state.left -= 1;
            let reply = if state.left == 0 { state.reply.take() } else { None }?;
            let answer = match state.failure.take() {
                Some(failure) => Err(failure),
                None => Ok(std::mem::take(&mut state.answers).into_iter().flatten().collect()),
            };
            Some((reply, answer))
        });
        self.one.notify_one();
        if let Some((reply, answer)) = answer {
            // Whoever asked may have gone away.
            reply.send(answer).ok();
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("nobody panics while holding a batch"))
    }
}

// === impl New ===

impl New {
    fn of(job: NewJob, names: &Names, now: UnixMs) -> New {
        match job {
            NewJob::Job { job_type, body, id, run_at, metadata } => {
                New::job(job_type, body, id, run_at, metadata, names, now)
            }
            NewJob::Malformed { bytes, reason } => New::malformed(bytes, reason, names, now),
        }
    }

    fn job(
        job_type: String,
        body: String,
        id: Option<String>,
        run_at: Option<UnixMs>,
        metadata: Vec<(String, String)>,
        names: &Names,
        now: UnixMs,
    ) -> New {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut key = None;
        for (name, value) in metadata {
            match name.strip_prefix("header.") {
                Some(name) => headers.push((name.to_owned(), value)),
                None if name == "key" => key = Some(value),
                None => headers.push((name, value)),
            }
        }
        // What the body says itself is not said twice, so that it is as the older design's own jobs are.
        let said = job::parse(body.as_bytes(), usize::MAX).ok().map(|(_, head)| head);
        if said.as_ref().is_none_or(|head| head.job_type != job_type) {
            headers.push((TYPE_HEADER.to_owned(), job_type.clone()));
        }
        if let Some(id) = id.as_ref().filter(|id| said.as_ref().and_then(|head| head.job_id.as_ref()) != Some(*id)) {
            headers.push((ID_HEADER.to_owned(), id.clone()));
        }
        let id = id.or_else(|| said.and_then(|head| head.job_id));
        let due = run_at.filter(|at| *at > now);
        let mut new = New { topic: names.jobs.clone(), key, value: body.into_bytes(), headers: None, id };
        let mut written = OwnedHeaders::new_with_capacity(headers.len() + 1);
        for (name, value) in &headers {
            written = written.insert(Header { key: name, value: Some(value) });
        }
        if let Some(due) = due {
            let mut envelope = envelope(names, new.id.take(), Some(job_type), now);
            envelope.key = new.key.as_ref().map(|key| super::envelope::Key::of(key.as_bytes()));
            envelope.due_at = Some(due);
            new.topic.clone_from(&names.tiers[tier::for_delay(due, now)]);
            new.id = Some(envelope.id.clone());
            written = written.insert(Header { key: HEADER, value: Some(&envelope.to_json()) });
        }
        new.headers = (due.is_some() || !headers.is_empty()).then_some(written);
        new
    }

    fn malformed(bytes: Vec<u8>, reason: String, names: &Names, now: UnixMs) -> New {
        let mut envelope = envelope(names, None, None, now);
        envelope.buried = Some(Buried { at: now, failure: Failure::new(Kind::Malformed, reason) });
        let json = envelope.to_json();
        New {
            topic: names.dead.clone(),
            key: Some(envelope.record),
            value: bytes,
            headers: Some(OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&json) })),
            id: Some(envelope.id),
        }
    }
}

/// The envelope of a job that no record of the job topic begins.
fn envelope(names: &Names, id: Option<String>, job_type: Option<String>, now: UnixMs) -> Envelope {
    let unique = Uuid::now_v7().to_string();
    let source = Source { topic: names.jobs.clone(), partition: -1, offset: -1, timestamp: now };
    let record = format!("{}/{unique}", names.jobs);
    Envelope { record, ..Envelope::first(source, Some(id.unwrap_or(unique)), job_type, None) }
}
