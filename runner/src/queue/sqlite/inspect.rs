//! Looking: lists, one job, counts. It reads on a connection of its own.

use std::collections::{BTreeMap, HashSet};

use rusqlite::types::{ToSql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;

use super::claim::{claimed_by_name, next_waiting_type, read_pairs};
use super::runners::{ServedNow, served_now};
use super::schema::state;
use super::settle::History;
use super::{fault, logs, record};
use crate::clock::UnixMs;
use crate::generation::Generation;
use crate::outcome::{Failure, Kind};
use crate::queue::{Count, Demand, Filter, JobSource, Listed, QueueError, Shown, State, Stats};

/// What a list reads, in the order in which [`listed`] takes it.
const LISTED: &str = "record, state, run_at_ms, attempt, failures, retries, requeues, enqueued_at_ms, started_at_ms,
    duration_us, ended_at_ms, job_type, id, generation, kind, message";

/// A job of a list, and where its row is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) record: i64,
    pub(super) listed: Listed,
}

/// Jobs that pass `filter`, oldest first.
pub(super) fn list(connection: &Connection, filter: &Filter, now: UnixMs) -> Result<Vec<Found>, QueueError> {
    let failed = |e| fault::of("cannot list jobs", e);
    let served = served_now(connection, now).map_err(failed)?;
    let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
    let after = filter.after.as_deref().map(record::of_cursor).transpose()?;
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    if filter.ids.is_empty() {
        scan(connection, filter, after, &served, now, limit, &mut found).map_err(failed)?;
        return Ok(found);
    }
    for id in &filter.ids {
        for record in find(connection, id).map_err(failed)? {
            let job = by_record(connection, record, &served, now).map_err(failed)?;
            found.extend(job.filter(|job| passes(filter, &job.listed)));
        }
    }
    found.sort_by_key(|job| job.record);
    found.dedup_by_key(|job| job.record);
    found.truncate(limit);
    Ok(found)
}

/// All that is known of the job that `id` names; of several, which there are only when an id was used again, the newest.
pub(super) fn show(connection: &Connection, id: &str, queue: &str, now: UnixMs) -> Result<Option<Shown>, QueueError> {
    let failed = |e| fault::of("cannot show a job", e);
    let served = served_now(connection, now).map_err(failed)?;
    let Some(record) = find(connection, id).map_err(failed)?.into_iter().max() else { return Ok(None) };
    let Some(Found { listed, .. }) = by_record(connection, record, &served, now).map_err(failed)? else {
        return Ok(None);
    };
    shown(connection, record, listed, queue).map_err(failed)
}

/// The record of the job that `id` names, the newest of several.
pub(super) fn record_of(connection: &Connection, id: &str) -> Result<Option<i64>, QueueError> {
    let found = find(connection, id).map_err(|e| fault::of("cannot look for a job", e))?;
    Ok(found.into_iter().max())
}

/// The same of a dead letter, by its record.
pub(super) fn letter(connection: &Connection, record: i64, queue: &str) -> rusqlite::Result<Option<Shown>> {
    // Who serves what is nothing to the dead.
    let dead = connection
        .prepare_cached(&format!("select {LISTED} from job where record = ?1 and state = 4"))?
        .query_row([record], |row| listed(row, &ServedNow::default(), UnixMs(0)))
        .optional()?;
    match dead {
        Some(Found { listed, .. }) => shown(connection, record, listed, queue),
        None => Ok(None),
    }
}

fn shown(connection: &Connection, record: i64, listed: Listed, queue: &str) -> rusqlite::Result<Option<Shown>> {
    connection
        .prepare_cached(
            "select interruptions, failed, metadata, result, changed_body, body from job where record = ?1",
        )?
        .query_row([record], |row| {
            let history = row.get_ref(1)?.as_str_or_null()?.map(History::read).unwrap_or_default();
            let History { first, last, omitted } = history;
            let mut failed_attempts = first;
            failed_attempts.extend(last);
            let mut metadata = vec![("queue".to_owned(), queue.to_owned())];
            metadata.extend(row.get_ref(2)?.as_str_or_null()?.map(read_pairs).unwrap_or_default());
            Ok(Shown {
                listed,
                body: bytes(row.get_ref(5)?),
                changed_body: row.get(4)?,
                result: row.get::<_, Option<String>>(3)?.map(raw),
                source: JobSource { queue: queue.to_owned(), ..JobSource::default() },
                metadata,
                failed_attempts,
                failed_attempts_omitted: omitted,
                interruptions: row.get(0)?,
                logs: logs::of(connection, record)?,
            })
        })
        .optional()
}

