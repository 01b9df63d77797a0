//! The thread that commits: what fails is heard of, and nobody else waits for a broker.
//!
//! At least once, it commits offsets. With transactions, it commits in one piece what was written about jobs and the offsets
//! that follow: both are there, or neither.

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, TopicPartitionList};
use uuid::Uuid;

use super::group::GroupConsumer;
use super::inbox::Inbox;
use super::write::Write;
use super::{Guarantee, Options, client};
use crate::queue::QueueError;

/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(10);

/// How often a call is made again that the library says may be.
const CALLS_MAX: u32 = 6;

/// What is committed together.
pub(super) struct Commit {
    pub(super) consumer: Arc<GroupConsumer>,
    pub(super) offsets: TopicPartitionList,
    /// What is to be there with the offsets, by delivery. Empty, but with transactions.
    pub(super) writes: Vec<(i64, Arc<Write>)>,
}

/// How a commit ended.
#[derive(Debug)]
pub(super) struct Committed {
    /// The deliveries whose writes were in it.
    pub(super) writes: Vec<i64>,
    pub(super) result: Result<(), Refused>,
}

/// Why nothing of it is there.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: KafkaError,
    /// The writes that were refused, if it was they.
    pub(super) writes: Vec<(i64, KafkaError)>,
}

/// Commits with transactions.
struct Transactions {
    options: Options,
    context: client::Context,
    /// A new one for each runner: that a partition is somebody else's by now, the group says.
    id: String,
    producer: Option<ThreadedProducer<Answers>>,
}

/// What became of the records of a transaction.
struct Answers {
    context: client::Context,
    answered: Mutex<Vec<(i64, KafkaResult<()>)>>,
    one: Condvar,
}

/// Starts the thread. It ends when nobody can send any more.
///
/// # Errors
///
/// No thread is to be had.
pub(super) fn start(
    options: &Options,
    context: &client::Context,
    inbox: &Arc<Inbox>,
) -> Result<mpsc::SyncSender<Commit>, QueueError> {
    let (committer, commits) = mpsc::sync_channel::<Commit>(1);
    let inbox = Arc::clone(inbox);
    let mut transactions =
        (options.guarantee == Guarantee::ExactlyOnceInKafka).then(|| Transactions::new(options, context));
    let run = move || {
        while let Ok(commit) = commits.recv() {
            let result = match &mut transactions {
                None => commit.consumer.commit(&commit.offsets, CommitMode::Sync).map_err(Refused::from),
                Some(transactions) => transactions.commit(&commit),
            };
            if let Err(refused) = &result {
                tracing::debug!("cannot commit: {}", refused.error);
            }
            let writes = commit.writes.iter().map(|(delivery, _)| *delivery).collect();
            // The last hand on a consumer is not kept for longer than the commit takes.
            drop(commit);
            inbox.committed(Committed { writes, result });
        }
    };
    std::thread::Builder::new()
        .name("queue-committer".to_owned())
        .spawn(run)
        .map_err(|e| QueueError::lasting(format!("cannot start the thread that commits: {e}")))?;
    Ok(committer)
}

// === impl Transactions ===

impl Transactions {
    fn new(options: &Options, context: &client::Context) -> Transactions {
        let id = format!("{}.{}", options.group, Uuid::now_v7());
        Transactions { options: options.clone(), context: context.clone(), id, producer: None }
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), Refused> {
        let committed = self.try_commit(commit);
        if let Err(refused) = &committed
            && is_fatal(&refused.error)
        {
            // Fenced, or timed out: this producer can do nothing any more.
            self.producer = None;
            if self.is_there(commit) {
                return Ok(());
            }
        }
        committed
    }

