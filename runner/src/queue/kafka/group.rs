//! This runner as a member of a group: the partitions that it holds, and what of them is committed.
//!
//! The library's callback only notes that partitions come or go. They are taken on and given up in the consumer's own time:
//! what runs of a partition may end first, and is committed, before another runner has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::subscriber::NoSubscriber;

use super::commit::{self, Commit};
use super::groups::Side;
use super::inbox::Inbox;
use super::reader::Reader;
use super::topics::{Role, Topics};
use super::write::Write;
use super::{Shared, client};
use crate::clock::UnixMs;
use crate::queue::QueueError;
use crate::queue::offsets::{Blocked, Noted, Offsets};
use crate::queue::told::Told;

/// How long a broker is asked a question on the consumer's thread.
const QUESTION: Duration = Duration::from_secs(2);

/// How often what is done is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(50);

/// The longest time between tries to commit: less than what a runner that leaves waits for its last one.
const COMMIT_AGAIN_MAX: Duration = Duration::from_secs(2);

/// How many writes, or settlements that somebody waits for, are worth a transaction at once.
const BATCH: usize = 1_000;

/// The consumer of a group.
pub(super) type GroupConsumer = BaseConsumer<client::With<Member>>;

/// What the library tells of the group.
pub(super) struct Member {
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

/// A membership.
pub(super) struct Group {
    /// One that no other membership has.
    pub(super) number: i64,
    pub(super) protocol: client::Protocol,
    consumer: Arc<GroupConsumer>,
    gone: mpsc::Receiver<()>,
    pub(super) partitions: BTreeMap<i64, Partition>,
    /// What of it is being given up.
    pub(super) leaving: Option<Leaving>,
    /// The broker is not asked before where partitions were left.
    pub(super) ask_at: Instant,
    pub(super) batch: Batch,
    committer: SyncSender<Commit>,
    /// A commit is under way.
    committing: bool,
    committed_at: Instant,
    /// How many commits failed in a row.
    commits_failed: u32,
}

/// Partitions that are being given up.
pub(super) struct Leaving {
    pub(super) list: TopicPartitionList,
    pub(super) tenures: Vec<i64>,
    /// Deliveries of them that are not done.
    pub(super) held: Vec<i64>,
    pub(super) since: Instant,
}

/// What goes into the next transaction: deliveries with a write, and who is told of those without.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) writes: VecDeque<i64>,
    /// By the tenure of their partition.
    pub(super) told: Vec<(i64, Told)>,
    /// Those of the transaction that is under way.
    pub(super) telling: Vec<(i64, Told)>,
}

