//! Reading topics from here to there, without being a runner: what lies in them now, each record once.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::Options;
use super::client::{self, Context, explain};
use super::foreign::survive;
use super::groups::Side;
use crate::queue::QueueError;
use crate::queue::offsets::Noted;

/// How long the brokers may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long nothing may come of a topic that has more.
const STALL: Duration = Duration::from_secs(15);

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A consumer that looks. It names one of the runners' groups, to read its offsets, and does not join it.
pub(crate) struct Scan {
    consumer: BaseConsumer<Context>,
    group: String,
    brokers: String,
}

/// A partition, and what of it is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The first offset that is to be read: the group's mark, or where the partition begins.
    pub from: i64,
    /// One behind the last record that is to be read.
    pub to: i64,
    /// What the group noted beside its mark.
    pub noted: Noted,
}

/// How far a reading came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// So many records were read.
    pub records: u64,
    /// So many offsets were not, since there were too many.
    pub unread: u64,
}

/// What a reader does with a record, and whether it goes on.
pub(crate) type Visit<'a> = dyn FnMut(&BorrowedMessage<'_>) -> ControlFlow<()> + 'a;

// === impl Scan ===

impl Scan {
    /// Makes the consumer. It connects when it is asked something.
    pub(super) fn open(options: &Options, side: Side) -> Result<Scan, QueueError> {
        let group = side.group(options);
        let mut config = client::group_reader(options, &group);
        config
            // The end of a partition is told by a fetch that waits so long for more.
            .set("fetch.wait.max.ms", "10")
            // How soon more is fetched when there is room again.
            .set("fetch.queue.backoff.ms", "2");
        let consumer = config.create_with_context(Context::quiet(options)).map_err(|e| client::refused(&e))?;
        Ok(Scan { consumer, group, brokers: options.brokers.clone() })
    }

    /// The partitions of those topics that are there, each from its beginning to its end.
    pub(crate) fn whole(&self, topics: &[String]) -> Result<Vec<Part>, QueueError> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in self.partitions(topic)? {
                list.add_partition(topic, partition);
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let (first, last) = (self.edges(&list, Offset::Beginning)?, self.edges(&list, Offset::End)?);
        let part = |((topic, partition), from): (&(String, i32), &i64)| {
            let to = last.get(&(topic.clone(), *partition)).copied()?;
            Some(Part { topic: topic.clone(), partition: *partition, from: *from, to, noted: Noted::default() })
        };
        let mut parts: Vec<Part> = first.iter().filter_map(part).collect();
        parts.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(parts)
    }

    /// Passes over what the group has settled of these parts: each begins where the group stands, with what it noted.
    pub(crate) fn pass_over_settled(&self, parts: &mut [Part]) -> Result<(), QueueError> {
        let mut list = TopicPartitionList::with_capacity(parts.len());
        for part in parts.iter() {
            list.add_partition(&part.topic, part.partition);
        }
        let failed = |e| self.explain(&e, "ask for the offsets of consumer group", &self.group);
        let committed = client::committed(&self.consumer, &list, ANSWER_WITHIN).map_err(failed)?;
        for part in parts {
            let Some(element) = committed.find_partition(&part.topic, part.partition) else { continue };
            element.error().map_err(failed)?;
            // None is committed, or the log was cut behind it: it begins where the partition does.
            let Offset::Offset(mark) = element.offset() else { continue };
            part.noted = Noted::read(mark, metadata(&element));
            part.from = part.from.max(mark);
        }
        Ok(())
    }

    /// Reads `parts`, which are one topic's, and at most about `limit` records. Where it takes no record for long although
    /// there are more, that is an error.
    pub(crate) fn read(&self, parts: &[Part], limit: u64, visit: &mut Visit<'_>) -> Result<Extent, QueueError> {
        let mut left: HashMap<i32, &Part> = HashMap::new();
        let mut next: HashMap<i32, i64> = HashMap::new();
        let mut list = TopicPartitionList::new();
        for part in parts.iter().filter(|part| part.from < part.to) {
            left.insert(part.partition, part);
            next.insert(part.partition, part.from);
            let offset = Offset::Offset(part.from);
            list.add_partition_offset(&part.topic, part.partition, offset).map_err(|e| self.cannot_read(parts, &e))?;
        }
        self.consumer.assign(&list).map_err(|e| self.cannot_read(parts, &e))?;
        let mut extent = Extent::default();
        let mut heard = Instant::now();
        while !left.is_empty() && extent.records < limit {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    // What has come behind the end since is not waited for, and passed over.
                    let Some(part) = left.get(&message.partition()) else { continue };
                    let end = part.to;
                    if message.offset() < end {
                        extent.records += 1;
                        next.insert(message.partition(), message.offset() + 1);
                        if visit(&message).is_break() {
                            break;
                        }
                    }
                    if message.offset() + 1 >= end {
                        left.remove(&message.partition());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    left.remove(&partition);
                }
                Some(Err(e)) => {
                    // A broker that is away may come back; one that does not is a stall.
                    let explained = self.cannot_read(parts, &e);
                    if !explained.transient {
                        return Err(explained);
                    }
                }
                None => {}
            }
            if heard.elapsed() > STALL {
                return Err(
                    self.cannot_read(parts, &KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
                );
            }
        }
        let unread = left.values().map(|part| part.to - next.get(&part.partition).copied().unwrap_or(part.from));
        extent.unread = unread.map(|offsets| u64::try_from(offsets).unwrap_or(0)).sum();
        self.consumer.unassign().map_err(|e| self.cannot_read(parts, &e))?;
        Ok(extent)
    }

