//! Runners on one file: who lives, who died, and what becomes of a dead one's jobs.
//!
//! A runner holds a lock file for as long as its process lives. Its peers have a thread each that waits for that lock, so
//! that they learn of a death at once. A runner that lives and does nothing (stopped, or its machine is stuck) is told by
//! its lease, which it no longer renews.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use tracing::warn;

use super::Shared;
use super::folder::{Folder, Lock};
use super::slots::{self, SLOT_BYTES, Slot};
use super::tally::Tally;
use crate::clock::UnixMs;
use crate::queue::runner_files;

/// A peer whose lease stood still for so many of our own heartbeats, and one more, does nothing any more. They are counted
/// rather than timed: where the file was locked for all of us, nobody is dead.
const HEARTBEATS_IN_A_LEASE_MIN: u32 = 2;

/// This runner's entry, for as long as it is one.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) id: i64,
    lock: Box<dyn Lock>,
}

/// The other runners, as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<i64, Peer>,
}

#[derive(Debug)]
struct Peer {
    lease_until_ms: i64,
    missed: u32,
}

/// What live runners serve, all together.
#[derive(Debug, Default)]
pub(super) struct ServedNow {
    pub(super) runners: u32,
    pub(super) others: bool,
    pub(super) types: HashSet<String>,
    /// What none of them serves by name, since those that have its handler paused it.
    pub(super) paused: HashSet<String>,
}

/// How a runner was found to be no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its lock was released: the process is gone.
    Died,
    /// Its lease ran out: it may still be there, and will find its settlements refused.
    Stuck,
}

// === impl Registration ===

impl Registration {
    /// Takes a number, its lock and its slot file, and enters it, all in the transaction that `connection` is in: no peer
    /// sees the entry before the lock is held.
    pub(super) fn enter(
        connection: &Connection,
        shared: &Shared,
        folder: &mut dyn Folder,
        now: UnixMs,
    ) -> Result<Registration, EnterError> {
        loop {
            let id: i64 = connection
                .prepare_cached("update counter set runner = runner + 1 returning runner")?
                .query_row([], |row| row.get(0))?;
            // Where another process holds it, the folder served another file before, whose runner still lives.
            let Some(lock) = folder.lock(id)? else { continue };
            shared.slots.write_to(folder.make_slot_file(id, SLOT_BYTES * shared.slot_count as usize)?);
            connection
                .prepare_cached("insert into runner(id, others, lease_until_ms) values(?1, 0, ?2)")?
                .execute(params![id, now.plus(shared.lease).0])?;
            return Ok(Registration { id, lock });
        }
    }

    /// Renews the lease; false: somebody took this runner for dead, and its jobs.
    pub(super) fn renew(&self, connection: &Connection, now: UnixMs, lease: Duration) -> rusqlite::Result<bool> {
        let renewed = connection
            .prepare_cached("update runner set lease_until_ms = ?2 where id = ?1")?
            .execute(params![self.id, now.plus(lease).0])?;
        Ok(renewed > 0)
    }

    /// Whether the entry still stands.
    pub(super) fn stands(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection.prepare_cached("select 1 from runner where id = ?1")?.exists([self.id])
    }

    /// Removes the files, when the entry is no more.
    pub(super) fn leave(self, folder: &mut dyn Folder) {
        folder.remove_files(self.id);
        drop(self.lock);
    }
}

/// Why a runner cannot be entered.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnterError {
    /// The database.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The state folder.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

// === impl ServedNow ===

impl ServedNow {
    /// Whether jobs of a type wait for a handler. Where no runner lives at all, nothing is known of handlers.
    pub(super) fn parks(&self, job_type: &str) -> bool {
        self.runners > 0 && !self.types.contains(job_type) && !self.takes_others(job_type)
    }

    /// Whether a handler of `*` may have a type that is not served by name.
    pub(super) fn takes_others(&self, job_type: &str) -> bool {
        self.others && !self.paused.contains(job_type)
    }
}

// === impl End ===

impl End {
    pub(super) fn word(self) -> &'static str {
        match self {
            End::Died => "died",
            End::Stuck => "does nothing any more",
        }
    }
}

// === impl Peers ===

impl Peers {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn forget(&mut self, id: i64) {
        self.known.remove(&id);
    }

