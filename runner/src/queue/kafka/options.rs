//! How a Kafka queue is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};

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
    /// Whether a missing job topic is created.
    pub auto_create: bool,
    /// Partitions of a topic that is created; 0: the broker's default.
    pub partitions: u32,
    /// Replicas of a topic that is created; 0: the broker's default.
    pub replication: u32,
    /// Configuration of a job topic that is created.
    pub topic_config: BTreeMap<String, String>,
    /// Properties of librdkafka, over ours. They may hold secrets.
    pub client: BTreeMap<String, String>,
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
    /// How many attempts run at one time, more or less.
    pub slots: u32,
    /// Where this runner keeps what it must remember after it was killed.
    pub state_dir: PathBuf,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

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
            auto_create: true,
            partitions: 0,
            replication: 0,
            topic_config: BTreeMap::new(),
            client: BTreeMap::new(),
            oauth_token_file: None,
            guarantee: Guarantee::default(),
            in_flight: 16_384,
            in_flight_bytes: 64 << 20,
            body_bytes_max: 8 << 20,
            park_for: Duration::from_secs(7 * 24 * 60 * 60),
            slots: 64,
            state_dir: state_dir.into(),
            clock: Arc::new(SystemClock),
        }
    }
}
