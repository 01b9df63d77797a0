//! What comes back: done, put back, or written elsewhere before it is done.

use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use crate::clock::UnixMs;
use crate::outcome::Disposition;
use crate::queue::Settled;
use crate::queue::kafka::flight::Stage;
use crate::queue::kafka::inbox::{How, Settle, Written};
use crate::queue::kafka::slots::Mark;
use crate::queue::kafka::tier::Then;
use crate::queue::kafka::write::{Sent, Why, Write, Writing, is_full};
use crate::queue::kafka::{Guarantee, client};
use crate::queue::runner_files::suspect;
use crate::queue::told::Told;

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
                disposition => self.write(delivery, Why::Settled(disposition, settlement.attempt), Some(told)),
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
            let dead = &self.shared.topics.jobs[partition.role.topic()].names.dead;
            // Elsewhere than among the dead letters it goes on, as suspect as before.
            let goes_on = matches!(&held.stage, Stage::Writing(writing) if writing.write.topic != *dead);
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
        let Some(held) = self.flight.get(delivery) else { return };
        let Some(partition) = self.groups.partition(held.tenure) else { return };
        let names = &self.shared.topics.jobs[partition.role.topic()].names;
        let job = held.content.job().map(|job| &**job);
        let write = Write::of(why, &held.record, job, held.content.bytes(), names, self.now());
        match write {
            Some(write) => {
                self.flight.write(delivery, Writing { write: Arc::new(write), told, sent: false, failures: 0 });
                self.send(delivery);
            }
            None => self.done(delivery, told),
        }
    }

    pub(super) fn send(&mut self, delivery: i64) {
        let again = self.now().plus(Duration::from_millis(10));
        let transactional = self.is_transactional();
        let Some(held) = self.flight.get_mut(delivery) else { return };
        let Stage::Writing(writing) = &mut held.stage else { return };
        if transactional {
            writing.sent = true;
            if let Some(group) = self.groups.of(held.tenure) {
                group.batch.writes.push_back(delivery);
            }
            return;
        }
        match writing.write.send(&self.shared.producer.load(), Box::new(Sent::Settlement(delivery))) {
            Ok(()) => writing.sent = true,
            Err(error) if is_full(&error) => self.flight.look_again(delivery, again),
            Err(error) => self.written(Written { delivery, result: Err(error) }),
        }
    }

    pub(super) fn written(&mut self, written: Written) {
        let Written { delivery, result } = written;
        let Some(held) = self.flight.get_mut(delivery) else { return };
        let (tenure, offset) = (held.tenure, held.offset);
        let Stage::Writing(writing) = &mut held.stage else { return };
        writing.sent = false;
        let topic = writing.write.topic.clone();
        let Err(error) = result else {
            let (told, failed) = (writing.told.take(), writing.failures > 0);
            if failed {
                self.unblock(tenure, offset, &topic);
            }
            return self.done(delivery, told);
        };
        writing.failures += 1;
        let wait = Duration::from_millis(100 << writing.failures.min(10)).min(WRITE_AGAIN_MAX);
        let refused = client::explain(&error, "cannot write", &topic);
        if self.unwritable.insert(topic.clone()) {
            let hint = refused.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            tracing::warn!(
                kafka.topic = topic,
                "{}{hint}: what is to be written there is held, and tried again",
                refused.message
            );
        }
        if let Some(partition) = self.groups.partition_mut(tenure) {
            partition.blocked.insert(offset, refused.message);
            partition.dirty = true;
        }
        self.shared.mend_producer();
        self.flight.look_again(delivery, self.now().plus(wait));
    }

    pub(super) fn unblock(&mut self, tenure: i64, offset: i64, topic: &str) {
        if let Some(partition) = self.groups.partition_mut(tenure) {
            partition.blocked.remove(&offset);
            partition.dirty = true;
        }
        if self.unwritable.remove(topic) {
            tracing::info!(kafka.topic = topic, "topic `{topic}` can be written again");
        }
    }

    /// What has come due.
    pub(super) fn keep_time(&mut self) {
        let now = self.now();
        while let Some(delivery) = self.flight.due(now) {
            match self.flight.get(delivery).map(|held| &held.stage) {
                Some(Stage::Timed(Then::Run(_))) => self.run_or_park(delivery),
                Some(Stage::Timed(Then::Move(_))) => self.write(delivery, Why::Moved, None),
                Some(Stage::Writing(writing)) if !writing.sent => self.send(delivery),
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