    /// Looks who is there, and has a thread wait for the lock of each new one. With `heartbeat` it is one of our regular
    /// looks, and those whose lease stood still for too many of them are answered.
    pub(super) fn look(
        &mut self,
        connection: &Connection,
        own: i64,
        shared: &Arc<Shared>,
        folder: &mut dyn Folder,
        heartbeat: bool,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut statement = connection.prepare_cached("select id, lease_until_ms from runner where id <> ?1")?;
        let rows = statement.query_map([own], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<BTreeMap<i64, i64>>>()?;
        self.known.retain(|id, _| rows.contains_key(id));
        let allowed = u32::try_from(shared.lease.as_millis() / shared.heartbeat.as_millis().max(1)).unwrap_or(u32::MAX);
        let mut stuck = Vec::new();
        for (id, lease_until_ms) in rows {
            let peer = self.known.entry(id).or_insert_with(|| {
                folder.watch_lock(id, Arc::downgrade(shared));
                Peer { lease_until_ms, missed: 0 }
            });
            if peer.lease_until_ms != lease_until_ms {
                *peer = Peer { lease_until_ms, missed: 0 };
            } else if heartbeat {
                peer.missed += 1;
                if peer.missed > allowed.max(HEARTBEATS_IN_A_LEASE_MIN) {
                    stuck.push(id);
                }
            }
        }
        Ok(stuck)
    }
}

/// Takes the jobs of a runner that is no more; none where a peer was faster. Those it had only claimed are just put back.
pub(super) fn take_over(
    connection: &Connection,
    folder: &dyn Folder,
    id: i64,
    end: End,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Option<usize>> {
    if connection.execute("delete from runner where id = ?1", [id])? == 0 {
        return Ok(None);
    }
    connection.execute("delete from served where runner = ?1", [id])?;
    let slots = folder.read_slot_file(id).unwrap_or_else(|e| {
        warn!(runner = id, error = %e, "cannot read what a dead runner executed: its jobs count as not started");
        Vec::new()
    });
    let mut jobs = 0;
    for slot in slots::read(&slots) {
        if interrupt(connection, id, slot, end, now)? {
            tally.buried.push(slot.receipt.record);
            jobs += 1;
        }
    }
    jobs += put_back(connection, id, tally)?;
    Ok(Some(jobs))
}

/// Puts back jobs whose runner is in no list, which only a bug or a person with the database's shell can bring about.
pub(super) fn adopt_orphans(connection: &Connection) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("update job set state = 2 where state = 3 and runner not in (select id from runner)")?
        .execute([])
}

/// Reads what live runners serve.
pub(super) fn served_now(connection: &Connection, now: UnixMs) -> rusqlite::Result<ServedNow> {
    let (runners, others) = connection
        .prepare_cached("select count(*), coalesce(max(others), 0) from runner where lease_until_ms > ?1")?
        .query_row([now.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut types, mut paused) = (HashSet::new(), HashSet::new());
    let mut statement = connection.prepare_cached(
        "select job_type, min(paused) from served join runner on runner.id = served.runner
         where lease_until_ms > ?1 group by job_type",
    )?;
    let mut rows = statement.query([now.0])?;
    while let Some(row) = rows.next()? {
        let of = if row.get(1)? { &mut paused } else { &mut types };
        of.insert(row.get(0)?);
    }
    drop(rows);
    Ok(ServedNow { runners, others, types, paused })
}

/// Puts back what a runner had claimed and not started, or had its start counted already.
pub(super) fn put_back(connection: &Connection, id: i64, tally: &mut Tally) -> rusqlite::Result<usize> {
    let mut statement =
        connection.prepare_cached("update job set state = 2 where state = 3 and runner = ?1 returning job_type")?;
    let types = statement.query_map([id], |row| row.get::<_, String>(0))?;
    let mut jobs = 0;
    for job_type in types {
        tally.waits(&job_type?);
        jobs += 1;
    }
    Ok(jobs)
}

/// Counts the start of a job that its runner did not settle: it goes on as claimed, for [`put_back`], unless it died alone:
/// then it is buried, and that is answered.
fn interrupt(connection: &Connection, id: i64, slot: Slot, end: End, now: UnixMs) -> rusqlite::Result<bool> {
    let key = params![slot.receipt.record, slot.receipt.fence, id];
    let died = end == End::Died && slot.executing;
    if !(died && slot.alone) {
        let started = count_start(connection, slot, id, died, now)?;
        debug_assert!(started <= 1, "a record is one row");
        return Ok(false);
    }
    let held = "select 1 from job where record = ?1 and fence = ?2 and runner = ?3 and state = 3";
    if !connection.prepare_cached(held)?.exists(key)? {
        return Ok(false);
    }
    count_start(connection, slot, id, died, now)?;
    let failure = runner_files::suspect();
    connection
        .prepare_cached("update job set state = 4, ended_at_ms = ?2, kind = ?3, message = ?4 where record = ?1")?
        .execute(params![slot.receipt.record, now.0, failure.kind.as_str(), failure.message])?;
    Ok(true)
}

/// An interrupted start. That is an attempt, nobody's failure, and perhaps a death.
pub(super) fn count_start(
    connection: &Connection,
    slot: Slot,
    runner: i64,
    died: bool,
    now: UnixMs,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "update job set attempt = attempt + 1, interruptions = interruptions + 1, deaths = deaths + ?4,
                    first_started_at_ms = coalesce(first_started_at_ms, ?5)
             where record = ?1 and fence = ?2 and runner = ?3 and state = 3",
        )?
        .execute(params![slot.receipt.record, slot.receipt.fence, runner, died, now.0])
}

/// Removes the files of runners that are in no list and whose process is gone: whoever took over from them was killed before it
/// had removed them. To be called in a transaction that writes, as [`Registration::enter`] is, which makes such files.
pub(super) fn sweep_files(connection: &Connection, folder: &mut dyn Folder) -> rusqlite::Result<()> {
    // One that lost its lease holds its lock still, and removes its files itself.
    for id in folder.released() {
        if !connection.prepare_cached("select 1 from runner where id = ?1")?.exists([id])? {
            folder.remove_files(id);
        }
    }
    Ok(())
}
