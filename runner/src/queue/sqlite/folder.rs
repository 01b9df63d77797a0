//! What runners on one file have beside it: locks, slot files and the bell.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use tracing::{debug, warn};

use super::Shared;
use super::bell::Bell;
use crate::queue::QueueError;
use crate::queue::runner_files::RunnerFiles;

/// A thread that waits for a lock needs next to no stack.
const WATCH_STACK_BYTES: usize = 128 << 10;

/// The state folder, as the queue uses it; in a simulation, what stands for it.
pub(super) trait Folder: Debug + Send {
    /// What people call it.
    fn path(&self) -> &Path;

    /// Takes the lock of runner `id`, which is held as long as the answer lives; none where another process holds it.
    fn lock(&mut self, id: i64) -> io::Result<Option<Box<dyn Lock>>>;

    /// Makes runner `id` a slot file of zeroes, so large that a full disk is noticed here.
    fn make_slot_file(&mut self, id: i64, bytes: usize) -> io::Result<Box<dyn SlotFile>>;

    /// Reads the slot file of runner `id`; nothing where there is none.
    fn read_slot_file(&self, id: i64) -> io::Result<Vec<u8>>;

    /// The runners whose lock file is there, and held by nobody.
    fn released(&self) -> Vec<i64>;

    /// Removes the files of a runner that is no more.
    fn remove_files(&mut self, id: i64);

    /// Has `shared` told when the lock of runner `id` is released. Where there is no such lock (the peer has another state
    /// folder), its lease must tell.
    fn watch_lock(&mut self, id: i64, shared: Weak<Shared>);

    /// Has the runners of other processes look.
    fn ring(&mut self);

    /// Has `shared` told when anybody rings.
    fn watch_bell(&mut self, shared: Weak<Shared>);
}

/// Holds a lock as long as it lives.
pub(super) trait Lock: Debug + Send {}

/// A slot file that is written to. What was written outlives the process.
pub(super) trait SlotFile: Debug + Send + Sync {
    /// Writes `bytes` in place, without a sync.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// The folder on the disk.
#[derive(Debug)]
pub(super) struct DiskFolder {
    path: PathBuf,
    files: RunnerFiles,
    bell: Bell,
}

// === impl DiskFolder ===

impl DiskFolder {
    /// Makes the folder, if it is not there.
    pub(super) fn open(path: &Path) -> Result<DiskFolder, QueueError> {
        let files = RunnerFiles::open(path.join("runners"))?;
        Ok(DiskFolder { path: path.to_owned(), files, bell: Bell::open(path)? })
    }
}

impl Folder for DiskFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&mut self, id: i64) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(self.files.lock(id)?.map(|lock| Box::new(lock) as Box<dyn Lock>))
    }

    fn make_slot_file(&mut self, id: i64, bytes: usize) -> io::Result<Box<dyn SlotFile>> {
        Ok(Box::new(self.files.make_slots(id, bytes)?))
    }

    fn read_slot_file(&self, id: i64) -> io::Result<Vec<u8>> {
        self.files.read_slots(id)
    }

    fn released(&self) -> Vec<i64> {
        self.files.released()
    }

    fn remove_files(&mut self, id: i64) {
        self.files.remove(id);
    }

    fn watch_lock(&mut self, id: i64, shared: Weak<Shared>) {
        let file = match File::open(self.files.lock_path(id)) {
            Ok(file) => file,
            Err(e) => {
                debug!(runner = id, error = %e, "cannot watch the lock of another runner");
                return;
            }
        };
        let wait = move || match file.lock_shared() {
            Ok(()) => {
                if let Some(shared) = shared.upgrade() {
                    shared.inbox.peer_gone(id);
                }
            }
            Err(e) => debug!(runner = id, error = %e, "cannot wait for the lock of another runner"),
        };
        let thread = std::thread::Builder::new().name(format!("peer-{id}")).stack_size(WATCH_STACK_BYTES).spawn(wait);
        if let Err(e) = thread {
            warn!(runner = id, error = %e, "cannot wait for the lock of another runner: only its lease will tell its death");
        }
    }

    fn ring(&mut self) {
        self.bell.ring();
    }

    fn watch_bell(&mut self, shared: Weak<Shared>) {
        self.bell.watch(shared);
    }
}

// === impl File ===

impl Lock for File {}

impl SlotFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}
