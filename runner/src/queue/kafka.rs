//! The queue in Kafka: one topic of jobs, which any producer may write, and topics of our own beside it.
//!
//! One thread consumes, and never waits for long: it alone knows what is in flight. Jobs of a partition end in any order; what
//! is committed is the lowest offset that is not done, with a note of what is done above it. What follows a job (a retry, a
//! dead letter) is a record of ours that is on all replicas before the job's own offset may move.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use tokio::sync::oneshot;

use self::inbox::{How, Inbox, Order, Settle};
use self::keeping::{Keeper, Keeping};
use self::parked::Parking;
use self::right::Right;
use self::slots::Slots;
use self::topics::Topics;
use self::write::{Deliveries, Producer};
use super::sqlite::state::LocalState;
use super::told::Told;
use super::{
    Answer, Cancelled, Delivery, Demand, Departed, Enqueued, Filter, Listed, NewJob, OnSettled, Queue, QueueError,
    Receipt, Release, Requeue, Requeued, Settlement, Shown, Stats,
};
use crate::clock::UnixMs;
use crate::state::StateStore;

pub(crate) mod bare;
pub(crate) mod client;
mod commit;
mod consumer;
mod dead;
mod enqueue;
pub(crate) mod envelope;
mod flight;
mod foreign;
mod found;
mod group;
mod groups;
mod inbox;
mod inspect;
mod keeping;
mod options;
mod parked;
pub(crate) mod progress;
mod reader;
pub(crate) mod record;
mod report;
mod right;
mod scan;
mod slots;
mod suspects;
mod tier;
pub(crate) mod topics;
mod transaction;
mod write;

pub(crate) use client::properties::check as check_properties;
pub use options::{GroupProtocol, Guarantee, Options, Properties, Topic};
pub(crate) use topics::Names;

/// The queue in a Kafka cluster. It joins the consumer groups with its first `receive`, so that people can look and enqueue
/// beside others.
///
/// Dropped, it leaves them in the background; [`Queue::close`] waits for that.
#[derive(Debug)]
pub struct KafkaQueue {
    shared: Arc<Shared>,
}

/// What the callers, the consumer's thread and the deliveries have in common.
struct Shared {
    options: Options,
    topics: Topics,
    context: client::Context,
    inbox: Arc<Inbox>,
    right: Arc<Right>,
    slots: Slots,
    parking: Parking,
    producer: ArcSwap<Producer>,
    state: Arc<LocalState>,
    keeping: Arc<Keeping>,
}

/// Takes the demand back when nobody waits any more, so that nothing is handed out for nobody.
struct Waiting<'a>(&'a Inbox);

// === impl Shared ===

impl Shared {
    /// Hears of an error that the library goes on after by itself, unless somebody has to give a permission: whoever receives
    /// is told then.
    fn hear(&self, error: &KafkaError, what: &str, name: &str) {
        if client::is_refusal(error) {
            self.inbox.lock().failure = Some(client::explain(error, what, name));
            self.inbox.changed.notify_waiters();
        } else {
            tracing::debug!("{what} `{name}`: {error}");
        }
    }
}

// === impl KafkaQueue ===

