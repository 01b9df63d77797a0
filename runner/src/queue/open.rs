//! The queue that a configuration names: the only place that knows which there are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::kafka::{self, KafkaQueue, Properties};
use super::sqlite::state::{LocalState, State};
use super::sqlite::{self, SqliteQueue};
use super::{Queue, QueueError};
use crate::config::{Config, Place};
use crate::state::StateStore;

/// How long a file is waited for that another process has locked.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the queue that `config` names. It becomes a runner only with its first `receive`. Kafka's brokers may take some
/// seconds to answer.
///
/// # Errors
///
/// Says what is wrong with the file or the topics; or that no broker answers, which may pass.
pub async fn open(config: &Config) -> Result<Arc<dyn Queue>, QueueError> {
    match &config.queue.place {
        Place::File(path) => open_sqlite(config, path),
        Place::Kafka(brokers) => open_kafka(kafka_options(config, brokers)?).await,
    }
}

/// The same for a queue that is only looked at, or whose jobs are only changed: a queue that is not there is a mistake in
/// its name, and is not made.
///
/// # Errors
///
/// Those of [`open`], and that it is not there.
pub async fn open_present(config: &Config) -> Result<Arc<dyn Queue>, QueueError> {
    match &config.queue.place {
        Place::File(path) if path.exists() => open_sqlite(config, path),
        Place::File(path) => Err(absent(path)),
        Place::Kafka(brokers) => {
            let options = kafka_options(config, brokers)?;
            open_kafka(kafka::Options { present_only: true, ..options }).await
        }
    }
}

/// Where the state of handlers is, for who looks at it or deletes it. No broker is asked.
///
/// # Errors
///
/// That the queue's file is not there.
pub fn open_state(config: &Config) -> Result<Arc<dyn StateStore>, QueueError> {
    match &config.queue.place {
        Place::File(path) if path.exists() => Ok(Arc::new(State::new(path, BUSY))),
        Place::File(path) => Err(absent(path)),
        Place::Kafka(_) => Ok(Arc::new(LocalState::new(&config.state_dir))),
    }
}

fn absent(path: &Path) -> QueueError {
    QueueError::lasting(format!("there is no queue at `{}`", path.display()))
        .with_hint("name it by `--queue sqlite:FILE`; `sandhog enqueue` and `sandhog run` make one")
}

fn open_sqlite(config: &Config, path: &Path) -> Result<Arc<dyn Queue>, QueueError> {
    let queue = SqliteQueue::open(sqlite::Options {
        keep: config.queue.keep,
        logs_bytes: config.queue.keep_logs_bytes,
        park_for: config.queue.park_for,
        reports: config.reports.clone(),
        slots: config.slots,
        ..sqlite::Options::new(path, config.state_dir.clone())
    })?;
    Ok(queue)
}

async fn open_kafka(options: kafka::Options) -> Result<Arc<dyn Queue>, QueueError> {
    // It asks the brokers, and blocks; whoever waits for it may hear signals meanwhile.
    let opening = tokio::task::spawn_blocking(move || KafkaQueue::open(options));
    let queue = opening.await.map_err(|e| QueueError::lasting(format!("opening the queue broke down: {e}")))??;
    Ok(queue)
}

fn kafka_options(config: &Config, brokers: &str) -> Result<kafka::Options, QueueError> {
    let kafka = &config.queue.kafka;
    Ok(kafka::Options {
        brokers: brokers.to_owned(),
        topics: kafka.topics.clone(),
        group: kafka.consumer_group.clone(),
        group_protocol: kafka.group_protocol,
        present_only: false,
        auto_create: kafka.auto_create,
        partitions: kafka.partitions,
        replication: kafka.replication,
        topic_config: kafka.topic_config.clone(),
        client: with_files(&kafka.client)?,
        oauth_token_file: kafka.oauth_token_file.clone(),
        guarantee: kafka.delivery,
        in_flight: kafka.in_flight,
        in_flight_bytes: kafka.in_flight_bytes,
        body_bytes_max: config.body_bytes_max,
        park_for: config.queue.park_for,
        reports: config.reports.clone(),
        slots: config.slots,
        state_dir: config.state_dir.clone(),
        clock: Arc::new(crate::clock::SystemClock),
    })
}

/// The properties, with what stands in the files that some of them name.
fn with_files(properties: &Properties) -> Result<Properties, QueueError> {
    let mut values = BTreeMap::new();
    for (name, value) in properties.iter() {
        let (name, value) = match Properties::of_file(name) {
            None => (name.clone(), value.clone()),
            Some(property) => {
                let text = std::fs::read_to_string(value).map_err(|e| {
                    QueueError::lasting(format!("cannot read `{value}`, which `queue.kafka.client.{name}` names: {e}"))
                })?;
                (property.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        values.insert(name, value);
    }
    Ok(Properties(values))
}
