//! This runner as a member of its group: the partitions that it holds, and what of them is committed.
//!
//! The library's callback only notes that partitions come or go. They are taken on and given up in the consumer's own time:
//! what runs of a partition may end first, and is committed, before another runner has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::commit::{self, Commit};
use super::inbox::Inbox;
use super::reader::Reader;
use super::topics::{Role, Topics};
use super::write::Write;
use super::{Options, client};
use crate::queue::QueueError;
use crate::queue::offsets::{Blocked, Noted, Offsets};

/// How long a broker is asked a question on the consumer's thread.
const QUESTION: Duration = Duration::from_secs(2);

/// How often what is done is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(50);

/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(10);

/// The consumer of a group.
pub(super) type GroupConsumer = BaseConsumer<Member>;

/// What the library tells of the group.
#[derive(Debug)]
pub(super) struct Member {
    context: client::Context,
    changes: Mutex<VecDeque<Change>>,
    /// Nobody takes changes on any more: partitions are given up as it is told.
    leaving: AtomicBool,
    /// Dropped when the library has let go of everything.
    _gone: SyncSender<()>,
}

/// Partitions come or go.
#[derive(Debug)]
pub(super) enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// The membership.
pub(super) struct Group {
    consumer: Arc<GroupConsumer>,
    gone: mpsc::Receiver<()>,
    pub(super) partitions: BTreeMap<i64, Partition>,
    committer: SyncSender<Commit>,
    /// Tenures whose newest marks are being committed; none: nothing is.
    committing: Option<Vec<i64>>,
    committed_at: Instant,
}

/// A partition that this runner holds.
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) role: Role,
    pub(super) reader: Reader,
    pub(super) offsets: Offsets,
    /// What holds it up, the lowest offset first.
    pub(super) blocked: BTreeMap<i64, String>,
    /// Nothing more is taken from it.
    pub(super) leaving: bool,
    /// What is done does not fit beside the mark: it waits until more does.
    pub(super) overflows: bool,
    /// Something is done that is not committed.
    pub(super) dirty: bool,
    committed: (Option<i64>, String),
}

// === impl Group ===

impl Group {
    /// Joins it.
    ///
    /// # Errors
    ///
    /// The settings do not make a consumer.
    pub(super) fn join(
        options: &Options,
        topics: &Topics,
        protocol: client::Protocol,
        context: &client::Context,
        inbox: &Arc<Inbox>,
    ) -> Result<Group, QueueError> {
        let (gone_tx, gone) = mpsc::sync_channel(0);
        let member = Member {
            context: context.clone(),
            changes: Mutex::default(),
            leaving: AtomicBool::new(false),
            _gone: gone_tx,
        };
        let refused = |e: &KafkaError| client::explain(e, "cannot join the consumer group", &options.group);
        let mut consumer: GroupConsumer =
            client::consumer(options, protocol).create_with_context(member).map_err(|e| refused(&e))?;
        let wake = Arc::clone(inbox);
        consumer.set_nonempty_callback(move || wake.wake());
        let names: Vec<&str> = topics.jobs.iter().flat_map(|topic| topic.names.worked()).collect();
        consumer.subscribe(&names).map_err(|e| refused(&e))?;
        let committer = commit::start(options, inbox)?;
        Ok(Group {
            consumer: Arc::new(consumer),
            gone,
            partitions: BTreeMap::new(),
            committer,
            committing: None,
            committed_at: Instant::now(),
        })
    }

