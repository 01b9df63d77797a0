//! Properties of librdkafka that people may set, and those that are ours.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::settings::nearest;

/// What is wrong with a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its name.
    pub name: String,
    /// Why it is refused, in a fragment that fits behind the name.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What only the classic group protocol has. Whoever sets one of these wants that.
pub(crate) const CLASSIC_ONLY: [&str; 3] =
    ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"];

/// Ours, and why.
const MANAGED: [(&str, &str); 25] = [
    ("acks", "a record that is not on all replicas can be lost"),
    ("auto.commit.enable", "a job is committed when it is settled"),
    ("auto.commit.interval.ms", "it bounds what a crash repeats"),
    ("auto.offset.reset", "a queue begins with its first job"),
    ("bootstrap.servers", "it is in `queue.url`"),
    ("delivery.report.only.error", "a job goes on when its record is written"),
    ("enable.auto.commit", "a job is committed when it is settled"),
    ("enable.auto.offset.store", "a job is committed when it is settled"),
    ("enable.gapless.guarantee", "a record that cannot be written must not end the others"),
    ("enable.idempotence", "without it a record may be written twice"),
    ("enable.partition.eof", "readers go by it"),
    ("group.id", "it is `queue.kafka.consumer_group`"),
    ("group.protocol", "it is `queue.kafka.group_protocol`"),
    ("group.protocol.type", "there is only one"),
    ("isolation.level", "what a transaction took back is no job"),
    ("message.max.bytes", "how large a record may be is the topic's `max.message.bytes`"),
    ("metadata.broker.list", "it is in `queue.url`"),
    ("offset.store.method", "offsets are kept by the broker"),
    ("offset.store.path", "offsets are kept by the broker"),
    ("offset.store.sync.interval.ms", "offsets are kept by the broker"),
    ("partitioner", "where a record goes is part of the format"),
    ("produce.offset.report", "a job goes on when its record is written"),
    ("request.required.acks", "a record that is not on all replicas can be lost"),
    ("transaction.timeout.ms", "it bounds how long others wait for a runner that died in a transaction"),
    ("transactional.id", "it follows from the consumer group's name"),
];

/// Of other Kafka clients, and what librdkafka has for them.
const FOREIGN: [(&str, &str); 5] = [
    ("sasl.jaas.config", "write `sasl.username` and `sasl.password`"),
    ("ssl.truststore.location", "write `ssl.ca.location`, a file of PEM"),
    ("ssl.truststore.password", "write `ssl.ca.location`, a file of PEM, which has none"),
    ("auto.include.jmx.reporter", "leave it out"),
    ("key.serializer", "leave it out"),
];

/// Those that are left.
const NAMES: [&str; 136] = [
    "allow.auto.create.topics",
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.metrics.push",
    "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "https.ca.location",
    "https.ca.pem",
    "internal.termination.signal",
    "linger.ms",
    "log.connection.close",
    "log.thread.name",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.copy.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "partition.assignment.strategy",
    "plugin.library.paths",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "queuing.strategy",
    "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "topic.blacklist",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// Looks at each property by itself, without a broker. `NAME.file` says the file that has the value.
pub(crate) fn check(properties: &BTreeMap<String, String>) -> Vec<Refusal> {
    properties.iter().filter_map(|(name, value)| refusal(name, value)).collect()
}

/// Whether the value must not be shown. Where it is, its name says so.
pub(crate) fn is_secret(name: &str) -> bool {
    let is_path = name.ends_with(".location") || name.ends_with(".file");
    !is_path && ["password", "passphrase", "secret", "key", "token", "jaas"].iter().any(|word| name.contains(word))
}

/// The property whose value is in a file, if that is what this name says.
pub(crate) fn of_file(name: &str) -> Option<&str> {
    name.strip_suffix(".file").filter(|_| !NAMES.contains(&name))
}

fn refusal(name: &str, value: &str) -> Option<Refusal> {
    let (property, value) = match of_file(name) {
        Some(property) => (property, None),
        None => (name, Some(value)),
    };
    let refuse = |message: String, hint: Option<String>| Some(Refusal { name: name.to_owned(), message, hint });
    if let Some((_, why)) = MANAGED.iter().find(|(managed, _)| *managed == property) {
        return refuse(format!("is the queue's own: {why}"), None);
    }
    if let Some((_, instead)) = FOREIGN.iter().find(|(foreign, _)| *foreign == property) {
        return refuse("is no property of librdkafka".to_owned(), Some((*instead).to_owned()));
    }
    if !NAMES.contains(&property) {
        let nearest = nearest(property, &NAMES).map(|nearest| format!("did you mean `{nearest}`?"));
        return refuse("is no property of librdkafka that can be set here".to_owned(), nearest);
    }
    match ClientConfig::new().set(property, value?).create_native_config() {
        Ok(_) => None,
        Err(_) if is_secret(property) => refuse("is not taken by librdkafka".to_owned(), None),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            refuse("is not in this build of librdkafka".to_owned(), None)
        }
        Err(KafkaError::ClientConfig(_, why, ..)) => refuse(format!("is not taken by librdkafka: {why}"), None),
        Err(e) => refuse(format!("is not taken by librdkafka: {e}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> Option<(String, Option<String>)> {
        refusal(name, value).map(|refusal| (refusal.message, refusal.hint))
    }

    #[test]
    fn every_name_is_known_to_the_library() {
        let native = ClientConfig::new().create_native_config().expect("nothing is set");
        for name in NAMES.into_iter().chain(MANAGED.map(|(name, _)| name)).chain(CLASSIC_ONLY) {
            let found = native.get(name);
            let unknown = matches!(found, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            // Some are the topic's, and answered by its own configuration only.
            let of_topic = ClientConfig::new().set(name, "").create_native_config();
            let taken = !matches!(of_topic, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!unknown || taken, "{name}");
        }
    }

    #[test]
    fn names_are_in_order() {
        assert!(NAMES.is_sorted() && MANAGED.is_sorted());
    }

    #[test]
    fn property_is_taken_or_refused_with_its_reason() {
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", "x"),
            ("sasl.password.file", "/run/secrets/password"),
            ("group.instance.id", "runner-1"),
            ("partition.assignment.strategy", "range,roundrobin"),
            ("compression.type", "zstd"),
            ("linger.ms", "5"),
        ] {
            assert_eq!(refused(name, value), None, "{name}");
        }
        for (name, value, message, hint) in [
            ("group.id", "x", "is the queue's own: it is `queue.kafka.consumer_group`", None),
            ("acks.file", "x", "is the queue's own: a record that is not on all replicas can be lost", None),
            (
                "sasl.pasword",
                "x",
                "is no property of librdkafka that can be set here",
                Some("did you mean `sasl.password`?"),
            ),
            (
                "sasl.jaas.config",
                "x",
                "is no property of librdkafka",
                Some("write `sasl.username` and `sasl.password`"),
            ),
            (
                "linger.ms",
                "soon",
                "is not taken by librdkafka: Invalid value for configuration property \"queue.buffering.max.ms\"",
                None,
            ),
        ] {
            let expected = (message.to_owned(), hint.map(str::to_owned));
            assert_eq!(refused(name, value), Some(expected), "{name}");
        }
    }

    #[test]
    fn secret_is_known_by_its_name() {
        for name in ["sasl.password", "ssl.key.pem", "ssl.key.password", "sasl.oauthbearer.client.secret"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.key.location", "sasl.password.file", "socket.keepalive.enable"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