/// A partition that this runner holds.
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) role: Role,
    pub(super) reader: Reader,
    pub(super) offsets: Offsets,
    /// When the last record that was read of it is due, where it waits for that: of a tier, nothing behind it is due before.
    pub(super) next_due: Option<UnixMs>,
    /// What holds it up, the lowest offset first.
    pub(super) blocked: BTreeMap<i64, String>,
    /// Nothing more is taken from it.
    pub(super) leaving: bool,
    /// What is done does not fit beside the mark: it waits until more does.
    pub(super) overflows: bool,
    /// Something is done that is not committed.
    pub(super) dirty: bool,
    /// It was held when the thread stood still, and may be somebody else's since.
    pub(super) doubted: bool,
    /// Its newest mark is being committed.
    committing: bool,
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
        shared: &Shared,
        side: Side,
        protocol: client::Protocol,
        number: i64,
    ) -> Result<Group, QueueError> {
        let Shared { options, topics, context, inbox, .. } = shared;
        let (gone_tx, gone) = mpsc::sync_channel(0);
        let member = Member { changes: Mutex::default(), leaving: AtomicBool::new(false), _gone: gone_tx };
        let member = client::With { context: context.clone(), own: member };
        let (name, names) = (side.group(options), side.topics(topics));
        let refused = |e: &KafkaError| client::explain(e, "cannot join the consumer group", &name);
        let mut consumer: GroupConsumer = client::consumer(options, &name, names.len(), protocol)
            .create_with_context(member)
            .map_err(|e| refused(&e))?;
        let wake = Arc::clone(inbox);
        consumer.set_nonempty_callback(move || wake.wake());
        consumer.subscribe(&names).map_err(|e| refused(&e))?;
        let committer = commit::start(options, inbox)?;
        Ok(Group {
            number,
            protocol,
            consumer: Arc::new(consumer),
            gone,
            partitions: BTreeMap::new(),
            leaving: None,
            ask_at: Instant::now(),
            batch: Batch::default(),
            committer,
            committing: false,
            committed_at: Instant::now(),
            commits_failed: 0,
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
        let changes = self.consumer.context().own.changes();
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
                next_due: None,
                blocked: BTreeMap::new(),
                leaving: false,
                overflows: false,
                dirty: false,
                doubted: false,
                committing: false,
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
        self.consumer.context().own.changes().pop_front();
        Ok(())
    }

    /// Gives partitions up, for the library to tell the others.
    ///
    /// # Errors
    ///
    /// The library refuses: the membership cannot go on.
    pub(super) fn unassign(&mut self, list: &TopicPartitionList, tenures: &[i64]) -> KafkaResult<()> {
        for tenure in tenures {
            self.partitions.remove(tenure);
        }
        self.batch.keep(|tenure| self.partitions.contains_key(&tenure));
        self.consumer.context().own.changes().pop_front();
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

    /// Whether something can be committed now: one at a time, and now and then, or `at_once`. After one that failed it takes
    /// longer each time.
    pub(super) fn may_commit(&self, at_once: bool) -> bool {
        let wait = match self.commits_failed {
            0 if at_once => Duration::ZERO,
            failed => (COMMIT_EVERY * (1 << failed.min(8))).min(COMMIT_AGAIN_MAX),
        };
        !self.committing && self.committed_at.elapsed() >= wait
    }

    /// Has committed what is done and is not yet, with what was written of it.
    pub(super) fn commit(&mut self, writes: Vec<(i64, Arc<Write>)>) {
        let mut offsets = TopicPartitionList::new();
        for partition in self.partitions.values_mut() {
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
            partition.committing = true;
        }
        if offsets.count() == 0 {
            return;
        }
        self.committed_at = Instant::now();
        let commit = Commit { group: self.number, consumer: Arc::clone(&self.consumer), offsets, writes };
        self.committing = self.committer.send(commit).is_ok();
    }

    /// A commit has ended. What failed is committed with what comes next. Answers whether it says anything of what is doubted.
    pub(super) fn committed(&mut self, is_ok: bool) -> bool {
        self.committing = false;
        self.commits_failed = if is_ok { 0 } else { self.commits_failed + 1 };
        let mut says = false;
        for partition in self.partitions.values_mut().filter(|partition| partition.committing) {
            partition.committing = false;
            says |= partition.doubted;
            if !is_ok {
                partition.commit_again();
            }
        }
        says
    }

    /// Has all marks committed again, to hear whether they are still this runner's to commit. What is being committed now says
    /// nothing of that.
    pub(super) fn doubt(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.commit_again();
            (partition.doubted, partition.committing) = (true, false);
        }
    }

    /// Whether it is not known of something that is held whether it still is.
    pub(super) fn is_doubted(&self) -> bool {
        self.partitions.values().any(|partition| partition.doubted)
    }

    /// Whether there is a mark by which that can be found out.
    pub(super) fn can_be_verified(&self) -> bool {
        self.partitions.values().any(|partition| partition.doubted && partition.offsets.mark().is_some())
    }

    /// Whether all that is done of these partitions is committed.
    pub(super) fn is_committed(&self, tenures: &[i64]) -> bool {
        tenures.iter().all(|tenure| self.partitions.get(tenure).is_none_or(Partition::is_committed))
    }

    /// Leaves it, on a thread of its own. When the others know, nobody is left who could send by the answer.
    pub(super) fn leave(self) -> mpsc::Receiver<()> {
        let Group { consumer, gone, partitions, committer, .. } = self;
        consumer.context().own.leaving.store(true, Ordering::Release);
        drop((partitions, committer));
        // Whoever has the last hand on it waits until the library has left, which may take long.
        let leaver = std::thread::Builder::new().name("queue-leaver".to_owned()).spawn(move || {
            answer(&consumer);
            // Of one that a fatal error ended, the library says as an error that it cannot be closed.
            let ended = consumer.client().fatal_error().is_some();
            let _quiet = ended.then(|| tracing::subscriber::set_default(NoSubscriber::default()));
            drop(consumer);
        });
        if let Err(error) = leaver {
            tracing::warn!("cannot start the thread that leaves the consumer group: {error}");
        }
        gone
    }
}

/// Answers a change that is still to be answered: the library waits for it before it leaves.
fn answer(consumer: &GroupConsumer) {
    let unanswered = consumer.context().own.changes().pop_front();
    let answered = match (unanswered, consumer.rebalance_protocol()) {
        (None, _) => Ok(()),
        (Some(Change::Assign(list)), RebalanceProtocol::Cooperative) => consumer.incremental_assign(&list),
        (Some(Change::Revoke(list)), RebalanceProtocol::Cooperative) => consumer.incremental_unassign(&list),
        (Some(_), _) => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::debug!("cannot answer a change while leaving: {error}");
    }
}

// === impl Batch ===

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.told.is_empty() && self.telling.is_empty()
    }

    /// Nobody is told any more of partitions that are not held.
    fn keep(&mut self, held: impl Fn(i64) -> bool) {
        self.told.retain(|(tenure, _)| held(*tenure));
        self.telling.retain(|(tenure, _)| held(*tenure));
    }

    /// Whether it is worth a transaction at once. What waits for one holds up others: a runner receives so much, and no more
    /// before that is settled.
    pub(super) fn is_full(&self) -> bool {
        self.writes.len() >= BATCH || self.told.len() >= BATCH
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

    /// What is committed of it is in doubt.
    fn commit_again(&mut self) {
        self.dirty = true;
        self.committed = (None, String::new());
    }

    /// Whether all that is done of it is committed.
    pub(super) fn is_committed(&self) -> bool {
        !self.dirty && !self.committing
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

impl ConsumerContext for client::With<Member> {
    fn rebalance(&self, consumer: &GroupConsumer, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.own.leaving.load(Ordering::Acquire) {
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
        self.own.changes().push_back(change);
    }
}
