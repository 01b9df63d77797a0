//! The topics: what they are called, and that they are there and fit for it before anything starts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode;

use super::client::{self, Context, Protocol, explain};
use super::tier::TIERS;
use super::{GroupProtocol, Options};
use crate::queue::QueueError;

mod config;

/// What was found or made at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topics {
    /// The job topics, in the order of the options.
    pub jobs: Vec<JobTopic>,
    /// How the group's members are to agree.
    pub protocol: Protocol,
}

/// A topic of jobs, with ours beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobTopic {
    /// What they are called.
    pub names: Names,
    /// The type of every record that does not say its own.
    pub job_type: Option<String>,
    /// Partitions of the job topic. Each of ours has as many, or more.
    pub partitions: i32,
}

/// What a job topic and ours beside it are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The jobs.
    pub jobs: String,
    /// What waits, by [`TIERS`].
    pub tiers: [String; TIERS.len()],
    /// What nobody serves.
    pub parked: String,
    /// Dead letters.
    pub dead: String,
}

/// The longest name of a job topic: ours must be names too, of 249 characters at most.
const NAME_LEN_MAX: usize = 249 - ".retry.10m".len();

/// How much larger than the job that it is about a record of ours can be: what our header says of it.
const OVERHEAD_BYTES: u64 = 256 << 10;

/// How long all of it may take.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Who has a question, and until when it may take.
struct Asker<'a> {
    options: &'a Options,
    reader: BaseConsumer<Context>,
    deadline: Instant,
}

/// A topic that is to be made.
struct Missing<'a> {
    name: &'a str,
    partitions: i32,
    config: BTreeMap<String, String>,
}

/// Finds the topics, makes those that are missing, and looks whether ours are fit. It blocks, for 10 s at most.
///
/// # Errors
///
/// What is missing, not allowed or not fit, by name; or that no broker answers, which may pass.
pub(crate) fn ensure(options: &Options) -> Result<Topics, QueueError> {
    let asker = Asker::new(options)?;
    let mut jobs = Vec::new();
    for topic in &options.topics {
        let names = Names::new(&topic.name);
        let partitions = asker.ensure_jobs(&names)?;
        if !options.present_only {
            asker.ensure_ours(&names, partitions)?;
        }
        jobs.push(JobTopic { names, job_type: topic.job_type.clone(), partitions });
    }
    Ok(Topics { jobs, protocol: asker.protocol() })
}

// === impl Topics ===

impl Topics {
    /// What a topic that a group consumes is to us.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        self.jobs.iter().enumerate().find_map(|(topic, found)| {
            if found.names.jobs == name {
                return Some(Role::Jobs(topic));
            }
            found.names.tiers.iter().position(|tier| tier == name).map(|tier| Role::Tier(topic, tier))
        })
    }
}

/// What a topic that a group consumes is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Jobs, of a topic by its number in the options.
    Jobs(usize),
    /// A tier of a topic.
    Tier(usize, usize),
}

// === impl Role ===

impl Role {
    /// The number of its job topic.
    pub(crate) fn topic(self) -> usize {
        match self {
            Role::Jobs(topic) | Role::Tier(topic, _) => topic,
        }
    }
}

// === impl Names ===

impl Names {
    /// The names that go with a job topic.
    pub(crate) fn new(jobs: &str) -> Names {
        Names {
            jobs: jobs.to_owned(),
            tiers: TIERS.each_ref().map(|tier| format!("{jobs}.{}", tier.suffix)),
            parked: format!("{jobs}.parked"),
            dead: format!("{jobs}.dead"),
        }
    }

    /// What is wrong with the name of a job topic, in a fragment that fits behind a key.
    pub(crate) fn fault(jobs: &str) -> Option<String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if jobs.is_empty() || jobs.len() > NAME_LEN_MAX || !jobs.chars().all(legal) {
            return Some(format!("`{jobs}` is no topic name: up to {NAME_LEN_MAX} letters, digits, `.`, `_` and `-`"));
        }
        matches!(jobs, "." | "..").then(|| format!("`{jobs}` is no topic name"))
    }

    /// Whether one of ours is called so.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.ours().any(|ours| ours == name)
    }

    /// All of ours.
    fn ours(&self) -> impl Iterator<Item = &str> {
        self.tiers.iter().chain([&self.parked, &self.dead]).map(String::as_str)
    }

    /// Whether only the last record of each key is kept of a topic of ours.
    fn is_compacted(&self, name: &str) -> bool {
        name == self.parked || name == self.dead
    }
}

// === impl Asker ===

