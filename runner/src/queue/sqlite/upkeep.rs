//! Upkeep: what ends by the clock, in small pieces, so that no transaction is long.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::claim::next_waiting_type;
use super::schema::state;
use super::tally::{Tally, before};
use super::{identity, kept};
use crate::clock::UnixMs;
use crate::outcome::{Failure, Kind};
use crate::queue::Keep;

/// At most this many rows are buried in one transaction.
const PIECE: u32 = 512;

/// So many types that nobody serves have a clock; a job of another one waits for its type's turn.
const PARKED_TYPES_MAX: usize = 10_000;

/// Between two walks over the table for what is too old.
const REST_MAX: Duration = Duration::from_secs(60);

/// The walk over the table, oldest first, that deletes completed rows which are too old or too many.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    cursor: i64,
    rests_until: Option<UnixMs>,
}

/// A walk over a table beside the jobs', piece by piece, that deletes what belongs to rows that are gone.
#[derive(Debug, Default)]
pub(super) struct Walk {
    cursor: i64,
}

/// Rows that a sweep looked at.
struct Found {
    record: i64,
    state: i64,
    ended_at_ms: Option<i64>,
    bytes: i64,
    /// These of a completed one only.
    job_type: Option<String>,
    id: Option<String>,
}

// === impl Sweep ===

impl Sweep {
    /// Looks at up to `rows` rows, where `kept` bytes are kept; whether there is more to do now.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        keep: Keep,
        kept: i64,
        rows: usize,
        now: UnixMs,
        tally: &mut Tally,
    ) -> rusqlite::Result<bool> {
        let limit = i64::try_from(keep.bytes).unwrap_or(i64::MAX);
        let over = |tally: &Tally| kept.saturating_add(tally.kept_bytes()) > limit;
        // No rest is longer than that: one that is was begun before the clock was set back.
        let rests = self.rests_until.is_some_and(|until| until > now && until <= now.plus(REST_MAX));
        if rests && !over(tally) {
            return Ok(false);
        }
        self.rests_until = None;
        let horizon = before(now, keep.age);
        let found = look(connection, self.cursor, rows)?;
        let spares = kept::any(connection)?;
        let ended = found.len() < rows;
        let mut delete = connection.prepare_cached("delete from job where record = ?1")?;
        for row in found {
            let (too_many, maybe_old) = (over(tally), row.record >> 15 <= horizon);
            if !too_many && !maybe_old {
                // Whatever stands behind it was enqueued later still.
                self.rest(keep, now);
                return Ok(false);
            }
            self.cursor = row.record;
            if row.state == state::COMPLETED && (too_many || row.ended_at_ms.is_none_or(|at| at <= horizon)) {
                let ended_at = row.ended_at_ms.map_or(now, UnixMs);
                if spares && kept::spares(connection, row.record, ended_at, now)? {
                    continue;
                }
                delete.execute([row.record])?;
                identity::depart(connection, row.id.as_deref().unwrap_or_default(), row.record, ended_at)?;
                tally.kept(row.job_type.as_deref().unwrap_or_default(), -1, -row.bytes);
            }
        }
        if ended {
            self.rest(keep, now);
        }
        Ok(!ended)
    }

    fn rest(&mut self, keep: Keep, now: UnixMs) {
        self.cursor = 0;
        self.rests_until = Some(now.plus((keep.age / 64).clamp(Duration::from_secs(1), REST_MAX)));
    }
}

// === impl Walk ===

impl Walk {
    /// Looks at the next `rows` of `table`, whose key is `key`; behind the last it begins anew.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        table: &'static str,
        key: &'static str,
        rows: usize,
    ) -> rusqlite::Result<()> {
        let found: Vec<(i64, bool)> = connection
            .prepare_cached(&format!(
                "select {key}, exists(select 1 from job where job.record = {table}.record) from {table}
                 where {key} > ?1 order by {key} limit ?2"
            ))?
            .query_map(params![self.cursor, i64::try_from(rows).unwrap_or(i64::MAX)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        self.cursor = found.last().map_or(0, |(key, _)| *key);
        for (gone, _) in found.into_iter().filter(|(_, has_job)| !has_job) {
            connection.prepare_cached(&format!("delete from {table} where {key} = ?1"))?.execute([gone])?;
        }
        Ok(())
    }
}

fn look(connection: &Connection, after: i64, rows: usize) -> rusqlite::Result<Vec<Found>> {
    let mut statement = connection.prepare_cached(
        "select record, state, ended_at_ms, coalesce(kept_bytes, 0), case when state = 5 then job_type end,
                case when state = 5 then id end
         from job where record > ?1 order by record limit ?2",
    )?;
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let found = statement.query_map(params![after, rows], |row| {
        Ok(Found {
            record: row.get(0)?,
            state: row.get(1)?,
            ended_at_ms: row.get(2)?,
            bytes: row.get(3)?,
            job_type: row.get(4)?,
            id: row.get(5)?,
        })
    })?;
    found.collect()
}

/// Keeps the clocks of types that nobody serves, and buries jobs that waited for a handler through all of `park_for`.
/// `served` are the types that live runners serve; none: one of them serves every type. Answers whether there is more.
pub(super) fn expire_parked(
    connection: &Connection,
    served: Option<&HashSet<String>>,
    park_for: Duration,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<bool> {
    let Some(served) = served else {
        connection.execute("delete from parked", [])?;
        return Ok(false);
    };
    let mut parked = HashSet::new();
    let mut after = String::new();
    while let Some(job_type) = next_waiting_type(connection, &after)? {
        after.clone_from(&job_type);
        if !served.contains(&job_type) && parked.len() < PARKED_TYPES_MAX {
            parked.insert(job_type);
        }
    }
    let known: Vec<(String, i64)> = connection
        .prepare_cached("select job_type, since_ms from parked")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let horizon = before(now, park_for);
    let mut more = false;
    for (job_type, since) in &known {
        if !parked.remove(job_type) {
            connection.prepare_cached("delete from parked where job_type = ?1")?.execute([job_type])?;
        } else if *since <= horizon {
            let mut expired = bury_expired(connection, job_type, horizon, park_for, now)?;
            more |= expired.len() >= PIECE as usize;
            tally.buried.append(&mut expired);
        }
    }
    for job_type in &parked {
        connection
            .prepare_cached("insert into parked(job_type, since_ms) values(?1, ?2)")?
            .execute(params![job_type, now.0])?;
    }
    Ok(more)
}

fn bury_expired(
    connection: &Connection,
    job_type: &str,
    horizon: i64,
    park_for: Duration,
    now: UnixMs,
) -> rusqlite::Result<Vec<i64>> {
    let jobs: Vec<i64> = connection
        .prepare_cached(
            "select record from job where state = 2 and job_type = ?1 and run_at_ms <= ?2
             order by run_at_ms limit ?3",
        )?
        .query_map(params![job_type, horizon, PIECE], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let failure = Failure::new(Kind::Expired, format!("no handler of its type for {} s", park_for.as_secs()));
    for record in &jobs {
        connection
            .prepare_cached(
                "update job set state = 4, ended_at_ms = ?2, kind = ?3, message = ?4 where record = ?1 and state = 2",
            )?
            .execute(params![record, now.0, failure.kind.as_str(), failure.message])?;
    }
    Ok(jobs)
}
