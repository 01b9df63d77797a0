//! The slot file: which deliveries a runner executes, written so that it survives the runner's death.
//!
//! A slot is written in place without a sync: the page cache outlives a killed process. What it says counts only where the
//! job's row still has the same fencing number, so a slot need not be cleared when its job is settled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwapOption;
use tracing::warn;

use super::folder::SlotFile;
use crate::queue::Receipt;

/// Record, fence, and how it runs; eight bytes each, little-endian.
pub(super) const SLOT_BYTES: usize = 24;

const TOGETHER: u64 = 1;
const ALONE: u64 = 2;
/// It ran alone and came to its end: a death after that is not its doing.
const ALONE_ENDED: u64 = 3;

/// A runner's slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    memory: Mutex<Memory>,
    file: ArcSwapOption<Box<dyn SlotFile>>,
    warned: AtomicBool,
}

/// What a slot file says of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) receipt: Receipt,
    /// Its execution had not ended.
    pub(super) executing: bool,
    pub(super) alone: bool,
}

#[derive(Debug, Default)]
struct Memory {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_record: HashMap<i64, u32>,
}

/// A slot is free again when its delivery is neither executing nor unsettled: a job that was executed, and whose settlement
/// is lost with the runner, was started.
#[derive(Debug)]
struct Entry {
    receipt: Receipt,
    alone: bool,
    executing: bool,
    unsettled: bool,
}

// === impl Slots ===

impl Slots {
    /// Writes to a new file from now on.
    pub(super) fn write_to(&self, file: Box<dyn SlotFile>) {
        self.file.store(Some(Arc::new(file)));
    }

    pub(super) fn executing(&self, receipt: Receipt, alone: bool) -> u32 {
        let entry = Entry { receipt, alone, executing: true, unsettled: true };
        let slot = {
            let mut memory = self.lock();
            let slot = match memory.free.pop() {
                Some(slot) => {
                    memory.entries[slot as usize] = entry;
                    slot
                }
                None => {
                    memory.entries.push(entry);
                    u32::try_from(memory.entries.len() - 1).expect("what is in flight is bounded far below this")
                }
            };
            // Claimed again while the first claim, which was lost, is not settled here yet.
            if let Some(lost) = memory.by_record.insert(receipt.record, slot) {
                memory.settle(lost);
            }
            slot
        };
        self.write(slot, receipt, if alone { ALONE } else { TOGETHER });
        slot
    }

    pub(super) fn executed(&self, slot: u32) {
        let ended_alone = {
            let mut memory = self.lock();
            let entry = &mut memory.entries[slot as usize];
            entry.executing = false;
            let (alone, receipt) = (entry.alone, entry.receipt);
            if !entry.unsettled {
                memory.free.push(slot);
            }
            alone.then_some(receipt)
        };
        if let Some(receipt) = ended_alone {
            self.write(slot, receipt, ALONE_ENDED);
        }
    }

    /// Whether a delivery that is not settled had been started.
    pub(super) fn was_started(&self, receipt: Receipt) -> bool {
        let memory = self.lock();
        memory.by_record.get(&receipt.record).is_some_and(|slot| memory.entries[*slot as usize].receipt == receipt)
    }

    /// Deliveries that are started and not settled.
    pub(super) fn started(&self) -> Vec<Receipt> {
        let memory = self.lock();
        memory.by_record.values().map(|slot| memory.entries[*slot as usize].receipt).collect()
    }

    /// These are settled.
    pub(super) fn settled(&self, receipts: impl Iterator<Item = Receipt>) {
        let mut memory = self.lock();
        for receipt in receipts {
            let Some(slot) = memory.by_record.get(&receipt.record).copied() else { continue };
            if memory.entries[slot as usize].receipt == receipt {
                memory.by_record.remove(&receipt.record);
                memory.settle(slot);
            }
        }
    }

