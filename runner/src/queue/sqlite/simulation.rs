//! The queue's part of the simulation: the real writer on a database in memory, step by step, with what can befall it.
//!
//! Nothing here knows what a schedule is: see `simulation.rs` of the crate.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

pub(crate) use self::folder::Common;
pub(crate) use self::watched::Watched;
use super::inbox::Order;
use super::writer::Writer;
use super::{Options, Shared, SqliteQueue, schema};
use crate::clock::Clock;
use crate::queue::{Delivery, Demand, Keep, Receipt, Settled, Settlement};
use crate::report::Reports;

mod folder;
mod watched;

/// A database that several processes share, and its connections, which are used again in the next schedule.
#[derive(Debug)]
pub(crate) struct Disk {
    name: String,
    spare: Vec<Connection>,
    reader: Connection,
    /// Holds the locks that trouble the others.
    rival: Connection,
    trouble: Option<Trouble>,
    pub(crate) common: Common,
}

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No transaction begins.
    Locked,
    /// No transaction is committed.
    Read,
    /// Nothing can be written.
    ReadOnly,
    /// It cannot grow.
    Full,
}

/// A process that has the queue open: its writer, but for the thread.
pub(crate) struct Process {
    writer: Option<Writer>,
    shared: Arc<Shared>,
    dead: Arc<AtomicBool>,
    stepped_at: Instant,
    trouble: Option<Trouble>,
}

/// A job as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) record: i64,
    /// The number that its body begins with; of a report [`report_number`].
    pub(crate) number: usize,
    /// It is a report, or descends from one.
    pub(crate) of_report: bool,
    pub(crate) id: String,
    pub(crate) job_type: String,
    pub(crate) state: i64,
    pub(crate) runner: i64,
    pub(crate) fence: i64,
    pub(crate) run_at_ms: i64,
    pub(crate) counts: Counts,
    pub(crate) kind: Option<String>,
}

/// The number of the report of job `number`, once it was requeued so often.
pub(crate) fn report_number(number: usize, requeues: usize) -> usize {
    1_000_000 + 64 * number + requeues
}

/// What is counted of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) attempt: u32,
    pub(crate) failures: u32,
    pub(crate) interruptions: u32,
    pub(crate) retries: u32,
    pub(crate) deaths: u32,
    pub(crate) requeues: u32,
}

// === impl Disk ===

impl Disk {
    /// A new database, which nobody else has.
    pub(crate) fn new() -> Disk {
        static DISKS: AtomicU64 = AtomicU64::new(0);
        let number = DISKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("file:/simulation-{}-{number}?vfs=memdb", std::process::id());
        let mut reader = connect(&name);
        schema::make_tables(&mut reader, Path::new(&name)).unwrap();
        let rival = connect(&name);
        Disk { name, spare: Vec::new(), reader, rival, trouble: None, common: Common::default() }
    }

    /// Empties it, for the next schedule.
    pub(crate) fn clear(&mut self) {
        self.set_trouble(None);
        self.common = Common::default();
        let tables = ["job", "identity", "departed", "completed", "state", "state_size", "runner", "served", "parked"];
        let deletes: String = tables.iter().map(|table| format!("delete from {table};")).collect();
        let counters = "update counter set fence = 4294967296, runner = 16777216, fenced_total = 0;";
        self.reader.execute_batch(&format!("begin;{deletes}{counters}commit")).unwrap();
    }

