//! What comes of one partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;

use super::client;
use super::group::Member;
use super::inbox::Inbox;

/// A partition's queue, which is only asked when there may be something in it: a runner holds dozens, most of them empty, and to
/// ask each at each turn of its thread would cost more than the jobs do.
pub(super) struct Reader {
    queue: PartitionQueue<client::With<Member>>,
    filled: Arc<AtomicBool>,
}

// === impl Reader ===

impl Reader {
    /// Wakes the consumer's thread when there is something.
    pub(super) fn new(mut queue: PartitionQueue<client::With<Member>>, inbox: &Arc<Inbox>) -> Reader {
        let filled = Arc::new(AtomicBool::new(true));
        let (inbox, fills) = (Arc::clone(inbox), Arc::clone(&filled));
        queue.set_nonempty_callback(move || {
            fills.store(true, Ordering::Release);
            inbox.wake();
        });
        Reader { queue, filled }
    }

    /// Whether there may be something.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// What comes next, without waiting for it.
    pub(super) fn next(&self) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        // Before it is asked: what comes after its answer says so anew.
        self.filled.store(false, Ordering::Release);
        let next = self.queue.poll(Duration::ZERO);
        if next.is_some() {
            self.filled.store(true, Ordering::Release);
        }
        next
    }
}
