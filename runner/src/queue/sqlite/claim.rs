//! Claiming: which jobs a runner takes next.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::together::Together;
use crate::clock::UnixMs;
use crate::job::Job;
use crate::queue::runner_files::DEATHS_UNTIL_ALONE;
use crate::queue::{Demand, Receipt};

/// At most this many jobs in one claim.
const CLAIMED_MAX: u32 = 2_048;

/// A claim ends with the body that makes it larger than this.
const CLAIMED_BYTES_MAX: usize = 16 << 20;

/// So many types are looked at for a handler of `*` in one claim; the next begins where this one ended.
const OTHER_TYPES_MAX: usize = 256;

static MARK: LazyLock<Together> = LazyLock::new(|| {
    Together::of(|rows| {
        format!("update job set state = 3, runner = ?, fence = ? where record in ({})", vec!["?"; rows].join(", "))
    })
});

/// A job that was claimed, and not handed out yet.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) job: Job,
    pub(super) alone: bool,
    pub(super) receipt: Receipt,
}

/// Types that were found to have nothing ready, and when their next job is due: they are not asked for again before.
#[derive(Debug, Default)]
pub(super) struct Dry {
    types: HashMap<Arc<str>, Option<UnixMs>>,
    others: Option<Option<UnixMs>>,
}

/// One claim: who takes, how much, and when.
pub(super) struct Claim<'a> {
    pub(super) connection: &'a Connection,
    pub(super) runner: i64,
    pub(super) now: UnixMs,
    /// What the metadata calls this queue.
    pub(super) queue: &'a str,
    pub(super) taken: Vec<Claimed>,
    bytes: usize,
    fence: i64,
}

// === impl Claim ===

impl<'a> Claim<'a> {
    pub(super) fn new(connection: &'a Connection, runner: i64, now: UnixMs, queue: &'a str) -> Claim<'a> {
        Claim { connection, runner, now, queue, taken: Vec::new(), bytes: 0, fence: 0 }
    }

    /// Takes what `demand` has room for: the oldest of each type, the types in turns. `turn` says which is asked first.
    pub(super) fn take(
        &mut self,
        demand: &Demand,
        turn: usize,
        after: &mut String,
        dry: &mut Dry,
    ) -> rusqlite::Result<()> {
        dry.expire(self.now);
        let wanted: Vec<&(Arc<str>, u32)> =
            demand.types.iter().filter(|(job_type, room)| *room > 0 && !dry.types.contains_key(job_type)).collect();
        let others = demand.others.filter(|room| *room > 0 && dry.others.is_none());
        let mut takers = wanted.len() + usize::from(others.is_some());
        for at in 0..wanted.len() {
            let (job_type, room) = wanted[(turn + at) % wanted.len()];
            let room = self.share(*room, takers);
            takers -= 1;
            if room > 0 && self.take_type(job_type, room)? {
                dry.types.insert(Arc::clone(job_type), self.next_due(job_type)?);
            }
        }
        if let Some(room) = others {
            let room = self.share(room, takers);
            self.take_others(demand, room, after, dry)?;
        }
        self.mark()
    }

    /// What one of `takers` may have of what is left of this claim.
    fn share(&self, room: u32, takers: usize) -> u32 {
        let left = CLAIMED_MAX - u32::try_from(self.taken.len()).unwrap_or(CLAIMED_MAX);
        if self.bytes >= CLAIMED_BYTES_MAX {
            return 0;
        }
        room.min(left.div_ceil(u32::try_from(takers.max(1)).unwrap_or(u32::MAX)))
    }

    /// Takes up to `room` jobs of a type; whether there were no more.
    fn take_type(&mut self, job_type: &str, room: u32) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached(
            "select record, id, coalesce(changed_body, body), attempt, failures, interruptions, deaths, enqueued_at_ms,
                    first_started_at_ms, metadata, retries
             from job where state = 2 and job_type = ?1 and run_at_ms <= ?2 order by run_at_ms, record limit ?3",
        )?;
        let mut rows = statement.query(params![job_type, self.now.0, room])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            let claimed = self.read(row, job_type)?;
            self.bytes += claimed.job.body.len();
            self.taken.push(claimed);
            found += 1;
            if self.bytes >= CLAIMED_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok(found < room)
    }

    fn read(&self, row: &Row<'_>, job_type: &str) -> rusqlite::Result<Claimed> {
        let mut metadata = vec![("queue".to_owned(), self.queue.to_owned())];
        if let Some(pairs) = row.get_ref(9)?.as_str_or_null()? {
            metadata.extend(read_pairs(pairs));
        }
        let job = Job {
            id: row.get(1)?,
            job_type: job_type.to_owned(),
            body: row.get(2)?,
            attempt: row.get::<_, u32>(3)?.saturating_add(1),
            failures: row.get(4)?,
            retries_requested: row.get(10)?,
            interruptions: row.get(5)?,
            enqueued_at: UnixMs(row.get(7)?),
            first_started_at: row.get::<_, Option<i64>>(8)?.map(UnixMs),
            metadata,
        };
        let receipt = Receipt { record: row.get(0)?, fence: 0 };
        Ok(Claimed { job, alone: row.get::<_, u32>(6)? >= DEATHS_UNTIL_ALONE, receipt })
    }

    /// Takes types that no other handler claims, here or in another live runner.
    fn take_others(&mut self, demand: &Demand, room: u32, after: &mut String, dry: &mut Dry) -> rusqlite::Result<()> {
        let mut served: HashSet<String> = demand.types.iter().map(|(job_type, _)| job_type.to_string()).collect();
        served.extend(demand.paused.iter().map(ToString::to_string));
        served.extend(claimed_by_name(self.connection, self.runner, self.now)?);
        let begun = after.clone();
        let (mut left, mut due, mut wrapped) = (room, None, false);
        for _ in 0..OTHER_TYPES_MAX {
            if left == 0 {
                return Ok(());
            }
            let Some(job_type) = next_waiting_type(self.connection, after)? else {
                if wrapped || begun.is_empty() {
                    after.clear();
                    dry.others = Some(due);
                    return Ok(());
                }
                wrapped = true;
                after.clear();
                continue;
            };
            if wrapped && job_type > begun {
                dry.others = Some(due);
                return Ok(());
            }
            after.clone_from(&job_type);
            if served.contains(&job_type) {
                continue;
            }
            let before = self.taken.len();
            let share = self.share(left, 1);
            let ended = share > 0 && self.take_type(&job_type, share)?;
            left -= u32::try_from(self.taken.len() - before).unwrap_or(left).min(left);
            if !ended {
                return Ok(());
            }
            due = sooner(due, self.next_due(&job_type)?);
        }
        Ok(())
    }

    /// When the next job of a type is due that is not due now.
    fn next_due(&self, job_type: &str) -> rusqlite::Result<Option<UnixMs>> {
        let mut statement = self
            .connection
            .prepare_cached("select min(run_at_ms) from job where state = 2 and job_type = ?1 and run_at_ms > ?2")?;
        let due: Option<i64> = statement.query_row(params![job_type, self.now.0], |row| row.get(0))?;
        Ok(due.map(UnixMs))
    }

    /// Writes down that they are ours. One fencing number for a claim is enough: with the record it is never the same.
    fn mark(&mut self) -> rusqlite::Result<()> {
        if self.taken.is_empty() {
            return Ok(());
        }
        self.fence = self
            .connection
            .prepare_cached("update counter set fence = fence + 1 returning fence")?
            .query_row([], |row| row.get(0))?;
        for claimed in &mut self.taken {
            claimed.receipt.fence = self.fence;
        }
        MARK.execute(self.connection, &self.taken, |statement, taken| {
            statement.raw_bind_parameter(1, self.runner)?;
            statement.raw_bind_parameter(2, self.fence)?;
            taken.iter().zip(3..).try_for_each(|(claimed, at)| statement.raw_bind_parameter(at, claimed.receipt.record))
        })
    }
}

