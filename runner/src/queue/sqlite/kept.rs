//! Completed rows that are kept although others of their age go: somebody waits for them, or asked for it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::upkeep::Walk;
use crate::clock::UnixMs;
use crate::queue::NewJob;

/// So many rows are looked at in one pass of the upkeep.
const PIECE: usize = 256;

/// Until when, and for how long after the job's end; the later of the two counts.
pub(super) const TABLE: &str = "
create table kept(record integer primary key, until_ms integer not null, after_end_ms integer not null);
";

/// Notes, as a job is added, how long it is to be kept after its end.
pub(super) fn add(connection: &Connection, record: i64, job: &NewJob) -> rusqlite::Result<()> {
    let NewJob::Job { keep: Some(keep), .. } = job else { return Ok(()) };
    put(connection, record, UnixMs(0), *keep)
}

/// Keeps a job until a moment.
pub(super) fn until(connection: &Connection, record: i64, until: UnixMs) -> rusqlite::Result<()> {
    put(connection, record, until, Duration::ZERO)
}

fn put(connection: &Connection, record: i64, until: UnixMs, after_end: Duration) -> rusqlite::Result<()> {
    let after_end_ms = i64::try_from(after_end.as_millis()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "insert into kept(record, until_ms, after_end_ms) values(?1, ?2, ?3) on conflict(record) do update
             set until_ms = max(until_ms, excluded.until_ms), after_end_ms = max(after_end_ms, excluded.after_end_ms)",
        )?
        .execute(params![record, until.0, after_end_ms])?;
    Ok(())
}

/// Whether any row is kept so.
pub(super) fn any(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("select 1 from kept limit 1")?.exists([])
}

/// Whether a row that ended at that moment stays.
pub(super) fn spares(connection: &Connection, record: i64, ended_at: UnixMs, now: UnixMs) -> rusqlite::Result<bool> {
    let kept: Option<(i64, i64)> = connection
        .prepare_cached("select until_ms, after_end_ms from kept where record = ?1")?
        .query_row([record], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(kept.is_some_and(|(until, after_end)| until.max(ended_at.0.saturating_add(after_end)) > now.0))
}

/// Forgets, a piece at a time, what is said of rows that are gone.
pub(super) fn forget(connection: &Connection, walk: &mut Walk) -> rusqlite::Result<()> {
    walk.step(connection, "kept", "record", PIECE)
}