    /// Hears what the library has to tell. Answers an error that ends this membership.
    pub(super) fn poll(&self) -> Option<KafkaError> {
        // A few at a time: there are few, and the rest comes with the next turn.
        for _ in 0..8 {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Some(error),
                Some(Err(error)) if client::is_refusal(&error) => return Some(error),
                // Topics that are not there yet, brokers that are away: the library tries again by itself.
                Some(Err(error)) => tracing::debug!("consumer: {error}"),
                // All partitions have queues of their own. What came by another way would be out of its order.
                Some(Ok(_)) => return Some(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::InvalidMessage)),
            }
        }
        self.consumer.client().fatal_error().map(|(code, _)| KafkaError::MessageConsumptionFatal(code))
    }

    /// The next change of what is held, left in its place until it is answered.
    pub(super) fn change(&self) -> Option<(bool, TopicPartitionList)> {
        let changes = self.consumer.context().changes();
        changes.front().map(|change| match change {
            Change::Assign(list) => (true, list.clone()),
            Change::Revoke(list) => (false, list.clone()),
        })
    }

    /// Whether what is to be given up is somebody else's already.
    pub(super) fn is_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    /// Takes partitions on, from where they were left. `tenure` numbers them.
    ///
    /// # Errors
    ///
    /// The broker does not say where that is; it is asked again.
    pub(super) fn assign(
        &mut self,
        list: &TopicPartitionList,
        topics: &Topics,
        inbox: &Arc<Inbox>,
        mut tenure: impl FnMut() -> i64,
    ) -> KafkaResult<()> {
        let committed = if list.count() == 0 {
            TopicPartitionList::new()
        } else {
            self.consumer.committed_offsets(list.clone(), QUESTION)?
        };
        let mut from = TopicPartitionList::new();
        let mut gained = Vec::new();
        for place in committed.elements() {
            let (topic, number) = (place.topic().to_owned(), place.partition());
            let Some(role) = topics.role(&topic) else { continue };
            // Without an answer for this one it would be read from its beginning.
            place.error()?;
            let mark = match place.offset() {
                Offset::Offset(mark) => Some(mark),
                _ => None,
            };
            from.add_partition_offset(&topic, number, mark.map_or(Offset::Invalid, Offset::Offset))?;
            // The library panics at metadata that is not UTF-8, which cannot be ours.
            let note = super::foreign::survive(|| place.metadata().to_owned());
            let note = note.unwrap_or_default();
            let noted = mark.map(|mark| Noted::read(mark, &note)).unwrap_or_default();
            // Before anything is fetched, so that nothing comes by the common queue.
            let queue = self.consumer.split_partition_queue(&topic, number);
            let Some(queue) = queue else { return Err(KafkaError::Subscription(topic)) };
            let offsets = Offsets::new(mark, noted);
            gained.push(Partition {
                topic,
                number,
                role,
                reader: Reader::new(queue, inbox),
                offsets,
                blocked: BTreeMap::new(),
                leaving: false,
                overflows: false,
                dirty: false,
                committed: (mark, note),
            });
        }
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&from)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.assign(&from)?,
        }
        for partition in gained {
            tracing::debug!(kafka.topic = partition.topic, kafka.partition = partition.number, "partition taken on");
            self.partitions.insert(tenure(), partition);
        }
        self.consumer.context().changes().pop_front();
        Ok(())
    }

    /// Gives partitions up, for the library to tell the others.
    ///
    /// # Errors
    ///
    /// The library refuses: the membership cannot go on.
    pub(super) fn unassign(&mut self, list: &TopicPartitionList) -> KafkaResult<()> {
        self.consumer.context().changes().pop_front();
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.unassign(),
        }
    }

    /// The tenures of the partitions in a list.
    pub(super) fn tenures(&self, list: &TopicPartitionList) -> Vec<i64> {
        let listed = |partition: &Partition| list.find_partition(&partition.topic, partition.number).is_some();
        self.partitions.iter().filter(|(_, partition)| listed(partition)).map(|(tenure, _)| *tenure).collect()
    }

    /// Whether something can be committed now: one at a time, and now and then, or `at_once`.
    pub(super) fn may_commit(&self, at_once: bool) -> bool {
        self.committing.is_none() && (at_once || self.committed_at.elapsed() >= COMMIT_EVERY)
    }

    /// Has committed what is done and is not yet, with what was written of it.
    pub(super) fn commit(&mut self, writes: Vec<(i64, Arc<Write>)>) {
        let mut offsets = TopicPartitionList::new();
        let mut tenures = Vec::new();
        for (tenure, partition) in &mut self.partitions {
            if !std::mem::take(&mut partition.dirty) {
                continue;
            }
            let Some((mark, note)) = partition.take_commit() else { continue };
            let mut place = offsets.add_partition(&partition.topic, partition.number);
            if place.set_offset(Offset::Offset(mark)).is_err() {
                continue;
            }
            place.set_metadata(&note);
            partition.committed = (Some(mark), note);
            tenures.push(*tenure);
        }
        if tenures.is_empty() {
            return;
        }
        self.committed_at = Instant::now();
        if self.committer.send(Commit { consumer: Arc::clone(&self.consumer), offsets, writes }).is_ok() {
            self.committing = Some(tenures);
        }
    }

    /// A commit has ended. What failed is committed with what comes next.
    pub(super) fn committed(&mut self, is_ok: bool) {
        let tenures = self.committing.take().unwrap_or_default();
        if is_ok {
            return;
        }
        for tenure in tenures {
            if let Some(partition) = self.partitions.get_mut(&tenure) {
                partition.dirty = true;
                partition.committed = (None, String::new());
            }
        }
    }

    /// Has all marks committed again, to hear whether they are still this runner's to commit. Answers whether there are any.
    pub(super) fn verify(&mut self) -> bool {
        for partition in self.partitions.values_mut() {
            partition.dirty = true;
            partition.committed = (None, String::new());
        }
        if self.committing.is_none() {
            self.commit(Vec::new());
        }
        self.committing.is_some()
    }

    /// Whether all that is done of these partitions is committed.
    pub(super) fn is_committed(&self, tenures: &[i64]) -> bool {
        let waits = |tenure| self.committing.as_ref().is_some_and(|committing| committing.contains(tenure));
        let dirty = |tenure| self.partitions.get(tenure).is_some_and(|partition| partition.dirty);
        !tenures.iter().any(|tenure| waits(tenure) || dirty(tenure))
    }

    /// Leaves it. Answers when the others know, or when that takes too long.
    pub(super) fn leave(self) {
        let Group { consumer, gone, partitions, committer, .. } = self;
        consumer.context().leaving.store(true, Ordering::Release);
        drop((partitions, committer));
        // A change that was not answered would be waited for.
        let unanswered = consumer.context().changes().pop_front();
        let answered = match (unanswered, consumer.rebalance_protocol()) {
            (None, _) => Ok(()),
            (Some(Change::Assign(list)), RebalanceProtocol::Cooperative) => consumer.incremental_assign(&list),
            (Some(Change::Revoke(list)), RebalanceProtocol::Cooperative) => consumer.incremental_unassign(&list),
            (Some(_), _) => consumer.unassign(),
        };
        if let Err(error) = answered {
            tracing::debug!("cannot answer a change while leaving: {error}");
        }
        // Whoever has the last hand on it waits until the library has left: that may take long, and is not for this thread.
        let leaver = std::thread::Builder::new().name("queue-leaver".to_owned()).spawn(move || drop(consumer));
        if leaver.is_ok() && gone.recv_timeout(LEAVE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the consumer group does not let this runner go: its partitions are free after the session");
        }
    }
}

// === impl Partition ===

impl Partition {
    /// What is to be committed, if that is more than what is.
    fn take_commit(&mut self) -> Option<(i64, String)> {
        let blocked = self.blocked.first_key_value();
        let blocked = blocked.map(|(offset, reason)| Blocked { offset: *offset, reason: reason.clone() });
        let mark = self.offsets.mark()?;
        let (note, whole) = self.offsets.note(blocked.as_ref());
        self.overflows = !whole;
        (self.committed.0 != Some(mark) || self.committed.1 != note).then_some((mark, note))
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

// === impl Member ===

impl Member {
    fn changes(&self) -> std::sync::MutexGuard<'_, VecDeque<Change>> {
        self.changes.lock().expect("nobody panics while holding the changes")
    }
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = <client::Context as ClientContext>::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.context.stats_raw(statistics);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Member>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::Acquire) {
            let given_up = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                    consumer.incremental_unassign(list)
                }
                _ => consumer.unassign(),
            };
            if let Err(error) = given_up {
                tracing::debug!("cannot give partitions up while leaving: {error}");
            }
            return;
        }
        let change = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Assign(list.clone()),
            _ => Change::Revoke(list.clone()),
        };
        self.changes().push_back(change);
    }
}
