//! A topic of jobs, and those beside it, as anybody sees them who has a client library: written, read, made and deleted.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::record::{Place, Producer, Received, Record};
use crate::support::{TestRunner, patience};

/// What stands behind a job topic's name, for the topics of delays.
pub(crate) const TIERS: [&str; 6] = [".retry.1s", ".retry.10s", ".retry.1m", ".retry.10m", ".retry.1h", ".retry.12h"];

/// A topic of jobs, with a consumer group.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) group: String,
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) metadata: String,
}

// === impl Topic ===

impl Topic {
    pub(super) fn named(address: String, name: String) -> Topic {
        let group = format!("{name}-group");
        Topic { address, name, group }
    }

    /// What `--queue` takes.
    pub(crate) fn url(&self) -> String {
        format!("kafka://{}/{}", self.address, self.name)
    }

    /// A runner on this topic, in a folder of its own, not started. `config` is more of its `sandhog.toml`.
    pub(crate) fn runner(&self, config: &str) -> TestRunner {
        TestRunner::new().config(&self.config(config))
    }

    /// The lines of `sandhog.toml` that name the topic, and more of them.
    pub(crate) fn config(&self, config: &str) -> String {
        format!("queue.url = '{}'\nqueue.kafka.consumer_group = '{}'\n{config}\n", self.url(), self.group)
    }

    /// Has the broker take members of the groups for dead when it hears nothing of them for six seconds: by itself it waits
    /// for 45, which a busy machine does not exceed. With the newer protocol; with the other one members say it themselves.
    pub(crate) fn noticing_deaths(self) -> Topic {
        for group in [self.group.clone(), format!("{}.delays", self.group)] {
            let alter = AlterConfig::new(ResourceSpecifier::Group(&group)).set("consumer.session.timeout.ms", "6000");
            wait(self.admin().alter_configs([&alter], &options())).unwrap().remove(0).unwrap();
        }
        self
    }

    // --- writing ---

