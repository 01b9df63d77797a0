//! The thread that consumes: it alone knows what is in flight. It turns several times a second whatever jobs do, so that no
//! job, however long, costs this runner its partitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::oneshot;

use super::Shared;
use super::client;
use super::flight::{Content, Flight, Stage};
use super::group::{Group, Partition};
use super::inbox::{How, Order, Settle, Work, Written};
use super::record::{Read, Record};
use super::right::STANDSTILL;
use super::tier::{self, Then};
use super::topics::Role;
use super::write::{Sent, Why, Write, Writing, is_full};
use crate::clock::UnixMs;
use crate::outcome::Disposition;
use crate::queue::Demand;
use crate::queue::told::Told;

/// How long the thread waits for something to do.
const TICK: Duration = Duration::from_millis(50);

/// The most records that are taken in before other things have their turn.
const TAKEN_MAX: usize = 2_048;

/// The most of one partition at a time: the next one has its turn.
const QUANTUM: usize = 64;

/// The most that is in flight of a partition of jobs. What of it is done must fit beside its mark.
const WINDOW_MAX: usize = 4_096;

/// The least, so that each partition gets on.
const WINDOW_MIN: usize = 16;

/// The same of a tier's partition: its records wait in hand.
const TIER_WINDOW: usize = 1_024;

/// How long what crowds a partition waits elsewhere.
const CROWDED: Duration = Duration::from_secs(10);

/// How long what runs may run on when its partition is asked for.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long a delivery that was found to be held may take until it is noted as started.
const STARTING: Duration = Duration::from_millis(30);

/// How long the last commit may take.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// How long a thing that failed is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest time between tries to write.
const WRITE_AGAIN_MAX: Duration = Duration::from_secs(10);

/// The consumer's thread.
pub(super) struct Consumer {
    shared: Arc<Shared>,
    /// None before the first demand, and between two memberships.
    group: Option<Group>,
    /// No membership is tried before.
    join_at: Instant,
    flight: Flight,
    tenures: i64,
    demand: Option<Demand>,
    leaving: Option<Leaving>,
    /// It is being found out whether what is held is still held.
    verifying: bool,
    ask_at: Instant,
    stopped: bool,
    closing: Option<(Option<oneshot::Sender<()>>, Instant)>,
    commit_for: Vec<oneshot::Sender<()>>,
    /// Topics that cannot be written, and said to be so.
    unwritable: HashSet<String>,
    /// There is more to read.
    more: bool,
}

/// Partitions that are being given up.
struct Leaving {
    list: TopicPartitionList,
    tenures: Vec<i64>,
    since: Instant,
}

