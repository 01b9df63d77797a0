//! Enqueueing: new rows.

use std::sync::LazyLock;

use rusqlite::{Connection, Statement, params};

use super::record::Records;
use super::schema::state;
use super::tally::Tally;
use super::together::Together;
use super::{identity, kept};
use crate::clock::UnixMs;
use crate::outcome::{Failure, Kind};
use crate::queue::{Enqueued, NewJob};

static INSERT: LazyLock<Together> = LazyLock::new(|| {
    let columns = "record, state, run_at_ms, enqueued_at_ms, job_type, id, metadata, body";
    let row = format!("(?, {}, ?, ?, ?, ?, ?, ?)", state::WAITING);
    Together::of(|rows| format!("insert into job({columns}) values {}", vec![row.as_str(); rows].join(", ")))
});

/// A job's row before it is there.
struct Row<'a> {
    record: i64,
    run_at: UnixMs,
    job_type: &'a str,
    id: &'a str,
    metadata: Option<String>,
    body: &'a str,
}

/// Adds jobs; one answer for each.
pub(super) fn apply(
    connection: &Connection,
    records: &mut Records,
    jobs: &[&NewJob],
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Vec<Enqueued>> {
    let highest: Option<i64> =
        connection.prepare_cached("select max(record) from job")?.query_row([], |row| row.get(0))?;
    let mut record = highest.unwrap_or(0);
    let mut answers = Vec::with_capacity(jobs.len());
    // Records of the jobs that have an answer, in their order.
    let mut added = Vec::with_capacity(jobs.len());
    for &job in jobs {
        record = records.after(record, now);
        let (given, is_new) = match job {
            NewJob::Job { id: Some(id), .. } => (Some(id.clone()), identity::take(connection, id, record, now)?),
            NewJob::Job { id: None, .. } | NewJob::Malformed { .. } => (None, true),
        };
        let id = given.unwrap_or_else(|| records.id(record));
        answers.push(Enqueued { id, duplicate: !is_new });
        added.push(record);
        if is_new {
            kept::add(connection, record, job)?;
        }
        match job {
            NewJob::Job { job_type, .. } if is_new => tally.waits(job_type),
            NewJob::Job { .. } => {}
            NewJob::Malformed { bytes, reason } => {
                let id = &answers.last().expect("it was just pushed").id;
                bury_malformed(connection, record, id, bytes, reason, now)?;
                tally.buried.push(record);
            }
        }
    }
    let rows = jobs.iter().zip(&answers).zip(added).filter(|((_, answer), _)| !answer.duplicate);
    let rows: Vec<Row<'_>> = rows.filter_map(|((job, answer), record)| Row::of(record, job, answer, now)).collect();
    INSERT.execute(connection, &rows, |statement, rows| bind(statement, rows, now))?;
    Ok(answers)
}

/// Fills in the rows that the statement is for.
fn bind(statement: &mut Statement<'_>, rows: &[Row<'_>], now: UnixMs) -> rusqlite::Result<()> {
    for (row, first) in rows.iter().zip((1..).step_by(7)) {
        statement.raw_bind_parameter(first, row.record)?;
        statement.raw_bind_parameter(first + 1, row.run_at.0)?;
        statement.raw_bind_parameter(first + 2, now.0)?;
        statement.raw_bind_parameter(first + 3, row.job_type)?;
        statement.raw_bind_parameter(first + 4, row.id)?;
        statement.raw_bind_parameter(first + 5, row.metadata.as_deref())?;
        statement.raw_bind_parameter(first + 6, row.body)?;
    }
    Ok(())
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

// === impl Row ===

impl<'a> Row<'a> {
    /// The row of a job; none of a malformed one, whose row is another.
    fn of(record: i64, job: &'a NewJob, answer: &'a Enqueued, now: UnixMs) -> Option<Row<'a>> {
        let NewJob::Job { job_type, body, run_at, metadata, .. } = job else { return None };
        let metadata =
            (!metadata.is_empty()).then(|| serde_json::to_string(metadata).expect("strings can be written as JSON"));
        Some(Row { record, run_at: run_at.unwrap_or(now), job_type, id: &answer.id, metadata, body })
    }
}