    /// Writes records, and answers where they stand: each of them acknowledged, or the test fails.
    pub(crate) fn send<R: Into<Record>>(&self, records: impl IntoIterator<Item = R>) -> Vec<Place> {
        let producer = self.producer(&[]);
        let records: Vec<Record> = records.into_iter().map(Into::into).collect();
        let sent = records.len();
        let mut places = producer.send_all(records);
        assert_eq!(places.len(), sent, "each record is acknowledged");
        places.sort_unstable_by_key(|(number, _)| *number);
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// A producer for this topic, with properties over ours.
    pub(crate) fn producer(&self, properties: &[(&str, &str)]) -> Producer {
        let mut config = self.client();
        config.set("linger.ms", "5").set("enable.idempotence", "true").set("message.timeout.ms", "120000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        Producer::new(&config, &self.name)
    }

    // --- reading ---

    /// All records of the topic `NAME SUFFIX` (`""`: the jobs; `.dead`) that stand there now, each partition in its order.
    pub(crate) fn read(&self, suffix: &str) -> Vec<Received> {
        self.read_from(suffix, &BTreeMap::new(), "read_committed")
    }

    /// The same, with what stands in transactions that were not committed.
    pub(crate) fn read_uncommitted(&self, suffix: &str) -> Vec<Received> {
        self.read_from(suffix, &BTreeMap::new(), "read_uncommitted")
    }

    /// Whether a transaction has written into `NAME SUFFIX` and is not ended.
    pub(crate) fn is_being_written(&self, suffix: &str) -> bool {
        let topic = format!("{}{suffix}", self.name);
        let all = |isolation: &str| {
            let consumer: BaseConsumer = self.client().set("isolation.level", isolation).create().unwrap();
            let end = |partition| bounds(&consumer, &topic, partition).1;
            (0..self.partitions(suffix)).map(end).collect::<Vec<i64>>()
        };
        all("read_committed") != all("read_uncommitted")
    }

    /// The last record of each key that still has a value: what a compacted topic means.
    pub(crate) fn live(&self, suffix: &str) -> Vec<Received> {
        let mut live = BTreeMap::new();
        for record in self.read(suffix) {
            live.insert(record.key.clone(), record);
        }
        live.into_values().filter(|record| record.value.is_some()).collect()
    }

    /// The dead letters.
    pub(crate) fn dead(&self) -> Vec<Received> {
        self.live(".dead")
    }

    /// How many records `NAME SUFFIX` has, if nobody writes it in transactions and nothing was deleted.
    pub(crate) fn length(&self, suffix: &str) -> usize {
        let topic = format!("{}{suffix}", self.name);
        let consumer: BaseConsumer = self.client().create().unwrap();
        let of = |partition| {
            let (low, high) = bounds(&consumer, &topic, partition);
            usize::try_from(high - low).expect("it has an end")
        };
        (0..self.partitions(suffix)).map(of).sum()
    }

    /// What the group that consumes `NAME SUFFIX` has committed for each of its partitions, where it has.
    pub(crate) fn committed(&self, suffix: &str) -> BTreeMap<i32, Committed> {
        let group = if TIERS.contains(&suffix) { format!("{}.delays", self.group) } else { self.group.clone() };
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut asked = TopicPartitionList::new();
        let topic = format!("{}{suffix}", self.name);
        asked.add_partition_range(&topic, 0, self.partitions(suffix) - 1);
        // A new broker has nobody yet who knows.
        let found = crate::eventually!(consumer.committed_offsets(asked.clone(), patience()).ok());
        let elements = found.elements();
        let committed = elements.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some((element.partition(), Committed { offset, metadata: element.metadata().to_owned() }))
            }
            _ => None,
        });
        committed.collect()
    }

    /// How many records are not committed, in the topic of jobs and in those of delays. What is done above the mark
    /// counts as well.
    pub(crate) fn left(&self) -> usize {
        let left = |suffix: &&str| {
            let committed = self.committed(suffix).into_iter().map(|(partition, it)| (partition, it.offset));
            self.read_from(suffix, &committed.collect(), "read_committed").len()
        };
        let all = || [""].iter().chain(&TIERS).map(left).sum::<usize>();
        assert!(self.partitions("") > 0, "what is not there is not done");
        let found = all();
        if found > 0 {
            return found;
        }
        // What stands behind a transaction that is not ended, since its runner died, is not read yet.
        let hidden = [""].iter().chain(&TIERS).chain(&[".dead"]).filter(|suffix| self.is_being_written(suffix)).count();
        if hidden > 0 { hidden } else { all() }
    }

    fn read_from(&self, suffix: &str, from: &BTreeMap<i32, i64>, isolation: &str) -> Vec<Received> {
        let topic = format!("{}{suffix}", self.name);
        let mut config = self.client();
        config.set("group.id", "nobody").set("enable.auto.commit", "false").set("isolation.level", isolation);
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = config.create().unwrap();
        let (mut list, mut ends) = (TopicPartitionList::new(), 0);
        for partition in 0..self.partitions(suffix) {
            let (low, high) = bounds(&consumer, &topic, partition);
            let begin = from.get(&partition).copied().unwrap_or(low).max(low);
            if begin < high {
                list.add_partition_offset(&topic, partition, Offset::Offset(begin)).unwrap();
                ends += 1;
            }
        }
        if ends > 0 {
            consumer.assign(&list).unwrap();
        }
        let mut received = Vec::new();
        while ends > 0 {
            match consumer.poll(patience()).expect("a partition has an end") {
                Ok(message) => received.push(Received::of(&message)),
                Err(KafkaError::PartitionEOF(_)) => ends -= 1,
                Err(error) => panic!("cannot read `{topic}`: {error}"),
            }
        }
        received.sort_by_key(|record| record.place);
        received
    }

    // --- topics ---

    /// How many partitions `NAME SUFFIX` has; 0 if it is not there.
    pub(crate) fn partitions(&self, suffix: &str) -> i32 {
        let topic = format!("{}{suffix}", self.name);
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&topic), patience()).unwrap();
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        found.map_or(0, |found| i32::try_from(found.partitions().len()).expect("it is small"))
    }

    /// Makes the topic `NAME SUFFIX`.
    pub(crate) fn create(&self, suffix: &str, partitions: i32, config: &[(&str, &str)]) {
        let topic = format!("{}{suffix}", self.name);
        let mut new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(-1));
        for (key, value) in config {
            new = new.set(key, value);
        }
        let admin = self.admin();
        wait(admin.create_topics([&new], &options())).unwrap().remove(0).unwrap();
        crate::eventually!(self.partitions(suffix) == partitions);
    }

    /// Deletes the topic `NAME SUFFIX`, and waits until it is gone.
    pub(crate) fn delete(&self, suffix: &str) {
        let topic = format!("{}{suffix}", self.name);
        let admin = self.admin();
        wait(admin.delete_topics(&[&topic], &options())).unwrap().remove(0).unwrap();
        crate::eventually!(self.partitions(suffix) == 0);
    }

    /// Gives the topic `NAME SUFFIX` more partitions.
    pub(crate) fn grow(&self, suffix: &str, partitions: usize) {
        let topic = format!("{}{suffix}", self.name);
        let admin = self.admin();
        let more = NewPartitions::new(&topic, partitions);
        wait(admin.create_partitions([&more], &options())).unwrap().remove(0).unwrap();
    }

    /// Sets the configuration of the topic `NAME SUFFIX`; what is not named gets its default.
    pub(crate) fn configure(&self, suffix: &str, config: &[(&str, &str)]) {
        let topic = format!("{}{suffix}", self.name);
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&topic));
        for (key, value) in config {
            alter = alter.set(key, value);
        }
        let admin = self.admin();
        wait(admin.alter_configs([&alter], &options())).unwrap().remove(0).unwrap();
    }

    /// The configuration of the topic `NAME SUFFIX`.
    pub(crate) fn configuration(&self, suffix: &str) -> BTreeMap<String, String> {
        let topic = format!("{}{suffix}", self.name);
        let admin = self.admin();
        let asked = [ResourceSpecifier::Topic(&topic)];
        let found = wait(admin.describe_configs(&asked, &options())).unwrap().remove(0).unwrap();
        found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("reconnect.backoff.max.ms", "500");
        config
    }
}

/// Where a partition begins and ends. A broker that has just come back may have to find out itself.
fn bounds(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    crate::eventually!(consumer.fetch_watermarks(topic, partition, patience()).ok())
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

/// Waits for it on a thread of its own, since a test may be in a runtime already.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(future)
        });
        waiting.join().expect("nothing panics there")
    })
}
