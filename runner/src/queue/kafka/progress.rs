//! How far a group is, as its offsets tell it. For whoever measures; runners do not ask.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::bare::BareTopic;
use super::client;

/// How long the broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A look at the offsets of a group that others commit.
pub(crate) struct Progress {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

// === impl Progress ===

impl Progress {
    /// Looks at a group's offsets in a topic whose partitions begin at 0.
    pub(crate) fn open(topic: &BareTopic, group: &str) -> Result<Progress, KafkaError> {
        // What a transaction commits next is not waited for.
        let mut config = client::group_reader(&topic.options(group), group);
        let consumer = config.set("isolation.level", "read_uncommitted").create()?;
        Ok(Progress { consumer, list: topic.list() })
    }

    /// How many offsets are committed.
    pub(crate) fn committed(&self) -> Result<u64, KafkaError> {
        let found = client::committed(&self.consumer, &self.list, ANSWER_WITHIN)?;
        let mark = |offset| if let Offset::Offset(mark) = offset { mark.unsigned_abs() } else { 0 };
        Ok(found.elements().iter().map(|element| mark(element.offset())).sum())
    }
}
