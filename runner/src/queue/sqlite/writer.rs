//! The one thread that writes: it makes one transaction of all that waits for it, and the next claim with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;
use tracing::debug;

use super::claim::{Claim, Claimed, Dry};
use super::folder::Folder;
use super::inbox::{How, Order, Settle, Work};
use super::record::Records;
use super::runners::{End, Peers, Registration};
use super::tally::Tally;
use super::upkeep::{Sweep, Walk};
use super::{Shared, cancel, dead, enqueue, fault, kept, report, settle};
use crate::clock::UnixMs;
use crate::queue::{Cancelled, Demand, Enqueued, NewJob, Settled};

mod lease;
mod sick;

use self::sick::Sick;

/// How often a runner looks for changes that nobody rang for.
const RECHECK: Duration = Duration::from_secs(3);

/// From this many deliveries in flight on, settlements are gathered, and at most so many.
const GATHER_FROM: usize = 64;
const GATHER_MAX: usize = 256;

/// A sweep beside settlements looks at twice the rows that are settled, and this many more: it is always faster than they.
const SWEEP_ROWS: usize = 64;

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    pub(super) connection: Connection,
    folder: Box<dyn Folder>,
    records: Records,
    dry: Dry,
    registration: Option<Registration>,
    /// What the file says that we serve.
    served: Option<Served>,
    peers: Peers,
    sweep: Sweep,
    walks: Walks,
    /// Bytes of completed jobs that are kept, of all runners together.
    kept_bytes: i64,
    /// Which type is asked first in the next claim.
    turn: usize,
    /// The last type that a handler of `*` was given.
    other: String,
    /// Deliveries that were claimed and did not come back.
    in_flight: usize,
    /// Settlements that a sick file did not take.
    backlog: Vec<Settle>,
    sick: Option<Sick>,
    next_upkeep: Option<Instant>,
    /// The next pass only goes on with the last one: it is no heartbeat more.
    upkeep_goes_on: bool,
    next_recheck: Instant,
    data_version: i64,
    /// Whether a commit waits for the disk now (`pragma synchronous`).
    syncs: bool,
    /// There is something to do without anybody asking.
    again: bool,
    waited_for: Option<Demand>,
    /// Something that runs is cancelled, here or elsewhere.
    cancels: bool,
}

/// The upkeep's walks over the tables beside the jobs'.
#[derive(Debug, Default)]
struct Walks {
    log: Walk,
    kept: Walk,
}

#[derive(Debug, PartialEq)]
struct Served {
    types: Vec<Arc<str>>,
    others: bool,
    paused: Vec<Arc<str>>,
}

/// What a transaction answers.
#[derive(Default)]
struct Done {
    settled: Vec<Settled>,
    enqueued: Vec<Vec<Enqueued>>,
    did: Vec<Did>,
    cancelled: cancel::Left,
    claimed: Vec<Claimed>,
    tally: Tally,
    lost: bool,
}

/// What came of an order.
enum Did {
    Changed(Vec<i64>),
    Cancelled(Cancelled),
    Nothing,
}

/// Who waits for the queue to be closed; none where it was dropped.
pub(super) type Closed = Option<oneshot::Sender<()>>;

/// Says, at the thread's end, that it has ended.
struct Ended(Arc<Shared>);