    /// The same of a compacted topic: only the newest record of each key, and none whose key was deleted.
    pub(crate) fn read_live(&self, parts: &[Part], limit: u64, visit: &mut Visit<'_>) -> Result<Extent, QueueError> {
        let mut newest: HashMap<Box<[u8]>, (i32, i64)> = HashMap::new();
        let extent = self.read(parts, limit, &mut |message| {
            // A record without a key is none of ours, and a compacted topic takes none.
            let Some(key) = message.key() else { return ControlFlow::Continue(()) };
            if message.payload().is_some() {
                newest.insert(key.into(), (message.partition(), message.offset()));
            } else {
                newest.remove(key);
            }
            ControlFlow::Continue(())
        })?;
        let live: HashSet<(i32, i64)> = newest.into_values().collect();
        let mut found: Vec<Part> = parts.to_vec();
        for part in &mut found {
            let offsets =
                || live.iter().filter(|(partition, _)| *partition == part.partition).map(|(_, offset)| *offset);
            (part.from, part.to) =
                (offsets().min().unwrap_or(part.to), offsets().max().map_or(part.to, |last| last + 1));
        }
        self.read(&found, u64::MAX, &mut |message| {
            if live.contains(&(message.partition(), message.offset())) {
                visit(message)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(extent)
    }

    /// Whether there is such a topic.
    pub(crate) fn is_there(&self, topic: &str) -> Result<bool, QueueError> {
        Ok(!self.partitions(topic)?.is_empty())
    }

    /// Where `topic` has partitions; nowhere, if there is no such topic.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>, QueueError> {
        let failed = |e: KafkaError| self.explain(&e, "find topic", topic);
        let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(failed)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Vec::new()) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(Vec::new()),
            Some(code) => Err(failed(KafkaError::MetadataFetch(code))),
        }
    }

    /// Where partitions begin or end: one question to each broker.
    fn edges(&self, list: &TopicPartitionList, edge: Offset) -> Result<HashMap<(String, i32), i64>, QueueError> {
        let failed = |e| {
            let first = list.elements().first().map(|element| element.topic().to_owned());
            self.explain(&e, "ask for the ends of topic", &first.unwrap_or_default())
        };
        let mut asked = list.clone();
        asked.set_all_offsets(edge).map_err(failed)?;
        let answered = self.consumer.offsets_for_times(asked, ANSWER_WITHIN).map_err(failed)?;
        let mut edges = HashMap::new();
        for element in answered.elements() {
            element.error().map_err(failed)?;
            if let Offset::Offset(offset) = element.offset() {
                edges.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(edges)
    }

    /// How many members the group has; none where that cannot be told.
    pub(crate) fn members(&self) -> Result<Option<u32>, QueueError> {
        let group = self.group.as_str();
        let failed = |e| self.explain(&e, "ask who is in consumer group", group);
        let list = self.consumer.fetch_group_list(Some(group), ANSWER_WITHIN).map_err(failed)?;
        // A group of the newer protocol (KIP-848) cannot be asked for in this way: it looks like one that is not there.
        let known = list.groups().iter().find(|found| found.name() == group && found.state() != "Dead");
        Ok(known.map(|found| u32::try_from(found.members().len()).unwrap_or(u32::MAX)))
    }

    fn cannot_read(&self, parts: &[Part], error: &KafkaError) -> QueueError {
        self.explain(error, "read topic", parts.first().map(|part| part.topic.as_str()).unwrap_or_default())
    }

    /// An error for people. Where no broker answers, a connection that failed says more.
    fn explain(&self, error: &KafkaError, what: &str, name: &str) -> QueueError {
        let explained = explain(error, what, name);
        if !explained.transient {
            return explained;
        }
        // The context is told by polls.
        while self.consumer.poll(Duration::ZERO).is_some_and(|event| event.is_err()) {}
        match self.consumer.context().failure() {
            Some((code, why)) => QueueError {
                message: format!("cannot connect to Kafka at `{}`: {why}", self.brokers),
                ..explain(&KafkaError::Global(code), what, name)
            },
            None => explained,
        }
    }
}

/// What stands beside a committed offset. The library panics where that is no text, which is not ours.
fn metadata<'a>(element: &'a TopicPartitionListElem<'_>) -> &'a str {
    survive(|| element.metadata()).unwrap_or_default()
}