// === impl Dry ===

impl Dry {
    /// There may be jobs of any type again.
    pub(super) fn clear(&mut self) {
        self.types.clear();
        self.others = None;
    }

    /// There may be jobs of this type again.
    pub(super) fn wet(&mut self, job_type: &str) {
        if self.types.remove(job_type).is_none() {
            self.others = None;
        }
    }

    /// When the next job of a dry type is due that `demand` has room for: for another, nothing could be done.
    pub(super) fn next_due(&self, demand: &Demand) -> Option<UnixMs> {
        let wanted = demand.types.iter().filter(|(_, room)| *room > 0);
        let others = self.others.filter(|_| demand.others.is_some_and(|room| room > 0));
        let types = wanted.filter_map(|(job_type, _)| self.types.get(job_type));
        types.chain(&others).fold(None, |due, of_type| sooner(due, *of_type))
    }

    /// Whether `demand` has room for a type that may have jobs.
    pub(super) fn leaves(&self, demand: &Demand, now: UnixMs) -> bool {
        let due = |at: &Option<UnixMs>| at.is_some_and(|at| at <= now);
        demand.types.iter().any(|(job_type, room)| *room > 0 && self.types.get(job_type).is_none_or(due))
            || demand.others.is_some_and(|room| room > 0) && self.others.as_ref().is_none_or(due)
    }

    fn expire(&mut self, now: UnixMs) {
        self.types.retain(|_, due| due.is_none_or(|at| at > now));
        self.others = self.others.filter(|due| due.is_none_or(|at| at > now));
    }
}

/// The first type after `after`, in the order of types, of which jobs wait. It is a seek, however many jobs wait.
pub(super) fn next_waiting_type(connection: &Connection, after: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("select job_type from job where state = 2 and job_type > ?1 order by job_type limit 1")?
        .query_row([after], |row| row.get(0))
        .optional()
}

/// The types that live runners serve by name, or have paused, but for one runner.
pub(super) fn claimed_by_name(connection: &Connection, but: i64, now: UnixMs) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare_cached(
        "select distinct job_type from served join runner on runner.id = served.runner
         where lease_until_ms > ?1 and runner.id <> ?2",
    )?;
    let types = statement.query_map(params![now.0, but], |row| row.get(0))?;
    types.collect()
}

/// Reads metadata as they are stored.
pub(super) fn read_pairs(pairs: &str) -> Vec<(String, String)> {
    serde_json::from_str(pairs).unwrap_or_default()
}

fn sooner(one: Option<UnixMs>, other: Option<UnixMs>) -> Option<UnixMs> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
