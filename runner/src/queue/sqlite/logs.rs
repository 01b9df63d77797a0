//! What guests said in attempts whose lines are kept.

use rusqlite::{Connection, OptionalExtension, params};

use super::upkeep::Walk;
use crate::queue::{AttemptLines, LogLine};

/// So many attempts of a job have their lines kept: as many as have a record.
const ATTEMPTS_MAX: u32 = 13;

/// So many rows are looked at, or deleted, in one pass of the upkeep.
const PIECE: usize = 512;

/// `lines` stands behind everything that is read without it.
pub(super) const TABLE: &str = "
create table log(
    number integer primary key, record integer not null, attempt integer not null, bytes integer not null,
    cut integer not null, lines text not null
);
create unique index log_of on log(record, attempt);
";

/// Keeps the lines of an attempt, and no more of the oldest of its job than there may be.
pub(super) fn add(connection: &Connection, record: i64, lines: &AttemptLines) -> rusqlite::Result<()> {
    let text = serde_json::to_string(&lines.lines).expect("numbers and strings can be written as JSON");
    connection
        .prepare_cached("insert or replace into log(record, attempt, bytes, cut, lines) values(?1, ?2, ?3, ?4, ?5)")?
        .execute(params![record, lines.attempt, i64::try_from(text.len()).unwrap_or(i64::MAX), lines.cut, text])?;
    if lines.attempt > ATTEMPTS_MAX {
        connection
            .prepare_cached(
                "delete from log where record = ?1 and attempt <=
                 (select attempt from log where record = ?1 order by attempt desc limit 1 offset ?2)",
            )?
            .execute(params![record, ATTEMPTS_MAX])?;
    }
    Ok(())
}

/// What is kept of a job's attempts, in their order.
pub(super) fn of(connection: &Connection, record: i64) -> rusqlite::Result<Vec<AttemptLines>> {
    let mut statement =
        connection.prepare_cached("select attempt, cut, lines from log where record = ?1 order by attempt")?;
    let logs = statement.query_map([record], |row| {
        // What another version wrote is not shown rather than in the way.
        let lines: Vec<LogLine> = serde_json::from_str(row.get_ref(2)?.as_str()?).unwrap_or_default();
        Ok(AttemptLines { attempt: row.get(0)?, cut: row.get(1)?, lines })
    })?;
    logs.collect()
}

/// Deletes, a piece at a time, lines of jobs that are gone, and the oldest where all are more than `bytes_max`. Whether
/// there is more to do now.
pub(super) fn forget(connection: &Connection, walk: &mut Walk, bytes_max: u64) -> rusqlite::Result<bool> {
    walk.step(connection, "log", "number", PIECE)?;
    let bytes: i64 =
        connection.prepare_cached("select coalesce(sum(bytes), 0) from log")?.query_row([], |row| row.get(0))?;
    let mut over = bytes.saturating_sub(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    for _ in 0..PIECE {
        if over <= 0 {
            return Ok(false);
        }
        let oldest: Option<(i64, i64)> = connection
            .prepare_cached("select number, bytes from log order by number limit 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, bytes)) = oldest else { return Ok(false) };
        connection.prepare_cached("delete from log where number = ?1")?.execute([number])?;
        over -= bytes.max(1);
    }
    Ok(over > 0)
}
