//! The queue that a configuration names: the only place that knows which there are.

use std::sync::Arc;

use super::sqlite::{Options, SqliteQueue};
use super::{Queue, QueueError};
use crate::clock::SystemClock;
use crate::config::Config;

/// Opens the queue that `config` names. It becomes a runner only with its first `receive`.
///
/// # Errors
///
/// Says what is wrong with the file.
pub fn open(config: &Config) -> Result<Arc<dyn Queue>, QueueError> {
    let queue = SqliteQueue::open(Options {
        path: config.queue.path.clone(),
        state_dir: config.state_dir.clone(),
        keep: config.queue.keep,
        park_for: config.queue.park_for,
        slots: config.slots,
        clock: Arc::new(SystemClock),
    })?;
    Ok(queue)
}
