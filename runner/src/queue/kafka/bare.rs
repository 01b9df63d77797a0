//! The least that a queue in Kafka can do, to measure the queue against: one consumer of all partitions, records handed to
//! workers as they come, offsets stored in order and committed by the library each 100 ms. No group to join, no windows, no
//! delays, no notes on what is done above the mark, no dead letters.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::groups::Side;
use super::{Names, Options, client, topics};
use crate::queue::QueueError;

/// Records that a worker takes at one time.
const PIECE: usize = 32;

/// So many pieces wait before no more is read, so that workers never wait for a record.
const PIECES_WAITING: usize = 128;

/// How long a poll waits when nothing is there.
const POLL: Duration = Duration::from_millis(10);

/// How long it may take until all records are on the broker.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// A topic of jobs with the topics beside it, which are deleted when this is dropped, with what was committed of them.
#[derive(Debug)]
pub(crate) struct BareTopic {
    options: Options,
    partitions: i32,
    groups: Vec<String>,
}

/// What runs jobs, on a thread of its own, by their bodies; an error is why a job did not complete.
pub(crate) type Worker = Box<dyn FnMut(&str) -> Result<(), String>>;

/// Why a drain failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    /// Kafka failed.
    #[error("the bare consumer failed: {0}")]
    Kafka(#[from] KafkaError),
    /// A job did.
    #[error("{0}")]
    Job(String),
}

/// What was read, in the order in which it was, and how far it is done.
#[derive(Default)]
struct Read {
    /// One behind the number of the newest piece.
    next: usize,
    /// The pieces that are not stored yet: whether each is done, and its records.
    pieces: VecDeque<(bool, Vec<(i32, i64)>)>,
}

// === impl BareTopic ===

impl BareTopic {
    /// Makes the topics. It blocks, for some seconds at most.
    ///
    /// # Errors
    ///
    /// That no broker answers, or does not allow it.
    pub(crate) fn new(brokers: &str, name: &str, partitions: u32) -> Result<BareTopic, QueueError> {
        let options = Options { partitions, ..Options::new(brokers, name, "") };
        let found = topics::ensure(&options)?;
        Ok(BareTopic { options, partitions: found.jobs[0].partitions, groups: Vec::new() })
    }

    /// Where the topic is, as users say it.
    pub(crate) fn url(&self) -> String {
        format!("kafka://{}/{}", self.options.brokers, self.name())
    }

    /// A group that has committed nothing yet.
    pub(crate) fn group(&mut self) -> String {
        let group = format!("{}-{}", self.name(), self.groups.len());
        self.groups.push(group.clone());
        group
    }

    /// How a group of this topic is opened.
    pub(super) fn options(&self, group: &str) -> Options {
        Options { group: group.to_owned(), ..self.options.clone() }
    }

