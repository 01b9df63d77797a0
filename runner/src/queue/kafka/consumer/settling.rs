//! What comes back: done, put back, or written elsewhere before it is done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;

use super::Consumer;
use crate::clock::UnixMs;
use crate::outcome::Disposition;
use crate::queue::kafka::flight::Stage;
use crate::queue::kafka::inbox::{How, Settle, Written};
use crate::queue::kafka::slots::Mark;
use crate::queue::kafka::tier::Then;
use crate::queue::kafka::transaction::is_too_large;
use crate::queue::kafka::write::{Part, Sent, Why, Write, Writing, is_full};
use crate::queue::kafka::{Guarantee, Shared, client, enqueue, report};
use crate::queue::runner_files::suspect;
use crate::queue::told::Told;
use crate::queue::{NewJob, Settled};

/// The longest time between tries to write.
const WRITE_AGAIN_MAX: Duration = Duration::from_secs(10);

impl Consumer {
    pub(super) fn settle(&mut self, settle: Settle) {
        let delivery = settle.receipt.record;
        // Not held: its partition was given up, and who is told hears that as the answer is dropped.
        if self.flight.get(delivery).is_none() {
            return;
        }
        match settle.how {
            How::Settled(settlement, told) => match settlement.disposition {
                disposition if !settlement.follow_ups.is_empty() => {
                    let why = Why::Settled(disposition, settlement.attempt, settlement.lines);
                    self.write_with(delivery, why, settlement.follow_ups, Some(told));
                }
                Disposition::Ack { .. } if self.is_transactional() => {
                    let tenure = self.flight.get(delivery).map_or(0, |held| held.tenure);
                    if let Some(group) = self.groups.of(tenure) {
                        group.batch.told.push((tenure, told));
                    }
                    self.done(delivery, None);
                }
                Disposition::Ack { .. } => self.done(delivery, Some(told)),
                Disposition::Release { at, started: false } => {
                    told.tell(Settled::Settled);
                    self.put_back(delivery, at);
                }
                disposition => {
                    let why = Why::Settled(disposition, settlement.attempt, settlement.lines);
                    self.write(delivery, why, Some(told))
                }
            },
            How::Dropped { started: true } => self.write(delivery, Why::Interrupted, None),
            How::Dropped { started: false } => self.put_back(delivery, self.now()),
        }
    }

    pub(super) fn put_back(&mut self, delivery: i64, at: UnixMs) {
        let leaves = |tenure| self.groups.partition(tenure).is_none_or(|partition| partition.leaving);
        if self.stopped || self.flight.get(delivery).is_some_and(|held| leaves(held.tenure)) {
            // It comes again, here or elsewhere.
            self.flight.remove(delivery);
        } else if at > self.now() {
            self.flight.wait_for_time(delivery, Then::Run(at));
        } else {
            self.flight.wait(delivery);
        }
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.shared.options.guarantee == Guarantee::ExactlyOnceInKafka
    }

    /// Its runner died while it ran alone.
    pub(super) fn bury_suspect(&mut self, delivery: i64, deaths: u32) {
        if let Some(job) = self.flight.get(delivery).and_then(|held| held.content.job()) {
            let failure = suspect();
            tracing::warn!(
                job.id = %job.id, job.type = %job.job_type, kind = %failure.kind,
                "job `{}` buried: {}: {}", job.id, failure.kind, failure.message
            );
        }
        self.write(delivery, Why::Suspect(deaths), None);
    }

    /// Its offset is done.
    pub(super) fn done(&mut self, delivery: i64, told: Option<Told>) {
        let Some(held) = self.flight.remove(delivery) else { return };
        if let Some(partition) = self.groups.partition_mut(held.tenure) {
            // Elsewhere than among the dead letters it goes on, as suspect as before.
            let goes_on = matches!(&held.stage, Stage::Writing(writing) if writing.goes_on);
            if !self.suspects.is_empty() && !goes_on {
                self.suspects.forget(Mark::of(&held.record));
            }
            partition.offsets.done(held.offset);
            partition.dirty = true;
        }
        if let Some(told) = told {
            told.tell(Settled::Settled);
        }
    }