/// What kept a transaction from being committed.
enum Failed {
    /// This enqueue; the others may do.
    Enqueue(usize, rusqlite::Error),
    All(rusqlite::Error),
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, folder: Box<dyn Folder>) -> Writer {
        let next_recheck = shared.clock.instant();
        Writer {
            shared,
            connection,
            folder,
            records: Records::default(),
            dry: Dry::default(),
            registration: None,
            served: None,
            peers: Peers::default(),
            sweep: Sweep::default(),
            walks: Walks::default(),
            kept_bytes: 0,
            turn: 0,
            other: String::new(),
            in_flight: 0,
            backlog: Vec::new(),
            sick: None,
            next_upkeep: None,
            upkeep_goes_on: false,
            next_recheck,
            data_version: 0,
            syncs: true,
            again: false,
            waited_for: None,
            cancels: false,
        }
    }

    /// Works until it is told to close.
    pub(super) fn run(mut self) {
        // Should this thread end by a bug, nobody waits for it for ever.
        let ended = Ended(Arc::clone(&self.shared));
        let closed = loop {
            if let Some(pause) = self.pause() {
                std::thread::park_timeout(pause);
            }
            let work = self.shared.inbox.take(self.deadline(), self.gather());
            if let Some(closed) = self.step(work) {
                break closed;
            }
        };
        drop(self.end());
        drop(ended);
        if let Some(reply) = closed {
            answer(reply, ());
        }
    }

    /// Does one piece of work; when that closes the queue, answers who waits for it.
    pub(super) fn step(&mut self, mut work: Work) -> Option<Closed> {
        self.waited_for = work.demand.take();
        work.settles.splice(0..0, self.backlog.drain(..));
        let close = take_close(&mut work.orders);
        self.turn(work);
        match close {
            // Whoever closes waits until everything is durable; whoever dropped the queue does not wait for a sick file.
            Some(reply) if self.is_done() || reply.is_none() && self.sick.is_some() => Some(reply),
            Some(reply) => {
                self.shared.inbox.order(Order::Close(reply));
                None
            }
            None => None,
        }
    }

    /// Gives up what this runner holds; leaves the connection.
    pub(super) fn end(mut self) -> Connection {
        self.close();
        self.connection
    }

    fn is_done(&self) -> bool {
        self.backlog.is_empty() && self.shared.inbox.lock().is_settled()
    }

    fn turn(&mut self, mut work: Work) {
        self.again = false;
        if work.rung {
            self.dry.clear();
            self.look_for_peers(false);
            self.look_for_cancelled();
        }
        if self.waited_for.is_some() && self.registration.is_none() {
            self.register();
        }
        for peer in std::mem::take(&mut work.gone) {
            self.bury_peer(peer, End::Died);
        }
        self.recheck();
        if self.next_upkeep.is_some_and(|at| self.shared.clock.instant() >= at) {
            self.upkeep();
        }
        self.stop_receiving(&mut work.orders);
        loop {
            match self.transact(&work) {
                Ok(done) => return self.answer(work, done),
                Err(Failed::Enqueue(at, e)) if !fault::may_pass(&e) => {
                    let refused = work.enqueues.remove(at);
                    answer(refused.reply, Err(fault::of("cannot enqueue", e)));
                }
                Err(Failed::Enqueue(_, e) | Failed::All(e)) => return self.fail(work, e),
            }
        }
    }

    /// How many settlements are worth waiting for. So much in flight means that jobs are short and slots have others to go
    /// on with meanwhile; where there is less, nobody is kept waiting.
    fn gather(&self) -> usize {
        if self.in_flight < GATHER_FROM || !self.backlog.is_empty() { 0 } else { (self.in_flight / 4).min(GATHER_MAX) }
    }

    /// When there is something to do, if nobody asks before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.again || !self.backlog.is_empty() {
            return Some(self.shared.clock.instant());
        }
        let registered = self.registration.is_some();
        let due = self.waited_for.as_ref().and_then(|demand| self.dry.next_due(demand));
        let due = due.map(|at| self.shared.clock.instant() + at.since(self.shared.clock.now()));
        let recheck = (registered || self.waited_for.is_some()).then_some(self.next_recheck);
        [self.next_upkeep, recheck, due].into_iter().flatten().min()
    }

    /// Everything in one transaction, or nothing.
    fn transact(&mut self, work: &Work) -> Result<Done, Failed> {
        let now = self.shared.clock.now();
        let writes = !work.settles.is_empty() || !work.enqueues.is_empty() || !work.orders.is_empty();
        let demand = self.waited_for.as_ref().filter(|_| self.registration.is_some());
        let serves = demand.and_then(|demand| changed(self.served.as_ref(), demand));
        let claims = |dry: &Dry| demand.filter(|demand| dry.leaves(demand, now));
        let mut done = Done::default();
        // While the file is sick, an empty transaction tells whether it is well again.
        let idle = !writes && serves.is_none() && claims(&self.dry).is_none();
        if idle && self.sick.is_none() && !self.cancels {
            return Ok(done);
        }
        sync(&self.connection, &mut self.syncs, writes)?;
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        done.settled = settle::apply(&transaction, &work.settles, self.shared.keep, now, &mut done.tally)?;
        let follow_ups = settle::follow_ups(&work.settles, &done.settled);
        if !follow_ups.is_empty() {
            enqueue::apply(&transaction, &mut self.records, &follow_ups, now, &mut done.tally)?;
        }
        for (at, enqueue) in work.enqueues.iter().enumerate() {
            let jobs: Vec<&NewJob> = enqueue.jobs.iter().collect();
            let added = enqueue::apply(&transaction, &mut self.records, &jobs, now, &mut done.tally);
            done.enqueued.push(added.map_err(|e| Failed::Enqueue(at, e))?);
        }
        for order in &work.orders {
            let did = self.obey(&transaction, order, now, &mut done.tally)?;
            done.did.push(did);
        }
        if self.cancels || cancels(&work.orders) {
            let runner = self.registration.as_ref().map(|registration| registration.id);
            done.cancelled = cancel::follow_up(&transaction, runner, now, &mut done.tally)?;
        }
        report::apply(&transaction, &mut self.records, &self.shared, now, &mut done.tally)?;
        for job_type in &done.tally.woken {
            self.dry.wet(job_type);
        }
        if let Some(registration) = &self.registration
            && (serves.is_some() || claims(&self.dry).is_some())
        {
            done.lost = !registration.stands(&transaction)?;
            if let Some(serves) = serves.filter(|_| !done.lost) {
                write_served(&transaction, registration.id, &serves)?;
                self.dry.clear();
                self.served = Some(serves);
            }
            if let Some(demand) = claims(&self.dry).filter(|_| !done.lost) {
                let mut claim = Claim::new(&transaction, registration.id, now, &self.shared.name);
                claim.take(demand, self.turn, &mut self.other, &mut self.dry)?;
                self.turn = self.turn.wrapping_add(1);
                done.claimed = claim.taken;
            }
        }
        if !work.settles.is_empty() && self.registration.is_some() {
            let rows = 2 * work.settles.len() + SWEEP_ROWS;
            self.sweep.step(&transaction, self.shared.keep, self.kept_bytes, rows, now, &mut done.tally)?;
        }
        done.tally.write(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Does what a person asked for.
    fn obey(
        &self,
        transaction: &Transaction<'_>,
        order: &Order,
        now: UnixMs,
        tally: &mut Tally,
    ) -> rusqlite::Result<Did> {
        Ok(match order {
            Order::Requeue(records, _) => Did::Changed(dead::requeue(transaction, records, now, tally)?),
            Order::Delete(records, _) => Did::Changed(dead::delete(transaction, records)?),
            Order::Cancel(record, _) => Did::Cancelled(cancel::cancel(transaction, *record, now, tally)?),
            Order::Keep(record, until, _) => {
                kept::until(transaction, *record, *until)?;
                Did::Nothing
            }
            Order::StopReceiving(_) | Order::Close(_) => Did::Nothing,
        })
    }

    fn answer(&mut self, work: Work, done: Done) {
        self.well();
        self.cancels = done.cancelled.any;
        if !done.cancelled.held.is_empty() {
            self.shared.inbox.lock().cancelled = done.cancelled.held;
            self.shared.inbox.cancelled.notify_waiters();
        }
        self.kept_bytes += done.tally.kept_bytes();
        self.in_flight = (self.in_flight + done.claimed.len()).saturating_sub(work.settles.len());
        self.shared.slots.settled(work.settles.iter().map(|settle| settle.receipt));
        for (settle, settled) in work.settles.into_iter().zip(done.settled) {
            match settle.how {
                How::Settled(_, _, told) => told.tell(settled),
                How::Dropped { .. } => {}
            }
        }
        for (enqueue, enqueued) in work.enqueues.into_iter().zip(done.enqueued) {
            answer(enqueue.reply, Ok(enqueued));
        }
        for (order, did) in work.orders.into_iter().zip(done.did) {
            match (order, did) {
                (Order::Requeue(_, reply) | Order::Delete(_, reply), Did::Changed(records)) => {
                    answer(reply, Ok(records));
                }
                (Order::Cancel(_, reply), Did::Cancelled(cancelled)) => answer(reply, Ok(cancelled)),
                (Order::Keep(_, _, reply), _) => answer(reply, Ok(())),
                _ => {}
            }
        }
        if !done.claimed.is_empty() {
            let mut inbox = self.shared.inbox.lock();
            inbox.claimed.extend(done.claimed);
            inbox.demand = None;
            drop(inbox);
            self.waited_for = None;
            self.shared.inbox.changed.notify_waiters();
        }
        if done.tally.ring && (self.registration.is_none() || !self.peers.is_empty()) {
            self.folder.ring();
        }
        if done.lost {
            self.lose_lease();
        }
    }

    /// Looks, now and then, whether others changed something without ringing, and whether a job is due by now.
    fn recheck(&mut self) {
        if self.shared.clock.instant() < self.next_recheck {
            return;
        }
        self.next_recheck = self.shared.clock.instant() + RECHECK;
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        match version {
            Ok(version) if version == self.data_version => {}
            Ok(version) => {
                self.data_version = version;
                self.dry.clear();
                self.look_for_cancelled();
            }
            Err(e) => debug!(error = %e, "cannot ask for changes"),
        }
    }

    /// Looks whether anybody cancelled what runs: a runner is to break it off, and it may be this one.
    fn look_for_cancelled(&mut self) {
        match cancel::any(&self.connection) {
            Ok(any) => self.cancels |= any,
            Err(e) => debug!(error = %e, "cannot look for cancelled jobs"),
        }
    }

    /// Puts back what was claimed and not picked up, now that nobody will.
    fn stop_receiving(&mut self, orders: &mut Vec<Order>) {
        let stops = orders.extract_if(.., |order| matches!(order, Order::StopReceiving(_))).collect::<Vec<_>>();
        if stops.is_empty() {
            return;
        }
        self.waited_for = None;
        let left = std::mem::take(&mut self.shared.inbox.lock().claimed);
        let released =
            left.into_iter().map(|claimed| Settle { receipt: claimed.receipt, how: How::Dropped { started: false } });
        self.backlog.extend(released);
        self.again = true;
        for stop in stops {
            if let Order::StopReceiving(reply) = stop {
                answer(reply, ());
            }
        }
    }
}

// === impl Ended ===

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.inbox.end());
    }
}