impl KafkaQueue {
    /// Finds the topics, or makes them. It blocks, for 10 s at most.
    ///
    /// # Errors
    ///
    /// Says what is missing, not allowed or not fit, or that no broker answers, which may pass.
    pub fn open(options: Options) -> Result<Arc<KafkaQueue>, QueueError> {
        let topics = topics::ensure(&options)?;
        let context = client::Context::new(&options);
        let inbox = Arc::new(Inbox::default());
        let producer = producer(&options, &context, &inbox)?;
        let state = LocalState::new(&options.state_dir);
        let shared = Arc::new(Shared {
            options,
            topics,
            context,
            inbox,
            right: Arc::new(Right::new()),
            slots: Slots::default(),
            parking: Parking::default(),
            producer: ArcSwap::from_pointee(producer),
            state: Arc::new(state),
            keeping: Arc::default(),
        });
        let consumer = consumer::Consumer::new(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("queue-consumer".to_owned())
            .spawn(move || consumer.run())
            .map_err(|e| QueueError::lasting(format!("cannot start the queue's thread: {e}")))?;
        Ok(Arc::new(KafkaQueue { shared }))
    }

    /// How the members of the group agree on who has which partition: never `Auto`.
    pub fn group_protocol(&self) -> GroupProtocol {
        match self.shared.topics.protocol {
            client::Protocol::Consumer => GroupProtocol::Consumer,
            client::Protocol::Classic => GroupProtocol::Classic,
        }
    }

    async fn receive_some(&self, demand: &Demand) -> Result<Vec<Delivery>, QueueError> {
        let inbox = &*self.shared.inbox;
        let _waiting = Waiting(inbox);
        loop {
            let changed = inbox.changed.notified();
            tokio::pin!(changed);
            // Heard from here on, so that what happens between looking and waiting is not missed.
            changed.as_mut().enable();
            {
                let mut state = inbox.lock();
                if state.stopped || state.ended {
                    return Err(closed("cannot receive"));
                }
                if let Some(failure) = state.failure.take() {
                    return Err(failure);
                }
                if !state.received.is_empty() {
                    let received = std::mem::take(&mut state.received);
                    drop(state);
                    let release: Arc<dyn Release> = self.shared.clone();
                    let deliver =
                        |one: inbox::Received| Delivery::new(one.job, one.alone, one.receipt, Arc::clone(&release));
                    return Ok(received.into_iter().map(deliver).collect());
                }
                inbox.demand(state, demand);
            }
            changed.await;
        }
    }

    /// Asks Kafka itself, on a thread where waiting is no harm, once it knows what this runner has done.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Shared) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (told, committed) = oneshot::channel();
        self.shared.inbox.order(Order::Commit(told));
        // A queue that has ended commits nothing more, and knows no less.
        committed.await.ok();
        let shared = Arc::clone(&self.shared);
        let asked = tokio::task::spawn_blocking(move || ask(&shared));
        asked.await.unwrap_or_else(|_| Err(QueueError::lasting("an answer of the queue could not be put together")))
    }
}

impl Queue for KafkaQueue {
    fn receive<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<Vec<Delivery>, QueueError>> {
        Box::pin(self.receive_some(demand))
    }

    fn settle(&self, delivery: Delivery, settlement: Settlement, settled: OnSettled) {
        let (_, receipt) = delivery.into_parts();
        let changes_state = settlement.state.is_some();
        let settle = Settle { receipt, how: How::Settled(settlement, Told::by(settled)) };
        if changes_state {
            self.shared.keeping.settle(settle, || self.shared.keeper());
        } else {
            self.shared.inbox.settle(settle);
        }
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'static, Result<Vec<Enqueued>, QueueError>> {
        if let Err(error) = super::check_new(&jobs) {
            return Box::pin(async { Err(error) });
        }
        if self.shared.inbox.lock().stopped {
            return Box::pin(async { Err(closed("cannot enqueue")) });
        }
        let (reply, answered) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            enqueue::send(jobs, &shared.options, &shared.topics, &shared.producer.load_full(), reply);
        });
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(closed("cannot enqueue"))) })
    }

    fn state(&self) -> Arc<dyn StateStore> {
        self.shared.state.clone()
    }

    fn stats(&self) -> Answer<'_, Result<Stats, QueueError>> {
        Box::pin(self.ask(|shared| inspect::stats(&shared.options, shared.options.clock.now())))
    }

    fn sick(&self) -> Duration {
        self.shared.context.sick()
    }

    fn answers(&self) -> Answer<'_, Result<(), QueueError>> {
        Box::pin(self.ask(|shared| inspect::answers(&shared.options)))
    }

    fn has_work<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<bool, QueueError>> {
        let demand = demand.clone();
        Box::pin(self.ask(move |shared| inspect::has_work(&shared.options, &demand, shared.options.clock.now())))
    }

    fn list(&self, filter: Filter) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        Box::pin(self.ask(move |shared| inspect::list(&shared.options, &filter, shared.options.clock.now())))
    }

    fn show(&self, id: &str) -> Answer<'_, Result<Option<Shown>, QueueError>> {
        let id = id.to_owned();
        Box::pin(self.ask(move |shared| inspect::show(&shared.options, &id, shared.options.clock.now())))
    }

    fn requeue_dead(&self, filter: Filter, how: Requeue) -> Answer<'_, Result<Requeued, QueueError>> {
        Box::pin(self.ask(move |shared| dead::requeue(&shared.options, &filter, how)))
    }

    fn delete_dead(&self, filter: Filter, dry_run: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        Box::pin(self.ask(move |shared| dead::delete(&shared.options, &filter, dry_run)))
    }

    fn stands(&self) -> Duration {
        self.shared.right.stands()
    }

    fn cancel(&self, _: &str) -> Answer<'_, Result<Cancelled, QueueError>> {
        Box::pin(async { Err(by_id("a job that waits in Kafka cannot be cancelled")) })
    }

    fn cancellations(&self) -> Answer<'_, Vec<Receipt>> {
        Box::pin(std::future::pending())
    }

    fn keep(&self, _: &str, _: UnixMs) -> Answer<'_, Result<(), QueueError>> {
        Box::pin(async { Err(by_id("a job in Kafka cannot be kept")) })
    }

    fn departed(&self, _: &str) -> Answer<'_, Result<Option<Departed>, QueueError>> {
        Box::pin(async { Err(by_id("Kafka does not know which jobs there were")) })
    }

    fn stop_receiving(&self) -> Answer<'_, ()> {
        let (reply, answered) = oneshot::channel();
        self.shared.stop();
        self.shared.inbox.order(Order::StopReceiving(reply));
        // No answer: the queue is closed, which is more than stopped.
        Box::pin(async move { answered.await.unwrap_or(()) })
    }

    fn close(&self) -> Answer<'_, ()> {
        let (reply, answered) = oneshot::channel();
        self.shared.stop();
        self.shared.keeping.close();
        self.shared.inbox.order(Order::Close(Some(reply)));
        Box::pin(async move { answered.await.unwrap_or(()) })
    }
}

