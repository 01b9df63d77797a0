//! How a Kafka queue is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::client::properties;
use crate::clock::{Clock, SystemClock};
use crate::report::Reports;

/// How a Kafka queue is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT`, several with commas.
    pub brokers: String,
    /// The job topics, at least one. New jobs go to the first.
    pub topics: Vec<Topic>,
    /// The consumer group.
    pub group: String,
    /// How its members agree on who has which partition.
    pub group_protocol: GroupProtocol,
    /// The queue is only looked at, or its dead letters are changed: a missing job topic is an error, and others that are
    /// missing are not created.
    pub present_only: bool,
    /// Whether a missing job topic is created.
    pub auto_create: bool,
    /// Partitions of a topic that is created; 0: the broker's default.
    pub partitions: u32,
    /// Replicas of a topic that is created; 0: the broker's default.
    pub replication: u32,
    /// Configuration of a job topic that is created.
    pub topic_config: BTreeMap<String, String>,
    /// Properties of librdkafka, over ours. They may hold secrets.
    pub client: Properties,
    /// Where the token for OAUTHBEARER is, which somebody else keeps fresh.
    pub oauth_token_file: Option<PathBuf>,
    /// What a crash may repeat.
    pub guarantee: Guarantee,
    /// The most jobs that are received and not settled.
    pub in_flight: u32,
    /// The most bytes of them.
    pub in_flight_bytes: u64,
    /// The largest body.
    pub body_bytes_max: usize,
    /// How long a job waits for a handler of its type.
    pub park_for: Duration,
    /// Who is told of dead letters; none: nobody.
    pub reports: Option<Reports>,
    /// How many attempts run at one time, more or less.
    pub slots: u32,
    /// Where this runner keeps what it must remember after it was killed.
    pub state_dir: PathBuf,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// Properties of librdkafka that somebody set. Those that are secret are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

/// A topic of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// The type of every record that does not say its own in a header: the topic may hold any text then.
    pub job_type: Option<String>,
}

/// What a crash may repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// A job, or a record that we write, may come twice, never not at all.
    #[default]
    AtLeastOnce,
    /// The same for jobs; what Sandhog itself writes to Kafka about a job appears once, together with its offset.
    ExactlyOnceInKafka,
}

/// How the members of the group agree on who has which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The newer one, if the broker has it.
    #[default]
    Auto,
    /// The newer one, KIP-848: nobody stops for others.
    Consumer,
    /// The older one, which every broker and client library has.
    Classic,
}

// === impl Options ===

impl Options {
    /// The defaults for a job topic on these brokers.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>, state_dir: impl Into<PathBuf>) -> Options {
        Options {
            brokers: brokers.into(),
            topics: vec![Topic { name: topic.into(), job_type: None }],
            group: "job_queue_consumer".to_owned(),
            group_protocol: GroupProtocol::default(),
            present_only: false,
            auto_create: true,
            partitions: 0,
            replication: 0,
            topic_config: BTreeMap::new(),
            client: Properties::default(),
            oauth_token_file: None,
            guarantee: Guarantee::default(),
            in_flight: 16_384,
            in_flight_bytes: 64 << 20,
            body_bytes_max: 8 << 20,
            park_for: Duration::from_secs(7 * 24 * 60 * 60),
            reports: None,
            slots: 64,
            state_dir: state_dir.into(),
            clock: Arc::new(SystemClock),
        }
    }
}

// === impl Properties ===

impl Properties {
    /// Whether the value of a property must not be shown.
    pub fn is_secret(name: &str) -> bool {
        properties::is_secret(name)
    }

    /// The property whose value is in a file, if that is what this name says: `NAME.file`.
    pub fn of_file(name: &str) -> Option<&str> {
        properties::of_file(name)
    }

    /// One that only the classic group protocol has, if there is one.
    pub fn classic_only(&self) -> Option<&'static str> {
        properties::CLASSIC_ONLY.into_iter().find(|name| self.contains_key(*name))
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&'_ String, &'_ String)| {
            let value = if Properties::is_secret(name) { "***" } else { value };
            (name.clone(), value.to_owned())
        };
        f.debug_map().entries(self.0.iter().map(shown)).finish()
    }
}