    /// Writes what follows for a delivery, which is done when that is there.
    pub(super) fn write(&mut self, delivery: i64, why: Why, told: Option<Told>) {
        self.write_with(delivery, why, Vec::new(), told);
    }

    /// The same together with the jobs that its attempt enqueued.
    fn write_with(&mut self, delivery: i64, why: Why, follow_ups: Vec<NewJob>, told: Option<Told>) {
        let now = self.now();
        let Some(held) = self.flight.get(delivery) else { return };
        let Some(partition) = self.groups.partition(held.tenure) else { return };
        let (topics, topic) = (&self.shared.topics, partition.role.topic());
        let names = &topics.jobs[topic].names;
        let job = held.content.job().map(|job| &**job);
        let own = Write::of(why, &held.record, job, held.content.bytes(), names, now);
        let goes_on = own.as_ref().is_some_and(|own| own.topic != names.dead);
        let letter = own.as_ref().filter(|_| !goes_on);
        let report = letter.and_then(|letter| report::of(letter, &self.shared.options, topics, topic, now));
        let follow_ups = follow_ups.into_iter().map(|job| enqueue::follow_up(job, topics, topic, now));
        let writes: Vec<Write> = own.into_iter().chain(report).chain(follow_ups).collect();
        if writes.is_empty() {
            return self.done(delivery, told);
        }
        self.flight.write(delivery, Writing::new(writes, goes_on, told));
        self.send(delivery);
    }

    pub(super) fn send(&mut self, delivery: i64) {
        let again = self.now().plus(Duration::from_millis(10));
        let transactional = self.is_transactional();
        let Some(held) = self.flight.get_mut(delivery) else { return };
        let Stage::Writing(writing) = &mut held.stage else { return };
        if transactional {
            writing.set_all(Part::Sent);
            if let Some(group) = self.groups.of(held.tenure) {
                group.batch.writes.push_back(delivery);
            }
            return;
        }
        let producer = self.shared.producer.load();
        while let Some((part, write)) = writing.next() {
            match write.send(&producer, Box::new(Sent::Settlement(delivery, part))) {
                Ok(()) => writing.set(part, Part::Sent),
                Err(error) if is_full(&error) => return self.flight.look_again(delivery, again),
                Err(error) => return self.written(Written { delivery, part, result: Err(error) }),
            }
        }
    }

    /// A record is there, or is not.
    pub(super) fn written(&mut self, written: Written) {
        self.heard(written.delivery, Some(written.part), written.result.as_ref().err());
    }

    /// The same of all that a transaction had of a delivery.
    pub(super) fn all_written(&mut self, delivery: i64, error: Option<&KafkaError>) {
        self.heard(delivery, None, error);
    }

    fn heard(&mut self, delivery: i64, part: Option<usize>, error: Option<&KafkaError>) {
        if error.is_some_and(is_too_large) && self.make_smaller(delivery, part) {
            return self.send(delivery);
        }
        let Some(held) = self.flight.get_mut(delivery) else { return };
        let (tenure, offset) = (held.tenure, held.offset);
        let Stage::Writing(writing) = &mut held.stage else { return };
        let now = if error.is_some() { Part::Here } else { Part::There };
        match part {
            Some(part) => writing.set(part, now),
            None => writing.set_all(now),
        }
        if let Some(error) = error {
            let topic = writing.writes().nth(part.unwrap_or(0)).map(|write| write.topic.clone());
            self.block(tenure, offset, topic.unwrap_or_default(), error);
        }
        self.written_so_far(delivery);
    }

