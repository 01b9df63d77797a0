//! The one thread that writes: it makes one transaction of all that waits for it, and the next claim with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::bell::Bell;
use super::claim::{Claim, Claimed, Dry};
use super::inbox::{Enqueue, How, Order, Settle, Work};
use super::record::Records;
use super::runners::{self, End, EnterError, Peers, Registration};
use super::tally::Tally;
use super::upkeep::Sweep;
use super::{Shared, dead, enqueue, fault, settle, upkeep};
use crate::queue::{Demand, Enqueued, QueueError, Settled};

/// How often a runner looks for changes that nobody rang for.
const RECHECK: Duration = Duration::from_secs(3);

/// How long a sick file is left alone before it is tried again, at first and at most.
const SICK_FIRST: Duration = Duration::from_millis(50);
const SICK_MAX: Duration = Duration::from_secs(5);

/// A sweep beside settlements looks at twice the rows that are settled, and this many more: it is always faster than they.
const SWEEP_ROWS: usize = 64;

/// Rows that a sweep of the upkeep looks at.
const UPKEEP_ROWS: usize = 1_024;

/// The thread's own.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) bell: Bell,
    pub(super) records: Records,
    dry: Dry,
    registration: Option<Registration>,
    /// What the file says that we serve.
    served: Option<Served>,
    peers: Peers,
    sweep: Sweep,
    /// Bytes of completed jobs that are kept, of all runners together.
    kept_bytes: i64,
    /// Which type is asked first in the next claim.
    turn: usize,
    /// The last type that a handler of `*` was given.
    other: String,
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
}

#[derive(Debug, PartialEq)]
struct Served {
    types: Vec<Arc<str>>,
    others: bool,
}

#[derive(Debug)]
struct Sick {
    since: Instant,
    delay: Duration,
}

