//! The files of runners that share a state folder: of each a lock, held as long as its process lives, and slots, which outlive
//! the process and say what it executed.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::debug;

use super::QueueError;
use crate::outcome::{Failure, Kind};

/// From this many deaths of runners on, a job runs alone.
pub(super) const DEATHS_UNTIL_ALONE: u32 = 2;

/// More than this is not read of a slot file: no runner has as many slots.
const SLOT_FILE_BYTES_MAX: u64 = 24 << 20;

/// A folder of such files, by the runners' numbers.
#[derive(Debug)]
pub(super) struct RunnerFiles {
    dir: PathBuf,
}

// === impl RunnerFiles ===

impl RunnerFiles {
    /// Makes the folder, if it is not there, for its owner only.
    pub(super) fn open(dir: PathBuf) -> Result<RunnerFiles, QueueError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| {
            QueueError::lasting(format!("cannot make the state folder `{}`: {e}", dir.display()))
                .with_hint("`state_dir` names the folder; it must be writable")
        })?;
        Ok(RunnerFiles { dir })
    }

    /// Where they are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the lock of runner `id` is.
    pub(super) fn lock_path(&self, id: i64) -> PathBuf {
        self.dir.join(format!("{id}.lock"))
    }

    /// Takes the lock of runner `id`, which is held as long as the answer lives; none where another process holds it.
    pub(super) fn lock(&self, id: i64) -> io::Result<Option<File>> {
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(self.lock_path(id))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Makes runner `id` a slot file of zeroes, so large that a full disk is noticed here. What is written there needs no sync:
    /// the page cache outlives a killed process.
    pub(super) fn make_slots(&self, id: i64, bytes: usize) -> io::Result<File> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(self.slots_path(id))?;
        file.write_all_at(&vec![0; bytes], 0)?;
        Ok(file)
    }

    /// Reads the slot file of runner `id`; nothing where there is none.
    pub(super) fn read_slots(&self, id: i64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match File::open(self.slots_path(id)) {
            Ok(file) => file.take(SLOT_FILE_BYTES_MAX).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(bytes)
    }

    /// The runners whose lock file is there, and held by nobody.
    pub(super) fn released(&self) -> Vec<i64> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let locks = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock"));
        let ids = locks.filter_map(|path| path.file_stem()?.to_str()?.parse().ok());
        ids.filter(|id| File::open(self.lock_path(*id)).is_ok_and(|lock| lock.try_lock().is_ok())).collect()
    }

    /// Removes the files of a runner that is no more.
    pub(super) fn remove(&self, id: i64) {
        for path in [self.slots_path(id), self.lock_path(id)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    debug!(path = %path.display(), error = %e, "cannot remove a runner's file");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn slots_path(&self, id: i64) -> PathBuf {
        self.dir.join(format!("{id}.slots"))
    }
}

/// Why a job is buried whose runner died while it ran alone.
pub(super) fn suspect() -> Failure {
    Failure::new(Kind::Suspect, "runners died while they executed it, the last one while it ran alone")
}