    fn write(&self, slot: u32, receipt: Receipt, how: u64) {
        let Some(file) = &*self.file.load() else { return };
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&receipt.record.to_le_bytes());
        bytes[8..16].copy_from_slice(&receipt.fence.to_le_bytes());
        bytes[16..].copy_from_slice(&how.to_le_bytes());
        if let Err(e) = file.write_at(&bytes, u64::from(slot) * SLOT_BYTES as u64)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            warn!(error = %e, "cannot note what is executed: a death of this runner would not be counted");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("nobody panics while holding the slots")
    }
}

// === impl Memory ===

impl Memory {
    fn settle(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.unsettled = false;
        if !entry.executing {
            self.free.push(slot);
        }
    }
}

/// Reads what another runner's slot file says.
pub(super) fn read(file: &[u8]) -> Vec<Slot> {
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("the slice has eight bytes"));
    let slots = file.chunks_exact(SLOT_BYTES).filter_map(|slot| {
        let receipt = Receipt { record: number(&slot[..8]), fence: number(&slot[8..16]) };
        match u64::from_le_bytes(slot[16..].try_into().expect("the slice has eight bytes")) {
            TOGETHER => Some(Slot { receipt, executing: true, alone: false }),
            ALONE => Some(Slot { receipt, executing: true, alone: true }),
            ALONE_ENDED => Some(Slot { receipt, executing: false, alone: true }),
            _ => None,
        }
    });
    slots.collect()
}

#[cfg(test)]
mod tests {
    use super::super::folder::{DiskFolder, Folder};
    use super::*;

    fn slots_of(folder: &mut DiskFolder) -> Slots {
        let slots = Slots::default();
        slots.write_to(folder.make_slot_file(7, SLOT_BYTES).unwrap());
        slots
    }

    fn read_back(folder: &DiskFolder) -> Vec<Slot> {
        read(&folder.read_slot_file(7).unwrap())
    }

    #[test]
    fn slot_is_kept_until_its_job_is_both_executed_and_settled() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = DiskFolder::open(dir.path()).unwrap();
        let slots = slots_of(&mut folder);
        let (one, two) = (Receipt { record: 1, fence: 9 }, Receipt { record: 2, fence: 9 });
        let slot = slots.executing(one, false);
        slots.executed(slot);
        assert_ne!(slots.executing(two, true), slot, "it is not settled");
        assert_eq!(
            read_back(&folder),
            [Slot { receipt: one, executing: true, alone: false }, Slot { receipt: two, executing: true, alone: true }]
        );
        assert!(slots.was_started(one));
        slots.settled([one].into_iter());
        assert!(!slots.was_started(one));
        assert_eq!(slots.executing(Receipt { record: 3, fence: 9 }, false), slot);
    }

    #[test]
    fn job_that_ended_alone_is_told_from_one_that_runs_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = DiskFolder::open(dir.path()).unwrap();
        let slots = slots_of(&mut folder);
        let receipt = Receipt { record: 1, fence: 9 };
        slots.executed(slots.executing(receipt, true));
        assert_eq!(read_back(&folder), [Slot { receipt, executing: false, alone: true }]);
    }

    #[test]
    fn whatever_stands_in_a_slot_file_is_read_as_slots_or_left_out() {
        crate::fuzzing::fuzz("slots", Vec::new(), |bytes| {
            let mut rest = bytes;
            for slot in read(bytes) {
                let how = match (slot.alone, slot.executing) {
                    (false, _) => TOGETHER,
                    (true, true) => ALONE,
                    (true, false) => ALONE_ENDED,
                };
                let parts = [slot.receipt.record.cast_unsigned(), slot.receipt.fence.cast_unsigned(), how];
                let written = parts.map(u64::to_le_bytes).concat();
                // In their order, each where a slot may stand.
                let at =
                    rest.chunks_exact(SLOT_BYTES).position(|chunk| chunk == written).expect("it stands in the file");
                rest = &rest[(at + 1) * SLOT_BYTES..];
            }
        });
    }
}
