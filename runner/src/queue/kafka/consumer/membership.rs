//! Partitions that come and go, and the doubt whether they are still ours.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::committing::commit_now;
use super::{Consumer, LAST_COMMIT, LEAVE};
use crate::queue::kafka::flight::Stage;
use crate::queue::kafka::group::{Group, Leaving, Partition};
use crate::queue::kafka::groups::Side;
use crate::queue::kafka::right::Right;
use crate::queue::kafka::topics::Role;
use crate::queue::kafka::{GroupProtocol, client, parked};

/// How long what runs may run on when its partition is asked for.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long a thing that failed is left alone.
const AGAIN: Duration = Duration::from_secs(1);

impl Consumer {
    /// Joins the groups when somebody wants jobs, hears what changes, and follows.
    pub(super) fn meet(&mut self) {
        self.join();
        for side in Side::BOTH {
            let Some(group) = self.groups.get_mut(side) else { continue };
            if let Some(error) = group.poll() {
                self.end_membership(side, &error);
                continue;
            }
            match group.leaving.take() {
                Some(leaving) => self.give_up(side, leaving),
                None => self.follow(side),
            }
            // Nothing of what is left was received: whoever has it, nothing of it runs here.
            if let Some(group) = self.groups.get_mut(side)
                && group.is_doubted()
                && !group.can_be_verified()
            {
                hold_again(group, &self.shared.right);
            }
        }
    }

    fn join(&mut self) {
        let is_whole = Side::BOTH.into_iter().all(|side| self.groups.get(side).is_some());
        if is_whole || self.demand.is_none() || self.stopped || Instant::now() < self.join_at {
            return;
        }
        self.join_at = Instant::now() + AGAIN;
        if !std::mem::replace(&mut self.entered, true)
            && let Err(error) = self.suspects.enter(&self.shared.options, &self.shared.slots)
        {
            tracing::warn!("{error}: a job that brings down this runner goes unnoticed");
        }
        for side in Side::BOTH {
            if self.groups.get(side).is_some() {
                continue;
            }
            self.numbers += 1;
            match Group::join(&self.shared, side, self.protocol, self.numbers) {
                Ok(group) => self.groups.join(side, group),
                Err(error) => {
                    self.shared.inbox.lock().failure = Some(error);
                    self.shared.inbox.changed.notify_waiters();
                    return;
                }
            }
        }
        self.follow_parked();
    }

    fn end_membership(&mut self, side: Side, error: &KafkaError) {
        if client::is_refusal(error) {
            let group = side.group(&self.shared.options);
            self.shared.hear(error, "cannot take jobs with the consumer group", &group);
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnreleasedInstanceId) {
            return self.wait_for_session(side);
        }
        let may_choose = self.shared.options.group_protocol == GroupProtocol::Auto;
        let newer = self.groups.get(side).is_some_and(|group| group.protocol == client::Protocol::Consumer);
        if !(client::is_unsupported(error) && may_choose && newer) {
            return self.join_anew(side, error);
        }
        // It has the newer protocol, and was told not to use it, which only shows now, and in each group.
        if std::mem::replace(&mut self.protocol, client::Protocol::Classic) == client::Protocol::Consumer {
            tracing::info!(
                "the broker does not take the newer group protocol: the runner goes on with the classic one"
            );
        }
        self.end(side);
    }

    /// With the newer protocol, who is back before the session of his own former process is over is not let in.
    fn wait_for_session(&mut self, side: Side) {
        if !std::mem::replace(&mut self.waits_for_session, true) {
            let name = side.group(&self.shared.options);
            tracing::warn!(
                "consumer group `{name}` still has a member with this runner's `group.instance.id`: its session is waited \
                 for, which is for ever if another runner has the same"
            );
        }
        self.end(side);
    }

    fn join_anew(&mut self, side: Side, error: &KafkaError) {
        let name = side.group(&self.shared.options);
        tracing::warn!(
            "consumer group `{name}` has put this runner out ({error}): it joins anew, and what ran may run again"
        );
        self.end(side);
    }

    /// This membership is over: all that was held by it is somebody else's. It is followed by another.
    fn end(&mut self, side: Side) {
        let Some(group) = self.groups.take(side) else { return };
        for tenure in group.partitions.keys() {
            self.shared.right.lose(*tenure);
        }
        for delivery in self.flight.of(|tenure| group.partitions.contains_key(&tenure)) {
            self.flight.remove(delivery);
        }
        self.join_at = Instant::now() + AGAIN;
        group.leave();
        self.say_tiers();
    }

