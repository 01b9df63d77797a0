//! The embedded queue: one SQLite file, which several processes may share.
//!
//! One thread of each process writes. Callers leave in its inbox what they want, and it makes one transaction of all that is
//! there, with the next claim in it: hundreds of jobs under load, one when idle. People's questions are answered on a
//! second connection.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use self::inbox::{Enqueue, How, Inbox, Order, Settle};
use self::right::Right;
use self::slots::Slots;
use super::health::Health;
use super::told::Told;
use super::{
    Answer, Cancelled, Delivery, Demand, Departed, Enqueued, Filter, Keep, Listed, NewJob, OnSettled, Queue,
    QueueError, REQUEUES_MAX, Receipt, Release, Requeue, Requeued, Settlement, Shown, State, Stats,
};
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::report::Reports;
use crate::state::StateStore;

pub(crate) mod bare;
mod bell;
mod cancel;
mod claim;
mod dead;
mod enqueue;
mod fault;
mod folder;
mod identity;
mod inbox;
mod inspect;
mod kept;
mod logs;
pub(crate) mod progress;
mod record;
mod report;
mod right;
mod runners;
mod schema;
mod settle;
#[cfg(test)]
pub(crate) mod simulation;
mod slots;
pub(in crate::queue) mod state;
mod tally;
mod together;
mod upkeep;
mod writer;

/// So many dead letters are requeued or deleted in one transaction.
const DEAD_PIECE: usize = 512;

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file. It is made if it is not there; its directory must be.
    pub path: PathBuf,
    /// The folder for locks, slot files and the bell. All processes on a file must name the same.
    pub state_dir: PathBuf,
    /// What is kept of completed jobs.
    pub keep: Keep,
    /// How many bytes of guests' lines are kept at most, over all jobs.
    pub logs_bytes: u64,
    /// How long a job waits while no live runner serves its type, before it is buried.
    pub park_for: Duration,
    /// How many attempts run at one time, more or less: the first size of the slot file.
    pub slots: u32,
    /// Who is told of dead letters; none: nobody.
    pub reports: Option<Reports>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How long a runner that does nothing any more keeps its jobs.
    pub lease: Duration,
    /// How often the lease is renewed.
    pub heartbeat: Duration,
    /// How long a file that another process has locked is waited for before it is called sick.
    pub busy: Duration,
}

/// The queue in a file. It becomes a runner with its first `receive`, so that people can look and enqueue beside others.
///
/// Dropped, it signs off in the background; [`Queue::close`] waits for that.
#[derive(Debug)]
pub struct SqliteQueue {
    shared: Arc<Shared>,
    reader: Arc<Mutex<Option<Connection>>>,
    state: state::State,
}

/// What the callers, the writer and the deliveries have in common.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// What metadata and people call this queue: the file's name.
    name: String,
    keep: Keep,
    logs_bytes: u64,
    park_for: Duration,
    reports: Option<Reports>,
    slot_count: u32,
    clock: Arc<dyn Clock>,
    lease: Duration,
    heartbeat: Duration,
    busy: Duration,
    inbox: Inbox,
    slots: Slots,
    health: Health,
    /// This runner's number; 0 while it is none.
    runner: AtomicI64,
    right: Right,
}

/// Takes the demand back when nobody waits any more, so that nothing is claimed for nobody.
struct Waiting<'a>(&'a Inbox);

// === impl Options ===

