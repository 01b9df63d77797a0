//! Cancelling: a job that waits is buried at once, one that runs by its runner, which reads here that it should.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::state;
use super::tally::Tally;
use crate::clock::UnixMs;
use crate::outcome::{Failure, Kind};
use crate::queue::{Cancelled, Receipt, State};

/// At most so many are looked at in one transaction.
const PIECE: u32 = 256;

/// The table of what runs and is to be broken off. It is nearly always empty.
pub(super) const TABLE: &str = "create table cancelled(record integer primary key);";

/// What of the cancelled is left to do.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// What the runner that asked holds, and is to break off.
    pub(super) held: Vec<Receipt>,
    /// Whether there are any, here or elsewhere.
    pub(super) any: bool,
}

/// A row that was cancelled.
struct Row {
    record: i64,
    state: Option<i64>,
    runner: i64,
    fence: i64,
}

/// Cancels a job.
pub(super) fn cancel(
    connection: &Connection,
    record: i64,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Cancelled> {
    let state: Option<i64> = connection
        .prepare_cached("select state from job where record = ?1")?
        .query_row([record], |row| row.get(0))
        .optional()?;
    Ok(match state {
        None => Cancelled::Unknown,
        Some(state::DEAD) => Cancelled::Ended(State::Dead),
        Some(state::COMPLETED) => Cancelled::Ended(State::Completed),
        Some(state::RUNNING) => {
            connection.prepare_cached("insert or ignore into cancelled(record) values(?1)")?.execute([record])?;
            // Its runner may be another process, which looks when the bell rings.
            tally.ring = true;
            Cancelled::Asked
        }
        Some(_) => {
            bury(connection, record, now, tally)?;
            Cancelled::Buried
        }
    })
}

/// Whether any job that runs is to be broken off.
pub(super) fn any(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("select 1 from cancelled limit 1")?.exists([])
}

/// Buries what was cancelled while it ran and waits by now (it was to be retried, or its runner died), and forgets what has
/// ended.
pub(super) fn follow_up(
    connection: &Connection,
    runner: Option<i64>,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Left> {
    let rows: Vec<Row> = connection
        .prepare_cached(
            "select cancelled.record, job.state, coalesce(job.runner, 0), coalesce(job.fence, 0)
             from cancelled left join job on job.record = cancelled.record limit ?1",
        )?
        .query_map([PIECE], |row| {
            Ok(Row { record: row.get(0)?, state: row.get(1)?, runner: row.get(2)?, fence: row.get(3)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut left = Left::default();
    for row in rows {
        match row.state {
            Some(state::RUNNING) => {
                left.any = true;
                if runner == Some(row.runner) {
                    left.held.push(Receipt { record: row.record, fence: row.fence });
                }
                continue;
            }
            Some(state::WAITING) => bury(connection, row.record, now, tally)?,
            _ => {}
        }
        connection.prepare_cached("delete from cancelled where record = ?1")?.execute([row.record])?;
    }
    Ok(left)
}

fn bury(connection: &Connection, record: i64, now: UnixMs, tally: &mut Tally) -> rusqlite::Result<()> {
    let failure = Failure::new(Kind::Cancelled, "cancelled before it completed");
    connection
        .prepare_cached(
            "update job set state = 4, ended_at_ms = ?2, kind = ?3, message = ?4 where record = ?1 and state = 2",
        )?
        .execute(params![record, now.0, failure.kind.as_str(), failure.message])?;
    tally.buried.push(record);
    Ok(())
}
