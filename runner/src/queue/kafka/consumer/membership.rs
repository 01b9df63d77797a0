//! Partitions that come and go, and the doubt whether they are still ours.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Consumer, LAST_COMMIT, Leaving};
use crate::queue::kafka::flight::Stage;
use crate::queue::kafka::group::{Group, Partition};
use crate::queue::kafka::topics::Role;
use crate::queue::kafka::{GroupProtocol, Shared, client, parked};

/// How long what runs may run on when its partition is asked for.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long a thing that failed is left alone.
const AGAIN: Duration = Duration::from_secs(1);

impl Consumer {
    /// Joins the group when somebody wants jobs, hears what changes, and follows.
    pub(super) fn meet(&mut self) {
        if self.group.is_none() {
            return self.join();
        }
        if let Some(error) = self.group.as_ref().and_then(Group::poll) {
            return self.end_membership(&error);
        }
        match self.leaving.take() {
            Some(leaving) => self.give_up(leaving),
            None => self.follow(),
        }
    }

    pub(super) fn join(&mut self) {
        if self.demand.is_none() || self.stopped || Instant::now() < self.join_at {
            return;
        }
        self.join_at = Instant::now() + AGAIN;
        if !std::mem::replace(&mut self.entered, true)
            && let Err(error) = self.suspects.enter(&self.shared.options, &self.shared.slots)
        {
            tracing::warn!("{error}: a job that brings down this runner goes unnoticed");
        }
        let Shared { options, topics, context, inbox, .. } = &*self.shared;
        match Group::join(options, topics, self.protocol, context, inbox) {
            Ok(group) => {
                self.group = Some(group);
                self.follow_parked();
            }
            Err(error) => {
                self.shared.inbox.lock().failure = Some(error);
                self.shared.inbox.changed.notify_waiters();
            }
        }
    }

    fn end_membership(&mut self, error: &KafkaError) {
        if client::is_refusal(error) {
            let group = self.shared.options.group.clone();
            self.shared.hear(error, "cannot take jobs with the consumer group", &group);
        }
        let may_choose = self.shared.options.group_protocol == GroupProtocol::Auto;
        if client::is_unsupported(error) && may_choose && self.protocol == client::Protocol::Consumer {
            // It has the newer protocol, and was told not to use it, which only shows now.
            tracing::info!(
                "the broker does not take the newer group protocol: the runner goes on with the classic one"
            );
            self.protocol = client::Protocol::Classic;
            if let Some(group) = self.group.take() {
                self.leave(group);
            }
            return;
        }
        self.join_anew(error);
    }

    /// This membership is over: all that was held is somebody else's.
    pub(super) fn join_anew(&mut self, error: &KafkaError) {
        tracing::warn!(
            "the consumer group has put this runner out ({error}): it joins anew, and what ran may run again"
        );
        let Some(group) = self.group.take() else { return };
        for tenure in group.partitions.keys() {
            self.shared.right.lose(*tenure);
        }
        for delivery in self.flight.all() {
            self.flight.remove(delivery);
        }
        self.leaving = None;
        self.verifying = false;
        self.join_at = Instant::now() + AGAIN;
        self.leave(group);
    }

    fn leave(&self, group: Group) {
        let left = std::thread::Builder::new().name("queue-leaver".to_owned()).spawn(move || group.leave());
        if let Err(error) = left {
            tracing::warn!("cannot start the thread that leaves the consumer group: {error}");
        }
    }

    pub(super) fn follow(&mut self) {
        let Some(group) = &mut self.group else { return };
        match group.change() {
            None => {}
            Some((true, _)) if Instant::now() < self.ask_at => {}
            Some((true, list)) => {
                let before = self.tenures;
                let tenures = &mut self.tenures;
                let next = || {
                    *tenures += 1;
                    *tenures
                };
                if let Err(error) = group.assign(&list, &self.shared.topics, &self.shared.inbox, next) {
                    tracing::debug!("cannot take partitions on: {error}");
                    self.ask_at = Instant::now() + AGAIN / 4;
                }
                for tenure in before + 1..=self.tenures {
                    self.shared.right.gain(tenure);
                }
                self.suspects.look(self.shared.options.clock.now());
                self.say_tiers();
            }
            Some((false, list)) => {
                let tenures = group.tenures(&list);
                let lost = group.is_lost();
                if lost {
                    tracing::debug!("partitions lost: the group took this runner for dead");
                }
                for tenure in &tenures {
                    self.shared.right.lose(*tenure);
                    if let Some(partition) = group.partitions.get_mut(tenure) {
                        partition.leaving = true;
                    }
                    for delivery in self.flight.of_tenure(*tenure) {
                        let stage = self.flight.get(delivery).map(|held| &held.stage);
                        if lost || matches!(stage, Some(Stage::Waiting | Stage::Timed(_))) {
                            self.flight.remove(delivery);
                        }
                    }
                }
                self.give_up(Leaving { list, tenures, since: Instant::now() });
            }
        }
    }

