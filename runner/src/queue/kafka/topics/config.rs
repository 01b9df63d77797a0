//! The configuration of topics: what ours need, and what is wrong with what somebody wrote.

use std::collections::BTreeMap;

use rdkafka::admin::ConfigResource;

use super::{Names, OVERHEAD_BYTES};
use crate::config::settings::nearest;
use crate::queue::QueueError;

/// What a topic that is there is configured to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found(BTreeMap<String, String>);

/// Jobs are kept so long, worked or not, in a topic that we make.
const JOBS_RETENTION_MS: &str = "604800000";

/// What waits is kept so long, which is more than twice as long as it waits in any tier, and leaves a stopped fleet a month.
const TIER_RETENTION_MS: &str = "2592000000";

/// All that Apache Kafka 4 has.
pub(super) const NAMES: [&str; 37] = [
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "internal.segment.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.decompressed.message.bytes",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// What Apache Kafka 4 no longer has, and what to write instead.
const OBSOLETE: [(&str, &str); 3] = [
    (
        "message.timestamp.difference.max.ms",
        "Kafka 4 has `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms` in its place",
    ),
    ("message.format.version", "Kafka 4 has one format: leave it out"),
    ("message.downconversion.enable", "Kafka 4 converts no more: leave it out"),
];

/// Of a job topic that we make.
pub(super) fn of_jobs(theirs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut config = BTreeMap::from([("retention.ms".to_owned(), JOBS_RETENTION_MS.to_owned())]);
    config.extend(theirs.clone());
    config
}

/// Of a topic of ours, beside a job topic whose records have so many bytes at most, as far as that is known.
pub(super) fn of_ours(
    compacted: bool,
    record_bytes_max: Option<u64>,
    theirs: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    /// What a topic has by itself.
    const DEFAULT_RECORD_BYTES_MAX: u64 = 1_048_588;
    let bytes = record_bytes_max.unwrap_or(DEFAULT_RECORD_BYTES_MAX) * 2 + OVERHEAD_BYTES;
    let mut config = BTreeMap::from([("max.message.bytes", bytes.min(i32::MAX as u64).to_string())]);
    if compacted {
        config.insert("cleanup.policy", "compact".to_owned());
    } else {
        config.insert("cleanup.policy", "delete".to_owned());
        config.insert("retention.ms", TIER_RETENTION_MS.to_owned());
    }
    // What waits is worth as much as what is new.
    if let Some(replicas) = theirs.get("min.insync.replicas") {
        config.insert("min.insync.replicas", replicas.clone());
    }
    config.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The largest record of a topic.
pub(super) fn record_bytes_max(found: &Found) -> Option<u64> {
    found.0.get("max.message.bytes").and_then(|bytes| bytes.parse().ok())
}

/// Whether a topic of ours that is there can hold what it must.
pub(super) fn check_ours(
    name: &str,
    found: &Found,
    names: &Names,
    jobs_bytes_max: Option<u64>,
) -> Result<(), QueueError> {
    if let (Some(ours), Some(jobs)) = (record_bytes_max(found), jobs_bytes_max) {
        let needed = (jobs + OVERHEAD_BYTES).min(i32::MAX as u64);
        if ours < needed {
            let message = format!(
                "topic `{name}` takes records of {ours} bytes, and must take those of topic `{}`, which have up to {jobs}, with \
                 what is noted about each",
                names.jobs
            );
            return Err(
                QueueError::lasting(message).with_hint(format!("set its `max.message.bytes` to {needed} at least"))
            );
        }
    }
    let policy = found.0.get("cleanup.policy").map_or("", String::as_str);
    let compacts = policy.split(',').any(|policy| policy.trim() == "compact");
    let deletes = policy.split(',').any(|policy| policy.trim() == "delete");
    if policy.is_empty()
        || (names.is_compacted(name) && compacts && !deletes)
        || (!names.is_compacted(name) && !compacts)
    {
        return Ok(());
    }
    let wanted = if names.is_compacted(name) { "compact" } else { "delete" };
    let message = format!("topic `{name}` has `cleanup.policy` `{policy}`, and would lose jobs");
    Err(QueueError::lasting(message).with_hint(format!("set its `cleanup.policy` to `{wanted}`")))
}

/// Why Kafka refuses the configuration of a new topic. It gives a code only.
pub(super) fn refused(name: &str, theirs: &BTreeMap<String, String>) -> QueueError {
    for key in theirs.keys() {
        if let Some((_, instead)) = OBSOLETE.iter().find(|(obsolete, _)| obsolete == key) {
            let message = format!("cannot create topic `{name}`: `{key}` of `queue.kafka.topic_config` is obsolete");
            return QueueError::lasting(message).with_hint(*instead);
        }
    }
    if let Some(key) = theirs.keys().find(|key| !NAMES.contains(&key.as_str())) {
        let message = format!("cannot create topic `{name}`: Kafka has no topic configuration `{key}`");
        let error = QueueError::lasting(message);
        return match nearest(key, &NAMES) {
            Some(nearest) => error.with_hint(format!("did you mean `{nearest}`?")),
            None => error,
        };
    }
    let given = theirs.iter().map(|(key, value)| format!("`{key}` = `{value}`")).collect::<Vec<_>>().join(", ");
    QueueError::lasting(format!(
        "cannot create topic `{name}`: Kafka does not take a value of its configuration, {given}"
    ))
    .with_hint("look at `queue.kafka.topic_config`")
}

// === impl Found ===

impl Found {
    pub(super) fn new(resource: ConfigResource) -> Found {
        Found(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }
}
