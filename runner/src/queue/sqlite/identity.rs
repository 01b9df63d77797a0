//! What a chosen id means: one job, until 24 hours after that ended.
//!
//! While the job's row is there, it says itself whether it has ended. Only what is left of it when the row goes is written
//! down: ids are in no order, and to touch each once more as its job ends cost as much as the job.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::record;
use super::tally::before;
use crate::clock::UnixMs;
use crate::queue::Departed;

/// So long after its job ended an id still names it.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// At most this many ids of jobs whose rows are gone are known; the oldest go first.
const DEPARTED_MAX: u32 = 1_000_000;

/// So many are forgotten in one transaction.
const PIECE: u32 = 8_192;

/// Whether `id` names the new job `record` from now on; false: it names one that has not ended, or ended not long ago.
pub(super) fn take(connection: &Connection, id: &str, record: i64, now: UnixMs) -> rusqlite::Result<bool> {
    let known: Option<Option<i64>> = connection
        .prepare_cached(
            "select coalesce(job.ended_at_ms, departed.ended_at_ms) from identity
             left join job on job.record = identity.record left join departed on departed.record = identity.record
             where identity.id = ?1",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    // Without an end it waits, or runs, or is being added with this one.
    if known.is_some_and(|ended| ended.is_none_or(|ended| ended > before(now, AGE))) {
        return Ok(false);
    }
    connection
        .prepare_cached("insert or replace into identity(id, record) values(?1, ?2)")?
        .execute(params![id, record])?;
    Ok(true)
}

/// The row of a job that has ended goes. Automatic ids are in no table.
pub(super) fn depart(connection: &Connection, id: &str, record: i64, ended_at: UnixMs) -> rusqlite::Result<()> {
    if !record::is_automatic(id, record) {
        connection
            .prepare_cached("insert or replace into departed(record, ended_at_ms, id) values(?1, ?2, ?3)")?
            .execute(params![record, ended_at.0, id])?;
    }
    Ok(())
}

/// What is remembered of a job that ended and whose row is gone. An automatic id is in no table, but says itself whether it is
/// one that this queue may have given out lately.
pub(super) fn departed(connection: &Connection, id: &str, now: UnixMs) -> rusqlite::Result<Option<Departed>> {
    if let Some(record) = record::of_id(id) {
        let is_gone = !connection.prepare_cached("select 1 from job where record = ?1")?.exists([record])?;
        let enqueued_at = record::moment(record);
        let lately = enqueued_at.0 > before(now, AGE) && enqueued_at <= now;
        return Ok((is_gone && lately).then_some(Departed { ended_at: None }));
    }
    let ended: Option<i64> = connection
        .prepare_cached(
            "select departed.ended_at_ms from identity join departed on departed.record = identity.record
             where identity.id = ?1",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(ended.map(|at| Departed { ended_at: Some(UnixMs(at)) }))
}

/// Forgets ids whose 24 hours are over, and the oldest where there are too many; whether there is more to do now.
pub(super) fn forget(connection: &Connection, now: UnixMs) -> rusqlite::Result<bool> {
    let known: u32 = connection.prepare_cached("select count(*) from departed")?.query_row([], |row| row.get(0))?;
    let over = known.saturating_sub(DEPARTED_MAX);
    let oldest: Vec<(i64, i64, String)> = connection
        .prepare_cached("select record, ended_at_ms, id from departed order by ended_at_ms limit ?1")?
        .query_map([PIECE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let horizon = before(now, AGE);
    let mut forgotten = 0;
    for (record, ended, id) in oldest {
        if ended > horizon && forgotten >= over {
            return Ok(false);
        }
        // Another job may have the id by now.
        connection
            .prepare_cached("delete from identity where id = ?1 and record = ?2")?
            .execute(params![id, record])?;
        connection.prepare_cached("delete from departed where record = ?1")?.execute([record])?;
        forgotten += 1;
    }
    Ok(forgotten == PIECE)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::schema;
    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::make_tables(&mut connection, Path::new("memory")).unwrap();
        connection
    }

    fn known(connection: &Connection) -> (i64, i64) {
        let sql = "select (select count(*) from identity), (select count(*) from departed)";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn id_that_is_being_added_is_taken() {
        let connection = database();
        assert!(take(&connection, "twice", 1, NOW).unwrap());
        assert!(!take(&connection, "twice", 2, NOW).unwrap());
    }

    #[test]
    fn forgotten_id_leaves_nothing_and_its_next_job_stays_known() {
        let connection = database();
        for (id, record, ended) in [("old", 1, NOW), ("taken anew", 2, NOW), ("young", 3, NOW.plus(AGE))] {
            assert!(take(&connection, id, record, NOW).unwrap());
            depart(&connection, id, record, ended).unwrap();
        }
        let later = NOW.plus(AGE);
        assert!(take(&connection, "taken anew", 4, later).unwrap());
        assert!(!take(&connection, "young", 5, later).unwrap());
        assert!(!forget(&connection, later).unwrap(), "that was all");
        assert_eq!(known(&connection), (2, 1));
        assert!(take(&connection, "old", 6, later).unwrap());
    }

    #[test]
    fn automatic_id_is_in_no_table() {
        let connection = database();
        let mut records = record::Records::default();
        let record = records.after(0, NOW);
        depart(&connection, &records.id(record), record, NOW).unwrap();
        assert_eq!(known(&connection), (0, 0));
    }
}