    fn try_commit(&mut self, commit: &Commit) -> Result<(), Refused> {
        let producer = self.producer()?;
        producer.begin_transaction()?;
        let sent = send(producer, &commit.writes);
        let refused = sent.and_then(|()| {
            let member = commit.consumer.group_metadata();
            let member = member.ok_or(KafkaError::Global(RDKafkaErrorCode::UnknownMemberId))?;
            again(|| producer.send_offsets_to_transaction(&commit.offsets, &member, CALL))?;
            Ok(again(|| producer.commit_transaction(CALL))?)
        });
        let Err(refused) = refused else { return Ok(()) };
        if !is_fatal(&refused.error)
            && let Err(error) = again(|| producer.abort_transaction(CALL))
        {
            // What is left of it ends when the broker's patience does, or with the next producer.
            tracing::debug!("cannot abort a transaction: {error}");
            self.producer = None;
        }
        Err(refused)
    }

    fn producer(&mut self) -> Result<&ThreadedProducer<Answers>, Refused> {
        if self.producer.is_none() {
            let answers = Answers { context: self.context.clone(), answered: Mutex::default(), one: Condvar::new() };
            let mut config = client::transactional_producer(&self.options, &self.id);
            // One transaction follows the other: the broker is asked again at once whether the last has ended.
            config.set("retry.backoff.ms", "5").set("retry.backoff.max.ms", "20");
            // Records of a transaction that nobody ends hold up whoever reads for so long.
            config.set("transaction.timeout.ms", "15000");
            let producer: ThreadedProducer<Answers> = config.create_with_context(answers)?;
            again(|| producer.init_transactions(CALL))?;
            self.producer = Some(producer);
        }
        Ok(self.producer.as_ref().expect("it was just made"))
    }

    /// Whether a commit of which nobody knows the end took place.
    fn is_there(&self, commit: &Commit) -> bool {
        let Ok(found) = commit.consumer.committed_offsets(commit.offsets.clone(), CALL) else { return false };
        commit.offsets.elements().iter().all(|sent| {
            let found = found.find_partition(sent.topic(), sent.partition());
            found.is_some_and(|found| found.offset() == sent.offset() && found.metadata() == sent.metadata())
        })
    }
}

/// Sends records, and waits until all are answered: the library waits for that in steps of a tenth of a second.
fn send(producer: &ThreadedProducer<Answers>, writes: &[(i64, Arc<Write>)]) -> Result<(), Refused> {
    let answers = producer.context();
    answers.answered().clear();
    let mut refused: Vec<(i64, KafkaError)> = Vec::new();
    let mut sent = 0;
    for (delivery, write) in writes {
        match write.send(producer, Box::new(*delivery)) {
            Ok(()) => sent += 1,
            Err(error) => refused.push((*delivery, error)),
        }
    }
    let until = Instant::now() + CALL;
    let mut answered = answers.answered();
    while answered.len() < sent && Instant::now() < until {
        answered = answers.one.wait_timeout(answered, Duration::from_millis(100)).expect("nobody panics there").0;
    }
    if answered.len() < sent {
        return Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut).into());
    }
    refused.extend(answered.drain(..).filter_map(|(delivery, result)| Some((delivery, result.err()?))));
    match refused.first() {
        None => Ok(()),
        Some((_, error)) => Err(Refused { error: error.clone(), writes: refused }),
    }
}

/// Makes a call again as long as the library says that it may be.
fn again(mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    for _ in 1..CALLS_MAX {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() => {}
            ended => return ended,
        }
    }
    call()
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_fatal())
        || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

// === impl Refused ===

impl From<KafkaError> for Refused {
    fn from(error: KafkaError) -> Refused {
        Refused { error, writes: Vec::new() }
    }
}

// === impl Answers ===

impl Answers {
    fn answered(&self) -> std::sync::MutexGuard<'_, Vec<(i64, KafkaResult<()>)>> {
        self.answered.lock().expect("nobody panics while holding the answers")
    }
}

impl ClientContext for Answers {
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

impl ProducerContext<NoCustomPartitioner> for Answers {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<i64>) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.answered().push((*delivery, result));
        self.one.notify_one();
    }
}
