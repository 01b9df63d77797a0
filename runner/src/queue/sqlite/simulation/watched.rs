//! A queue that tells a witness what its callers do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::SqliteQueue;
use super::Witness;
use crate::clock::UnixMs;
use crate::queue::{
    Answer, Cancelled, Delivery, Demand, Departed, Enqueued, Filter, Listed, NewJob, OnSettled, Queue, QueueError,
    Receipt, Release, Requeue, Requeued, Settlement, Shown, Stats,
};
use crate::state::StateStore;

/// The queue, and who watches.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(super) queue: Arc<SqliteQueue>,
    pub(super) side: Arc<Side>,
}

/// What a delivery gives itself back to.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) witness: Arc<dyn Witness>,
    pub(super) slots: Mutex<BTreeMap<u32, Receipt>>,
}

/// A watched delivery's way back.
#[derive(Debug)]
struct Back {
    queue: Arc<dyn Release>,
    side: Arc<Side>,
}

// === impl Watched ===

impl Queue for Watched {
    fn receive<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<Vec<Delivery>, QueueError>> {
        Box::pin(async move {
            self.side.witness.received(demand, None);
            let mut deliveries = self.queue.receive(demand).await?;
            self.side.witness.received(demand, Some(&deliveries));
            for delivery in &mut deliveries {
                self.side.witness.handed_out(delivery.receipt, delivery.alone);
                let queue = delivery.release.take().expect("it was just made");
                delivery.release = Some(Arc::new(Back { queue, side: Arc::clone(&self.side) }));
            }
            Ok(deliveries)
        })
    }

    fn settle(&self, delivery: Delivery, settlement: Settlement, settled: OnSettled) {
        let (side, receipt) = (Arc::clone(&self.side), delivery.receipt);
        side.witness.settling(receipt, &settlement);
        let told = move |answer| {
            side.witness.settled(receipt, answer);
            settled(answer);
        };
        self.queue.settle(delivery, settlement, Box::new(told));
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'static, Result<Vec<Enqueued>, QueueError>> {
        self.queue.enqueue(jobs)
    }

    fn state(&self) -> Arc<dyn StateStore> {
        self.queue.state()
    }

    fn stats(&self) -> Answer<'_, Result<Stats, QueueError>> {
        self.queue.stats()
    }

    fn has_work<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<bool, QueueError>> {
        self.queue.has_work(demand)
    }

    fn cancel(&self, id: &str) -> Answer<'_, Result<Cancelled, QueueError>> {
        self.queue.cancel(id)
    }

    fn cancellations(&self) -> Answer<'_, Vec<Receipt>> {
        self.queue.cancellations()
    }

    fn keep(&self, id: &str, until: UnixMs) -> Answer<'_, Result<(), QueueError>> {
        self.queue.keep(id, until)
    }

    fn departed(&self, id: &str) -> Answer<'_, Result<Option<Departed>, QueueError>> {
        self.queue.departed(id)
    }

    fn list(&self, filter: Filter) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        self.queue.list(filter)
    }

    fn show(&self, id: &str) -> Answer<'_, Result<Option<Shown>, QueueError>> {
        self.queue.show(id)
    }

    fn requeue_dead(&self, filter: Filter, how: Requeue) -> Answer<'_, Result<Requeued, QueueError>> {
        self.queue.requeue_dead(filter, how)
    }

    fn delete_dead(&self, filter: Filter, dry_run: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        self.queue.delete_dead(filter, dry_run)
    }

    fn stop_receiving(&self) -> Answer<'_, ()> {
        self.queue.stop_receiving()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.queue.close()
    }
}

// === impl Back ===

impl Release for Back {
    fn release(&self, receipt: Receipt) {
        self.side.witness.dropped(receipt);
        self.queue.release(receipt);
    }

    fn holds(&self, receipt: Receipt) -> bool {
        self.queue.holds(receipt)
    }

    fn executing(&self, receipt: Receipt, alone: bool) -> u32 {
        self.side.witness.executing(receipt);
        let slot = self.queue.executing(receipt, alone);
        self.side.slots.lock().unwrap().insert(slot, receipt);
        slot
    }

    fn executed(&self, slot: u32) {
        let receipt = self.side.slots.lock().unwrap().remove(&slot);
        self.side.witness.executed(receipt.expect("it was being executed"));
        self.queue.executed(slot);
    }
}
