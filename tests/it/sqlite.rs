//! What is the SQLite queue's alone.

use std::sync::Arc;

use sandhog::queue::Queue;
use sandhog::queue::sqlite::{Options, SqliteQueue};
use tempfile::TempDir;

use crate::queue_contract::exercise;

fn options(dir: &TempDir) -> Options {
    Options::new(dir.path().join("jobs.db"), dir.path().join("jobs.db.state"))
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_queues() {
    let dirs = std::sync::Mutex::new(Vec::new());
    exercise(async || {
        let dir = TempDir::new().unwrap();
        let queue: Arc<dyn Queue> = SqliteQueue::open(options(&dir)).unwrap();
        dirs.lock().unwrap().push(dir);
        queue
    })
    .await;
}
