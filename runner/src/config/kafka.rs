//! The settings of a Kafka queue, and its URL.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::settings::{Origin, Raw, Settings};
use super::topic_name;
use crate::queue::kafka::{GroupProtocol, Guarantee, Names, Properties, Topic, check_properties};

/// Settings of a Kafka queue.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaConfig {
    /// The consumer group.
    pub consumer_group: String,
    /// How its members agree on who has which partition.
    pub group_protocol: GroupProtocol,
    /// The topics that jobs are on, at least one. New jobs go to the first.
    pub topics: Vec<Topic>,
    /// Whether a missing topic is created.
    pub auto_create: bool,
    /// Partitions of a topic that is created; 0: the broker's default.
    pub partitions: u32,
    /// Replicas of a topic that is created; 0: the broker's default.
    pub replication: u32,
    /// Configuration of a topic that is created.
    pub topic_config: BTreeMap<String, String>,
    /// Properties of librdkafka. `NAME.file` says the file that has the value of `NAME`.
    pub client: Properties,
    /// The file with the token for OAUTHBEARER.
    pub oauth_token_file: Option<PathBuf>,
    /// What a crash may repeat.
    pub delivery: Guarantee,
    /// The most jobs that are received and not settled.
    pub in_flight: u32,
    /// The most bytes of them.
    pub in_flight_bytes: u64,
}

/// What a `kafka:` URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KafkaUrl {
    /// `HOST:PORT`, several with commas.
    pub(super) brokers: String,
    pub(super) topic: Option<String>,
}

const PORT: &str = "9092";

/// The window of a runner is in memory.
const IN_FLIGHT_MAX: u32 = 1_000_000;

/// Kafka counts replicas in 15 bits. Of partitions it has no limit; a runner holds a queue for each.
const REPLICATION_MAX: u32 = i16::MAX as u32;

/// Enough for a thousand runners, and so few that creating them ends.
const PARTITIONS_MAX: u32 = 10_000;

// === impl KafkaConfig ===

impl KafkaConfig {
    /// Reads `[queue.kafka]`. A topic in the URL goes over those that stand there.
    pub(super) fn read(settings: &mut Settings, application_name: &str, url_topic: Option<&str>) -> KafkaConfig {
        let consumer_group = settings.text("queue.kafka.consumer_group", "job_queue_consumer".to_owned());
        let group_protocol = settings.choice(
            "queue.kafka.group_protocol",
            &[
                ("auto", GroupProtocol::Auto),
                ("consumer", GroupProtocol::Consumer),
                ("classic", GroupProtocol::Classic),
            ],
        );
        KafkaConfig {
            consumer_group,
            group_protocol,
            topics: read_topics(settings, application_name, url_topic),
            auto_create: settings.truth("queue.kafka.auto_create", true),
            partitions: settings.whole("queue.kafka.partitions", 0),
            replication: settings.whole("queue.kafka.replication", 0),
            topic_config: settings.map("queue.kafka.topic_config", |_| true),
            client: Properties(settings.map("queue.kafka.client", |name| !Properties::is_secret(name))),
            oauth_token_file: settings.text_if_any("queue.kafka.oauth_token_file").map(PathBuf::from),
            delivery: settings.choice(
                "queue.kafka.delivery",
                &[("at-least-once", Guarantee::AtLeastOnce), ("exactly-once-in-kafka", Guarantee::ExactlyOnceInKafka)],
            ),
            in_flight: settings.whole("queue.kafka.in_flight", 16_384),
            in_flight_bytes: settings.size("queue.kafka.in_flight_bytes", 64 << 20),
        }
    }

    pub(super) fn check(&self, settings: &mut Settings) {
        self.check_client(settings);
        let (jobs, bytes) = (self.in_flight, self.in_flight_bytes);
        settings.require("queue.kafka.in_flight", (1..=IN_FLIGHT_MAX).contains(&jobs), || {
            format!("{jobs} is not from 1 to {IN_FLIGHT_MAX}")
        });
        settings.require("queue.kafka.in_flight_bytes", bytes >= 1 << 20, || "is less than 1MiB".to_owned());
        let (partitions, replicas) = (self.partitions, self.replication);
        settings.require("queue.kafka.partitions", partitions <= PARTITIONS_MAX, || {
            format!("{partitions} is more than {PARTITIONS_MAX}")
        });
        settings.require("queue.kafka.replication", replicas <= REPLICATION_MAX, || {
            format!("{replicas} is more than {REPLICATION_MAX}")
        });
    }

    fn check_client(&self, settings: &mut Settings) {
        for refusal in check_properties(&self.client) {
            let key = format!("queue.kafka.client.{}", refusal.name);
            let origin = settings.origin(&key).or_else(|| settings.origin("queue.kafka.client")).cloned();
            settings.fault(Some(&key), origin, refusal.message, refusal.hint);
        }
        let classic = self.client.classic_only();
        settings.require(
            "queue.kafka.group_protocol",
            self.group_protocol != GroupProtocol::Consumer || classic.is_none(),
            || format!("`consumer` does not go with `{}` in `queue.kafka.client`", classic.unwrap_or_default()),
        );
        let mechanism = self.client.get("sasl.mechanism").or_else(|| self.client.get("sasl.mechanisms"));
        let by_token = mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER"));
        settings.require("queue.kafka.oauth_token_file", !by_token || self.oauth_token_file.is_some(), || {
            "is not set, and `sasl.mechanism` is OAUTHBEARER, which needs it".to_owned()
        });
    }
}

