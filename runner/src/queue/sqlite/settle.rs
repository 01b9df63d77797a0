//! Settling: what became of deliveries, applied only where the right to them still holds.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::inbox::{How, Settle};
use super::schema::state;
use super::state::Changed;
use super::tally::{ROW_BYTES, Tally};
use super::{identity, kept, logs};
use crate::clock::UnixMs;
use crate::job::Job;
use crate::outcome::{Disposition, Failure, RetryAfter};
use crate::queue::{AttemptRecord, Keep, NewJob, Receipt, Settled, Settlement};

/// So many failed attempts are kept from the first on, and so many of the last.
const FIRST_KEPT: usize = 3;
const LAST_KEPT: usize = 10;

/// A dropped delivery that had been started comes again after so long: a runner that drops all it takes must not spin.
const DROPPED_DELAY_MS: i64 = 1_000;

/// The failed attempts of a job, as they are stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) first: Vec<AttemptRecord>,
    pub(super) last: Vec<AttemptRecord>,
    pub(super) omitted: u32,
}

/// What a settlement other than an ack changes in a row. None: as it was.
#[derive(Debug, Default)]
struct Change {
    state: i64,
    run_at_ms: Option<i64>,
    started: bool,
    failed: bool,
    interrupted: bool,
    requested: bool,
    ended: bool,
    failure: Option<Failure>,
    body: Option<String>,
}

/// Applies settlements; one answer for each.
pub(super) fn apply(
    connection: &Connection,
    settles: &[Settle],
    keep: Keep,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Vec<Settled>> {
    settles
        .iter()
        .map(|settle| {
            let applied = match &settle.how {
                How::Settled(job, settlement, _) => {
                    if let Some(changes) = &settlement.state
                        && is_held(connection, settle.receipt)?
                        && super::state::apply(connection, changes)? == Changed::Conflict
                    {
                        return conflict(connection, settle.receipt, job, now, tally);
                    }
                    one(connection, settle.receipt, job, settlement, keep, now, tally)?
                }
                How::Dropped { started } => take_back(connection, settle.receipt, *started, now, tally)?,
            };
            if applied {
                return Ok(Settled::Settled);
            }
            // What was never started and is put back too late is nobody's loss.
            if matches!(settle.how, How::Settled(..)) {
                tally.fenced();
            }
            Ok(Settled::Fenced)
        })
        .collect()
}

/// Puts a job back whose attempt relied on what another has changed.
fn conflict(
    connection: &Connection,
    receipt: Receipt,
    job: &Job,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<Settled> {
    let again = Disposition::Release { at: now, started: true };
    change(connection, receipt, job, None, &Change::of(&again, None), now)?;
    tally.waits(&job.job_type);
    Ok(Settled::Conflicted)
}

fn is_held(connection: &Connection, receipt: Receipt) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("select 1 from job where record = ?1 and fence = ?2 and state = 3")?
        .exists(params![receipt.record, receipt.fence])
}

/// The jobs that come with the settlements that were applied.
pub(super) fn follow_ups<'a>(settles: &'a [Settle], settled: &[Settled]) -> Vec<&'a NewJob> {
    let applied = settles.iter().zip(settled).filter(|(_, settled)| **settled == Settled::Settled);
    applied.flat_map(|(settle, _)| settle.follow_ups()).collect()
}