    /// Leaves the groups, and waits until the others know, but not for long.
    pub(super) fn leave(&mut self) {
        let until = Instant::now() + LEAVE;
        let left = Side::BOTH.map(|side| self.groups.take(side).map(Group::leave));
        for gone in left.into_iter().flatten() {
            let wait = until.saturating_duration_since(Instant::now());
            if gone.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!(
                    "the consumer group does not let this runner go: its partitions are free after the session"
                );
            }
        }
    }

    fn follow(&mut self, side: Side) {
        let Some(group) = self.groups.get(side) else { return };
        match group.change() {
            None => {}
            Some((true, _)) if Instant::now() < group.ask_at => {}
            Some((true, list)) => self.take_on(side, &list),
            Some((false, list)) => self.begin_to_give_up(side, list),
        }
    }

    fn take_on(&mut self, side: Side, list: &TopicPartitionList) {
        let Some(group) = self.groups.get_mut(side) else { return };
        self.waits_for_session = false;
        let before = self.numbers;
        let numbers = &mut self.numbers;
        let next = || {
            *numbers += 1;
            *numbers
        };
        if let Err(error) = group.assign(list, &self.shared.topics, &self.shared.inbox, next) {
            tracing::debug!("cannot take partitions on: {error}");
            group.ask_at = Instant::now() + AGAIN / 4;
        }
        for tenure in before + 1..=self.numbers {
            self.shared.right.gain(tenure);
        }
        self.suspects.look(self.shared.options.clock.now());
        self.say_tiers();
    }

    /// From here on nothing of these partitions is started.
    fn begin_to_give_up(&mut self, side: Side, list: TopicPartitionList) {
        let Some(group) = self.groups.get_mut(side) else { return };
        let (tenures, lost) = (group.tenures(&list), group.is_lost());
        if lost {
            tracing::debug!("partitions lost: the group took this runner for dead");
        }
        for tenure in &tenures {
            self.shared.right.lose(*tenure);
            if let Some(partition) = group.partitions.get_mut(tenure) {
                partition.leaving = true;
                let (topic, number) = (&partition.topic, partition.number);
                tracing::debug!(kafka.topic = topic, kafka.partition = number, lost, "partition asked for");
            }
        }
        let mut held = self.flight.of(|tenure| tenures.contains(&tenure));
        held.retain(|delivery| {
            let stage = self.flight.get(*delivery).map(|held| &held.stage);
            let goes_on = !lost && !matches!(stage, Some(Stage::Waiting | Stage::Timed(_)));
            if !goes_on {
                self.flight.remove(*delivery);
            }
            goes_on
        });
        self.give_up(side, Leaving { list, tenures, held, since: Instant::now() });
    }

    /// Lets what runs of these partitions end, commits what is done, and gives them up.
    fn give_up(&mut self, side: Side, mut leaving: Leaving) {
        let since = leaving.since.elapsed();
        leaving.held.retain(|delivery| self.flight.get(*delivery).is_some());
        let runs = |delivery: &i64| match self.flight.get(*delivery).map(|held| &held.stage) {
            Some(Stage::Out) => self.shared.right.was_started(*delivery),
            Some(Stage::Writing(writing)) => writing.failures == 0,
            _ => false,
        };
        let waits = since < GIVE_UP && leaving.held.iter().any(runs);
        let Some(group) = self.groups.get_mut(side) else { return };
        if waits {
            group.leaving = Some(leaving);
            return;
        }
        if !group.is_lost() && since < GIVE_UP + LAST_COMMIT {
            commit_now(group, &mut self.flight, true);
            if !group.is_committed(&leaving.tenures) {
                group.leaving = Some(leaving);
                return;
            }
        }
        for delivery in leaving.held {
            self.flight.remove(delivery);
        }
        let unassigned = group.unassign(&leaving.list, &leaving.tenures);
        self.say_tiers();
        if let Err(error) = unassigned {
            self.join_anew(side, &error);
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
        let shortest = |partition: &Partition| match partition.role {
            Role::Tier(topic, 0) => Some((topic, partition.number)),
            _ => None,
        };
        let held = self.groups.iter().flat_map(|group| group.partitions.values());
        self.shared.parking.hold(held.filter_map(shortest).collect());
    }

    /// The thread stood still for long: others may have its partitions. Nothing is started until that is known.
    pub(super) fn stood(&mut self, stood: Duration) {
        if self.groups.iter().all(|group| group.partitions.is_empty()) {
            return;
        }
        tracing::warn!("this runner stood still for {stood:.1?}: it asks whether its partitions are still its own");
        for group in self.groups.iter_mut() {
            for tenure in group.partitions.keys() {
                self.shared.right.lose(*tenure);
            }
            group.doubt();
        }
    }

    /// Whether what was held while the thread stood still is still held.
    pub(super) fn verified(&mut self, group: i64, error: Option<&KafkaError>) {
        let numbered = |side: &Side| self.groups.get(*side).is_some_and(|at| at.number == group);
        let Some(side) = Side::BOTH.into_iter().find(numbered) else { return };
        match (error, self.groups.get_mut(side)) {
            (None, Some(group)) => hold_again(group, &self.shared.right),
            (Some(error), _) if is_put_out(error) => self.join_anew(side, error),
            // Asked again with the next commit: this member only has yet to hear of a change in its group, or nobody answers.
            _ => {}
        }
    }
}

fn hold_again(group: &mut Group, right: &Right) {
    for (tenure, partition) in group.partitions.iter_mut().filter(|(_, partition)| partition.doubted) {
        partition.doubted = false;
        if !partition.leaving {
            right.gain(*tenure);
        }
    }
}

/// Whether a commit was refused because the partitions are another member's.
fn is_put_out(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, FencedMemberEpoch, IllegalGeneration, UnknownMemberId};
    let code = error.rdkafka_error_code();
    matches!(code, Some(UnknownMemberId | IllegalGeneration | FencedInstanceId | FencedMemberEpoch))
}
