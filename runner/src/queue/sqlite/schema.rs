//! The file's form: how it is opened, its tables, and their version.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault;
use crate::queue::QueueError;

/// Marks a file as ours (`pragma application_id`): `Shog`.
const APPLICATION_ID: i32 = 0x5368_6f67;

/// The version of the tables that this program writes (`pragma user_version`).
const VERSION: i32 = 4;

/// How long a busy file is left alone before it is asked again. Under load another process's writer lets go of the lock for
/// some microseconds between two commits: who asks rarely, as SQLite's own handler does, finds it taken for seconds.
const BUSY_PAUSE: Duration = Duration::from_micros(500);

/// States of a job's row. They are written out in the statements, since SQLite takes a partial index only for a literal.
///
/// All take one byte, as a fence always takes six and a runner four: a claim changes no row's size, so that SQLite writes it
/// in place, and a large body behind it is not written again.
pub(super) mod state {
    /// Waits: ready, scheduled or parked.
    pub(in super::super) const WAITING: i64 = 2;
    /// Handed to a runner.
    pub(in super::super) const RUNNING: i64 = 3;
    /// A dead letter.
    pub(in super::super) const DEAD: i64 = 4;
    /// Done, and still kept.
    pub(in super::super) const COMPLETED: i64 = 5;
}

/// Of those jobs that ended and whose rows are gone, when they ended.
const DEPARTED: &str = "
create table departed(record integer primary key, ended_at_ms integer not null, id text not null);
create index departed_ended on departed(ended_at_ms);
";

/// `body` stands behind everything that is read without it.
const TABLES: &str = "
create table job(
    record integer primary key,
    state integer not null,
    runner integer not null default 16777216,
    fence integer not null default 4294967296,
    run_at_ms integer not null,
    attempt integer not null default 0,
    failures integer not null default 0,
    interruptions integer not null default 0,
    retries integer not null default 0,
    requeues integer not null default 0,
    deaths integer not null default 0,
    enqueued_at_ms integer not null,
    first_started_at_ms integer,
    started_at_ms integer,
    duration_us integer,
    memory_peak_bytes integer,
    ended_at_ms integer,
    kept_bytes integer,
    job_type text,
    id text not null,
    generation text,
    kind text,
    message text,
    failed text,
    metadata text,
    result text,
    changed_body text,
    body not null
);
create index waiting on job(job_type, run_at_ms) where state = 2;
create index running on job(runner) where state = 3;
create index dead on job(job_type) where state = 4;

-- Ids that an enqueuer chose, and which job each names.
create table identity(id text primary key, record integer not null) without rowid;

-- Completed rows that are kept, by type, so that nobody has to count them.
create table completed(job_type text primary key, jobs integer not null, bytes integer not null) without rowid;

create table runner(id integer primary key, others integer not null, lease_until_ms integer not null);
-- What runners serve by name, and what they have paused.
create table served(
    runner integer not null,
    job_type text not null,
    paused integer not null default 0,
    primary key(runner, job_type)
) without rowid;

-- Types that wait and that no live runner serves, and since when.
create table parked(job_type text primary key, since_ms integer not null) without rowid;

create table counter(one integer primary key check(one = 1), fence integer, runner integer, fenced_total integer);
insert into counter values(1, 4294967296, 16777216, 0);
";

/// Brings the tables of version 1 up: it knew no pause, and kept with each id when its job ended.
const FROM_1: &str = "
alter table served add column paused integer not null default 0;
insert into departed select record, ended_at_ms, id from identity
    where ended_at_ms is not null and record not in (select record from job);
drop index identity_ended;
alter table identity drop column ended_at_ms;
";

/// Opens the file for writing; makes it, with its tables, if it is not there.
pub(super) fn open_writer(path: &Path, busy: Duration) -> Result<Connection, QueueError> {
    make_file(path)?;
    let failed = |e| fault::opening(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    set_patience(&mut connection, busy).map_err(failed)?;
    prepare_once(&connection).map_err(failed)?;
    let version = check_version(&connection, path)?;
    // SQLite falls back to reading where it may not write. Such a connection stays so, whatever becomes of the file, and
    // would have a runner wait for ever.
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
        return Err(QueueError::lasting(format!("cannot open the queue `{}`: the file is read-only", path.display()))
            .with_hint("the file and its directory must be writable for this user"));
    }
    use_wal(&connection, busy).map_err(failed)?;
    connection
        .execute_batch(
            "pragma synchronous = full; pragma cache_size = -32000; pragma temp_store = memory;
             pragma wal_autocheckpoint = 4000; pragma journal_size_limit = 67108864;",
        )
        .map_err(failed)?;
    // Who only looks must not need the lock that another process may hold.
    if version < VERSION {
        make_tables(&mut connection, path)?;
    }
    Ok(connection)
}