impl Options {
    /// The defaults for a file and its state folder.
    pub fn new(path: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Options {
        Options {
            path: path.into(),
            state_dir: state_dir.into(),
            keep: Keep { age: Duration::from_secs(60 * 60), bytes: 256 << 20 },
            logs_bytes: 64 << 20,
            park_for: Duration::from_secs(7 * 24 * 60 * 60),
            slots: 64,
            reports: None,
            clock: Arc::new(SystemClock),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            busy: Duration::from_secs(5),
        }
    }
}

// === impl SqliteQueue ===

impl SqliteQueue {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// Says why the file cannot be a queue: no such directory, a directory itself, not ours, damaged, of a newer version,
    /// not writable, locked.
    pub fn open(options: Options) -> Result<Arc<SqliteQueue>, QueueError> {
        let connection = schema::open_writer(&options.path, options.busy)?;
        let folder = folder::DiskFolder::open(&options.state_dir)?;
        let shared = Arc::new(Shared::new(options));
        let writer = writer::Writer::new(Arc::clone(&shared), connection, Box::new(folder));
        std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| QueueError::lasting(format!("cannot start the queue's thread: {e}")))?;
        Ok(Arc::new(SqliteQueue::of(shared)))
    }

    fn of(shared: Arc<Shared>) -> SqliteQueue {
        let state = state::State::new(&shared.path, shared.busy);
        SqliteQueue { shared, reader: Arc::default(), state }
    }

    /// Asks the second connection, on a thread where waiting is no harm.
    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection, &Shared) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reader, shared) = (Arc::clone(&self.reader), Arc::clone(&self.shared));
        let asked = tokio::task::spawn_blocking(move || {
            let mut reader =
                reader.lock().map_err(|_| QueueError::lasting("an earlier question to the queue failed"))?;
            let connection = match &mut *reader {
                Some(connection) => connection,
                none => none.insert(schema::open_reader(&shared.path, shared.busy)?),
            };
            ask(connection, &shared)
        });
        asked.await.unwrap_or_else(|_| Err(closed("cannot ask the queue")))
    }

    /// The record of the job that an id names, the newest of several.
    async fn record(&self, id: String) -> Result<Option<i64>, QueueError> {
        self.read(move |connection, _| inspect::record_of(connection, &id)).await
    }

    /// Has the writer do something for a person.
    async fn ask<T>(
        &self,
        doing: &str,
        order: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Order,
    ) -> Result<T, QueueError> {
        let (reply, answered) = oneshot::channel();
        self.shared.inbox.order(order(reply));
        answered.await.unwrap_or_else(|_| Err(closed(doing)))
    }

    async fn dead(&self, filter: Filter) -> Result<Vec<inspect::Found>, QueueError> {
        let filter = Filter { state: Some(State::Dead), ..filter };
        self.read(move |connection, shared| inspect::list(connection, &filter, shared.clock.now())).await
    }

    /// Has the writer change dead letters, piece by piece; answers those that were still dead.
    async fn change(
        &self,
        dead: Vec<inspect::Found>,
        order: impl Fn(Vec<i64>, oneshot::Sender<Result<Vec<i64>, QueueError>>) -> Order,
    ) -> Result<Vec<Listed>, QueueError> {
        let mut changed = Vec::with_capacity(dead.len());
        let mut dead = dead.into_iter().peekable();
        while dead.peek().is_some() {
            let piece: Vec<_> = dead.by_ref().take(DEAD_PIECE).collect();
            let records = piece.iter().map(|job| job.record).collect();
            let done = self.ask("cannot change dead letters", |reply| order(records, reply)).await?;
            // Both are in the order of records.
            let mut done = done.into_iter().peekable();
            changed
                .extend(piece.into_iter().filter(|job| done.next_if_eq(&job.record).is_some()).map(|job| job.listed));
        }
        Ok(changed)
    }

    async fn receive_some(&self, demand: &Demand) -> Result<Vec<Delivery>, QueueError> {
        let inbox = &self.shared.inbox;
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
                if !state.claimed.is_empty() {
                    let claimed = std::mem::take(&mut state.claimed);
                    drop(state);
                    return Ok(self.hand_out(claimed));
                }
                inbox.demand(state, demand);
            }
            changed.await;
        }
    }

    fn hand_out(&self, claimed: Vec<claim::Claimed>) -> Vec<Delivery> {
        let release: Arc<dyn Release> = self.shared.clone();
        claimed
            .into_iter()
            .map(|claimed| Delivery::new(claimed.job, claimed.alone, claimed.receipt, Arc::clone(&release)))
            .collect()
    }
}