/// What a transaction answers.
#[derive(Default)]
struct Done {
    settled: Vec<Settled>,
    enqueued: Vec<Vec<Enqueued>>,
    changed: Vec<Vec<i64>>,
    claimed: Vec<Claimed>,
    tally: Tally,
    lost: bool,
}

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
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, bell: Bell) -> Writer {
        Writer {
            shared,
            connection,
            bell,
            records: Records::default(),
            dry: Dry::default(),
            registration: None,
            served: None,
            peers: Peers::default(),
            sweep: Sweep::default(),
            kept_bytes: 0,
            turn: 0,
            other: String::new(),
            backlog: Vec::new(),
            sick: None,
            next_upkeep: None,
            upkeep_goes_on: false,
            next_recheck: Instant::now(),
            data_version: 0,
            syncs: true,
            again: false,
            waited_for: None,
        }
    }

    /// Works until it is told to close.
    pub(super) fn run(mut self) {
        // Should this thread end by a bug, nobody waits for it for ever.
        let _ended = Ended(Arc::clone(&self.shared));
        let closed = loop {
            let mut work = self.shared.inbox.take(self.deadline());
            if let Some(sick) = &self.sick {
                std::thread::park_timeout(sick.delay);
            }
            self.waited_for = work.demand.take();
            work.settles.splice(0..0, self.backlog.drain(..));
            let close = take_close(&mut work.orders);
            self.turn(work);
            match close {
                // Whoever closes waits until everything is durable; whoever dropped the queue does not wait for a sick file.
                Some(reply) if self.is_done() || reply.is_none() && self.sick.is_some() => break reply,
                Some(reply) => self.shared.inbox.order(Order::Close(reply)),
                None => {}
            }
        };
        self.close();
        let Writer { shared, connection, .. } = self;
        drop(connection);
        drop(shared.inbox.end());
        if let Some(reply) = closed {
            answer(reply, ());
        }
    }

    fn is_done(&self) -> bool {
        self.backlog.is_empty() && self.shared.inbox.lock().is_settled()
    }

    fn turn(&mut self, mut work: Work) {
        self.again = false;
        if work.rung {
            self.dry.clear();
            self.look_for_peers(false);
        }
        if self.waited_for.is_some() && self.registration.is_none() {
            self.register();
        }
        for peer in std::mem::take(&mut work.gone) {
            self.bury_peer(peer, End::Died);
        }
        self.recheck();
        if self.next_upkeep.is_some_and(|at| Instant::now() >= at) {
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

    /// When there is something to do, if nobody asks before.
    fn deadline(&self) -> Option<Instant> {
        if self.again || !self.backlog.is_empty() {
            return Some(Instant::now());
        }
        let registered = self.registration.is_some();
        let due = self.dry.next_due().filter(|_| self.waited_for.is_some());
        let due = due.map(|at| Instant::now() + at.since(self.shared.clock.now()));
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
        if !writes && serves.is_none() && claims(&self.dry).is_none() && self.sick.is_none() {
            return Ok(done);
        }
        sync(&self.connection, &mut self.syncs, writes)?;
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        done.settled = settle::apply(&transaction, &work.settles, self.shared.keep, now, &mut done.tally)?;
        for (at, enqueue) in work.enqueues.iter().enumerate() {
            let added = enqueue::apply(&transaction, &mut self.records, &enqueue.jobs, now, &mut done.tally);
            done.enqueued.push(added.map_err(|e| Failed::Enqueue(at, e))?);
        }
        for order in &work.orders {
            done.changed.push(match order {
                Order::Requeue(records, _) => dead::requeue(&transaction, records, now, &mut done.tally)?,
                Order::Delete(records, _) => dead::delete(&transaction, records)?,
                Order::StopReceiving(_) | Order::Close(_) => Vec::new(),
            });
        }
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

    fn answer(&mut self, work: Work, done: Done) {
        self.well();
        self.kept_bytes += done.tally.kept_bytes();
        self.shared.slots.settled(work.settles.iter().map(|settle| settle.receipt));
        for (settle, settled) in work.settles.into_iter().zip(done.settled) {
            match settle.how {
                How::Settled(_, _, reply) => answer(reply, settled),
                How::Dropped { .. } => {}
            }
        }
        for (enqueue, enqueued) in work.enqueues.into_iter().zip(done.enqueued) {
            answer(enqueue.reply, Ok(enqueued));
        }
        for (order, changed) in work.orders.into_iter().zip(done.changed) {
            match order {
                Order::Requeue(_, reply) | Order::Delete(_, reply) => answer(reply, Ok(changed)),
                Order::StopReceiving(_) | Order::Close(_) => {}
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
            self.bell.ring();
        }
        if done.lost {
            self.lose_lease();
        }
    }

    /// The file did not take it. Settlements wait; who enqueues is told.
    fn fail(&mut self, work: Work, error: rusqlite::Error) {
        // What failed may have filled this with what was then not committed.
        self.dry.clear();
        self.served = None;
        let passing = fault::may_pass(&error);
        let doing = "the queue's file takes nothing";
        let error = fault::of(doing, error);
        self.backlog.extend(work.settles);
        for Enqueue { reply, .. } in work.enqueues {
            answer(reply, Err(copy(&error, "cannot enqueue")));
        }
        for order in work.orders {
            match order {
                Order::Requeue(_, reply) => answer(reply, Err(copy(&error, "cannot requeue"))),
                Order::Delete(_, reply) => answer(reply, Err(copy(&error, "cannot delete"))),
                Order::StopReceiving(_) | Order::Close(_) => {}
            }
        }
        self.sicken(&error);
        if !passing && self.waited_for.is_some() {
            self.refuse(error);
        }
    }

    fn sicken(&mut self, error: &QueueError) {
        self.again = true;
        match &mut self.sick {
            Some(sick) => sick.delay = (sick.delay * 2).min(SICK_MAX),
            None => {
                self.sick = Some(Sick { since: Instant::now(), delay: SICK_FIRST });
                warn!(error = %error, "the queue `{}` is sick: waiting until it is well again", self.shared.name);
            }
        }
    }

    fn well(&mut self) {
        if let Some(sick) = self.sick.take() {
            let sick_ms = u64::try_from(sick.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(sick_ms, "the queue `{}` is well again", self.shared.name);
        }
    }

    /// Tells whoever receives that there is nothing to be had.
    fn refuse(&mut self, error: QueueError) {
        let mut inbox = self.shared.inbox.lock();
        inbox.failure = Some(error);
        inbox.demand = None;
        drop(inbox);
        self.waited_for = None;
        self.shared.inbox.changed.notify_waiters();
    }

    /// Becomes a runner. The jobs of those who died before are taken over first.
    fn register(&mut self) {
        let entered = self.enter();
        match entered {
            Ok(registration) => {
                self.well();
                debug!(runner = registration.id, "runner registered");
                self.shared.set_runner(Some(registration.id));
                self.registration = Some(registration);
                self.served = None;
                self.dry.clear();
                self.next_upkeep = Some(Instant::now() + self.shared.heartbeat);
                self.bell.watch(Arc::downgrade(&self.shared));
                self.look_for_peers(false);
                self.bell.ring();
            }
            Err(error) if error.transient => self.sicken(&error),
            Err(error) => self.refuse(error),
        }
    }

    fn enter(&mut self) -> Result<Registration, QueueError> {
        let sqlite = |e| fault::of("cannot register as a runner", e);
        let now = self.shared.clock.now();
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(sqlite)?;
        let registration = Registration::enter(&transaction, &self.shared, now).map_err(|e| match e {
            EnterError::Sqlite(e) => sqlite(e),
            EnterError::Io(e) => QueueError {
                message: format!("cannot write to the state folder `{}`: {e}", self.shared.state_dir.display()),
                hint: Some("`state_dir` names the folder; it must be writable, on a disk with space".to_owned()),
                transient: e.kind() == std::io::ErrorKind::StorageFull,
            },
        })?;
        self.kept_bytes = kept_bytes(&transaction).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
        Ok(registration)
    }

    /// Somebody took this runner for dead while it was stopped: what it holds is somebody else's.
    fn lose_lease(&mut self) {
        warn!("this runner stood still for longer than its lease: others took its jobs, and it registers anew");
        if let Some(registration) = self.registration.take() {
            registration.leave();
        }
        self.shared.set_runner(None);
        self.shared.inbox.lock().claimed.clear();
        self.next_upkeep = None;
        self.again = true;
    }

    fn look_for_peers(&mut self, heartbeat: bool) {
        let Some(registration) = &self.registration else { return };
        match self.peers.look(&self.connection, registration.id, &self.shared, heartbeat) {
            Ok(stuck) => {
                for peer in stuck {
                    self.bury_peer(peer, End::Stuck);
                }
            }
            Err(e) => self.sicken(&fault::of("cannot look for other runners", e)),
        }
    }

    /// Takes over the jobs of a runner that is no more.
    fn bury_peer(&mut self, peer: i64, end: End) {
        let now = self.shared.clock.now();
        let dir = self.shared.runners_dir();
        let mut tally = Tally::default();
        let taken = sync(&self.connection, &mut self.syncs, true).and_then(|()| {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let taken = runners::take_over(&transaction, &dir, peer, end, now, &mut tally)?;
            transaction.commit()?;
            Ok(taken)
        });
        match taken {
            Ok(taken) => {
                self.peers.forget(peer);
                if let Some(jobs) = taken {
                    warn!(runner = peer, jobs, "runner {}: its jobs are taken over", end.word());
                    self.dry.clear();
                    self.again = true;
                }
                if end == End::Died {
                    runners::remove_files(&dir, peer);
                }
            }
            Err(e) => {
                self.sicken(&fault::of("cannot take over the jobs of a dead runner", e));
                if end == End::Died {
                    self.shared.inbox.peer_gone(peer);
                }
            }
        }
    }

    /// Looks, now and then, whether others changed something without ringing, and whether a job is due by now.
    fn recheck(&mut self) {
        if Instant::now() < self.next_recheck {
            return;
        }
        self.next_recheck = Instant::now() + RECHECK;
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        match version {
            Ok(version) if version == self.data_version => {}
            Ok(version) => {
                self.data_version = version;
                self.dry.clear();
            }
            Err(e) => debug!(error = %e, "cannot ask for changes"),
        }
    }

    fn upkeep(&mut self) {
        let regular = !std::mem::take(&mut self.upkeep_goes_on);
        let kept = match self.keep_up() {
            Ok(kept) => kept,
            Err(e) => return self.sicken(&fault::of("cannot renew the lease", e)),
        };
        match kept {
            None => self.lose_lease(),
            Some(more) => {
                self.well();
                let pause = if more { Duration::ZERO } else { self.shared.heartbeat };
                self.next_upkeep = Some(Instant::now() + pause);
                self.upkeep_goes_on = more;
                self.look_for_peers(regular);
            }
        }
    }

    /// One pass; whether there is more to do now. None: the lease was lost.
    fn keep_up(&mut self) -> rusqlite::Result<Option<bool>> {
        let Some(registration) = &self.registration else { return Ok(None) };
        let now = self.shared.clock.now();
        let mut tally = Tally::default();
        // What a pass does is done again if a power failure takes it back.
        sync(&self.connection, &mut self.syncs, false)?;
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        if !registration.renew(&transaction, now, self.shared.lease)? {
            return Ok(None);
        }
        let orphans = runners::adopt_orphans(&transaction)?;
        let served = runners::served_now(&transaction, now)?;
        let served = (!served.others).then_some(&served.types);
        let mut more = upkeep::expire_parked(&transaction, served, self.shared.park_for, now)?;
        more |= upkeep::forget_identities(&transaction, now)?;
        let kept = kept_bytes(&transaction)?;
        more |= self.sweep.step(&transaction, self.shared.keep, kept, UPKEEP_ROWS, now, &mut tally)?;
        tally.write(&transaction)?;
        transaction.commit()?;
        self.kept_bytes = kept + tally.kept_bytes();
        if orphans > 0 {
            self.dry.clear();
        }
        Ok(Some(more))
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

    /// Gives up what this runner holds, and leaves nothing behind.
    fn close(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        match self.give_up(registration.id) {
            Ok(waiting) => {
                registration.leave();
                if waiting && !self.peers.is_empty() {
                    self.bell.ring();
                }
            }
            // The lock goes with the process: the next runner takes over as after a death.
            Err(e) => warn!(error = %e, "cannot sign off from the queue: the next runner takes over what is held"),
        }
    }

    fn give_up(&mut self, id: i64) -> rusqlite::Result<bool> {
        let now = self.shared.clock.now();
        let mut tally = Tally::default();
        sync(&self.connection, &mut self.syncs, true)?;
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        for receipt in self.shared.slots.started() {
            let slot = super::slots::Slot { receipt, executing: true, alone: false };
            runners::count_start(&transaction, slot, id, false, now)?;
        }
        runners::put_back(&transaction, id, &mut tally)?;
        transaction.execute("delete from served where runner = ?1", [id])?;
        transaction.execute("delete from runner where id = ?1", [id])?;
        transaction.commit()?;
        Ok(tally.ring)
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
    {
        return None;
    }
    Some(Served { types: types.cloned().collect(), others: demand.others.is_some() })
}

fn write_served(connection: &Connection, runner: i64, served: &Served) -> rusqlite::Result<()> {
    connection.execute("update runner set others = ?2 where id = ?1", (runner, served.others))?;
    connection.execute("delete from served where runner = ?1", [runner])?;
    let mut insert = connection.prepare_cached("insert or ignore into served(runner, job_type) values(?1, ?2)")?;
    for job_type in &served.types {
        insert.execute((runner, job_type))?;
    }
    Ok(())
}

fn kept_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("select coalesce(sum(bytes), 0) from completed")?.query_row([], |row| row.get(0))
}

/// Takes the order to close out, if it is there.
fn take_close(orders: &mut Vec<Order>) -> Option<Option<oneshot::Sender<()>>> {
    let at = orders.iter().position(|order| matches!(order, Order::Close(_)))?;
    match orders.remove(at) {
        Order::Close(reply) => Some(reply),
        _ => None,
    }
}

/// The same error, for another caller.
fn copy(error: &QueueError, doing: &str) -> QueueError {
    QueueError { message: format!("{doing}: {}", error.message), hint: error.hint.clone(), transient: error.transient }
}

/// Answers somebody who may have gone away, which changes nothing: it is done.
fn answer<T>(reply: oneshot::Sender<T>, with: T) {
    drop(reply.send(with));
}