// === impl Failed ===

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed::All(error)
    }
}

/// Has commits wait for the disk, or not. A claim that a power failure takes back is a job that is handed out again; what
/// is answered as durable waits.
fn sync(connection: &Connection, syncs: &mut bool, wanted: bool) -> rusqlite::Result<()> {
    if *syncs != wanted {
        connection.execute_batch(if wanted { "pragma synchronous = full" } else { "pragma synchronous = normal" })?;
        *syncs = wanted;
    }
    Ok(())
}

/// What `demand` serves, where that is not what is `known`.
fn changed(known: Option<&Served>, demand: &Demand) -> Option<Served> {
    let types = demand.types.iter().map(|(job_type, _)| job_type);
    if let Some(known) = known
        && known.others == demand.others.is_some()
        && known.types.iter().eq(types.clone())
        && known.paused == demand.paused
    {
        return None;
    }
    let (types, paused) = (types.cloned().collect(), demand.paused.clone());
    Some(Served { types, others: demand.others.is_some(), paused })
}

fn write_served(connection: &Connection, runner: i64, served: &Served) -> rusqlite::Result<()> {
    connection.execute("update runner set others = ?2 where id = ?1", (runner, served.others))?;
    connection.execute("delete from served where runner = ?1", [runner])?;
    let mut insert =
        connection.prepare_cached("insert or ignore into served(runner, job_type, paused) values(?1, ?2, ?3)")?;
    for (types, paused) in [(&served.types, false), (&served.paused, true)] {
        for job_type in types {
            insert.execute((runner, job_type, paused))?;
        }
    }
    Ok(())
}

/// Whether any of them cancels a job.
fn cancels(orders: &[Order]) -> bool {
    orders.iter().any(|order| matches!(order, Order::Cancel(..)))
}

/// Takes the order to close out, if it is there.
fn take_close(orders: &mut Vec<Order>) -> Option<Closed> {
    let at = orders.iter().position(|order| matches!(order, Order::Close(_)))?;
    match orders.remove(at) {
        Order::Close(reply) => Some(reply),
        _ => None,
    }
}

/// Answers somebody who may have gone away, which changes nothing: it is done.
fn answer<T>(reply: oneshot::Sender<T>, with: T) {
    drop(reply.send(with));
}
