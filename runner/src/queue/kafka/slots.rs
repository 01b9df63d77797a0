//! The slot file: which jobs a runner executes now, written so that it survives the runner's death.
//!
//! A slot is written in place without a sync, as an execution begins, and cleared as it ends: nothing else tells later whether
//! what stands there is out of date.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::record::Record;
use crate::generation::hex;

/// A mark, and how its job runs.
pub(super) const SLOT_BYTES: usize = MARK_BYTES + 1;

const MARK_BYTES: usize = 16;

const TOGETHER: u8 = 1;
const ALONE: u8 = 2;

/// What tells a job from all others, over the deaths of its runners: of the digest of its record id as much as is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Mark([u8; MARK_BYTES]);

/// A runner's slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    memory: Mutex<Memory>,
    /// None before it is a runner, and where no file can be made.
    file: OnceLock<File>,
    warned: AtomicBool,
}

#[derive(Debug, Default)]
struct Memory {
    free: Vec<u32>,
    /// How many there ever were.
    slots: u32,
}

// === impl Mark ===

impl Mark {
    /// The mark of a record's job: the same in every topic that the job goes through.
    pub(super) fn of(record: &Record) -> Mark {
        let mut digest = Sha256::new();
        match &record.envelope {
            Some(envelope) => digest.update(&envelope.record),
            None => write!(digest, "{}", record.place).expect("a digest takes all bytes"),
        }
        Mark(digest.finalize()[..MARK_BYTES].try_into().expect("a digest is longer"))
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> String {
        hex(&mark.0)
    }
}

impl TryFrom<String> for Mark {
    type Error = String;

    fn try_from(text: String) -> Result<Mark, String> {
        let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let bytes = digits.collect::<Option<Vec<u8>>>().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Mark).ok_or_else(|| format!("`{text}` is no mark of a job"))
    }
}

// === impl Slots ===

impl Slots {
    /// Writes to this file from now on.
    pub(super) fn write_to(&self, file: File) {
        self.file.set(file).expect("a runner is entered once");
    }

    /// This job is executed, until its slot is given back.
    pub(super) fn executing(&self, mark: Mark, alone: bool) -> u32 {
        let slot = self.lock().take();
        let mut bytes = [if alone { ALONE } else { TOGETHER }; SLOT_BYTES];
        bytes[..MARK_BYTES].copy_from_slice(&mark.0);
        self.write(slot, &bytes);
        slot
    }

    /// Its execution has ended: a death after that is not its doing.
    pub(super) fn executed(&self, slot: u32) {
        self.write(slot, &[0; SLOT_BYTES]);
        self.lock().free.push(slot);
    }

    fn write(&self, slot: u32, bytes: &[u8]) {
        let Some(file) = self.file.get() else { return };
        if let Err(e) = file.write_all_at(bytes, u64::from(slot) * SLOT_BYTES as u64)
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
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }
}

/// Reads what another runner's slot file says: what it executed, and whether that ran alone.
pub(super) fn read(file: &[u8]) -> impl Iterator<Item = (Mark, bool)> {
    file.chunks_exact(SLOT_BYTES).filter_map(|slot| {
        let mark = Mark(slot[..MARK_BYTES].try_into().expect("the slice is as long"));
        match slot[MARK_BYTES] {
            TOGETHER => Some((mark, false)),
            ALONE => Some((mark, true)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::envelope::Source;
    use super::*;
    use crate::clock::UnixMs;

    #[test]
    fn mark_of_a_job_is_the_same_wherever_it_goes() {
        let place = Source { topic: "jobs".into(), partition: 2, offset: 9, timestamp: UnixMs(1_790_000_000_000) };
        let first = Record { place, ..Record::default() };
        let mark = Mark::of(&first);
        let envelope = first.clone().into_envelope(None);
        let elsewhere = Record { envelope: Some(Box::new(envelope)), ..Record::default() };
        assert_eq!(Mark::of(&elsewhere), mark);
        assert_ne!(Mark::of(&Record::default()), mark);
        assert_eq!(Mark::try_from(String::from(mark)), Ok(mark));
        for wrong in ["", "ab", "é", "0g000000000000000000000000000000"] {
            assert!(Mark::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whatever_stands_in_a_slot_file_is_read_as_slots_or_left_out() {
        crate::fuzzing::fuzz("kafka-slots", Vec::new(), |bytes| {
            for (mark, alone) in read(bytes) {
                let written = [&mark.0[..], &[if alone { ALONE } else { TOGETHER }]].concat();
                assert!(bytes.chunks_exact(SLOT_BYTES).any(|chunk| chunk == written));
            }
        });
    }
}
