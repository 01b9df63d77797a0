//! The settings of the queue, whichever it is.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::{self, Settings};
use super::{KafkaConfig, kafka, quantity};
use crate::queue::{Keep, KeepLogs};

/// What `queue.keep_logs` can be; the first is the default.
const KEEP_LOGS: &[(&str, KeepLogs)] =
    &[("failed", KeepLogs::Failed), ("all", KeepLogs::All), ("none", KeepLogs::None)];

/// The queue, and what it keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueConfig {
    /// As it was written.
    pub url: String,
    /// Where that is.
    pub place: Place,
    /// What is kept of completed jobs.
    pub keep: Keep,
    /// Of which attempts the lines are kept.
    pub keep_logs: KeepLogs,
    /// How many bytes of them at most, over all jobs.
    pub keep_logs_bytes: u64,
    /// With so many jobs that are ready, the HTTP API takes no more; none: it takes all.
    pub backlog: Option<u32>,
    /// How long a job waits for a handler of its type while no live runner serves it.
    pub park_for: Duration,
    /// Settings of a Kafka queue.
    pub kafka: KafkaConfig,
}

/// Where a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The embedded queue's file.
    File(PathBuf),
    /// Kafka's brokers: `HOST:PORT`, several with commas.
    Kafka(String),
}

// === impl QueueConfig ===

impl QueueConfig {
    pub(super) fn read(settings: &mut Settings, application_name: &str) -> QueueConfig {
        let url = settings.text("queue.url", "sqlite:sandhog.db".to_owned());
        let (place, topic) = parse_url(&url).unwrap_or_else(|message| {
            settings.require("queue.url", false, || message);
            (Place::File(PathBuf::new()), None)
        });
        QueueConfig {
            url,
            place,
            keep: read_keep(settings),
            keep_logs: settings.choice("queue.keep_logs", KEEP_LOGS),
            keep_logs_bytes: settings.size("queue.keep_logs_size", 64 << 20),
            backlog: Some(settings.whole("queue.backlog", 0)).filter(|jobs| *jobs > 0),
            park_for: settings.duration("queue.park_for", Duration::from_secs(7 * 86_400)),
            kafka: KafkaConfig::read(settings, application_name, topic.as_deref()),
        }
    }
}

/// Where the queue is, and the topic that the URL names.
fn parse_url(url: &str) -> Result<(Place, Option<String>), String> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let path = rest.strip_prefix("//").unwrap_or(rest);
    match scheme {
        "sqlite" if path.is_empty() || path.ends_with('/') => Err(format!("`{url}` names no file")),
        "sqlite" if path == ":memory:" => {
            Err(format!("`{url}` is no file: jobs must outlive the process and be seen by others"))
        }
        "sqlite" => Ok((Place::File(path.into()), None)),
        "kafka" => kafka::parse_url(rest).map(|url| (Place::Kafka(url.brokers), url.topic)),
        _ => Err("is no queue: write `sqlite:FILE` or `kafka://HOST:PORT/TOPIC`".to_owned()),
    }
}

// === impl Place ===

impl Place {
    /// Where a runner on it keeps its state, if nobody says: beside the file, or in the working directory.
    pub(super) fn state_dir(&self) -> PathBuf {
        let mut beside = match self {
            Place::File(path) => path.clone().into_os_string(),
            Place::Kafka(_) => "./sandhog".into(),
        };
        beside.push(".state");
        beside.into()
    }
}

/// Reads `queue.keep_completed`, which may be 0 instead of a table.
fn read_keep(settings: &mut Settings) -> Keep {
    let nothing = |raw: &settings::Raw| match raw {
        settings::Raw::Integer(0) => Ok(true),
        settings::Raw::Text(text) if text.trim() == "0" => Ok(true),
        _ => Err("is neither 0 nor a table of `age` and `bytes`".to_owned()),
    };
    let (whole, part) = ("queue.keep_completed", "queue.keep_completed.age");
    // Whoever speaks last of the two is heard: a variable with 0 overrides a file's table, and the other way round.
    let overridden = settings.origin(whole).zip(settings.origin(part)).is_some_and(|(whole, part)| part > whole);
    let age = settings.duration(part, Duration::from_secs(60 * 60));
    let bytes = settings.size("queue.keep_completed.bytes", 256 << 20);
    let table = || {
        let (age, bytes) = (quantity::format_duration(age), quantity::format_size(bytes));
        format!("{{ age = \"{age}\", bytes = \"{bytes}\" }}")
    };
    let shown = |none: &bool| if *none && !overridden { "0".to_owned() } else { table() };
    let none = settings.read(whole, false, nothing, shown);
    Keep { age: if none && !overridden { Duration::ZERO } else { age }, bytes }
}