    /// Puts something in the place of what its topic does not take: a shorter report, a dead letter of a follow-up; of the one
    /// that was refused, or where that is not known, of the largest. False: there is none.
    fn make_smaller(&mut self, delivery: i64, part: Option<usize>) -> bool {
        let now = self.now();
        let Shared { options, topics, .. } = &*self.shared;
        let Some(held) = self.flight.get_mut(delivery) else { return false };
        let topic = self.groups.partition(held.tenure).map_or(0, |partition| partition.role.topic());
        let Stage::Writing(writing) = &mut held.stage else { return false };
        let parts = writing.writes().enumerate().filter(|(at, _)| part.is_none_or(|part| part == *at));
        let jobs = parts.filter(|(_, write)| enqueue::is_job(write, topics));
        let Some((at, write)) = jobs.max_by_key(|(_, write)| write.bytes()) else { return false };
        let (smaller, report) = if let Some(shorter) = &write.shorter {
            (Arc::clone(shorter), None)
        } else {
            let Some(letter) = enqueue::too_large(write, topics, now) else { return false };
            let report = report::of(&letter, options, topics, topic, now);
            (Arc::new(letter), report)
        };
        writing.replace(at, smaller, report);
        true
    }

    /// Whether a delivery is done, or must be tried again: when nothing of it is under way.
    fn written_so_far(&mut self, delivery: i64) {
        let now = self.now();
        let Some(held) = self.flight.get_mut(delivery) else { return };
        let (tenure, offset) = (held.tenure, held.offset);
        let Stage::Writing(writing) = &mut held.stage else { return };
        if writing.is_there() {
            let (told, failed) = (writing.told.take(), writing.failures > 0);
            if failed {
                let topics: HashSet<String> = writing.writes().map(|write| write.topic.clone()).collect();
                self.unblock(tenure, offset, &topics);
            }
            self.done(delivery, told);
        } else if !writing.is_sent() {
            writing.failures += 1;
            let wait = Duration::from_millis(100 << writing.failures.min(10)).min(WRITE_AGAIN_MAX);
            self.shared.mend_producer();
            self.flight.look_again(delivery, now.plus(wait));
        }
    }

    /// A topic cannot be written, and with it not what follows for a delivery: it is held, and with it its partition.
    fn block(&mut self, tenure: i64, offset: i64, topic: String, error: &KafkaError) {
        let refused = client::explain(error, "cannot write", &topic);
        if !self.unwritable.contains(&topic) {
            let hint = refused.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            tracing::warn!(
                kafka.topic = topic,
                "{}{hint}: what is to be written there is held, and tried again",
                refused.message
            );
            self.unwritable.insert(topic);
        }
        if let Some(partition) = self.groups.partition_mut(tenure) {
            partition.blocked.insert(offset, refused.message);
            partition.dirty = true;
        }
    }

    fn unblock(&mut self, tenure: i64, offset: i64, topics: &HashSet<String>) {
        if let Some(partition) = self.groups.partition_mut(tenure) {
            partition.blocked.remove(&offset);
            partition.dirty = true;
        }
        for topic in topics {
            if self.unwritable.remove(topic) {
                tracing::info!(kafka.topic = topic, "topic `{topic}` can be written again");
            }
        }
    }

    /// What has come due.
    pub(super) fn keep_time(&mut self) {
        let now = self.now();
        while let Some(delivery) = self.flight.due(now) {
            match self.flight.get(delivery).map(|held| &held.stage) {
                Some(Stage::Timed(Then::Run(_))) => self.run_or_park(delivery),
                Some(Stage::Timed(Then::Move(_))) => self.write(delivery, Why::Moved, None),
                Some(Stage::Writing(writing)) if writing.next().is_some() => self.send(delivery),
                _ => {}
            }
        }
    }

    pub(super) fn run_or_park(&mut self, delivery: i64) {
        let job = self.flight.get(delivery).and_then(|held| held.content.job());
        if job.is_some_and(|job| self.flight.may_serve(&job.job_type)) {
            self.flight.wait(delivery);
        } else {
            self.write(delivery, Why::Unserved, None);
        }
    }
}
