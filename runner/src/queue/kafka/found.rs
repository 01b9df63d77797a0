//! A job that lies in one of our topics, as people see it.

use std::borrow::Cow;

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::Topic;
use super::envelope::{Envelope, Source};
use super::record::{Read, Record};
use crate::clock::UnixMs;
use crate::job::Job;
use crate::queue::{Filter, JobSource, Listed, Shown, State};

/// Which of our topics a job lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// That of the jobs.
    Jobs,
    /// A tier: it waits for its time.
    Tier,
    /// That of the parked: it waits for a handler of its type.
    Parked,
    /// That of the dead letters.
    Dead,
}

/// A record that is a job, or should be one.
#[derive(Debug)]
pub(super) struct Found<'m> {
    /// It as it was read.
    pub(super) message: &'m BorrowedMessage<'m>,
    /// What stands beside its value.
    pub(super) record: Record,
    /// Where it lies.
    pub(super) place: Place,
    /// What it is, where we have written nothing of it; none if it is malformed.
    job: Option<Job>,
}

// === impl Place ===

impl Place {
    /// All of them, in the order of a job's life.
    pub(super) const ALL: [Place; 4] = [Place::Jobs, Place::Tier, Place::Parked, Place::Dead];
}

// === impl Found ===

impl<'m> Found<'m> {
    /// Reads a record that lies in `place` beside the job topic `topic`. `bytes_max` is the largest body.
    pub(super) fn read(message: &'m BorrowedMessage<'m>, place: Place, topic: &Topic, bytes_max: usize) -> Found<'m> {
        let record = Record::of(message);
        let job = match &record.envelope {
            Some(_) => None,
            None => match record.content(message.payload().unwrap_or_default(), topic.job_type.as_deref(), bytes_max) {
                Read::Job(job) => Some(job),
                Read::Malformed(_) => None,
            },
        };
        Found { message, record, place, job }
    }

    /// Its type; none if it is malformed.
    pub(super) fn job_type(&self) -> Option<&str> {
        match &self.record.envelope {
            Some(envelope) => envelope.job_type.as_deref(),
            None => self.job.as_ref().map(|job| job.job_type.as_str()),
        }
    }

    /// Where the job stands.
    pub(super) fn state(&self, now: UnixMs) -> State {
        match self.place {
            Place::Dead => State::Dead,
            Place::Parked => State::Parked,
            Place::Jobs | Place::Tier if self.due_at().is_some_and(|due| due > now) => State::Scheduled,
            Place::Jobs | Place::Tier => State::Ready,
        }
    }

    /// When it became ready, or will.
    pub(super) fn ready_at(&self) -> UnixMs {
        self.due_at().unwrap_or(self.record.place.timestamp)
    }

    /// What is known of it beside its bytes.
    pub(super) fn envelope(&self) -> Cow<'_, Envelope> {
        match &self.record.envelope {
            Some(envelope) => Cow::Borrowed(envelope),
            None => Cow::Owned(self.record.clone().into_envelope(self.job.as_ref())),
        }
    }

    /// Its bytes as they were enqueued.
    pub(super) fn original(&self) -> &[u8] {
        self.record.original.as_deref().or(self.message.payload()).unwrap_or_default()
    }

    /// A line of a list.
    pub(super) fn listed(&self, now: UnixMs) -> Listed {
        let state = self.state(now);
        listed(&self.envelope(), state, (state != State::Dead).then(|| self.ready_at()))
    }

    /// All that is known of it.
    pub(super) fn shown(&self, now: UnixMs) -> Shown {
        shown(&self.record, &self.envelope(), self.message.payload(), self.listed(now))
    }

    /// Whether it passes `filter`, whose limit is not looked at.
    pub(super) fn passes(&self, filter: &Filter, now: UnixMs) -> bool {
        let state = self.state(now);
        if filter.state.is_some_and(|wanted| wanted != state) || (filter.kind.is_some() && state != State::Dead) {
            return false;
        }
        if filter.job_type.as_deref().is_some_and(|wanted| self.job_type() != Some(wanted)) {
            return false;
        }
        // What follows needs all that is known of it, which takes longer than all the rest.
        if filter.ids.is_empty() && filter.kind.is_none() && filter.since.is_none() {
            return true;
        }
        let envelope = self.envelope();
        let buried = envelope.buried.as_ref().filter(|_| state == State::Dead);
        let at = buried.map_or(envelope.enqueued_at, |buried| buried.at);
        (filter.ids.is_empty() || filter.ids.contains(&envelope.id))
            && filter.since.is_none_or(|since| at >= since)
            && filter.kind.as_ref().is_none_or(|kind| buried.is_some_and(|buried| buried.failure.kind == *kind))
    }

    fn due_at(&self) -> Option<UnixMs> {
        self.record.envelope.as_ref().and_then(|envelope| envelope.due_at)
    }
}

/// All that is known of a dead letter of ours whose record holds `value`; none of what is none.
pub(super) fn letter(record: &Record, value: &[u8]) -> Option<Shown> {
    let envelope = record.envelope.as_deref().filter(|envelope| envelope.buried.is_some())?;
    Some(shown(record, envelope, Some(value), listed(envelope, State::Dead, None)))
}

fn listed(envelope: &Envelope, state: State, run_at: Option<UnixMs>) -> Listed {
    let last = envelope.last_attempt.as_ref();
    let buried = envelope.buried.as_ref().filter(|_| state == State::Dead);
    let failure = buried.map(|buried| &buried.failure).or(last.and_then(|last| last.failure.as_ref()));
    Listed {
        id: envelope.id.clone(),
        job_type: envelope.job_type.clone(),
        state,
        attempt: envelope.attempts,
        failures: envelope.failures,
        retries_requested: envelope.retries_requested,
        enqueued_at: envelope.enqueued_at,
        run_at,
        started_at: last.map(|last| last.started_at),
        duration_us: last.map(|last| last.duration_us),
        ended_at: buried.map(|buried| buried.at),
        generation: last.map(|last| last.generation.clone()),
        failure: failure.cloned(),
        requeues: envelope.requeues,
        cursor: None,
    }
}

fn shown(record: &Record, envelope: &Envelope, value: Option<&[u8]>, listed: Listed) -> Shown {
    let Source { topic, partition, offset, .. } = &envelope.source;
    // A scheduled job begins in no record of the job topic.
    let (partition, offset) = (*offset >= 0).then_some((*partition, *offset)).unzip();
    let changed = record.original.as_ref().and(value);
    Shown {
        listed,
        body: record.original.as_deref().or(value).unwrap_or_default().to_vec(),
        changed_body: changed.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        result: None,
        source: JobSource { queue: topic.clone(), partition, offset },
        metadata: record.metadata(),
        failed_attempts: envelope.failed_attempts.clone(),
        failed_attempts_omitted: envelope.failed_attempts_omitted,
        interruptions: envelope.interruptions,
        logs: envelope.lines.as_deref().cloned().into_iter().collect(),
    }
}