impl Queue for SqliteQueue {
    fn receive<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<Vec<Delivery>, QueueError>> {
        Box::pin(self.receive_some(demand))
    }

    fn settle(&self, delivery: Delivery, settlement: Settlement, settled: OnSettled) {
        let (job, receipt) = delivery.into_parts();
        self.shared.inbox.settle(Settle { receipt, how: How::Settled(job, settlement, Told::by(settled)) });
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'static, Result<Vec<Enqueued>, QueueError>> {
        if let Err(error) = super::check_new(&jobs) {
            return Box::pin(async { Err(error) });
        }
        let (reply, answered) = oneshot::channel();
        self.shared.inbox.enqueue(Enqueue { jobs, reply });
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(closed("cannot enqueue"))) })
    }

    fn state(&self) -> Arc<dyn StateStore> {
        Arc::new(self.state.clone())
    }

    fn stats(&self) -> Answer<'_, Result<Stats, QueueError>> {
        Box::pin(self.read(|connection, shared| {
            inspect::stats(connection, shared.clock.now()).map_err(|e| fault::of("cannot count jobs", e))
        }))
    }

    fn sick(&self) -> Duration {
        self.shared.health.sick(self.shared.clock.instant())
    }

    fn has_work<'a>(&'a self, demand: &'a Demand) -> Answer<'a, Result<bool, QueueError>> {
        let demand = demand.clone();
        Box::pin(self.read(move |connection, shared| {
            let own = shared.runner.load(Ordering::Acquire);
            inspect::has_work(connection, &demand, own, shared.clock.now())
                .map_err(|e| fault::of("cannot look for jobs", e))
        }))
    }

    fn list(&self, filter: Filter) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        Box::pin(async move {
            let found = self.read(move |connection, shared| inspect::list(connection, &filter, shared.clock.now()));
            Ok(found.await?.into_iter().map(|job| job.listed).collect())
        })
    }

    fn show(&self, id: &str) -> Answer<'_, Result<Option<Shown>, QueueError>> {
        let id = id.to_owned();
        Box::pin(self.read(move |connection, shared| inspect::show(connection, &id, &shared.name, shared.clock.now())))
    }

    fn requeue_dead(&self, filter: Filter, how: Requeue) -> Answer<'_, Result<Requeued, QueueError>> {
        Box::pin(async move {
            let by_id = !filter.ids.is_empty();
            let mut dead = self.dead(filter).await?;
            let malformed = dead.iter().find(|job| job.listed.job_type.is_none());
            if let Some(malformed) = malformed.filter(|_| by_id) {
                let message = format!("cannot requeue `{}`: it is malformed, and would be again", malformed.listed.id);
                return Err(QueueError::lasting(message).with_hint("enqueue what it should have been, and delete it"));
            }
            dead.retain(|job| job.listed.job_type.is_some());
            let before = dead.len();
            dead.retain(|job| how.force || job.listed.requeues < REQUEUES_MAX);
            let stay = before - dead.len();
            let letters = if how.dry_run {
                dead.into_iter().map(|job| job.listed).collect()
            } else {
                self.change(dead, Order::Requeue).await?
            };
            Ok(Requeued { letters, stay })
        })
    }

    fn delete_dead(&self, filter: Filter, dry_run: bool) -> Answer<'_, Result<Vec<Listed>, QueueError>> {
        Box::pin(async move {
            let dead = self.dead(filter).await?;
            if dry_run {
                return Ok(dead.into_iter().map(|job| job.listed).collect());
            }
            self.change(dead, Order::Delete).await
        })
    }

    fn stands(&self) -> Duration {
        self.shared.inbox.stands()
    }

    fn cancel(&self, id: &str) -> Answer<'_, Result<Cancelled, QueueError>> {
        let id = id.to_owned();
        Box::pin(async move {
            let Some(record) = self.record(id).await? else { return Ok(Cancelled::Unknown) };
            self.ask("cannot cancel", |reply| Order::Cancel(record, reply)).await
        })
    }

    fn cancellations(&self) -> Answer<'_, Vec<Receipt>> {
        Box::pin(async move {
            loop {
                let cancelled = self.shared.inbox.cancelled.notified();
                tokio::pin!(cancelled);
                // Heard from here on, so that what happens between looking and waiting is not missed.
                cancelled.as_mut().enable();
                let receipts = std::mem::take(&mut self.shared.inbox.lock().cancelled);
                if !receipts.is_empty() {
                    return receipts;
                }
                cancelled.await;
            }
        })
    }

    fn keep(&self, id: &str, until: UnixMs) -> Answer<'_, Result<(), QueueError>> {
        let id = id.to_owned();
        Box::pin(async move {
            let Some(record) = self.record(id).await? else { return Ok(()) };
            self.ask("cannot keep a job", |reply| Order::Keep(record, until, reply)).await
        })
    }

    fn departed(&self, id: &str) -> Answer<'_, Result<Option<Departed>, QueueError>> {
        let id = id.to_owned();
        Box::pin(self.read(move |connection, shared| {
            identity::departed(connection, &id, shared.clock.now()).map_err(|e| fault::of("cannot look for a job", e))
        }))
    }

    fn stop_receiving(&self) -> Answer<'_, ()> {
        let (reply, answered) = oneshot::channel();
        self.shared.inbox.lock().stopped = true;
        self.shared.inbox.changed.notify_waiters();
        self.shared.inbox.order(Order::StopReceiving(reply));
        // No answer: the queue is closed, which is more than stopped.
        Box::pin(async move { answered.await.unwrap_or(()) })
    }

    fn close(&self) -> Answer<'_, ()> {
        let (reply, answered) = oneshot::channel();
        self.shared.inbox.lock().stopped = true;
        self.shared.inbox.changed.notify_waiters();
        self.shared.inbox.order(Order::Close(Some(reply)));
        let (reader, state) = (Arc::clone(&self.reader), self.state.clone());
        Box::pin(async move {
            answered.await.unwrap_or(());
            state.close();
            if let Ok(mut reader) = reader.lock() {
                reader.take();
            }
        })
    }
}

