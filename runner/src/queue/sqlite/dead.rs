//! What people do with dead letters.

use rusqlite::{Connection, OptionalExtension, params};

use super::record;
use super::tally::Tally;
use crate::clock::UnixMs;

/// Sends dead letters back, as they were enqueued, with no failures and a new clock; answers those that still were dead.
/// Malformed ones have no type that could be served.
pub(super) fn requeue(
    connection: &Connection,
    records: &[i64],
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(
        "update job set state = 2, run_at_ms = ?2, failures = 0, retries = 0, deaths = 0, requeues = requeues + 1,
                first_started_at_ms = null, ended_at_ms = null, changed_body = null
         where record = ?1 and state = 4 and job_type is not null returning id, job_type",
    )?;
    let mut requeued = Vec::with_capacity(records.len());
    for record in records {
        let row: Option<(String, String)> =
            statement.query_row(params![record, now.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((id, job_type)) = row else { continue };
        if !record::is_automatic(&id, *record) {
            connection
                .prepare_cached("update identity set ended_at_ms = null where id = ?1 and record = ?2")?
                .execute(params![id, record])?;
        }
        tally.waits(&job_type);
        requeued.push(*record);
    }
    Ok(requeued)
}

/// Deletes dead letters; answers those that still were.
pub(super) fn delete(connection: &Connection, records: &[i64]) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("delete from job where record = ?1 and state = 4")?;
    let mut deleted = Vec::with_capacity(records.len());
    for record in records {
        if statement.execute([record])? > 0 {
            deleted.push(*record);
        }
    }
    Ok(deleted)
}