/// Which topics jobs are on, by the first of these that is given: the URL, `topics`, `topic` as a name, the tables
/// `topic.NAME`, the application's name. The tables say the types of what has none, too.
fn read_topics(settings: &mut Settings, application_name: &str, url_topic: Option<&str>) -> Vec<Topic> {
    let types = settings.parts_of_tables("queue.kafka.topic", "job_type");
    let (one, several, url) = ("queue.kafka.topic", "queue.kafka.topics", "queue.url");
    let topic = settings.read(one, topic_name(application_name), name, String::clone);
    let topics = settings.texts(several, Vec::new());
    // In a variable they have commas between.
    let topics: Vec<String> =
        topics.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect();
    let given = |settings: &Settings, key: &str| settings.origin(key).is_some();
    let both = given(settings, one) && given(settings, several) && url_topic.is_none();
    settings.require(several, !both, || format!("and `{one}` are both set"));
    let (key, names) = match url_topic {
        Some(topic) => (url, vec![topic.to_owned()]),
        None if given(settings, several) => (several, topics),
        None if given(settings, one) || types.is_empty() => (one, vec![topic]),
        None => (one, types.keys().cloned().collect()),
    };
    check_topics(settings, key, &names);
    let by = settings.origin(key).cloned();
    for (name, (_, origin)) in &types {
        // A flag or a variable that names another topic than the file does not make the file wrong.
        let overridden = by.as_ref().is_some_and(|by| !matches!(by, Origin::File { .. }) && by > origin);
        if !names.contains(name) && !overridden {
            let key = format!("{one}.{name}");
            let (message, hint) = ("is none of the topics that jobs are taken from", "name it in `queue.kafka.topics`");
            settings.fault(Some(&key), Some(origin.clone()), message.to_owned(), Some(hint.to_owned()));
        }
    }
    let of = |name: String| Topic { job_type: types.get(&name).map(|(job_type, _)| job_type.clone()), name };
    let topics: Vec<Topic> = names.into_iter().map(of).collect();
    let shown = topics.iter().map(|topic| match &topic.job_type {
        Some(job_type) => format!("{}={job_type}", topic.name),
        None => topic.name.clone(),
    });
    let shown = shown.collect::<Vec<_>>().join(",");
    let by = by.or_else(|| types.values().next().map(|(_, origin)| origin.clone()));
    settings.show(one, shown, by.unwrap_or(Origin::Default));
    topics
}

fn check_topics(settings: &mut Settings, key: &'static str, names: &[String]) {
    settings.require(key, !names.is_empty(), || "names none".to_owned());
    for (at, name) in names.iter().enumerate() {
        let fault = Names::fault(name);
        settings.require(key, fault.is_none(), || fault.unwrap_or_default());
        settings.require(key, !names[..at].contains(name), || format!("has `{name}` twice"));
        let ours = names.iter().find(|other| Names::new(name).has(other));
        settings.require(key, ours.is_none(), || {
            format!("has `{}`, which is the queue's own beside `{name}`", ours.map_or("", String::as_str))
        });
    }
}

fn name(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) if text.is_empty() => Err("is empty".to_owned()),
        Raw::Text(text) => Ok(text.clone()),
        _ => Err("is neither a topic's name nor a table of topics".to_owned()),
    }
}

/// Parses what stands behind `kafka:`.
pub(super) fn parse_url(rest: &str) -> Result<KafkaUrl, String> {
    let rest = rest.strip_prefix("//").ok_or("is no Kafka URL: write `kafka://HOST:PORT/TOPIC`")?;
    if rest.contains('@') {
        return Err("has credentials in it: they belong into `queue.kafka.client`".to_owned());
    }
    let (brokers, topic) = rest.split_once('/').unwrap_or((rest, ""));
    let brokers = brokers.split(',').map(|broker| parse_broker(broker.trim())).collect::<Result<Vec<_>, _>>()?;
    Ok(KafkaUrl { brokers: brokers.join(","), topic: (!topic.is_empty()).then(|| topic.to_owned()) })
}

/// `HOST` or `HOST:PORT`, with IPv6 in brackets; answers it with its port.
fn parse_broker(broker: &str) -> Result<String, String> {
    let port_follows = |rest: &str| rest.is_empty() || rest.starts_with(':');
    let (host, rest) = match broker.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) =
                inner.split_once(']').ok_or_else(|| format!("has a `[` without its `]` in `{broker}`"))?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| format!("has no IPv6 address in the brackets of `{broker}`"))?;
            (format!("[{host}]"), rest)
        }
        None => {
            let at = broker.find(':').unwrap_or(broker.len());
            let (host, rest) = broker.split_at(at);
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || !host.chars().all(legal) {
                return Err(format!("has `{broker}` where a host belongs: write `kafka://HOST:PORT/TOPIC`"));
            }
            (host.to_owned(), rest)
        }
    };
    if !port_follows(rest) {
        return Err(format!("has `{broker}` where a host and a port belong"));
    }
    let port = rest.strip_prefix(':').unwrap_or(PORT);
    match port.parse::<u16>() {
        Ok(number) if number > 0 => Ok(format!("{host}:{number}")),
        _ => Err(format!("has `{port}` where a port belongs, in `{broker}` (IPv6 addresses stand in brackets)")),
    }
}

#[cfg(test)]
mod tests;