// === impl Consumer ===

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>) -> Consumer {
        Consumer {
            shared,
            group: None,
            join_at: Instant::now(),
            flight: Flight::default(),
            tenures: 0,
            demand: None,
            leaving: None,
            verifying: false,
            ask_at: Instant::now(),
            stopped: false,
            closing: None,
            commit_for: Vec::new(),
            unwritable: HashSet::new(),
            more: false,
        }
    }

    /// Turns until it is told to close.
    pub(super) fn run(mut self) {
        while self.turn() {}
        let group = self.group.take();
        let told = self.closing.take().and_then(|(told, _)| told);
        // What is left is not done, and comes again.
        self.flight = Flight::default();
        if let Some(group) = group {
            group.leave();
        }
        self.shared.inbox.end();
        if let Some(told) = told {
            told.send(()).ok();
        }
    }

    fn turn(&mut self) -> bool {
        let work = self.shared.inbox.take(self.wait());
        let stood = self.shared.right.turn();
        if stood >= STANDSTILL {
            self.stood(stood);
        }
        self.hear(work);
        self.keep_time();
        self.meet();
        self.more = !self.stopped && self.take_in();
        self.hand_over();
        self.commit();
        !self.is_closed()
    }

    fn wait(&self) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        let due = self.flight.next_due().map(|at| at.since(self.now()));
        due.map_or(TICK, |due| due.min(TICK))
    }

    fn hear(&mut self, work: Work) {
        for settle in work.settles {
            self.settle(settle);
        }
        for written in work.written {
            self.written(written);
        }
        if let Some(result) = work.committed {
            self.committed(&result);
        }
        if let Some(demand) = work.demand {
            let (unserved, _grown) = self.flight.serve(&demand);
            for delivery in unserved {
                self.write(delivery, Why::Unserved, None);
            }
            self.demand = Some(demand);
        }
        for order in work.orders {
            self.order(order);
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Commit(told) => self.commit_for.push(told),
            Order::StopReceiving(told) => {
                self.stopped = true;
                self.demand = None;
                for delivery in self.flight.all() {
                    // What was handed out comes back by itself, or is settled.
                    if matches!(
                        self.flight.get(delivery).map(|held| &held.stage),
                        Some(Stage::Waiting | Stage::Timed(_))
                    ) {
                        self.flight.remove(delivery);
                    }
                }
                told.send(()).ok();
            }
            Order::Close(told) => {
                self.stopped = true;
                self.closing = Some((told, Instant::now()));
            }
        }
    }

    // --- what comes back

    fn settle(&mut self, settle: Settle) {
        let delivery = settle.receipt.record;
        self.shared.right.settled(delivery);
        // Not held: its partition was given up, and who is told hears that as the answer is dropped.
        if self.flight.get(delivery).is_none() {
            return;
        }
        match settle.how {
            How::Settled(settlement, told) => match settlement.disposition {
                Disposition::Ack { .. } => self.done(delivery, Some(told)),
                Disposition::Release { at, started: false } => {
                    told.tell(crate::queue::Settled::Settled);
                    self.put_back(delivery, at);
                }
                disposition => self.write(delivery, Why::Settled(disposition, settlement.attempt), Some(told)),
            },
            How::Dropped { started: true } => self.write(delivery, Why::Interrupted, None),
            How::Dropped { started: false } => self.put_back(delivery, self.now()),
        }
    }

    fn put_back(&mut self, delivery: i64, at: UnixMs) {
        if self.stopped {
            self.flight.remove(delivery);
        } else if at > self.now() {
            self.flight.wait_for_time(delivery, Then::Run(at));
        } else {
            self.flight.wait(delivery);
        }
    }

    /// Its offset is done.
    fn done(&mut self, delivery: i64, told: Option<Told>) {
        let Some(held) = self.flight.remove(delivery) else { return };
        let partition = self.group.as_mut().and_then(|group| group.partitions.get_mut(&held.tenure));
        if let Some(partition) = partition {
            partition.offsets.done(held.offset);
            partition.dirty = true;
        }
        if let Some(told) = told {
            told.tell(crate::queue::Settled::Settled);
        }
    }

    // --- what we write

    /// Writes what follows for a delivery, which is done when that is there.
    fn write(&mut self, delivery: i64, why: Why, told: Option<Told>) {
        let Some(held) = self.flight.get(delivery) else { return };
        let Some(partition) = self.group.as_ref().and_then(|group| group.partitions.get(&held.tenure)) else { return };
        let names = &self.shared.topics.jobs[partition.role.topic()].names;
        let job = held.content.job().map(|job| &**job);
        let write = Write::of(why, &held.record, job, held.content.bytes(), names, self.now());
        match write {
            Some(write) => {
                self.flight.write(delivery, Writing { write, told, sent: false, failures: 0 });
                self.send(delivery);
            }
            None => self.done(delivery, told),
        }
    }

    fn send(&mut self, delivery: i64) {
        let again = self.now().plus(Duration::from_millis(10));
        let Some(Stage::Writing(writing)) = self.flight.get_mut(delivery).map(|held| &mut held.stage) else { return };
        match writing.write.send(&self.shared.producer.load(), Sent::Settlement(delivery)) {
            Ok(()) => writing.sent = true,
            Err(error) if is_full(&error) => self.flight.look_again(delivery, again),
            Err(error) => self.written(Written { delivery, result: Err(error) }),
        }
    }

    fn written(&mut self, written: Written) {
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
        if let Some(partition) = self.group.as_mut().and_then(|group| group.partitions.get_mut(&tenure)) {
            partition.blocked.insert(offset, refused.message);
            partition.dirty = true;
        }
        self.shared.mend_producer();
        self.flight.look_again(delivery, self.now().plus(wait));
    }

    fn unblock(&mut self, tenure: i64, offset: i64, topic: &str) {
        if let Some(partition) = self.group.as_mut().and_then(|group| group.partitions.get_mut(&tenure)) {
            partition.blocked.remove(&offset);
            partition.dirty = true;
        }
        if self.unwritable.remove(topic) {
            tracing::info!(kafka.topic = topic, "topic `{topic}` can be written again");
        }
    }

    /// What has come due.
    fn keep_time(&mut self) {
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

    fn run_or_park(&mut self, delivery: i64) {
        let job = self.flight.get(delivery).and_then(|held| held.content.job());
        if job.is_some_and(|job| self.flight.may_serve(&job.job_type)) {
            self.flight.wait(delivery);
        } else {
            self.write(delivery, Why::Unserved, None);
        }
    }

    // --- what comes in

    /// Takes in as much as there is room for. Answers whether there may be more.
    fn take_in(&mut self) -> bool {
        let Consumer { shared, group: Some(group), flight, .. } = self else { return false };
        let windows = windows(group, shared);
        let (mut taken, mut more) = (0, false);
        let mut written = Vec::new();
        for (tenure, partition) in &mut group.partitions {
            let window = match partition.role {
                Role::Jobs(topic) => windows[topic],
                Role::Tier(..) => TIER_WINDOW,
            };
            let mut quantum = QUANTUM;
            while partition.has_room(window) && flight.has_room(&shared.options) {
                if quantum == 0 || taken == TAKEN_MAX {
                    more = true;
                    break;
                }
                match partition.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        let place = (*tenure, partition.role, window);
                        let to_write = accept(&message, place, &mut partition.offsets, flight, shared);
                        partition.dirty |= to_write.is_none();
                        written.extend(to_write.flatten());
                    }
                    Some(Err(error)) => tracing::debug!("consumer: {error}"),
                    None => break,
                }
                quantum -= 1;
                taken += 1;
            }
        }
        for (delivery, why) in written {
            self.write(delivery, why, None);
        }
        more
    }

    fn hand_over(&mut self) {
        let Some(demand) = self.demand.as_ref().filter(|_| !self.verifying && !self.stopped) else { return };
        let received = self.flight.hand_out(demand);
        if !received.is_empty() {
            self.demand = None;
            self.shared.inbox.hand_over(received);
        }
    }

    // --- the group

    /// Joins the group when somebody wants jobs, hears what changes, and follows.
    fn meet(&mut self) {
        if self.group.is_none() {
            return self.join();
        }
        if let Some(error) = self.group.as_ref().and_then(Group::poll) {
            return self.join_anew(&error);
        }
        match self.leaving.take() {
            Some(leaving) => self.give_up(leaving),
            None => self.follow(),
        }
    }

    fn join(&mut self) {
        if self.demand.is_none() || self.stopped || Instant::now() < self.join_at {
            return;
        }
        self.join_at = Instant::now() + AGAIN;
        match Group::join(&self.shared.options, &self.shared.topics, &self.shared.context, &self.shared.inbox) {
            Ok(group) => self.group = Some(group),
            Err(error) => {
                self.shared.inbox.lock().failure = Some(error);
                self.shared.inbox.changed.notify_waiters();
            }
        }
    }

    /// This membership is over: all that was held is somebody else's.
    fn join_anew(&mut self, error: &KafkaError) {
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
        let left = std::thread::Builder::new().name("queue-leaver".to_owned()).spawn(move || group.leave());
        if let Err(error) = left {
            tracing::warn!("cannot start the thread that leaves the consumer group: {error}");
        }
    }

    fn follow(&mut self) {
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
            }
            Some((false, list)) => {
                let tenures = group.tenures(&list);
                let lost = group.is_lost();
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
    fn give_up(&mut self, leaving: Leaving) {
        let since = leaving.since.elapsed();
        let held: Vec<i64> = leaving.tenures.iter().flat_map(|tenure| self.flight.of_tenure(*tenure)).collect();
        let runs = |delivery: &&i64| {
            let out = matches!(self.flight.get(**delivery).map(|held| &held.stage), Some(Stage::Out));
            !out || since < STARTING || self.shared.right.was_started(**delivery)
        };
        let waits = since < GIVE_UP && held.iter().any(|delivery| runs(&delivery));
        let Some(group) = &mut self.group else { return };
        if waits {
            self.leaving = Some(leaving);
            return;
        }
        if !group.is_lost() && since < GIVE_UP + LAST_COMMIT {
            group.commit(true);
            if !group.is_committed(&leaving.tenures) {
                self.leaving = Some(leaving);
                return;
            }
        }
        for delivery in held {
            self.flight.remove(delivery);
        }
        for tenure in &leaving.tenures {
            group.partitions.remove(tenure);
        }
        if let Err(error) = group.unassign(&leaving.list) {
            self.join_anew(&error);
        }
    }

    /// The thread stood still for long: others may have its partitions. Nothing is started until that is known.
    fn stood(&mut self, stood: Duration) {
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

    fn hold_again(&mut self) {
        self.verifying = false;
        let Some(group) = &self.group else { return };
        for (tenure, _) in group.partitions.iter().filter(|(_, partition)| !partition.leaving) {
            self.shared.right.gain(*tenure);
        }
    }

    fn committed(&mut self, result: &Result<(), KafkaError>) {
        let Some(group) = &mut self.group else { return };
        group.committed(result);
        if !self.verifying {
            return;
        }
        match result {
            Ok(()) => self.hold_again(),
            Err(error) if is_put_out(error) => {
                tracing::warn!("its partitions are somebody else's by now: what it held of them changes nothing");
                for partition in group.partitions.values_mut() {
                    partition.leaving = true;
                }
                for delivery in self.flight.all() {
                    self.flight.remove(delivery);
                }
                self.verifying = false;
            }
            Err(_) => self.verifying = group.verify(),
        }
    }

    fn commit(&mut self) {
        let Some(group) = &mut self.group else {
            self.commit_for.clear();
            return;
        };
        let at_once = !self.commit_for.is_empty() || self.closing.is_some();
        group.commit(at_once);
        let all: Vec<i64> = group.partitions.keys().copied().collect();
        if !self.commit_for.is_empty() && group.is_committed(&all) {
            for told in self.commit_for.drain(..) {
                told.send(()).ok();
            }
        }
    }

    /// Whether it was told to close, and what was under way is done.
    fn is_closed(&self) -> bool {
        let Some((_, since)) = &self.closing else { return false };
        let Some(group) = &self.group else { return true };
        let writes = |delivery: &i64| matches!(self.flight.get(*delivery).map(|held| &held.stage), Some(Stage::Writing(writing)) if writing.sent);
        let all: Vec<i64> = group.partitions.keys().copied().collect();
        let busy = self.flight.all().iter().any(writes) || !group.is_committed(&all);
        !busy || since.elapsed() >= LAST_COMMIT
    }

    fn now(&self) -> UnixMs {
        self.shared.options.clock.now()
    }
}

/// Takes a record in, and says what is to be written of it, if anything. None: it was done before.
#[expect(clippy::option_option, reason = "done before, or new; and of the new ones some are written elsewhere")]
fn accept(
    message: &BorrowedMessage<'_>,
    (tenure, role, window): (i64, Role, usize),
    offsets: &mut crate::queue::offsets::Offsets,
    flight: &mut Flight,
    shared: &Shared,
) -> Option<Option<(i64, Why)>> {
    let offset = message.offset();
    if !offsets.receive(offset) {
        return None;
    }
    let record = Record::of(message);
    let value = message.payload().unwrap_or_default();
    let topic = &shared.topics.jobs[role.topic()];
    let job = match record.content(value, topic.job_type.as_deref(), shared.options.body_bytes_max) {
        Read::Job(job) => job,
        Read::Malformed(why) => {
            let delivery = flight.add(tenure, offset, record, Content::Malformed(value.to_vec()));
            return Some(Some((delivery, Why::Malformed(why.to_string()))));
        }
    };
    let now = shared.options.clock.now();
    let then = match (role, record.envelope.as_ref().and_then(|envelope| envelope.due_at)) {
        (Role::Tier(_, tier), Some(due)) => tier::then(tier, record.place.timestamp, due),
        _ => Then::Run(now),
    };
    let job_type = job.job_type.clone();
    let delivery = flight.add(tenure, offset, record, Content::Job(Arc::new(job)));
    match then {
        Then::Run(at) if at <= now => {}
        then => {
            flight.wait_for_time(delivery, then);
            return Some(None);
        }
    }
    if !flight.may_serve(&job_type) {
        return Some(Some((delivery, Why::Unserved)));
    }
    if matches!(role, Role::Jobs(_)) && flight.crowds(&job_type, tenure, window, Instant::now()) {
        return Some(Some((delivery, Why::Crowded(now.plus(CROWDED)))));
    }
    flight.wait(delivery);
    Some(None)
}

/// How much of each job topic's partitions may be in flight: the same for all topics together, whatever they have.
fn windows(group: &Group, shared: &Shared) -> Vec<usize> {
    let topics = shared.topics.jobs.len();
    let mut held = vec![0; topics];
    for partition in group.partitions.values() {
        if let Role::Jobs(topic) = partition.role {
            held[topic] += 1;
        }
    }
    let all = shared.options.in_flight as usize / topics.max(1);
    held.into_iter().map(|held| (all / std::cmp::max(held, 1)).clamp(WINDOW_MIN, WINDOW_MAX)).collect()
}

/// Whether a commit was refused because the partitions are another member's.
fn is_put_out(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, IllegalGeneration, UnknownMemberId};
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            UnknownMemberId
                | IllegalGeneration
                | FencedInstanceId
                | RDKafkaErrorCode::StaleMemberEpoch
                | RDKafkaErrorCode::FencedMemberEpoch
        )
    )
}

// === impl Partition ===

impl Partition {
    fn has_room(&self, window: usize) -> bool {
        !self.leaving && !self.overflows && self.offsets.in_flight() < window
    }
}

// === impl Flight ===

impl Flight {
    fn has_room(&self, options: &super::Options) -> bool {
        self.jobs() < options.in_flight as usize && (self.bytes() as u64) < options.in_flight_bytes
    }
}
