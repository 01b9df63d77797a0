//! What stands for the state folder: locks, slot files and the bell, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::super::Shared;
use super::super::folder::{Folder, Lock, SlotFile};

/// What all processes share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Common(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    locked: BTreeSet<i64>,
    slot_files: BTreeMap<i64, Vec<u8>>,
    /// Who waits for which lock.
    watching: Vec<(i64, Weak<Shared>)>,
    listening: Vec<Weak<Shared>>,
}

/// The folder as one process has it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) common: Common,
    /// The process is dead, or as good as: nobody hears of what it does any more.
    pub(super) dead: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Held {
    id: i64,
    common: Common,
}

#[derive(Debug)]
struct Slots {
    id: i64,
    common: Common,
    dead: Arc<AtomicBool>,
}

// === impl Common ===

impl Common {
    /// The runners of whom something is left.
    pub(crate) fn left(&self) -> Vec<i64> {
        let state = self.0.lock().unwrap();
        state.locked.iter().chain(state.slot_files.keys()).copied().collect()
    }
}

// === impl Seat ===

impl Folder for Seat {
    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn lock(&mut self, id: i64) -> io::Result<Option<Box<dyn Lock>>> {
        let taken = self.common.0.lock().unwrap().locked.insert(id);
        Ok(taken.then(|| Box::new(Held { id, common: self.common.clone() }) as Box<dyn Lock>))
    }

    fn make_slot_file(&mut self, id: i64, bytes: usize) -> io::Result<Box<dyn SlotFile>> {
        self.common.0.lock().unwrap().slot_files.insert(id, vec![0; bytes]);
        Ok(Box::new(Slots { id, common: self.common.clone(), dead: Arc::clone(&self.dead) }))
    }

    fn read_slot_file(&self, id: i64) -> io::Result<Vec<u8>> {
        Ok(self.common.0.lock().unwrap().slot_files.get(&id).cloned().unwrap_or_default())
    }

    fn released(&self) -> Vec<i64> {
        let state = self.common.0.lock().unwrap();
        state.slot_files.keys().filter(|id| !state.locked.contains(id)).copied().collect()
    }

    fn remove_files(&mut self, id: i64) {
        self.common.0.lock().unwrap().slot_files.remove(&id);
    }

    fn watch_lock(&mut self, id: i64, shared: Weak<Shared>) {
        let mut state = self.common.0.lock().unwrap();
        if state.locked.contains(&id) {
            state.watching.push((id, shared));
        } else {
            drop(state);
            shared.upgrade().expect("who watches is there").inbox.peer_gone(id);
        }
    }

    fn ring(&mut self) {
        if !self.dead.load(Ordering::Relaxed) {
            let state = self.common.0.lock().unwrap();
            state.listening.iter().filter_map(Weak::upgrade).for_each(|shared| shared.inbox.ring());
        }
    }

    fn watch_bell(&mut self, shared: Weak<Shared>) {
        let mut state = self.common.0.lock().unwrap();
        if !state.listening.iter().any(|known| known.ptr_eq(&shared)) {
            state.listening.push(shared);
        }
    }
}

// === impl Held ===

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.common.0.lock().unwrap();
        state.locked.remove(&self.id);
        for (_, shared) in state.watching.extract_if(.., |(id, _)| *id == self.id) {
            if let Some(shared) = shared.upgrade() {
                shared.inbox.peer_gone(self.id);
            }
        }
    }
}

// === impl Slots ===

impl SlotFile for Slots {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.common.0.lock().unwrap();
        if !self.dead.load(Ordering::Relaxed)
            && let Some(file) = state.slot_files.get_mut(&self.id)
        {
            let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + bytes.len());
            file.resize(file.len().max(to), 0);
            file[from..to].copy_from_slice(bytes);
        }
        Ok(())
    }
}
