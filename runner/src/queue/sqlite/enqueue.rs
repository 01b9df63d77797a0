//! Enqueueing: new rows.

use rusqlite::{Connection, params};

use super::identity;
use super::record::Records;
use super::tally::Tally;
use crate::clock::UnixMs;
use crate::job::name_fault;
use crate::outcome::{Failure, Kind};
use crate::queue::{Enqueued, NewJob, QueueError};

/// Says why these cannot be stored at all, if they cannot.
pub(super) fn check(jobs: &[NewJob]) -> Result<(), QueueError> {
    for job in jobs {
        if let NewJob::Job { job_type, id, .. } = job {
            let fault = name_fault(job_type).map(|fault| ("job type", job_type, fault));
            let fault = fault.or_else(|| id.as_ref().and_then(|id| Some(("id", id, name_fault(id)?))));
            if let Some((what, name, fault)) = fault {
                let name: String = name.chars().take(40).collect();
                return Err(QueueError::lasting(format!("cannot enqueue: {what} {name:?} {fault}")));
            }
        }
    }
    Ok(())
}

/// Adds jobs; one answer for each.
pub(super) fn apply(
    connection: &Connection,
    records: &mut Records,
    jobs: &[NewJob],
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Vec<Enqueued>> {
    let highest: Option<i64> =
        connection.prepare_cached("select max(record) from job")?.query_row([], |row| row.get(0))?;
    let mut insert = connection.prepare_cached(
        "insert into job(record, state, run_at_ms, enqueued_at_ms, job_type, id, metadata, body)
         values(?1, 2, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut record = highest.unwrap_or(0);
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        record = records.after(record, now);
        match job {
            NewJob::Job { job_type, body, id, run_at, metadata } => {
                if let Some(id) = id
                    && !identity::take(connection, id, record, now)?
                {
                    answers.push(Enqueued { id: id.clone(), duplicate: true });
                    continue;
                }
                let id = id.clone().unwrap_or_else(|| records.id(record));
                let pairs = (!metadata.is_empty())
                    .then(|| serde_json::to_string(metadata).expect("strings can be written as JSON"));
                insert.execute(params![record, run_at.unwrap_or(now).0, now.0, job_type, id, pairs, body])?;
                tally.waits(job_type);
                answers.push(Enqueued { id, duplicate: false });
            }
            NewJob::Malformed { bytes, reason } => {
                let id = records.id(record);
                bury_malformed(connection, record, &id, bytes, reason, now)?;
                answers.push(Enqueued { id, duplicate: false });
            }
        }
    }
    Ok(answers)
}

fn bury_malformed(
    connection: &Connection,
    record: i64,
    id: &str,
    bytes: &[u8],
    reason: &str,
    now: UnixMs,
) -> rusqlite::Result<()> {
    let failure = Failure::new(Kind::Malformed, reason);
    connection
        .prepare_cached(
            "insert into job(record, state, run_at_ms, enqueued_at_ms, ended_at_ms, id, kind, message, body)
             values(?1, 4, ?2, ?2, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![record, now.0, id, failure.kind.as_str(), failure.message, bytes])?;
    Ok(())
}