    /// Lets what runs of these partitions end, commits what is done, and gives them up.
    pub(super) fn give_up(&mut self, leaving: Leaving) {
        let since = leaving.since.elapsed();
        let held: Vec<i64> = leaving.tenures.iter().flat_map(|tenure| self.flight.of_tenure(*tenure)).collect();
        let runs = |delivery: &&i64| match self.flight.get(**delivery).map(|held| &held.stage) {
            Some(Stage::Out) => self.shared.right.was_started(**delivery),
            Some(Stage::Writing(writing)) => writing.failures == 0,
            _ => false,
        };
        let waits = since < GIVE_UP && held.iter().any(|delivery| runs(&delivery));
        let Some(group) = &mut self.group else { return };
        if waits {
            self.leaving = Some(leaving);
            return;
        }
        if !group.is_lost() && since < GIVE_UP + LAST_COMMIT {
            self.commit_now(true);
            if self.group.as_ref().is_some_and(|group| !group.is_committed(&leaving.tenures)) {
                self.leaving = Some(leaving);
                return;
            }
        }
        let Some(group) = &mut self.group else { return };
        for delivery in held {
            self.flight.remove(delivery);
        }
        for tenure in &leaving.tenures {
            group.partitions.remove(tenure);
        }
        let unassigned = group.unassign(&leaving.list);
        self.say_tiers();
        if let Err(error) = unassigned {
            self.join_anew(&error);
        }
    }

    /// Starts to follow what is parked, once.
    fn follow_parked(&mut self) {
        if std::mem::replace(&mut self.follows_parked, true) {
            return;
        }
        if let Err(error) = parked::start(&self.shared) {
            tracing::warn!("{error}: jobs that are parked stay so");
        }
    }

    /// Says where parked jobs can go to be run here.
    fn say_tiers(&self) {
        let Some(group) = &self.group else { return };
        let shortest = |partition: &Partition| match partition.role {
            Role::Tier(topic, 0) => Some((topic, partition.number)),
            _ => None,
        };
        self.shared.parking.hold(group.partitions.values().filter_map(shortest).collect());
    }

    /// The thread stood still for long: others may have its partitions. Nothing is started until that is known.
    pub(super) fn stood(&mut self, stood: Duration) {
        let Some(group) = &mut self.group else { return };
        tracing::warn!("this runner stood still for {stood:.1?}: it asks whether its partitions are still its own");
        for tenure in group.partitions.keys() {
            self.shared.right.lose(*tenure);
        }
        self.verifying = group.verify();
        if !self.verifying {
            self.hold_again();
        }
    }

    pub(super) fn hold_again(&mut self) {
        self.verifying = false;
        let Some(group) = &self.group else { return };
        for (tenure, _) in group.partitions.iter().filter(|(_, partition)| !partition.leaving) {
            self.shared.right.gain(*tenure);
        }
    }

    /// Whether what was held while the thread stood still is still held.
    pub(super) fn verified(&mut self, error: Option<&KafkaError>) {
        match error {
            None => self.hold_again(),
            Some(error) if is_put_out(error) => self.join_anew(error),
            // Asked again with the next commit: this member only has yet to hear of a change in its group, or nobody answers.
            Some(_) => {}
        }
    }
}

/// Whether a commit was refused because the partitions are another member's.
fn is_put_out(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, FencedMemberEpoch, IllegalGeneration, UnknownMemberId};
    let code = error.rdkafka_error_code();
    matches!(code, Some(UnknownMemberId | IllegalGeneration | FencedInstanceId | FencedMemberEpoch))
}