/// Counts, from indexes and counters: no row is read for what waits, is dead or is completed.
pub(super) fn stats(connection: &Connection, now: UnixMs) -> rusqlite::Result<Stats> {
    let served = served_now(connection, now)?;
    let mut counts: BTreeMap<(Option<String>, State), u64> = BTreeMap::new();
    let mut count = |job_type: Option<String>, state: State, jobs: u64| {
        if jobs > 0 {
            *counts.entry((job_type, state)).or_default() += jobs;
        }
    };
    let mut waiting = connection.prepare_cached(
        "select job_type, sum(run_at_ms <= ?1), sum(run_at_ms > ?1) from job where state = 2 group by job_type",
    )?;
    let mut rows = waiting.query([now.0])?;
    while let Some(row) = rows.next()? {
        let job_type: String = row.get(0)?;
        let ready = if served.parks(&job_type) { State::Parked } else { State::Ready };
        count(Some(job_type.clone()), ready, number(row, 1)?);
        count(Some(job_type), State::Scheduled, number(row, 2)?);
    }
    for (sql, state) in [
        ("select job_type, count(*) from job indexed by running where state = 3 group by job_type", State::Running),
        ("select job_type, count(*) from job where state = 4 group by job_type", State::Dead),
        ("select job_type, jobs from completed", State::Completed),
    ] {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            count(row.get(0)?, state, number(row, 1)?);
        }
    }
    let (oldest_ready_at, next_due_at) = ready_and_due(connection, &served, now)?;
    let fenced_total = connection.query_row("select fenced_total from counter", [], |row| number(row, 0))?;
    Ok(Stats {
        counts: counts.into_iter().map(|((job_type, state), jobs)| Count { job_type, state, jobs }).collect(),
        next_due_at,
        oldest_ready_at,
        runners: Some(served.runners),
        fenced_total: Some(fenced_total),
        blocked: Vec::new(),
        notes: Vec::new(),
    })
}

/// Whether a job is ready for the runner `own` that serves what `demand` lists, or running anywhere, by seeks alone.
pub(super) fn has_work(connection: &Connection, demand: &Demand, own: i64, now: UnixMs) -> rusqlite::Result<bool> {
    // All as of one moment: a job that is claimed between two questions would be in neither answer.
    let connection = &connection.unchecked_transaction()?;
    if connection.prepare_cached("select 1 from job where state = 3 limit 1")?.exists([])? {
        return Ok(true);
    }
    let here: HashSet<&str> = demand.types.iter().map(|(job_type, _)| &**job_type).collect();
    // A handler of `*` takes what nobody claims; what we claim ourselves is for `demand` to say.
    let mut claimed = claimed_by_name(connection, own, now)?;
    claimed.extend(demand.paused.iter().map(ToString::to_string));
    let others = |job_type: &str| demand.others.is_some() && !claimed.contains(job_type);
    let serves = |job_type: &str| here.contains(job_type) || others(job_type);
    let mut ready =
        connection.prepare_cached("select 1 from job where state = 2 and job_type = ?1 and run_at_ms <= ?2 limit 1")?;
    let mut after = String::new();
    while let Some(job_type) = next_waiting_type(connection, &after)? {
        if serves(&job_type) && ready.exists(params![job_type, now.0])? {
            return Ok(true);
        }
        after = job_type;
    }
    Ok(false)
}

fn ready_and_due(
    connection: &Connection,
    served: &ServedNow,
    now: UnixMs,
) -> rusqlite::Result<(Option<UnixMs>, Option<UnixMs>)> {
    let (mut ready, mut due) = (None, None);
    let mut after = String::new();
    while let Some(job_type) = next_waiting_type(connection, &after)? {
        let min = |sql| -> rusqlite::Result<Option<UnixMs>> {
            let at: Option<i64> =
                connection.prepare_cached(sql)?.query_row(params![job_type, now.0], |row| row.get(0))?;
            Ok(at.map(UnixMs))
        };
        if !served.parks(&job_type) {
            let at = min("select min(run_at_ms) from job where state = 2 and job_type = ?1 and run_at_ms <= ?2")?;
            ready = ready.into_iter().chain(at).min();
        }
        let at = min("select min(run_at_ms) from job where state = 2 and job_type = ?1 and run_at_ms > ?2")?;
        due = due.into_iter().chain(at).min();
        after.clone_from(&job_type);
    }
    Ok((ready, due))
}

/// Rows in the order of time. The conditions are put together so that SQLite can use its partial indexes.
fn scan(
    connection: &Connection,
    filter: &Filter,
    after: Option<i64>,
    served: &ServedNow,
    now: UnixMs,
    limit: usize,
    found: &mut Vec<Found>,
) -> rusqlite::Result<()> {
    let kind = filter.kind.as_ref().map(Kind::as_str);
    let since = filter.since.map(|since| since.0);
    let mut sql = format!("select {LISTED} from job where 1");
    let mut values: Vec<(&str, &dyn ToSql)> = Vec::new();
    match filter.state {
        None => {}
        Some(State::Ready | State::Scheduled | State::Parked) => sql.push_str(" and state = 2"),
        Some(State::Running) => sql.push_str(" and state = 3"),
        Some(State::Dead) => sql.push_str(" and state = 4"),
        Some(State::Completed) => sql.push_str(" and state = 5"),
    }
    if let Some(job_type) = &filter.job_type {
        sql.push_str(" and job_type = :type");
        values.push((":type", job_type));
    }
    if let Some(kind) = &kind {
        sql.push_str(" and kind = :kind and state = 4");
        values.push((":kind", kind));
    }
    if let Some(since) = &since {
        sql.push_str(" and coalesce(ended_at_ms, enqueued_at_ms) >= :since");
        values.push((":since", since));
    }
    if let Some(after) = &after {
        sql.push_str(if filter.newest_first { " and record < :after" } else { " and record > :after" });
        values.push((":after", after));
    }
    sql.push_str(if filter.newest_first { " order by record desc" } else { " order by record" });
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(&*values)?;
    while let Some(row) = rows.next()? {
        let job = listed(row, served, now)?;
        if passes(filter, &job.listed) {
            found.push(job);
            if found.len() >= limit {
                break;
            }
        }
    }
    Ok(())
}

