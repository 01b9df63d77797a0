//! What a transaction changed in sum, for the counters that are written once at its end and for whoever must be told.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::clock::UnixMs;

/// What a completed row counts beside its body and its result: its other columns, and its part of the indexes.
pub(super) const ROW_BYTES: i64 = 256;

/// The sums of one transaction.
#[derive(Debug, Default)]
pub(super) struct Tally {
    completed: Vec<(String, i64, i64)>,
    fenced: i64,
    /// Types of which a job may be ready now.
    pub(super) woken: HashSet<String>,
    /// Records of the jobs that were buried: of so many as one transaction settles, adds or finds expired.
    pub(super) buried: Vec<i64>,
    /// Jobs that others may take are there, or will be due.
    pub(super) ring: bool,
}

// === impl Tally ===

impl Tally {
    /// `jobs` more completed rows of a type are kept, or fewer.
    pub(super) fn kept(&mut self, job_type: &str, jobs: i64, bytes: i64) {
        match self.completed.iter_mut().rev().find(|(known, _, _)| known == job_type) {
            Some((_, known_jobs, known_bytes)) => {
                *known_jobs += jobs;
                *known_bytes += bytes;
            }
            None => self.completed.push((job_type.to_owned(), jobs, bytes)),
        }
    }

    /// A settlement came too late.
    pub(super) fn fenced(&mut self) {
        self.fenced += 1;
    }

    /// A job waits again, or newly.
    pub(super) fn waits(&mut self, job_type: &str) {
        if !self.woken.contains(job_type) {
            self.woken.insert(job_type.to_owned());
        }
        self.ring = true;
    }

    /// How many more bytes are kept.
    pub(super) fn kept_bytes(&self) -> i64 {
        self.completed.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Writes the counters.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.fenced > 0 {
            connection.execute("update counter set fenced_total = fenced_total + ?1", [self.fenced])?;
        }
        for (job_type, jobs, bytes) in self.completed.iter().filter(|(_, jobs, _)| *jobs != 0) {
            connection
                .prepare_cached(
                    "insert into completed(job_type, jobs, bytes) values(?1, ?2, ?3) on conflict(job_type)
                     do update set jobs = jobs + excluded.jobs, bytes = bytes + excluded.bytes",
                )?
                .execute(params![job_type, jobs, bytes])?;
            if *jobs < 0 {
                connection
                    .prepare_cached("delete from completed where job_type = ?1 and jobs <= 0")?
                    .execute([job_type])?;
            }
        }
        Ok(())
    }
}

/// The moment `duration` before `now`, as it is stored.
pub(super) fn before(now: UnixMs, duration: Duration) -> i64 {
    now.minus(duration).0
}
