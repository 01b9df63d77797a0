//! Enqueueing: records of the first job topic, or of its tiers where they are for later.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Options;
use super::client::explain;
use super::envelope::{
    Buried, DEPTH_HEADER, Envelope, HEADER, ID_HEADER, PARENT_HEADER, REPORT_OF_HEADER, Source, TYPE_HEADER,
};
use super::record::{Record, written};
use super::report;
use super::tier;
use super::topics::{JobTopic, Names, Topics};
use super::write::{Producer, Sent, Write, is_full};
use crate::clock::UnixMs;
use crate::follow_up::{DEPTH, PARENT, REPORT_OF};
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
    write: Write,
    /// The job's id; none: where it will stand.
    id: Option<String>,
}

/// What a follow-up job's record is, where its parent stood in the topic with the number `parent`: it goes into that too,
/// unless another topic is of its type alone.
pub(super) fn follow_up(job: NewJob, topics: &Topics, parent: usize, now: UnixMs) -> Write {
    let of_its_type = |topic: &&JobTopic| match &job {
        NewJob::Job { job_type, .. } => topic.job_type.as_ref() == Some(job_type),
        NewJob::Malformed { .. } => false,
    };
    let topic = topics.jobs.iter().find(of_its_type).unwrap_or(&topics.jobs[parent]);
    New::of(job, topic, now).write
}

/// Sends them, waiting where the library has too much to do: not for a thread that must go on. Reports are there before the
/// dead letters that they are about: none of these is ever without.
pub(super) fn send(
    jobs: Vec<NewJob>,
    options: &Options,
    topics: &Topics,
    producer: &Producer,
    reply: oneshot::Sender<Result<Vec<Enqueued>, QueueError>>,
) {
    let now = options.clock.now();
    let news: Vec<New> = jobs.into_iter().map(|job| New::of(job, &topics.jobs[0], now)).collect();
    let reports = news.iter().filter_map(|new| report::of(&new.write, options, topics, 0, now));
    match send_reports(reports.map(Arc::new).collect(), producer) {
        Ok(()) => send_all(news.into_iter().map(|new| (Arc::new(new.write), new.id)).collect(), producer, reply),
        // Whoever asked may have gone away.
        Err(error) => drop(reply.send(Err(error))),
    }
}

fn send_reports(mut reports: Vec<Arc<Write>>, producer: &Producer) -> Result<(), QueueError> {
    while !reports.is_empty() {
        let (reply, sent) = oneshot::channel();
        send_all(reports.iter().map(|report| (Arc::clone(report), None)).collect(), producer, reply);
        let Err(error) = sent.blocking_recv().unwrap_or(Ok(Vec::new())) else { break };
        // Which of them it was is not known, nor needed: they are dead letters of one command.
        let shorter: Option<Vec<Arc<Write>>> = reports.iter().map(|report| report.shorter.clone()).collect();
        reports = shorter.filter(|_| !error.transient).ok_or(error)?;
    }
    Ok(())
}

/// Sends records, and the ids of those jobs that have one already.
fn send_all(
    news: Vec<(Arc<Write>, Option<String>)>,
    producer: &Producer,
    reply: oneshot::Sender<Result<Vec<Enqueued>, QueueError>>,
) {
    let answers = vec![None; news.len()];
    // One more than there are: nothing is answered before all are sent.
    let state = State { answers, left: news.len() + 1, failure: None, reply: Some(reply) };
    let batch = Arc::new(Batch { state: Mutex::new(state), one: Condvar::new() });
    for (at, (write, id)) in news.into_iter().enumerate() {
        if let Some(id) = &id {
            batch.name(at, id);
        }
        while let Err(error) = write.send(producer, Box::new(Sent::Enqueued(Arc::clone(&batch), at))) {
            if !is_full(&error) {
                batch.failed(explain(&error, "cannot enqueue", &write.topic));
                break;
            }
            batch.wait_for_room();
        }
    }
    batch.count();
}

/// Whether a record is a new job.
pub(super) fn is_job(write: &Write, topics: &Topics) -> bool {
    topics.jobs.iter().any(|topic| topic.names.jobs == write.topic)
}

