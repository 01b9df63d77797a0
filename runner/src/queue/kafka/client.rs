//! How we are a client of Kafka: our properties, under those that somebody set.

use rdkafka::ClientConfig;

use super::Options;

/// What all our clients have in common.
pub(crate) fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "sandhog")
        // Ten seconds, which is the default, is long after a broker is back.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true");
    for (name, value) in &options.client {
        config.set(name, value);
    }
    config
}

/// A consumer that reads what is there, without a group: it commits nothing.
pub(crate) fn reader(options: &Options) -> ClientConfig {
    let mut config = config(options);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    config
}

/// A producer whose records are there once and on all replicas that count, or not at all.
pub(crate) fn producer(options: &Options) -> ClientConfig {
    let mut config = config(options);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "1");
    config
}