/// Opens the file, which is there and has its tables, for reading.
pub(super) fn open_reader(path: &Path, busy: Duration) -> Result<Connection, QueueError> {
    let failed = |e| fault::opening(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    set_patience(&mut connection, busy).map_err(failed)?;
    connection.execute_batch("pragma query_only = 1; pragma temp_store = memory;").map_err(failed)?;
    Ok(connection)
}

/// Makes the file for its owner only. It is never opened here when it exists: closing it would drop the locks that SQLite
/// holds on it elsewhere in this process.
fn make_file(path: &Path) -> Result<(), QueueError> {
    if path.is_dir() {
        return Err(QueueError::lasting(format!("cannot open the queue `{}`: it is a directory", path.display()))
            .with_hint("name the file in it, like `sqlite:DIR/sandhog.db`"));
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Err(QueueError::lasting(format!(
                "cannot make the queue `{}`: there is no directory `{}`",
                path.display(),
                dir.display()
            ))
            .with_hint("make the directory first"))
        }
        Err(e) => Err(QueueError::lasting(format!("cannot make the queue `{}`: {e}", path.display()))
            .with_hint("the directory must be writable, since SQLite keeps two more files beside this one")),
    }
}

/// Has statements prepared once. SQLite would prepare one with `limit ?` again whenever it is bound, for a better plan,
/// which takes longer than most of them run.
pub(super) fn prepare_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Has a busy file asked again for as long as `busy`.
pub(super) fn set_patience(connection: &mut Connection, busy: Duration) -> rusqlite::Result<()> {
    let mut begun = Instant::now();
    connection.busy_handler(Some(move |asked: i32| {
        if asked == 0 {
            begun = Instant::now();
        }
        std::thread::park_timeout(BUSY_PAUSE);
        begun.elapsed() < busy
    }))
}

/// The version of our tables that the file has, 0 if it has none; it is refused if it has others.
fn check_version(connection: &Connection, path: &Path) -> Result<i32, QueueError> {
    let failed = |e| fault::opening(path, e);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let version = number("user_version").map_err(failed)?;
    let application = number("application_id").map_err(failed)?;
    let tables: i64 = connection
        .query_row("select count(*) from sqlite_schema where type = 'table'", [], |row| row.get(0))
        .map_err(failed)?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables > 0) {
        return Err(QueueError::lasting(format!(
            "cannot open the queue `{}`: it is another program's database",
            path.display()
        ))
        .with_hint("name a file of its own; it is made if it is not there"));
    }
    if version > VERSION {
        return Err(QueueError::lasting(format!(
            "cannot open the queue `{}`: its tables have version {version}, and this program knows {VERSION}",
            path.display()
        ))
        .with_hint("a newer sandhog wrote it; use that one"));
    }
    Ok(version)
}

/// Turns the write-ahead log on. SQLite does not ask the busy handler while it does so.
pub(super) fn use_wal(connection: &Connection, busy: Duration) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Ok(_) => return Ok(()),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < busy => {
                std::thread::park_timeout(BUSY_PAUSE);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Makes the tables, or brings them up, in one transaction, unless another process just did.
pub(super) fn make_tables(connection: &mut Connection, path: &Path) -> Result<(), QueueError> {
    let failed = |e| fault::opening(path, e);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if version < VERSION {
        if version < 2 {
            transaction.execute_batch(DEPARTED).map_err(failed)?;
            transaction.execute_batch(if version == 0 { TABLES } else { FROM_1 }).map_err(failed)?;
        }
        if version < 3 {
            transaction.execute_batch(super::state::TABLES).map_err(failed)?;
        }
        for table in [super::cancel::TABLE, super::kept::TABLE, super::logs::TABLE] {
            transaction.execute_batch(table).map_err(failed)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn statement_with_a_limit_is_prepared_once() {
        let connection = Connection::open_in_memory().unwrap();
        prepare_once(&connection).unwrap();
        connection.execute_batch(TABLES).unwrap();
        let mut statement = connection.prepare("select record from job where record > ?1 limit ?2").unwrap();
        for limit in 1..4 {
            assert!(statement.query((0, limit)).unwrap().next().unwrap().is_none());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
