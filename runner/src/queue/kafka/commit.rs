//! The thread that commits: what fails is heard of, and nobody else waits for a broker.
//!
//! At least once, it commits offsets. With transactions, it commits in one piece what was written about jobs and the offsets
//! that follow: both are there, or neither.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use uuid::Uuid;

use super::group::GroupConsumer;
use super::inbox::Inbox;
use super::transaction::{Transactions, Undone};
use super::write::Write;
use super::{Guarantee, Options, client};
use crate::queue::QueueError;

/// How long others may have to wait for records and offsets of a runner that died in the middle of a transaction.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long it may take to find out how a transaction ended: until the broker has ended it, and some more.
const FIND_OUT: Duration = Duration::from_secs(20);

/// A commit that took longer is worth a line.
const LONG: Duration = Duration::from_millis(500);

/// What is committed together.
pub(super) struct Commit {
    /// The number of the membership.
    pub(super) group: i64,
    pub(super) consumer: Arc<GroupConsumer>,
    pub(super) offsets: TopicPartitionList,
    /// What is to be there with the offsets, by delivery. Empty, but with transactions.
    pub(super) writes: Vec<(i64, Arc<Write>)>,
}

/// How a commit ended.
#[derive(Debug)]
pub(super) struct Committed {
    /// The number of the membership.
    pub(super) group: i64,
    /// The deliveries whose writes were in it.
    pub(super) writes: Vec<i64>,
    pub(super) result: Result<(), Refused>,
}

/// Why nothing of it is there.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: KafkaError,
    /// The delivery whose write was refused, if it was one.
    pub(super) delivery: Option<i64>,
}

/// Commits with transactions.
struct Transactional {
    options: Options,
    /// A new one for each membership: that a partition is somebody else's by now, the group says.
    id: String,
    transactions: Option<Transactions>,
}

/// Starts the thread. It ends when nobody can send any more.
///
/// # Errors
///
/// No thread is to be had.
pub(super) fn start(options: &Options, inbox: &Arc<Inbox>) -> Result<mpsc::SyncSender<Commit>, QueueError> {
    let (committer, commits) = mpsc::sync_channel::<Commit>(1);
    let inbox = Arc::clone(inbox);
    let mut transactional =
        (options.guarantee == Guarantee::ExactlyOnceInKafka).then(|| Transactional::new(options.clone()));
    let group = options.group.clone();
    // Somebody has to do something, and was told.
    let mut said = false;
    let run = move || {
        while let Ok(commit) = commits.recv() {
            let began = Instant::now();
            let result = match &mut transactional {
                None => commit.consumer.commit(&commit.offsets, CommitMode::Sync).map_err(Refused::from),
                Some(transactional) => transactional.commit(&commit),
            };
            let took = began.elapsed();
            match &result {
                Err(refused) => {
                    tracing::debug!("cannot commit, after {took:.1?}: {}", refused.error);
                    said |= refused.delivery.is_none() && !said && say(&refused.error, &group);
                }
                Ok(()) => {
                    said = false;
                    if took >= LONG {
                        tracing::debug!("a commit took {took:.1?}");
                    }
                }
            }
            let group = commit.group;
            let mut writes: Vec<i64> = commit.writes.iter().map(|(delivery, _)| *delivery).collect();
            writes.dedup();
            // The last hand on a consumer is not kept for longer than the commit takes.
            drop(commit);
            inbox.committed(Committed { group, writes, result });
        }
    };
    std::thread::Builder::new()
        .name("queue-committer".to_owned())
        .spawn(run)
        .map_err(|e| QueueError::lasting(format!("cannot start the thread that commits: {e}")))?;
    Ok(committer)
}

/// Says what is wrong, if it does not pass by itself. Answers whether it did.
fn say(error: &KafkaError, group: &str) -> bool {
    let explained = client::explain(error, "cannot commit for the consumer group", group);
    if explained.transient {
        return false;
    }
    let hint = explained.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    tracing::warn!("{}{hint}: what is done is not committed, and would run again after a stop", explained.message);
    true
}

// === impl Transactional ===

impl Transactional {
    fn new(options: Options) -> Transactional {
        let id = format!("{}.{}", options.group, Uuid::now_v7());
        Transactional { options, id, transactions: None }
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), Refused> {
        let writes: Vec<&Write> = commit.writes.iter().map(|(_, write)| &**write).collect();
        let error = match self.try_commit(commit, &writes) {
            Ok(()) => return Ok(()),
            Err(Undone::Refused(at, error)) => {
                let delivery = commit.writes.get(at).map(|(delivery, _)| *delivery);
                return Err(Refused { error, delivery });
            }
            Err(Undone::Fenced) => KafkaError::Global(RDKafkaErrorCode::Fenced),
            Err(Undone::Failed(error)) => error,
        };
        // The broker ended it, or nobody knows: this producer makes no more of them.
        self.transactions = None;
        if is_there(commit) { Ok(()) } else { Err(error.into()) }
    }

    fn try_commit(&mut self, commit: &Commit, writes: &[&Write]) -> Result<(), Undone> {
        let transactions = match &mut self.transactions {
            Some(transactions) => transactions,
            none => none.insert(Transactions::open(&self.options, &self.id, TRANSACTION_TIMEOUT)?),
        };
        let member = commit.consumer.group_metadata();
        let member = member.ok_or(Undone::Failed(KafkaError::Global(RDKafkaErrorCode::UnknownMemberId)))?;
        transactions.commit_with(writes, Some((&commit.offsets, &member)))
    }
}

/// Whether a commit of which nobody knows the end took place.
fn is_there(commit: &Commit) -> bool {
    let Ok(found) = commit.consumer.committed_offsets(commit.offsets.clone(), FIND_OUT) else { return false };
    commit.offsets.elements().iter().all(|sent| {
        let found = found.find_partition(sent.topic(), sent.partition());
        found.is_some_and(|found| found.offset() == sent.offset() && found.metadata() == sent.metadata())
    })
}

// === impl Refused ===

impl From<KafkaError> for Refused {
    fn from(error: KafkaError) -> Refused {
        Refused { error, delivery: None }
    }
}
