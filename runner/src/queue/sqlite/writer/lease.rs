//! The writer as a runner: its registration, its lease, its peers, and what it gives up at its end.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tracing::{debug, warn};

use super::super::runners::{self, End, EnterError, Registration};
use super::super::slots::Slot;
use super::super::tally::Tally;
use super::super::{fault, identity, kept, logs, report, upkeep};
use super::{Writer, sync};
use crate::queue::QueueError;

/// Rows that a sweep of the upkeep looks at.
const UPKEEP_ROWS: usize = 1_024;

// === impl Writer ===

impl Writer {
    /// Becomes a runner. The jobs of those who died before are taken over first.
    pub(super) fn register(&mut self) {
        let entered = self.enter();
        match entered {
            Ok(registration) => {
                self.well();
                debug!(runner = registration.id, "runner registered");
                self.shared.set_runner(Some(registration.id));
                self.registration = Some(registration);
                self.served = None;
                self.dry.clear();
                self.next_upkeep = Some(self.shared.clock.instant() + self.shared.heartbeat);
                self.folder.watch_bell(Arc::downgrade(&self.shared));
                self.look_for_peers(false);
                self.folder.ring();
            }
            Err(error) if error.transient => self.sicken(&error),
            Err(error) => self.refuse(error),
        }
    }

    fn enter(&mut self) -> Result<Registration, QueueError> {
        let sqlite = |e| fault::of("cannot register as a runner", e);
        let (now, begun) = (self.shared.clock.now(), self.shared.clock.instant());
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(sqlite)?;
        runners::sweep_files(&transaction, &mut *self.folder).map_err(sqlite)?;
        let entered = Registration::enter(&transaction, &self.shared, &mut *self.folder, now);
        let registration = entered.map_err(|e| match e {
            EnterError::Sqlite(e) => sqlite(e),
            EnterError::Io(e) => QueueError {
                message: format!("cannot write to the state folder `{}`: {e}", self.folder.path().display()),
                hint: Some("`state_dir` names the folder; it must be writable, on a disk with space".to_owned()),
                transient: e.kind() == std::io::ErrorKind::StorageFull,
                unsupported: false,
            },
        })?;
        self.kept_bytes = kept_bytes(&transaction).map_err(sqlite)?;
        let after_fence = transaction.query_row("select fence from counter", [], |row| row.get(0)).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
        self.shared.right.begin(after_fence, begun + self.shared.lease);
        Ok(registration)
    }

    /// Somebody took this runner for dead while it was stopped: what it holds is somebody else's.
    pub(super) fn lose_lease(&mut self) {
        warn!("this runner stood still for longer than its lease: others took its jobs, and it registers anew");
        if let Some(registration) = self.registration.take() {
            registration.leave(&mut *self.folder);
        }
        self.shared.set_runner(None);
        self.shared.right.end();
        let lost = std::mem::take(&mut self.shared.inbox.lock().claimed);
        self.in_flight = self.in_flight.saturating_sub(lost.len());
        self.next_upkeep = None;
        self.again = true;
    }

    pub(super) fn look_for_peers(&mut self, heartbeat: bool) {
        let Some(registration) = &self.registration else { return };
        match self.peers.look(&self.connection, registration.id, &self.shared, &mut *self.folder, heartbeat) {
            Ok(stuck) => {
                for peer in stuck {
                    self.bury_peer(peer, End::Stuck);
                }
            }
            Err(e) => self.sicken(&fault::of("cannot look for other runners", e)),
        }
    }

    /// Takes over the jobs of a runner that is no more.
    pub(super) fn bury_peer(&mut self, peer: i64, end: End) {
        let now = self.shared.clock.now();
        let mut tally = Tally::default();
        let taken = sync(&self.connection, &mut self.syncs, true).and_then(|()| {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let taken = runners::take_over(&transaction, &*self.folder, peer, end, now, &mut tally)?;
            report::apply(&transaction, &mut self.records, &self.shared, now, &mut tally)?;
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
                // One that still lives, and does nothing, writes to what nobody reads; should it die so, nobody would come
                // for its files.
                self.folder.remove_files(peer);
            }
            Err(e) => {
                self.sicken(&fault::of("cannot take over the jobs of a dead runner", e));
                if end == End::Died {
                    self.shared.inbox.peer_gone(peer);
                }
            }
        }
    }

    /// Renews the lease, and does what ends by the clock.
    pub(super) fn upkeep(&mut self) {
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
                self.next_upkeep = Some(self.shared.clock.instant() + pause);
                self.upkeep_goes_on = more;
                self.look_for_peers(regular);
            }
        }
    }

    /// One pass; whether there is more to do now. None: the lease was lost.
    fn keep_up(&mut self) -> rusqlite::Result<Option<bool>> {
        let Some(registration) = &self.registration else { return Ok(None) };
        let (now, begun) = (self.shared.clock.now(), self.shared.clock.instant());
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
        let mut more = upkeep::expire_parked(&transaction, served, self.shared.park_for, now, &mut tally)?;
        report::apply(&transaction, &mut self.records, &self.shared, now, &mut tally)?;
        more |= identity::forget(&transaction, now)?;
        more |= logs::forget(&transaction, &mut self.walks.log, self.shared.logs_bytes)?;
        kept::forget(&transaction, &mut self.walks.kept)?;
        let kept = kept_bytes(&transaction)?;
        more |= self.sweep.step(&transaction, self.shared.keep, kept, UPKEEP_ROWS, now, &mut tally)?;
        tally.write(&transaction)?;
        transaction.commit()?;
        self.shared.right.renew(begun + self.shared.lease);
        self.kept_bytes = kept + tally.kept_bytes();
        if orphans > 0 {
            self.dry.clear();
        }
        for job_type in &tally.woken {
            self.dry.wet(job_type);
        }
        if tally.ring && !self.peers.is_empty() {
            self.folder.ring();
        }
        Ok(Some(more))
    }

    /// Gives up what this runner holds, and leaves nothing behind.
    pub(super) fn close(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        match self.give_up(registration.id) {
            Ok(waiting) => {
                registration.leave(&mut *self.folder);
                if waiting && !self.peers.is_empty() {
                    self.folder.ring();
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
            let slot = Slot { receipt, executing: true, alone: false };
            runners::count_start(&transaction, slot, id, false, now)?;
        }
        runners::put_back(&transaction, id, &mut tally)?;
        transaction.execute("delete from served where runner = ?1", [id])?;
        transaction.execute("delete from runner where id = ?1", [id])?;
        transaction.commit()?;
        Ok(tally.ring)
    }
}

fn kept_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("select coalesce(sum(bytes), 0) from completed")?.query_row([], |row| row.get(0))
}
