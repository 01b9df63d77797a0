//! The least that a queue on SQLite can do, to measure the queue against: one table, claims, settlements and inserts in
//! batches, each batch durable, and nothing else. No leases, no fences, no history, no bell.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::fault;
use crate::queue::QueueError;

const TABLE: &str = "
pragma journal_mode = wal;
pragma synchronous = full;
create table job(
    record integer primary key,
    id text,
    job_type text,
    body text,
    run_at integer,
    lease_until integer,
    attempt integer
);
create index ready on job(job_type, run_at) where lease_until is null;
";

/// Jobs in one insert.
const INSERTED: u64 = 1_000;

/// Jobs that a worker takes at one time.
const PIECE: usize = 32;

/// So many batches are in flight before no more is claimed, so that workers never wait for a claim.
const BATCHES_IN_FLIGHT: usize = 4;

/// A job, as far as such a queue knows it.
#[derive(Debug)]
pub(crate) struct BareJob {
    record: i64,
    /// What people call it.
    pub(crate) id: String,
    /// As it was enqueued.
    pub(crate) body: String,
}

/// A file with jobs.
#[derive(Debug)]
pub(crate) struct BareQueue {
    connection: Connection,
}

/// What runs jobs, on a thread of its own; an error is why a job did not complete.
pub(crate) type Worker = Box<dyn FnMut(&[BareJob]) -> Result<(), String>>;

/// Why a drain failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    /// SQLite failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A job did.
    #[error("{0}")]
    Job(String),
}

/// What the drain's thread and its workers have in common.
struct Pipeline<'a> {
    pieces: &'a SyncSender<Vec<BareJob>>,
    done: &'a Receiver<Result<Vec<i64>, String>>,
    job_type: &'a str,
    batch: usize,
}

// === impl BareQueue ===

impl BareQueue {
    /// Makes the file, which must not be there.
    pub(crate) fn new(path: &Path) -> Result<BareQueue, QueueError> {
        let made = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.execute_batch(TABLE)?;
            Ok(connection)
        };
        Ok(BareQueue { connection: made().map_err(|e| fault::opening(path, e))? })
    }

    /// Adds `jobs` jobs in thousands, and answers how long that took.
    pub(crate) fn fill(&mut self, job_type: &str, body: &str, jobs: u64) -> Result<Duration, QueueError> {
        let begun = Instant::now();
        let mut left = jobs;
        while left > 0 {
            let inserted = left.min(INSERTED);
            self.insert(job_type, body, inserted).map_err(|e| fault::of("cannot insert jobs", e))?;
            left -= inserted;
        }
        Ok(begun.elapsed())
    }

    /// Adds `jobs` jobs in one transaction.
    fn insert(&mut self, job_type: &str, body: &str, jobs: u64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("insert into job(id, job_type, body, run_at, attempt) values(?1, ?2, ?3, 0, 0)")?;
            for number in 0..jobs {
                insert.execute(params![format!("{number:032}"), job_type, body])?;
            }
        }
        transaction.commit()
    }

    /// Runs all jobs of a type, each claimed and settled with `batch` others, on `workers` threads beside this one, and
    /// answers how long that took.
    pub(crate) fn drain(
        &mut self,
        job_type: &str,
        batch: usize,
        workers: u32,
        worker: &(dyn Fn() -> Worker + Sync),
    ) -> Result<Duration, DrainError> {
        // Room for all that can be in flight, so that neither side ever waits to hand over.
        let room = (BATCHES_IN_FLIGHT + 1) * batch.div_ceil(PIECE) + workers as usize;
        let (pieces, waiting) = sync_channel(room);
        let waiting = Mutex::new(waiting);
        std::thread::scope(|scope| {
            // Taken into the scope, so that the workers end however this does.
            let pieces = pieces;
            let (done_sender, done) = sync_channel(room);
            for _ in 0..workers {
                start(scope, worker, &waiting, done_sender.clone());
            }
            drop(done_sender);
            self.pump(&Pipeline { pieces: &pieces, done: &done, job_type, batch })
        })
    }

    fn pump(&mut self, pipeline: &Pipeline<'_>) -> Result<Duration, DrainError> {
        let begun = Instant::now();
        let mut in_flight = 0;
        loop {
            let settled = if in_flight > 0 { pipeline.settled()? } else { Vec::new() };
            in_flight -= settled.len();
            let room = in_flight < BATCHES_IN_FLIGHT * pipeline.batch;
            let claimed = self
                .settle_and_claim(&settled, pipeline.job_type, if room { pipeline.batch } else { 0 })
                .map_err(|e| fault::of("cannot settle and claim jobs", e))?;
            in_flight += claimed.len();
            if in_flight == 0 {
                return Ok(begun.elapsed());
            }
            let mut claimed = claimed.into_iter().peekable();
            while claimed.peek().is_some() {
                let piece = claimed.by_ref().take(PIECE).collect();
                pipeline.pieces.send(piece).map_err(|_| DrainError::Job("the workers are gone".to_owned()))?;
            }
        }
    }

    /// One transaction.
    fn settle_and_claim(&mut self, settled: &[i64], job_type: &str, batch: usize) -> rusqlite::Result<Vec<BareJob>> {
        let transaction = self.connection.transaction()?;
        let mut claimed = Vec::with_capacity(batch);
        {
            let mut delete = transaction.prepare_cached("delete from job where record = ?1")?;
            for record in settled {
                delete.execute([record])?;
            }
            if batch > 0 {
                let mut claim = transaction.prepare_cached(
                    "update job set lease_until = 1, attempt = attempt + 1 where record in
                         (select record from job where lease_until is null and job_type = ?1 and run_at <= 1
                          order by run_at limit ?2)
                     returning record, id, body",
                )?;
                let mut rows = claim.query(params![job_type, i64::try_from(batch).unwrap_or(i64::MAX)])?;
                while let Some(row) = rows.next()? {
                    claimed.push(BareJob { record: row.get(0)?, id: row.get(1)?, body: row.get(2)? });
                }
            }
        }
        transaction.commit()?;
        Ok(claimed)
    }
}

// === impl Pipeline ===

impl Pipeline<'_> {
    /// Waits for jobs that ran; up to a batch of them, as many as there are.
    fn settled(&self) -> Result<Vec<i64>, DrainError> {
        let mut settled =
            self.done.recv().unwrap_or_else(|_| Err("the workers are gone".to_owned())).map_err(DrainError::Job)?;
        while settled.len() < self.batch
            && let Ok(more) = self.done.try_recv()
        {
            settled.extend(more.map_err(DrainError::Job)?);
        }
        Ok(settled)
    }
}

/// Starts a worker: it takes pieces and says which of their jobs it ran, until there are no more pieces.
fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    worker: &'scope (dyn Fn() -> Worker + Sync),
    waiting: &'scope Mutex<Receiver<Vec<BareJob>>>,
    done: SyncSender<Result<Vec<i64>, String>>,
) {
    scope.spawn(move || {
        let mut work = worker();
        loop {
            let piece = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(piece) = piece else { return };
            let ran = work(&piece).map(|()| piece.iter().map(|job| job.record).collect());
            if done.send(ran).is_err() {
                return;
            }
        }
    });
}
