//! The embedded queue: one SQLite file.
// replaced at merge

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Delivery, Demand, Enqueued, Filter, Keep, Listed, NewJob, Queue, QueueError, Settled, Settlement};
use super::{Shown, Stats};
use crate::clock::Clock;

/// How a file is opened.
#[derive(Debug)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Locks, slot files and the bell.
    pub state_dir: PathBuf,
    /// What is kept of completed jobs.
    pub keep: Keep,
    /// How long a job waits for a handler of its type.
    pub park_for: Duration,
    /// How many attempts run at one time.
    pub slots: u32,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// The queue in a file.
#[derive(Debug)]
pub struct SqliteQueue;

// === impl SqliteQueue ===

impl SqliteQueue {
    /// Opens the file, which is made if it is not there.
    pub fn open(options: Options) -> Result<Arc<SqliteQueue>, QueueError> {
        Err(QueueError::lasting(format!("cannot open `{}`: this build has no queue", options.path.display())))
    }
}

impl Queue for SqliteQueue {
    fn receive<'a>(&'a self, _: &'a Demand) -> Answer<'a, Result<Vec<Delivery>, QueueError>> {
        unreachable!()
    }
    fn settle(&self, _: Delivery, _: Settlement) -> Answer<'_, Settled> {
        unreachable!()
    }
    fn enqueue(&self, _: Vec<NewJob>) -> Answer<'_, Result<Vec<Enqueued>, QueueError>> {
        unreachable!()
    }
    fn stats(&self) -> Answer<'_, Result<Stats, QueueError>> {
        unreachable!()
    }
    fn list(&self, _: Filter) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        unreachable!()
    }
    fn show(&self, _: &str) -> Answer<'_, Result<Option<Shown>, QueueError>> {
        unreachable!()
    }
    fn requeue_dead(&self, _: Filter, _: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        unreachable!()
    }
    fn delete_dead(&self, _: Filter, _: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        unreachable!()
    }
    fn stop_receiving(&self) -> Answer<'_, ()> {
        unreachable!()
    }
    fn close(&self) -> Answer<'_, ()> {
        unreachable!()
    }
}
