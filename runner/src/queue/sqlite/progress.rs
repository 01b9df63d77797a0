//! How far a drain is and how long it took, as the rows tell it. For whoever measures; runners do not ask.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{fault, schema};
use crate::clock::UnixMs;
use crate::queue::QueueError;

/// How long a file that a runner has locked is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// A look at a file that others work on.
#[derive(Debug)]
pub(crate) struct Progress {
    connection: Connection,
}

/// Jobs that were completed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// How many.
    pub(crate) jobs: u64,
    /// When the first attempt started.
    pub(crate) started: UnixMs,
    /// When the last job was settled.
    pub(crate) ended: UnixMs,
}

// === impl Progress ===

impl Progress {
    /// Opens a file that is there.
    pub(crate) fn open(path: &Path) -> Result<Progress, QueueError> {
        Ok(Progress { connection: schema::open_reader(path, BUSY)? })
    }

    /// How many jobs are completed and still kept. Costs a row for each job type.
    pub(crate) fn completed(&self) -> Result<u64, QueueError> {
        self.number("select coalesce(sum(jobs), 0) from completed")
    }

    /// How many dead letters there are.
    pub(crate) fn dead(&self) -> Result<u64, QueueError> {
        self.number("select count(*) from job where state = 4")
    }

    /// What was completed and is still kept, apart by the moment of enqueueing: what was added in one transaction has one.
    pub(crate) fn spans(&self) -> Result<Vec<Span>, QueueError> {
        let spans = || -> rusqlite::Result<Vec<Span>> {
            let mut statement = self.connection.prepare(
                "select count(*), min(started_at_ms), max(ended_at_ms) from job where state = 5
                 group by enqueued_at_ms order by enqueued_at_ms",
            )?;
            let spans = statement.query_map([], |row| {
                let jobs = row.get::<_, i64>(0)?.unsigned_abs();
                Ok(Span { jobs, started: UnixMs(row.get(1)?), ended: UnixMs(row.get(2)?) })
            })?;
            spans.collect()
        };
        spans().map_err(|e| fault::of("cannot read the times of jobs", e))
    }

    fn number(&self, sql: &str) -> Result<u64, QueueError> {
        let number =
            self.connection.prepare_cached(sql).and_then(|mut sql| sql.query_row([], |row| row.get::<_, i64>(0)));
        Ok(number.map_err(|e| fault::of("cannot count jobs", e))?.unsigned_abs())
    }
}

// === impl Span ===

impl Span {
    /// Several as one; none if there are none.
    pub(crate) fn all(spans: &[Span]) -> Option<Span> {
        spans.iter().copied().reduce(|a, b| Span {
            jobs: a.jobs + b.jobs,
            started: a.started.min(b.started),
            ended: a.ended.max(b.ended),
        })
    }

    /// Jobs a second.
    pub(crate) fn rate(self) -> f64 {
        // The times are whole milliseconds: what began and ended in one took up to one.
        self.jobs as f64 / self.ended.since(self.started).as_secs_f64().max(0.001)
    }
}