/// A dead letter of a follow-up that its topic does not take: held back, it would hold up its parent's partition for good.
/// None of what is no follow-up.
pub(super) fn too_large(write: &Write, topics: &Topics, now: UnixMs) -> Option<Write> {
    let topic = topics.jobs.iter().find(|topic| topic.names.jobs == write.topic)?;
    let bytes = write.value.clone().unwrap_or_default();
    let reason = format!("a follow-up job of {} bytes, which is larger than its topic takes", bytes.len());
    let mut record = write.headers.as_ref().map(Record::of_headers).unwrap_or_default();
    // What it descends from is known of it still.
    record.headers.retain(|(name, _)| [PARENT_HEADER, DEPTH_HEADER, REPORT_OF_HEADER].contains(&name.as_str()));
    Some(malformed(bytes, reason, &topic.names, &record, now).0)
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
    fn of(job: NewJob, topic: &JobTopic, now: UnixMs) -> New {
        match job {
            NewJob::Job { job_type, body, id, run_at, metadata, keep: _ } => {
                New::job(job_type, body, id, run_at, metadata, topic, now)
            }
            NewJob::Malformed { bytes, reason } => {
                let (write, id) = malformed(bytes, reason, &topic.names, &Record::default(), now);
                New { write, id: Some(id) }
            }
        }
    }

    fn job(
        job_type: String,
        body: String,
        id: Option<String>,
        run_at: Option<UnixMs>,
        metadata: Vec<(String, String)>,
        topic: &JobTopic,
        now: UnixMs,
    ) -> New {
        let names = &topic.names;
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut key = None;
        for (name, value) in metadata {
            match name.strip_prefix("header.") {
                Some(name) => headers.push((name.to_owned(), value)),
                None if name == "key" => key = Some(value),
                None if name == PARENT => headers.push((PARENT_HEADER.to_owned(), value)),
                None if name == DEPTH => headers.push((DEPTH_HEADER.to_owned(), value)),
                None if name == REPORT_OF => headers.push((REPORT_OF_HEADER.to_owned(), value)),
                None => headers.push((name, value)),
            }
        }
        // What the body says itself is not said twice, so that it is as the older design's own jobs are.
        let said = job::parse(body.as_bytes(), usize::MAX).ok().map(|(_, head)| head);
        let of_another = topic.job_type.as_ref().is_some_and(|usual| *usual != job_type);
        if of_another || said.as_ref().is_none_or(|head| head.job_type != job_type) {
            headers.push((TYPE_HEADER.to_owned(), job_type.clone()));
        }
        if let Some(id) = id.as_ref().filter(|id| said.as_ref().and_then(|head| head.job_id.as_ref()) != Some(*id)) {
            headers.push((ID_HEADER.to_owned(), id.clone()));
        }
        let id = id.or_else(|| said.and_then(|head| head.job_id));
        let due = run_at.filter(|at| *at > now);
        let mut written = OwnedHeaders::new_with_capacity(headers.len() + 1);
        for (name, value) in &headers {
            written = written.insert(Header { key: name, value: Some(value) });
        }
        let (mut topic, mut id) = (names.jobs.clone(), id);
        if let Some(due) = due {
            let mut envelope = envelope(names, id.take(), Some(job_type), now);
            envelope.key = key.as_ref().map(|key| super::envelope::Key::of(key.as_bytes()));
            envelope.due_at = Some(due);
            topic.clone_from(&names.tiers[tier::for_delay(due, now)]);
            id = Some(envelope.id.clone());
            written = written.insert(Header { key: HEADER, value: Some(&envelope.to_json()) });
        }
        let headers = (due.is_some() || !headers.is_empty()).then_some(written);
        let (key, value) = (key.map(String::into_bytes), Some(body.into_bytes()));
        New { write: Write { topic, key, value, headers, ..Write::default() }, id }
    }
}

/// The dead letter of what is no job, and its id.
fn malformed(bytes: Vec<u8>, reason: String, names: &Names, record: &Record, now: UnixMs) -> (Write, String) {
    let mut envelope = envelope(names, None, None, now);
    envelope.buried = Some(Buried { at: now, failure: Failure::new(Kind::Malformed, reason) });
    let headers = Some(written(&record.headers, &envelope, None));
    let key = Some(envelope.record.into_bytes());
    (Write { topic: names.dead.clone(), key, value: Some(bytes), headers, ..Write::default() }, envelope.id)
}

/// The envelope of a job that no record of the job topic begins.
fn envelope(names: &Names, id: Option<String>, job_type: Option<String>, now: UnixMs) -> Envelope {
    let unique = Uuid::now_v7().to_string();
    let source = Source { topic: names.jobs.clone(), partition: -1, offset: -1, timestamp: now };
    let record = format!("{}/{unique}", names.jobs);
    Envelope { record, ..Envelope::first(source, Some(id.unwrap_or(unique)), job_type, None) }
}