fn one(
    connection: &Connection,
    receipt: Receipt,
    job: &Job,
    settlement: &Settlement,
    keep: Keep,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<bool> {
    let attempt = settlement.attempt.as_ref();
    let applied = match &settlement.disposition {
        Disposition::Ack { .. } if keep.age.is_zero() && !kept::spares(connection, receipt.record, now, now)? => {
            let applied = connection
                .prepare_cached("delete from job where record = ?1 and fence = ?2 and state = 3")?
                .execute(params![receipt.record, receipt.fence])?
                > 0;
            if applied {
                identity::depart(connection, &job.id, receipt.record, now)?;
            }
            applied
        }
        Disposition::Ack { result } => complete(connection, receipt, job, attempt, result.as_deref(), now, tally)?,
        other => change(connection, receipt, job, attempt, &Change::of(other, attempt), now)?,
    };
    if let Some(lines) = settlement.lines.as_deref().filter(|_| applied) {
        logs::add(connection, receipt.record, lines)?;
    }
    match settlement.disposition {
        Disposition::Ack { .. } => {}
        Disposition::Bury(_) if applied => tally.buried.push(receipt.record),
        _ if applied => tally.waits(&job.job_type),
        _ => {}
    }
    Ok(applied)
}

/// The hot statement: a job is done, and its row stays for a while.
fn complete(
    connection: &Connection,
    receipt: Receipt,
    job: &Job,
    attempt: Option<&AttemptRecord>,
    result: Option<&str>,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<bool> {
    let bytes = ROW_BYTES + size(job.body.len()) + size(result.map_or(0, str::len));
    let applied = connection
        .prepare_cached(
            "update job set state = 5, attempt = coalesce(?3, attempt), first_started_at_ms = ?4, started_at_ms = ?5,
                    duration_us = ?6, memory_peak_bytes = ?7, generation = ?8, ended_at_ms = ?9, kept_bytes = ?10,
                    result = ?11
             where record = ?1 and fence = ?2 and state = 3",
        )?
        .execute(params![
            receipt.record,
            receipt.fence,
            attempt.map(|attempt| attempt.number),
            job.first_started_at.or(attempt.map(|attempt| attempt.started_at)).map(|at| at.0),
            attempt.map(|attempt| attempt.started_at.0),
            attempt.map(|attempt| stored(attempt.duration_us)),
            attempt.map(|attempt| stored(attempt.memory_peak_bytes)),
            attempt.map(|attempt| attempt.generation.as_str()),
            now.0,
            bytes,
            result,
        ])?
        > 0;
    if applied {
        tally.kept(&job.job_type, 1, bytes);
    }
    Ok(applied)
}

fn change(
    connection: &Connection,
    receipt: Receipt,
    job: &Job,
    attempt: Option<&AttemptRecord>,
    change: &Change,
    now: UnixMs,
) -> rusqlite::Result<bool> {
    let failed = match attempt.filter(|attempt| attempt.failure.is_some()) {
        Some(attempt) => Some(add_to_history(connection, receipt, attempt)?),
        None => None,
    };
    let number = change.started.then(|| attempt.map_or(job.attempt, |attempt| attempt.number));
    let started_at = attempt.map(|attempt| attempt.started_at).or(change.started.then_some(now));
    let changed = connection
        .prepare_cached(
            "update job set state = ?3, run_at_ms = coalesce(?4, run_at_ms), attempt = coalesce(?5, attempt),
                    failures = failures + ?6, interruptions = interruptions + ?7, retries = retries + ?8,
                    first_started_at_ms = coalesce(first_started_at_ms, ?9), started_at_ms = coalesce(?10, started_at_ms),
                    duration_us = coalesce(?11, duration_us), memory_peak_bytes = coalesce(?12, memory_peak_bytes),
                    generation = coalesce(?13, generation), ended_at_ms = ?14, kind = coalesce(?15, kind),
                    message = coalesce(?16, message), failed = coalesce(?17, failed),
                    changed_body = coalesce(?18, changed_body)
             where record = ?1 and fence = ?2 and state = 3",
        )?
        .execute(params![
            receipt.record,
            receipt.fence,
            change.state,
            change.run_at_ms,
            number,
            change.failed,
            change.interrupted,
            change.requested,
            started_at.map(|at| at.0),
            started_at.map(|at| at.0),
            attempt.map(|attempt| stored(attempt.duration_us)),
            attempt.map(|attempt| stored(attempt.memory_peak_bytes)),
            attempt.map(|attempt| attempt.generation.as_str()),
            change.ended.then_some(now.0),
            change.failure.as_ref().map(|failure| failure.kind.as_str()),
            change.failure.as_ref().map(|failure| &failure.message),
            failed,
            change.body,
        ])?;
    Ok(changed > 0)
}

/// Puts back a delivery that was dropped.
fn take_back(
    connection: &Connection,
    receipt: Receipt,
    started: bool,
    now: UnixMs,
    tally: &mut Tally,
) -> rusqlite::Result<bool> {
    let job_type: Option<String> = connection
        .prepare_cached(
            "update job set state = 2, attempt = attempt + ?3, interruptions = interruptions + ?3,
                    first_started_at_ms = case when ?3 then coalesce(first_started_at_ms, ?4) else first_started_at_ms end,
                    run_at_ms = case when ?3 then ?4 + ?5 else run_at_ms end
             where record = ?1 and fence = ?2 and state = 3 returning job_type",
        )?
        .query_row(params![receipt.record, receipt.fence, started, now.0, DROPPED_DELAY_MS], |row| row.get(0))
        .optional()?;
    if let Some(job_type) = &job_type {
        tally.waits(job_type);
    }
    Ok(job_type.is_some())
}

fn add_to_history(connection: &Connection, receipt: Receipt, attempt: &AttemptRecord) -> rusqlite::Result<String> {
    let known: Option<String> = connection
        .prepare_cached("select failed from job where record = ?1 and fence = ?2")?
        .query_row(params![receipt.record, receipt.fence], |row| row.get(0))
        .optional()?
        .flatten();
    let mut history = known.as_deref().map(History::read).unwrap_or_default();
    history.add(attempt.clone());
    Ok(serde_json::to_string(&history).expect("numbers and strings can be written as JSON"))
}

// === impl Change ===

impl Change {
    fn of(disposition: &Disposition, attempt: Option<&AttemptRecord>) -> Change {
        let started = attempt.is_some();
        let waiting =
            |at: UnixMs| Change { state: state::WAITING, run_at_ms: Some(at.0), started, ..Change::default() };
        match disposition {
            Disposition::Ack { .. } => Change { state: state::COMPLETED, started, ended: true, ..Change::default() },
            Disposition::Retry { at, body, after: RetryAfter::Failure(failure) } => {
                Change { failed: true, failure: Some(failure.clone()), body: body.clone(), ..waiting(*at) }
            }
            Disposition::Retry { at, body, after: RetryAfter::Request { .. } } => {
                Change { requested: true, body: body.clone(), ..waiting(*at) }
            }
            Disposition::Bury(failure) => Change {
                state: state::DEAD,
                started,
                failed: attempt.is_some_and(|attempt| attempt.failure.is_some()),
                ended: true,
                failure: Some(failure.clone()),
                ..Change::default()
            },
            Disposition::Release { at, started: counts } => {
                Change { started: *counts, interrupted: *counts, ..waiting(*at) }
            }
            Disposition::Park => Change { state: state::WAITING, ..Change::default() },
        }
    }
}

// === impl History ===

impl History {
    /// Reads what was stored; what another version wrote is not shown rather than in the way.
    pub(super) fn read(text: &str) -> History {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn add(&mut self, attempt: AttemptRecord) {
        if self.first.len() < FIRST_KEPT {
            self.first.push(attempt);
            return;
        }
        self.last.push(attempt);
        if self.last.len() > LAST_KEPT {
            self.last.remove(0);
            self.omitted = self.omitted.saturating_add(1);
        }
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