    /// All partitions, at no offset.
    pub(super) fn list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(self.name(), 0, self.partitions - 1);
        list
    }

    /// The topic's name.
    pub(crate) fn name(&self) -> &str {
        &self.options.topics[0].name
    }

    /// Adds `jobs` jobs, one after the other to each partition, with the body that `body` gives for the number.
    pub(crate) fn fill<'b>(&self, jobs: u64, body: impl Fn(u64) -> &'b str) -> Result<(), DrainError> {
        let producer: ThreadedProducer<DefaultProducerContext> = client::producer(&self.options).create()?;
        for number in 0..jobs {
            let partition = i32::try_from(number % self.partitions.unsigned_abs() as u64).expect("it is a partition");
            let mut record = BaseRecord::<(), str>::to(self.name()).partition(partition).payload(body(number));
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                // The producer tells nobody that it has room.
                std::thread::park_timeout(Duration::from_millis(1));
                record = back;
            }
        }
        Ok(producer.flush(FLUSH_WITHIN)?)
    }

    /// Runs `jobs` jobs from the beginning on `workers` threads beside this one, until all are committed for the group.
    pub(crate) fn drain(
        &self,
        group: &str,
        jobs: u64,
        workers: u32,
        worker: &(dyn Fn() -> Worker + Sync),
    ) -> Result<(), DrainError> {
        let consumer: BaseConsumer = client::group_reader(&self.options(group), group)
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "100")
            .set("enable.partition.eof", "false")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.queue.backoff.ms", "2")
            .create()?;
        let mut list = self.list();
        list.set_all_offsets(Offset::Beginning)?;
        consumer.assign(&list)?;
        let (pieces, waiting) = sync_channel(PIECES_WAITING);
        let waiting = Mutex::new(waiting);
        std::thread::scope(|scope| {
            // Taken into the scope, so that the workers end however this does.
            let pieces = pieces;
            let (done_sender, done) = channel();
            for _ in 0..workers {
                start(scope, worker, &waiting, done_sender.clone());
            }
            drop(done_sender);
            let mut read = Read::default();
            let mut left = jobs;
            while left > 0 {
                let piece = poll(&consumer, PIECE.min(usize::try_from(left).unwrap_or(PIECE)))?;
                left -= piece.len() as u64;
                if !piece.is_empty() {
                    let numbered = (read.add(&piece), piece);
                    pieces.send(numbered).map_err(|_| DrainError::Job("the workers are gone".to_owned()))?;
                }
                for number in done.try_iter() {
                    read.done(number.map_err(DrainError::Job)?);
                }
                for (partition, offset) in read.take_done() {
                    consumer.store_offset(self.name(), partition, offset)?;
                }
            }
            drop(pieces);
            for number in done {
                read.done(number.map_err(DrainError::Job)?);
            }
            for (partition, offset) in read.take_done() {
                consumer.store_offset(self.name(), partition, offset)?;
            }
            match consumer.commit_consumer_state(CommitMode::Sync) {
                // The library was faster.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => Ok(()),
                committed => Ok(committed?),
            }
        })
    }

    fn delete(&self) -> Result<(), KafkaError> {
        let names = Names::new(self.name());
        let mut topics = vec![names.jobs.as_str(), &names.parked, &names.dead];
        topics.extend(names.tiers.iter().map(String::as_str));
        let both = |group: &String| Side::BOTH.map(|side| side.group(&self.options(group)));
        let groups: Vec<String> = self.groups.iter().flat_map(both).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let admin: AdminClient<DefaultClientContext> = client::admin(&self.options).create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs no drivers");
        runtime.block_on(async {
            // A group that committed nothing is not there.
            admin.delete_groups(&groups, &AdminOptions::new()).await.map(drop).or_else(|error| match error {
                KafkaError::AdminOp(RDKafkaErrorCode::InvalidArgument) if groups.is_empty() => Ok(()),
                error => Err(error),
            })?;
            admin.delete_topics(&topics, &AdminOptions::new()).await.map(drop)
        })
    }
}

impl Drop for BareTopic {
    fn drop(&mut self) {
        // A thread that runs other tasks must not wait for one of its own.
        let deleted = std::thread::scope(|scope| scope.spawn(|| self.delete()).join());
        if let Ok(Err(error)) = deleted {
            tracing::warn!(topic = self.name(), error = %error, "cannot delete the benchmark's topics");
        }
    }
}

// === impl Read ===

impl Read {
    /// Adds a piece, and answers its number.
    fn add(&mut self, piece: &[BorrowedMessage<'_>]) -> usize {
        let records = piece.iter().map(|record| (record.partition(), record.offset())).collect();
        self.pieces.push_back((false, records));
        self.next += 1;
        self.next - 1
    }

    fn done(&mut self, number: usize) {
        let first = self.next - self.pieces.len();
        self.pieces[number - first].0 = true;
    }

    /// The records before which all is done, the last of each partition once for each piece.
    fn take_done(&mut self) -> Vec<(i32, i64)> {
        let mut stored = std::collections::BTreeMap::new();
        while self.pieces.front().is_some_and(|(done, _)| *done) {
            stored.extend(self.pieces.pop_front().into_iter().flat_map(|(_, records)| records));
        }
        stored.into_iter().collect()
    }
}

/// Some records, as many as are there; none when nothing comes for a moment.
fn poll<'c>(consumer: &'c BaseConsumer, records: usize) -> Result<Vec<BorrowedMessage<'c>>, KafkaError> {
    let mut piece = Vec::with_capacity(records);
    piece.extend(consumer.poll(POLL).transpose()?);
    while !piece.is_empty()
        && piece.len() < records
        && let Some(record) = consumer.poll(Duration::ZERO)
    {
        piece.push(record?);
    }
    Ok(piece)
}

/// Starts a worker: it takes pieces and says which it ran, until there are no more.
fn start<'scope, 'c: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    worker: &'scope (dyn Fn() -> Worker + Sync),
    waiting: &'scope Mutex<Receiver<(usize, Vec<BorrowedMessage<'c>>)>>,
    done: Sender<Result<usize, String>>,
) {
    scope.spawn(move || {
        let mut work = worker();
        loop {
            let piece = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, piece)) = piece else { return };
            let ran = piece.iter().try_for_each(|record| {
                let body = std::str::from_utf8(record.payload().unwrap_or_default()).map_err(|e| e.to_string())?;
                work(body)
            });
            if done.send(ran.map(|()| number)).is_err() {
                return;
            }
        }
    });
}
