//! What SQLite's errors mean to people, and which of them pass.

use std::path::Path;

use rusqlite::{Error, ErrorCode};

use crate::queue::QueueError;

/// Why the file cannot be opened.
pub(super) fn opening(path: &Path, error: Error) -> QueueError {
    let damaged = "restore it from a copy, or move it away (with its `-wal` and `-shm`) and begin a new one";
    let message = format!("cannot open the queue `{}`", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            QueueError::lasting(format!("{message}: it is not an SQLite database, or its beginning is damaged"))
                .with_hint(damaged)
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            QueueError::lasting(format!("{message}: it is damaged: {error}")).with_hint(damaged)
        }
        _ => of(&message, error),
    }
}

/// What `doing` failed of.
pub(super) fn of(doing: &str, error: Error) -> QueueError {
    let (why, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ("another process holds the file's write lock", Some("find and end what keeps it locked, then try again"))
        }
        Some(ErrorCode::DiskFull) => ("the disk is full", Some("free some space, then try again")),
        Some(ErrorCode::SystemIoFailure) => {
            ("reading or writing the file failed", Some("look at the disk, its free space and its quota"))
        }
        Some(ErrorCode::CannotOpen) => {
            ("the file cannot be opened", Some("the file and its directory must be readable and writable"))
        }
        Some(ErrorCode::ReadOnly) => {
            ("the file is read-only", Some("the file and its directory must be writable for this user"))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ("the file is damaged", Some("stop every runner, and restore the file from a copy"))
        }
        Some(ErrorCode::TooBig) => ("a value is larger than SQLite stores", None),
        _ => ("SQLite failed", None),
    };
    QueueError {
        message: format!("{doing}: {why}: {error}"),
        hint: hint.map(str::to_owned),
        transient: may_pass(&error),
        unsupported: false,
    }
}

/// Whether it may pass without anybody changing the file or the program.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::ReadOnly
        )
    )
}
