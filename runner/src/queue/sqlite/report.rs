//! Reporting: jobs that tell of what a transaction buried, in the same transaction.

use rusqlite::Connection;

use super::record::Records;
use super::tally::Tally;
use super::{Shared, enqueue, inspect};
use crate::clock::UnixMs;
use crate::queue::NewJob;

/// Adds the reports of all that `tally` has as buried.
pub(super) fn apply(
    connection: &Connection,
    records: &mut Records,
    shared: &Shared,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let buried = std::mem::take(&mut tally.buried);
    let Some(reports) = &shared.reports else { return Ok(()) };
    for record in buried {
        let Some(letter) = inspect::letter(connection, record, &shared.name)? else { continue };
        let Some(report) = reports.of(&letter).into_iter().next() else { continue };
        let added = enqueue::apply(connection, records, &[&report], now, tally)?;
        if added.iter().any(|added| added.duplicate) {
            // Somebody took its id, or its job's was used again before a day was over.
            enqueue::apply(connection, records, &[&unnamed(report)], now, tally)?;
        }
    }
    Ok(())
}

/// The same with an id that the queue makes.
fn unnamed(report: NewJob) -> NewJob {
    match report {
        NewJob::Job { job_type, body, run_at, metadata, keep, .. } => {
            NewJob::Job { job_type, body, id: None, run_at, metadata, keep }
        }
        malformed => malformed,
    }
}
