//! State in a file of its own, for a queue that is not a file: on this machine alone.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::{Changed, State, TABLES, apply};
use crate::queue::QueueError;
use crate::queue::sqlite::{fault, schema};
use crate::state::{Changes, Size, Snapshot, StateStore};

/// Marks a file as ours (`pragma application_id`): `Shos`.
const APPLICATION_ID: i32 = 0x5368_6f73;

/// The version of the tables (`pragma user_version`).
const VERSION: i32 = 1;

/// How long a locked file is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// The file, which is made when somebody first needs it.
#[derive(Debug)]
pub(crate) struct LocalState {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    state: State,
}

// === impl LocalState ===

impl LocalState {
    /// In the folder `dir`.
    pub(crate) fn new(dir: &Path) -> LocalState {
        let path = dir.join("handlers.db");
        let state = State::opened_by(&path, BUSY, open_reader, open_writer);
        LocalState { path, writer: Mutex::default(), state }
    }

    /// Makes changes, in one transaction, one after the other; whether each was made, or was in a conflict. They are durable
    /// then. Waits for a file that is locked.
    ///
    /// # Errors
    ///
    /// The file takes nothing: none of them was made.
    pub(crate) fn apply<'a>(&self, all: impl Iterator<Item = &'a Changes>) -> Result<Vec<bool>, QueueError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // One that failed is not used again.
        let connection = match writer.take() {
            Some(connection) => connection,
            None => open_writer(&self.path, BUSY)?,
        };
        let made = make(&connection, all).map_err(|e| fault::of("cannot write the state of handlers", e))?;
        *writer = Some(connection);
        Ok(made)
    }
}

impl StateStore for LocalState {
    fn snapshot(&self, handler: &str) -> Box<dyn Snapshot> {
        self.state.snapshot(handler)
    }

    fn kept(&self) -> Result<Vec<(String, Size)>, QueueError> {
        // Who only looks makes no file.
        if self.path.exists() { self.state.kept() } else { Ok(Vec::new()) }
    }

    fn forget(&self, handler: &str) -> Result<Size, QueueError> {
        if self.path.exists() { self.state.forget(handler) } else { Ok(Size::default()) }
    }
}

fn make<'a>(connection: &Connection, all: impl Iterator<Item = &'a Changes>) -> rusqlite::Result<Vec<bool>> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let made =
        all.map(|changes| Ok(apply(&transaction, changes)? == Changed::Made)).collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok(made)
}

fn open_reader(path: &Path, busy: Duration) -> Result<Connection, QueueError> {
    if !path.exists() {
        drop(open_writer(path, busy)?);
    }
    schema::open_reader(path, busy)
}

fn open_writer(path: &Path, busy: Duration) -> Result<Connection, QueueError> {
    let what = || format!("cannot open the state of handlers `{}`", path.display());
    let system = |e: std::io::Error| QueueError::lasting(format!("{}: {e}", what()));
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(system)?;
    }
    // Never opened here when it is there: closing it would drop the locks that SQLite holds on it.
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(system(e)),
    }
    let failed = |e| fault::of(&what(), e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    schema::set_patience(&mut connection, busy).map_err(failed)?;
    schema::use_wal(&connection, busy).map_err(failed)?;
    connection.execute_batch("pragma synchronous = full; pragma temp_store = memory").map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if version > VERSION {
        return Err(QueueError::lasting(format!("{}: its tables have version {version}", what()))
            .with_hint("a newer sandhog wrote it; use that one"));
    }
    if version == 0 {
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}