impl Drop for SqliteQueue {
    fn drop(&mut self) {
        self.shared.inbox.order(Order::Close(None));
    }
}

// === impl Shared ===

impl Shared {
    fn new(options: Options) -> Shared {
        let name = options.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Shared {
            path: options.path,
            name,
            keep: options.keep,
            logs_bytes: options.logs_bytes,
            park_for: options.park_for,
            reports: options.reports,
            slot_count: options.slots,
            right: Right::new(options.clock.instant()),
            clock: options.clock,
            lease: options.lease,
            heartbeat: options.heartbeat,
            busy: options.busy,
            inbox: Inbox::default(),
            slots: Slots::default(),
            health: Health::default(),
            runner: AtomicI64::new(0),
        }
    }

    fn set_runner(&self, runner: Option<i64>) {
        self.runner.store(runner.unwrap_or(0), Ordering::Release);
    }
}

impl Release for Shared {
    fn release(&self, receipt: Receipt) {
        let started = self.slots.was_started(receipt);
        self.inbox.settle(Settle { receipt, how: How::Dropped { started } });
    }

    fn holds(&self, receipt: Receipt) -> bool {
        self.right.holds(receipt, self.clock.instant())
    }

    fn executing(&self, receipt: Receipt, alone: bool) -> u32 {
        self.slots.executing(receipt, alone)
    }

    fn executed(&self, slot: u32) {
        self.slots.executed(slot);
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().demand = None;
    }
}

fn closed(what: &str) -> QueueError {
    QueueError::lasting(format!("{what}: the queue is closed"))
}