fn passes(filter: &Filter, job: &Listed) -> bool {
    let at = job.ended_at.unwrap_or(job.enqueued_at);
    filter.state.is_none_or(|state| job.state == state)
        && filter.job_type.as_ref().is_none_or(|job_type| job.job_type.as_ref() == Some(job_type))
        && filter.since.is_none_or(|since| at >= since)
        && filter.kind.as_ref().is_none_or(|kind| {
            job.state == State::Dead && job.failure.as_ref().is_some_and(|failure| failure.kind == *kind)
        })
}

/// The records that an id names. A dead letter whose id has been forgotten is looked for in the whole table.
fn find(connection: &Connection, id: &str) -> rusqlite::Result<Vec<i64>> {
    if let Some(record) = record::of_id(id) {
        let is = connection
            .prepare_cached("select 1 from job where record = ?1 and id = ?2")?
            .exists(params![record, id])?;
        if is {
            return Ok(vec![record]);
        }
    }
    let named = connection
        .prepare_cached(
            "select job.record from identity join job on job.record = identity.record
                         where identity.id = ?1 and job.id = ?1",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    if let Some(record) = named {
        return Ok(vec![record]);
    }
    let mut statement = connection.prepare_cached("select record from job where id = ?1")?;
    let records = statement.query_map([id], |row| row.get(0))?;
    records.collect()
}

fn by_record(connection: &Connection, record: i64, served: &ServedNow, now: UnixMs) -> rusqlite::Result<Option<Found>> {
    connection
        .query_row(&format!("select {LISTED} from job where record = ?1"), [record], |row| listed(row, served, now))
        .optional()
}

fn listed(row: &Row<'_>, served: &ServedNow, now: UnixMs) -> rusqlite::Result<Found> {
    let at = |column: usize| -> rusqlite::Result<Option<UnixMs>> { Ok(row.get::<_, Option<i64>>(column)?.map(UnixMs)) };
    let job_type: Option<String> = row.get(11)?;
    let run_at = UnixMs(row.get(2)?);
    let state = match row.get::<_, i64>(1)? {
        state::RUNNING => State::Running,
        state::DEAD => State::Dead,
        state::COMPLETED => State::Completed,
        _ if run_at > now => State::Scheduled,
        _ if job_type.as_deref().is_some_and(|job_type| served.parks(job_type)) => State::Parked,
        _ => State::Ready,
    };
    let waits = matches!(state, State::Ready | State::Scheduled | State::Parked);
    let kind: Option<String> = row.get(14)?;
    let failure = kind.filter(|_| state != State::Completed).map(|kind| -> rusqlite::Result<Failure> {
        // A word of a later version is shown as a limit rather than not at all.
        let kind = Kind::parse(&kind).unwrap_or(Kind::Limit(kind.into()));
        Ok(Failure { kind, message: row.get::<_, Option<String>>(15)?.unwrap_or_default() })
    });
    let listed = Listed {
        id: row.get(12)?,
        job_type,
        state,
        attempt: row.get::<_, u32>(3)? + u32::from(state == State::Running),
        failures: row.get(4)?,
        retries_requested: row.get(5)?,
        enqueued_at: UnixMs(row.get(7)?),
        run_at: waits.then_some(run_at),
        started_at: at(8)?,
        duration_us: row.get::<_, Option<i64>>(9)?.map(i64::unsigned_abs),
        ended_at: at(10)?,
        generation: row.get::<_, Option<String>>(13)?.map(|name| Generation::named(&name)),
        failure: failure.transpose()?,
        requeues: row.get(6)?,
        cursor: Some(record::cursor(row.get(0)?)),
    };
    Ok(Found { record: row.get(0)?, listed })
}

/// A count or a length, which is never below zero.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    }
}

/// A result as JSON; what is not, as a JSON string.
fn raw(result: String) -> Box<RawValue> {
    RawValue::from_string(result.clone()).unwrap_or_else(|_| {
        let text = serde_json::to_string(&result).expect("a string can be written as JSON");
        RawValue::from_string(text).expect("a JSON string is JSON")
    })
}