    /// Begins or ends a trouble, which processes are told of by [`Process::set_trouble`]: before it begins, and after it ends.
    pub(crate) fn set_trouble(&mut self, trouble: Option<Trouble>) {
        match self.trouble {
            Some(Trouble::Locked | Trouble::Read) => self.rival.execute_batch("rollback").unwrap(),
            Some(Trouble::ReadOnly | Trouble::Full) | None => {}
        }
        self.trouble = trouble;
        match trouble {
            Some(Trouble::Locked) => self.rival.execute_batch("begin immediate").unwrap(),
            Some(Trouble::Read) => self.rival.execute_batch("begin; select count(*) from counter").unwrap(),
            Some(Trouble::ReadOnly | Trouble::Full) | None => {}
        }
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// All jobs, by record; none while nobody can read, and nobody can write.
    pub(crate) fn rows(&self) -> Option<Vec<Row>> {
        if self.trouble == Some(Trouble::Locked) {
            return None;
        }
        let mut statement = self.reader.prepare_cached(
            "select record, case job_type
                        when 'report' then 1000000 + json_extract(body, '$.dead_letter.requeues')
                            + 64 * cast(ltrim(json_extract(body, '$.dead_letter.body'), '{\"n:') as integer)
                        else cast(ltrim(body, '{\"n:') as integer)
                    end, id, job_type, state, runner, fence, run_at_ms, attempt, failures, interruptions, retries, deaths,
                    requeues, kind, coalesce(metadata like '%report-of%', 0) from job order by record",
        );
        let statement = statement.as_mut().unwrap();
        let rows = statement.query_map([], |row| {
            Ok(Row {
                record: row.get(0)?,
                number: row.get::<_, u32>(1)? as usize,
                id: row.get(2)?,
                job_type: row.get(3)?,
                state: row.get(4)?,
                runner: row.get(5)?,
                fence: row.get(6)?,
                run_at_ms: row.get(7)?,
                counts: Counts {
                    attempt: row.get(8)?,
                    failures: row.get(9)?,
                    interruptions: row.get(10)?,
                    retries: row.get(11)?,
                    deaths: row.get(12)?,
                    requeues: row.get(13)?,
                },
                kind: row.get(14)?,
                of_report: row.get(15)?,
            })
        });
        Some(rows.unwrap().collect::<rusqlite::Result<_>>().unwrap())
    }

    /// The runners that the file knows, and until when their leases run.
    pub(crate) fn runners(&self) -> Vec<(i64, i64)> {
        let mut statement = self.reader.prepare_cached("select id, lease_until_ms from runner order by id").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }
}

fn connect(name: &str) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(name, flags).unwrap();
    connection.execute_batch("pragma journal_mode = memory; pragma temp_store = memory").unwrap();
    schema::prepare_once(&connection).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

// === impl Process ===

impl Process {
    /// Opens the queue.
    pub(crate) fn start(
        disk: &mut Disk,
        clock: Arc<dyn Clock>,
        slots: u32,
        keep: Keep,
        reports: Option<Reports>,
    ) -> (Process, Arc<SqliteQueue>) {
        let options = Options { slots, keep, reports, clock, ..Options::new("simulated", "simulated") };
        let stepped_at = options.clock.instant();
        let shared = Arc::new(Shared::new(options));
        let connection = disk.spare.pop().unwrap_or_else(|| connect(&disk.name));
        let dead = Arc::new(AtomicBool::new(false));
        let seat = folder::Seat { common: disk.common.clone(), dead: Arc::clone(&dead) };
        let mut trouble = None;
        set_trouble_of(&connection, &mut trouble, disk.trouble);
        let writer = Some(Writer::new(Arc::clone(&shared), connection, Box::new(seat)));
        let queue = SqliteQueue::of(Arc::clone(&shared));
        (Process { writer, shared, dead, stepped_at, trouble }, Arc::new(queue))
    }

    /// When its writer has something to do; none: not by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        let writer = self.writer.as_ref()?;
        let asked = !self.shared.inbox.lock().is_empty();
        let due = if asked { Some(self.stepped_at) } else { writer.deadline() };
        due.map(|due| due.max(self.stepped_at + writer.pause().unwrap_or_default()))
    }

