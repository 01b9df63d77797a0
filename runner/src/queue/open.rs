//! The queue that a configuration names: the only place that knows which there are.

use std::sync::Arc;

use super::sqlite::{Options, SqliteQueue};
use super::{Queue, QueueError};
use crate::config::Config;

/// Opens the queue that `config` names. It becomes a runner only with its first `receive`.
///
/// # Errors
///
/// Says what is wrong with the file.
pub fn open(config: &Config) -> Result<Arc<dyn Queue>, QueueError> {
    let (keep, park_for, slots) = (config.queue.keep, config.queue.park_for, config.slots);
    let defaults = Options::new(&config.queue.path, &config.state_dir);
    Ok(SqliteQueue::open(Options { keep, park_for, slots, ..defaults })?)
}