impl Drop for KafkaQueue {
    fn drop(&mut self) {
        self.shared.stop();
        self.shared.keeping.close();
        self.shared.inbox.order(Order::Close(None));
    }
}

// === impl Shared ===

impl Shared {
    /// A producer that can do nothing any more is replaced by a new one: what was with it is told to have failed.
    fn mend_producer(&self) {
        if self.producer.load().client().fatal_error().is_none() {
            return;
        }
        match producer(&self.options, &self.context, &self.inbox) {
            Ok(producer) => self.producer.store(Arc::new(producer)),
            Err(error) => tracing::warn!("cannot make a new producer: {error}"),
        }
    }

    /// What writes the state of handlers.
    fn keeper(&self) -> Keeper {
        Keeper {
            keeping: Arc::clone(&self.keeping),
            state: Arc::clone(&self.state),
            inbox: Arc::clone(&self.inbox),
            right: Arc::clone(&self.right),
            clock: Arc::clone(&self.options.clock),
        }
    }

    fn stop(&self) {
        self.inbox.lock().stopped = true;
        self.inbox.changed.notify_waiters();
    }
}

impl Release for Shared {
    fn release(&self, receipt: Receipt) {
        let started = self.right.was_started(receipt.record);
        self.inbox.settle(Settle { receipt, how: How::Dropped { started } });
    }

    fn holds(&self, receipt: Receipt) -> bool {
        self.right.holds(receipt)
    }

    fn executing(&self, receipt: Receipt, alone: bool) -> u32 {
        self.slots.executing(self.right.start(receipt.record), alone)
    }

    fn executed(&self, slot: u32) {
        self.slots.executed(slot);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("topics", &self.topics).finish_non_exhaustive()
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().demand = None;
    }
}

fn producer(options: &Options, context: &client::Context, inbox: &Arc<Inbox>) -> Result<Producer, QueueError> {
    let deliveries = client::With { context: context.clone(), own: Deliveries(Arc::clone(inbox)) };
    client::producer(options).create_with_context(deliveries).map_err(|e| client::refused(&e))
}

fn by_id(what: &str) -> QueueError {
    QueueError::unsupported(format!("{what}: a log has no look-up by id, and keeps no result"))
}

fn closed(what: &str) -> QueueError {
    QueueError::lasting(format!("{what}: the queue is closed"))
}