    /// Has the writer do one piece of work; whether it changed anything in the file.
    pub(crate) fn step(&mut self, disk: &mut Disk) -> bool {
        let Some(mut writer) = self.writer.take() else { return false };
        self.stepped_at = self.shared.clock.instant();
        let before = writer.connection.total_changes();
        let work = self.shared.inbox.lock().take();
        let closed = writer.step(work);
        let mut changed = writer.connection.total_changes() != before;
        if let Some(closed) = closed {
            let connection = writer.end();
            changed |= connection.total_changes() != before;
            set_trouble_of(&connection, &mut self.trouble, None);
            disk.spare.push(connection);
            drop(self.shared.inbox.end());
            if let Some(reply) = closed {
                reply.send(()).ok();
            }
        } else {
            self.writer = Some(writer);
        }
        changed
    }

    /// Has it suffer from a trouble, or no more.
    pub(crate) fn set_trouble(&mut self, trouble: Option<Trouble>) {
        if let Some(writer) = &self.writer {
            set_trouble_of(&writer.connection, &mut self.trouble, trouble);
        }
    }

    /// This runner's number, if it is one.
    pub(crate) fn runner(&self) -> Option<i64> {
        Some(self.shared.runner.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// Whether its writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.writer.is_none()
    }

    /// Whether the file troubles it.
    pub(crate) fn is_sick(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.pause().is_some())
    }

    /// From now on nobody hears of what it does.
    pub(crate) fn fall_silent(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Ends it as it stands.
    pub(crate) fn kill(mut self, disk: &mut Disk) {
        self.fall_silent();
        if let Some(writer) = self.writer {
            set_trouble_of(&writer.connection, &mut self.trouble, None);
            disk.spare.push(writer.connection);
        }
    }

    /// Sends dead letters back, as a person does, or deletes them.
    pub(crate) fn change_dead(&self, records: Vec<i64>, delete: bool) {
        let (reply, _) = oneshot::channel();
        let order = if delete { Order::Delete(records, reply) } else { Order::Requeue(records, reply) };
        self.shared.inbox.order(order);
    }
}

/// Has a connection suffer from what is no lock. Both pragmas have its statements prepared again.
fn set_trouble_of(connection: &Connection, from: &mut Option<Trouble>, to: Option<Trouble>) {
    if *from == to {
        return;
    }
    match std::mem::replace(from, to) {
        Some(Trouble::ReadOnly) => connection.execute_batch("pragma query_only = 0").unwrap(),
        Some(Trouble::Full) => connection.execute_batch("pragma max_page_count = 1000000").unwrap(),
        Some(Trouble::Locked | Trouble::Read) | None => {}
    }
    match to {
        Some(Trouble::ReadOnly) => connection.execute_batch("pragma query_only = 1").unwrap(),
        // The least that SQLite takes is what there is.
        Some(Trouble::Full) => connection.execute_batch("pragma max_page_count = 1").unwrap(),
        Some(Trouble::Locked | Trouble::Read) | None => {}
    }
}

/// Who is told what the callers of a queue do.
pub(crate) trait Witness: std::fmt::Debug + Send + Sync {
    /// What `receive` is asked, and then what it answers.
    fn received(&self, asked: &Demand, deliveries: Option<&[Delivery]>);

    /// A delivery is among what it answers.
    fn handed_out(&self, receipt: Receipt, alone: bool);

    /// A delivery is being executed.
    fn executing(&self, receipt: Receipt);

    /// Its execution is over.
    fn executed(&self, receipt: Receipt);

    /// It was dropped.
    fn dropped(&self, receipt: Receipt);

    /// It is to be settled.
    fn settling(&self, receipt: Receipt, settlement: &Settlement);

    /// The queue's answer to that.
    fn settled(&self, receipt: Receipt, answer: Settled);
}

/// A queue whose callers are watched by `witness`, beside the process that it belongs to.
pub(crate) fn watched(queue: Arc<SqliteQueue>, witness: Arc<dyn Witness>) -> Arc<Watched> {
    Arc::new(Watched { queue, side: Arc::new(watched::Side { witness, slots: Mutex::default() }) })
}
