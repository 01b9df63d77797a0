//! How we are a client of Kafka: our properties, under those that somebody set, and what all our clients share.

use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::Options;

mod context;
mod explain;
pub(crate) mod properties;
mod token;

pub(crate) use context::{Context, With};
pub(crate) use explain::{explain, is_refusal, is_unsupported, reason, refused};
pub(crate) use token::give as give_token;

/// How the members of a consumer group agree on who has which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// KIP-848: the broker says, and a change disturbs nobody whom it does not concern.
    Consumer,
    /// One of the members says, and all stop to hear it.
    Classic,
}

/// A consumer of so many topics in a group.
pub(crate) fn consumer(options: &Options, group: &str, topics: usize, protocol: Protocol) -> ClientConfig {
    let mut config = ours();
    config
        // A record is fetched as it comes: a fetch that waits is answered by it.
        .set("fetch.wait.max.ms", "50")
        // For each partition, since their queues are split: so much memory for a partition at most, and one fetch more.
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "1024")
        // How soon more is fetched when there is room again: by default a second, in which all of it was worked long ago.
        .set("fetch.queue.backoff.ms", "10");
    if protocol == Protocol::Consumer {
        // The broker's default moves as few partitions as it can, and counts those of all topics together: one runner would
        // have all of one topic and none of the others, which may be where all jobs are.
        if topics > 1 {
            config.set("group.remote.assignor", "range");
        }
    } else {
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("heartbeat.interval.ms", "1000")
            .set("session.timeout.ms", "10000");
    }
    set_theirs(&mut config, options);
    config
        .set("group.id", group)
        .set("group.protocol", if protocol == Protocol::Consumer { "consumer" } else { "classic" })
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        // The library's own commits leave out a mark that did not move, whatever is noted beside it.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false");
    config
}

/// A consumer that reads what is there, without a group: it commits nothing.
pub(crate) fn reader(options: &Options) -> ClientConfig {
    let mut config = ours();
    config
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "8192");
    set_theirs(&mut config, options);
    // With the id of a member that never dies, a reader would push the runner of that id out of the group.
    config.remove("group.instance.id");
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    config
}

/// The same with a group's name, for what asks for its committed offsets. It must never subscribe.
pub(crate) fn group_reader(options: &Options, group: &str) -> ClientConfig {
    let mut config = reader(options);
    for name in properties::CLASSIC_ONLY.into_iter().chain(["group.remote.assignor"]) {
        config.remove(name);
    }
    config.set("group.id", group);
    config
}

/// A producer whose records are there once and on all replicas that count, or not at all.
pub(crate) fn producer(options: &Options) -> ClientConfig {
    let mut config = ours();
    // Waiting longer makes larger batches, and settling later.
    config.set("linger.ms", "1");
    // A topic's limit is on what is sent to it at a time: most topics take more than this.
    config.set("batch.size", "262144");
    let buffered_kib = (options.in_flight_bytes.saturating_mul(2)).max(4 * options.body_bytes_max as u64) >> 10;
    config.set("queue.buffering.max.kbytes", buffered_kib.clamp(64 << 10, i32::MAX as u64).to_string());
    set_theirs(&mut config, options);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // What is too large is for the broker to say, which knows the topic.
        .set("message.max.bytes", "1000000000");
    config
}

/// A producer of transactions. A newer one with the same id ends this one's.
pub(crate) fn transactional_producer(options: &Options, id: &str) -> ClientConfig {
    let mut config = producer(options);
    config.set("transactional.id", id);
    config
}

/// What creates topics and asks for their configuration.
pub(crate) fn admin(options: &Options) -> ClientConfig {
    let mut config = ours();
    set_theirs(&mut config, options);
    config
}

/// What all our clients have in common, where nobody says otherwise.
fn ours() -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "sandhog")
        // Ten seconds, which is the default, is long after a broker is back.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true");
    let verbose = tracing::enabled!(target: context::LOG_TARGET, tracing::Level::DEBUG);
    config.set_log_level(if verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
    config
}

fn set_theirs(config: &mut ClientConfig, options: &Options) {
    for (name, value) in options.client.iter() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &options.brokers);
}

/// What a group has committed of these partitions. While the group moves to another broker, or its broker has just come up, it is
/// asked again, for so long.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    within: Duration,
) -> Result<TopicPartitionList, KafkaError> {
    let until = Instant::now() + within;
    loop {
        match consumer.committed_offsets(list.clone(), until.saturating_duration_since(Instant::now())) {
            Err(error) if is_moving(&error) && Instant::now() + LOOK < until => std::thread::park_timeout(LOOK),
            answer => return answer,
        }
    }
}

/// How long it is waited for a group that moves.
const LOOK: Duration = Duration::from_millis(50);

fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    let code = error.rdkafka_error_code();
    matches!(code, Some(CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator))
}