impl<'a> Asker<'a> {
    fn new(options: &'a Options) -> Result<Asker<'a>, QueueError> {
        let mut config = client::reader(options);
        // What the broker can do is only in librdkafka's log, and only if it is asked for.
        let theirs = options.client.get("debug").map_or_else(String::new, |theirs| format!("{theirs},"));
        config.set("debug", format!("{theirs}feature")).set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
        let reader = config.create_with_context(Context::quiet(options)).map_err(|e| client::refused(&e))?;
        Ok(Asker { options, reader, deadline: Instant::now() + START_TIMEOUT })
    }

    /// Partitions of the job topic, which is made if it is missing and may be.
    fn ensure_jobs(&self, names: &Names) -> Result<i32, QueueError> {
        let name = names.jobs.as_str();
        if let Some(partitions) = self.partitions(name)? {
            return Ok(partitions);
        }
        if self.options.present_only {
            let hint = "name it in `queue.url`; `sandhog enqueue` and `sandhog run` make one";
            return Err(QueueError::lasting(format!("there is no topic `{name}`")).with_hint(hint));
        }
        if !self.options.auto_create {
            let message = format!("topic `{name}` does not exist, and `queue.kafka.auto_create` is false");
            return Err(QueueError::lasting(message).with_hint("create it, or name another in `queue.kafka.topic`"));
        }
        let partitions = i32::try_from(self.options.partitions).unwrap_or(i32::MAX);
        let config = config::of_jobs(&self.options.topic_config);
        // -1 is the broker's default.
        self.create(&[Missing { name, partitions: if partitions == 0 { -1 } else { partitions }, config }])?;
        self.wait_for(name, 1)
    }

    /// Ours have as many partitions as the job topic, and room for what is in it.
    fn ensure_ours(&self, names: &Names, partitions: i32) -> Result<(), QueueError> {
        let mut found = Vec::new();
        for name in names.ours() {
            found.push((name, self.partitions(name)?));
        }
        let present: Vec<&str> = found.iter().filter(|(_, there)| there.is_some()).map(|(name, _)| *name).collect();
        let configs = self.configs(names.jobs.as_str(), &present)?;
        let record_bytes_max = configs.get(names.jobs.as_str()).and_then(config::record_bytes_max);
        for name in present {
            let Some(config) = configs.get(name) else { continue };
            config::check_ours(name, config, names, record_bytes_max)?;
        }
        let missing: Vec<Missing<'_>> = found
            .iter()
            .filter(|(_, there)| there.is_none())
            .map(|(name, _)| {
                let config = config::of_ours(names.is_compacted(name), record_bytes_max, &self.options.topic_config);
                Missing { name, partitions, config }
            })
            .collect();
        if !missing.is_empty() {
            self.create(&missing)?;
        }
        for (name, there) in &found {
            if there.is_some_and(|there| there < partitions) {
                self.grow(name, partitions)?;
            }
            if there.is_none_or(|there| there < partitions) {
                self.wait_for(name, partitions)?;
            }
        }
        Ok(())
    }

    /// Partitions of a topic; none: it does not exist.
    fn partitions(&self, name: &str) -> Result<Option<i32>, QueueError> {
        loop {
            let answer = self.reader.fetch_metadata(Some(name), self.left().min(Duration::from_secs(1)));
            let error = match answer {
                Ok(metadata) => match metadata.topics().first().map(found) {
                    None => return Ok(None),
                    Some(Ok(partitions)) => return Ok(partitions),
                    Some(Err(code)) => KafkaError::MetadataFetch(code),
                },
                Err(error) => error,
            };
            self.hear();
            let failure = self.reader.context().failure();
            if let Some((RDKafkaErrorCode::Authentication, _)) = failure {
                return Err(self.unreachable(failure));
            }
            let explained = explain(&error, "cannot find topic", name);
            if !explained.transient {
                return Err(explained);
            }
            if self.left().is_zero() {
                return Err(if no_answer(&error) { self.unreachable(failure) } else { explained });
            }
        }
    }

    /// Waits until a topic that was made, or grew, is known to have so many partitions.
    fn wait_for(&self, name: &str, partitions: i32) -> Result<i32, QueueError> {
        loop {
            match self.partitions(name)? {
                Some(found) if found >= partitions => return Ok(found),
                _ if self.left().is_zero() => {
                    let message = format!("topic `{name}` was created, and no broker knows it yet");
                    return Err(QueueError::transient(message));
                }
                // The brokers have yet to tell each other.
                _ => self.hear(),
            }
        }
    }

    fn create(&self, missing: &[Missing<'_>]) -> Result<(), QueueError> {
        let replicas = match self.options.replication {
            0 => -1,
            replicas => i32::try_from(replicas).unwrap_or(i32::MAX),
        };
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|topic| {
                let new = NewTopic::new(topic.name, topic.partitions, TopicReplication::Fixed(replicas));
                topic.config.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let admin = self.admin()?;
        let names = missing.iter().map(|topic| topic.name).collect::<Vec<_>>().join("`, `");
        let results = self
            .wait(admin.create_topics(&topics, &self.admin_options()))
            .map_err(|e| explain(&e, "cannot create topics", &names))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(format!("`{name}`")),
                // Another runner was quicker.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, RDKafkaErrorCode::InvalidConfig)) => {
                    return Err(config::refused(&name, &self.options.topic_config));
                }
                Err((name, code @ RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    let hint =
                        "set `queue.kafka.replication` to at most the number of brokers, or to 0 for their default";
                    return Err(explain(&KafkaError::AdminOp(code), "cannot create topic", &name).with_hint(hint));
                }
                Err((name, code)) => return Err(explain(&KafkaError::AdminOp(code), "cannot create topic", &name)),
            }
        }
        if !created.is_empty() {
            tracing::info!("created topics: {}", created.join(", "));
        }
        Ok(())
    }

    /// Gives one of ours as many partitions as the job topic has by now.
    fn grow(&self, name: &str, partitions: i32) -> Result<(), QueueError> {
        let more = NewPartitions::new(name, usize::try_from(partitions).expect("a topic has some"));
        let admin = self.admin()?;
        let results = self
            .wait(admin.create_partitions([&more], &self.admin_options()))
            .map_err(|e| explain(&e, "cannot add partitions to topic", name))?;
        for result in results {
            match result {
                Ok(name) => tracing::info!(kafka.topic = %name, "topic `{name}` has {partitions} partitions now"),
                // Another runner was quicker.
                Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                Err((name, code)) => {
                    return Err(explain(&KafkaError::AdminOp(code), "cannot add partitions to topic", &name));
                }
            }
        }
        Ok(())
    }

    /// The configuration of topics, as far as this user may see it.
    fn configs(&self, jobs: &str, ours: &[&str]) -> Result<BTreeMap<String, config::Found>, QueueError> {
        let admin = self.admin()?;
        let topics: Vec<ResourceSpecifier<'_>> =
            [jobs].iter().chain(ours).map(|name| ResourceSpecifier::Topic(name)).collect();
        let results = self
            .wait(admin.describe_configs(&topics, &self.admin_options()))
            .map_err(|e| explain(&e, "cannot read the configuration of topic", jobs))?;
        let mut configs = BTreeMap::new();
        for (name, result) in [jobs].iter().chain(ours).zip(results) {
            match result {
                Ok(resource) => drop(configs.insert((*name).to_owned(), config::Found::new(resource))),
                Err(code) => {
                    tracing::debug!(kafka.topic = %name, "the configuration of topic `{name}` cannot be read: {code}")
                }
            }
        }
        Ok(configs)
    }

    /// Short-lived: nobody reads what it has to say of its connections.
    fn admin(&self) -> Result<AdminClient<Context>, QueueError> {
        let context = Context::quiet(self.options);
        let admin = client::admin(self.options).create_with_context(context).map_err(|e| client::refused(&e))?;
        client::give_token(&admin)?;
        Ok(admin)
    }

    fn admin_options(&self) -> AdminOptions {
        let left = self.left().max(Duration::from_secs(1));
        AdminOptions::new().request_timeout(Some(left)).operation_timeout(Some(left))
    }

    fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
        runtime.block_on(answer)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Hears for a moment what librdkafka has to say, which goes to the context. There is no group, and so no record.
    fn hear(&self) {
        if let Some(Err(error)) = self.reader.poll(Duration::from_millis(20)) {
            tracing::debug!("while the topics are looked at: {error}");
        }
    }

    /// No broker answers, for the reason that a connection gave.
    fn unreachable(&self, failure: Option<(RDKafkaErrorCode, String)>) -> QueueError {
        let (code, why) = failure.unwrap_or((RDKafkaErrorCode::OperationTimedOut, String::new()));
        let mut error = explain(&KafkaError::Global(code), "cannot connect to Kafka at", &self.options.brokers);
        if !why.is_empty() {
            error.message = format!("cannot connect to Kafka at `{}`: {why}", self.options.brokers);
        }
        // One side speaks TLS, the other does not; it looks like a connection that breaks.
        if error.hint.is_none() && (why.contains("SSL") || why.contains("security.protocol")) {
            error.hint = explain(&KafkaError::Global(RDKafkaErrorCode::SSL), "", "").hint;
        }
        error
    }

    fn protocol(&self) -> Protocol {
        let classic = self.options.client.classic_only().is_some();
        match self.options.group_protocol {
            GroupProtocol::Consumer => Protocol::Consumer,
            GroupProtocol::Auto if !classic && self.has_heartbeat() => Protocol::Consumer,
            GroupProtocol::Auto | GroupProtocol::Classic => Protocol::Classic,
        }
    }

    /// Whether the broker has the heartbeat of KIP-848 as librdkafka speaks it.
    fn has_heartbeat(&self) -> bool {
        // It was logged when the connection was made, and waits to be heard, in some hundred lines.
        for _ in 0..25 {
            match self.reader.context().heartbeat_version() {
                Some(version) => return version >= 1,
                None => self.hear(),
            }
        }
        false
    }
}

/// Partitions of a topic, none if it does not exist.
fn found(topic: &MetadataTopic) -> Result<Option<i32>, RDKafkaErrorCode> {
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
        // A topic that was just made has no leaders for a moment.
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(i32::try_from(topic.partitions().len()).ok()),
        Some(code) => Err(code),
    }
}

/// Whether it says no more than that no broker answered.
fn no_answer(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve))
}
