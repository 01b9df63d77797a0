//! What handlers keep: their keys and values, in the queue's own file, or for a queue elsewhere in a file of its own.
//!
//! An attempt reads in a transaction of its own, on a connection of its own: it sees one moment, and holds up nobody.
//! What it changes is written with its settlement.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{fault, schema};
use crate::queue::QueueError;
use crate::state::{Changes, Size, Snapshot, StateStore};

mod local;

pub(crate) use local::LocalState;

/// So many connections are kept for the next attempts.
const IDLE_MAX: usize = 64;

/// The tables. A value stands behind all that is read without it.
pub(super) const TABLES: &str = "
create table state(handler text not null, key text not null, value blob not null, primary key(handler, key)) without rowid;
-- How much each handler keeps, so that nobody has to count.
create table state_size(handler text primary key, keys integer not null, bytes integer not null) without rowid;
";

/// Reads the state out of a file.
#[derive(Debug, Clone)]
pub(crate) struct State(Arc<Readers>);

/// Opens a file.
type Open = fn(&Path, Duration) -> Result<Connection, QueueError>;

/// Connections to a file that is there, with its tables.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    busy: Duration,
    open: Open,
    open_writer: Open,
    idle: Mutex<Vec<Connection>>,
}

/// What a handler had when it was asked for first.
struct Reading {
    readers: Arc<Readers>,
    handler: String,
    connection: Option<Connection>,
}

/// Whether changes were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Made,
    /// Another attempt was faster: nothing is made.
    Conflict,
}

/// Makes changes, or none of them. What is over the quota by now is a conflict too: the attempt knows better when it is
/// made again.
pub(super) fn apply(connection: &Connection, changes: &Changes) -> rusqlite::Result<Changed> {
    let Changes { handler, quota, writes, expected } = changes;
    for (key, value) in expected {
        if get(connection, handler, key)? != *value {
            return Ok(Changed::Conflict);
        }
    }
    let before = size(connection, handler)?;
    let mut after = before;
    for (key, value) in writes {
        after = after.with(key, length(connection, handler, key)?, value.as_ref().map(|value| value.len() as u64));
    }
    if !after.fits(*quota, before) {
        return Ok(Changed::Conflict);
    }
    for (key, value) in writes {
        match value {
            Some(value) => connection
                .prepare_cached(
                    "insert into state(handler, key, value) values(?1, ?2, ?3)
                     on conflict(handler, key) do update set value = excluded.value",
                )?
                .execute(params![&**handler, key, value])?,
            None => connection
                .prepare_cached("delete from state where handler = ?1 and key = ?2")?
                .execute(params![&**handler, key])?,
        };
    }
    connection
        .prepare_cached("insert or replace into state_size(handler, keys, bytes) values(?1, ?2, ?3)")?
        .execute(params![&**handler, stored(after.keys), stored(after.bytes)])?;
    Ok(Changed::Made)
}

fn get(connection: &Connection, handler: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("select value from state where handler = ?1 and key = ?2")?
        .query_row((handler, key), |row| row.get(0))
        .optional()
}

fn length(connection: &Connection, handler: &str, key: &str) -> rusqlite::Result<Option<u64>> {
    let length: Option<i64> = connection
        .prepare_cached("select length(value) from state where handler = ?1 and key = ?2")?
        .query_row((handler, key), |row| row.get(0))
        .optional()?;
    Ok(length.map(i64::unsigned_abs))
}

fn keys(connection: &Connection, handler: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("select key from state where handler = ?1")?;
    statement.query_map([handler], |row| row.get(0))?.collect()
}

fn size(connection: &Connection, handler: &str) -> rusqlite::Result<Size> {
    let size: Option<(i64, i64)> = connection
        .prepare_cached("select keys, bytes from state_size where handler = ?1")?
        .query_row([handler], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(size.map_or(Size::default(), |(keys, bytes)| Size { keys: keys.unsigned_abs(), bytes: bytes.unsigned_abs() }))
}

fn kept(connection: &Connection) -> rusqlite::Result<Vec<(String, Size)>> {
    let mut statement =
        connection.prepare("select handler, keys, bytes from state_size where keys > 0 order by handler")?;
    let number = |row: &Row<'_>, column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, Size { keys: number(row, 1)?, bytes: number(row, 2)? })))?;
    rows.collect()
}

fn forget(connection: &Connection, handler: &str) -> rusqlite::Result<Size> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let forgotten = size(&transaction, handler)?;
    transaction.execute("delete from state where handler = ?1", [handler])?;
    transaction.execute("delete from state_size where handler = ?1", [handler])?;
    transaction.commit()?;
    Ok(forgotten)
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// === impl State ===

impl State {
    /// Of the file at `path`, which is there; a locked one is waited for as long as `busy`.
    pub(in crate::queue) fn new(path: &Path, busy: Duration) -> State {
        State::opened_by(path, busy, schema::open_reader, schema::open_writer)
    }

    fn opened_by(path: &Path, busy: Duration, open: Open, open_writer: Open) -> State {
        State(Arc::new(Readers { path: path.to_path_buf(), busy, open, open_writer, idle: Mutex::default() }))
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.0.lock().clear();
    }
}

impl StateStore for State {
    fn snapshot(&self, handler: &str) -> Box<dyn Snapshot> {
        Box::new(Reading { readers: Arc::clone(&self.0), handler: handler.to_owned(), connection: None })
    }

    fn kept(&self) -> Result<Vec<(String, Size)>, QueueError> {
        // As a writer, it brings the tables of an older version up.
        let connection = (self.0.open_writer)(&self.0.path, self.0.busy)?;
        kept(&connection).map_err(|e| fault::of("cannot read the state of handlers", e))
    }

    fn forget(&self, handler: &str) -> Result<Size, QueueError> {
        let connection = (self.0.open_writer)(&self.0.path, self.0.busy)?;
        forget(&connection, handler).map_err(|e| fault::of("cannot write the state of handlers", e))
    }
}

// === impl Readers ===

impl Readers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Connections are put in and taken out whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection in a transaction that begins with the first question.
    fn begin(&self) -> Result<Connection, QueueError> {
        let idle = self.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => (self.open)(&self.path, self.busy)?,
        };
        connection.execute_batch("begin").map_err(|e| fault::of("cannot read the state", e))?;
        Ok(connection)
    }
}

// === impl Reading ===

impl Reading {
    fn ask<T>(&mut self, ask: impl FnOnce(&Connection, &str) -> rusqlite::Result<T>) -> Result<T, QueueError> {
        let connection = match &self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.readers.begin()?),
        };
        ask(connection, &self.handler).map_err(|e| fault::of("cannot read the state", e))
    }
}

impl Snapshot for Reading {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, QueueError> {
        self.ask(|connection, handler| get(connection, handler, key))
    }

    fn length(&mut self, key: &str) -> Result<Option<u64>, QueueError> {
        self.ask(|connection, handler| length(connection, handler, key))
    }

    fn keys(&mut self) -> Result<Vec<String>, QueueError> {
        self.ask(keys)
    }

    fn size(&mut self) -> Result<Size, QueueError> {
        self.ask(size)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // One that does not end its transaction would show the same moment for ever.
        if connection.execute_batch("rollback").is_ok() {
            let mut idle = self.readers.lock();
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
    }
}
