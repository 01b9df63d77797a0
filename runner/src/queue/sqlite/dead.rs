//! What people do with dead letters.

use rusqlite::{Connection, OptionalExtension, params};

use super::identity;
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
         where record = ?1 and state = 4 and job_type is not null returning job_type",
    )?;
    let mut requeued = Vec::with_capacity(records.len());
    for record in records {
        let job_type: Option<String> = statement.query_row(params![record, now.0], |row| row.get(0)).optional()?;
        let Some(job_type) = job_type else { continue };
        tally.waits(&job_type);
        requeued.push(*record);
    }
    Ok(requeued)
}

/// Deletes dead letters; answers those that still were.
pub(super) fn delete(connection: &Connection, records: &[i64]) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("delete from job where record = ?1 and state = 4 returning id, ended_at_ms")?;
    let mut deleted = Vec::with_capacity(records.len());
    for record in records {
        let row: Option<(String, i64)> =
            statement.query_row([record], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((id, ended_at_ms)) = row else { continue };
        identity::depart(connection, &id, *record, UnixMs(ended_at_ms))?;
        deleted.push(*record);
    }
    Ok(deleted)
}
