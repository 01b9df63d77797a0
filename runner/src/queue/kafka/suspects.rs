//! Suspects: jobs that were executed when a runner died, as far as the runners of one state folder know.
//!
//! Each runner counts what dead ones of its folder executed, as it starts and whenever it takes partitions on. The counts are
//! in a file that all of them share.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Options;
use super::inbox::Received;
use super::slots::{self, Mark, SLOT_BYTES, Slots};
use crate::clock::UnixMs;
use crate::queue::QueueError;
use crate::queue::runner_files::{DEATHS_UNTIL_ALONE, RunnerFiles};

/// The most jobs whose deaths are known. Of more, those that were there at a death longest ago are forgotten: they ended
/// elsewhere, or are gone.
const COUNTED_MAX: usize = 10_000;

/// No file of counts is larger.
const COUNTS_BYTES_MAX: u64 = 4 << 20;

/// How long those that have ended may stand in the file: they are taken out many at a time.
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// The jobs that died with a runner.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// None before it is a runner, and where there is no folder to be had.
    entry: Option<Entry>,
    counts: HashMap<Mark, Deaths>,
    /// Ended, and in the file still.
    forgotten: Vec<Mark>,
    forget_at: Option<Instant>,
}

/// This runner among those of its folder.
#[derive(Debug)]
struct Entry {
    files: RunnerFiles,
    id: i64,
    /// Held as long as the process lives.
    _lock: File,
}

/// What is known of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Deaths {
    /// How many runners died while they executed it.
    deaths: u32,
    /// One of them while it ran alone.
    alone: bool,
    /// When the last was counted.
    #[serde(rename = "at_ms")]
    at: UnixMs,
}

// === impl Suspects ===

impl Suspects {
    /// Makes this process a runner of its folder, and counts what those executed that died.
    pub(super) fn enter(&mut self, options: &Options, slots: &Slots) -> Result<(), QueueError> {
        let files = RunnerFiles::open(options.state_dir.join("suspects"))?;
        let dir = files.dir().display().to_string();
        let failed = |e: io::Error| QueueError::lasting(format!("cannot use the state folder `{dir}`: {e}"));
        let folder = open_lock(&files).map_err(failed)?;
        // Others hold it for a moment only. What is read and made here is nobody else's meanwhile.
        folder.lock().map_err(failed)?;
        self.counts = count(&files, &[], options.clock.now()).map_err(failed)?;
        for id in 1.. {
            let Some(lock) = files.lock(id).map_err(failed)? else { continue };
            slots.write_to(files.make_slots(id, SLOT_BYTES * options.slots as usize).map_err(failed)?);
            self.entry = Some(Entry { files, id, _lock: lock });
            break;
        }
        Ok(())
    }

    /// Counts anew: another runner of the folder may have died, whose jobs come here.
    pub(super) fn look(&mut self, now: UnixMs) {
        let Some(entry) = &self.entry else { return };
        match entry.change(&self.forgotten, now) {
            // Another one changes them: what it counts is seen the next time.
            Ok(None) => {}
            Ok(Some(counts)) => {
                self.counts = counts;
                self.forgotten.clear();
                self.forget_at = None;
            }
            Err(e) => {
                warn!(error = %e, "cannot count what dead runners executed, in `{}`", entry.files.dir().display())
            }
        }
    }

    /// Says of each that is about to be handed out whether it runs alone. Takes out those that are not to run again, and
    /// answers their deliveries, with how many runners died of each.
    pub(super) fn judge(&self, received: &mut Vec<Received>) -> Vec<(i64, u32)> {
        let mut guilty = Vec::new();
        if self.counts.is_empty() {
            return guilty;
        }
        received.retain_mut(|one| {
            let Some(known) = self.counts.get(&one.mark) else { return true };
            one.alone = known.deaths >= DEATHS_UNTIL_ALONE;
            if known.alone {
                guilty.push((one.receipt.record, known.deaths));
            }
            !known.alone
        });
        guilty
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// It is complete or buried.
    pub(super) fn forget(&mut self, mark: Mark) {
        if self.counts.remove(&mark).is_some() {
            self.forgotten.push(mark);
            self.forget_at.get_or_insert_with(|| Instant::now() + FORGET_AFTER);
        }
    }

    /// Takes those that have ended out of the file, some time after that.
    pub(super) fn keep(&mut self, now: UnixMs) {
        if self.forget_at.is_some_and(|at| at <= Instant::now()) {
            self.forget_at = Some(Instant::now() + FORGET_AFTER);
            self.look(now);
        }
    }

    /// Leaves the folder: this runner ends, and does not die.
    pub(super) fn leave(mut self, now: UnixMs) {
        if !self.forgotten.is_empty() {
            self.look(now);
        }
        if let Some(entry) = self.entry {
            entry.files.remove(entry.id);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// The counts, without those that are forgotten; none while another one changes them.
    fn change(&self, forgotten: &[Mark], now: UnixMs) -> io::Result<Option<HashMap<Mark, Deaths>>> {
        let folder = open_lock(&self.files)?;
        match folder.try_lock() {
            Ok(()) => count(&self.files, forgotten, now).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Reads the counts, takes out what is forgotten, adds what dead runners executed, and removes their files. To be called by
/// whoever holds the folder's lock.
fn count(files: &RunnerFiles, forgotten: &[Mark], now: UnixMs) -> io::Result<HashMap<Mark, Deaths>> {
    let path = files.dir().join("counts.json");
    let before = read_counts(&path)?;
    let mut counts = before.clone();
    for mark in forgotten {
        counts.remove(mark);
    }
    let dead = files.released();
    for id in &dead {
        let slots = files.read_slots(*id)?;
        // A job that stands there twice died once.
        let executed: BTreeMap<Mark, bool> = slots::read(&slots).collect();
        info!(
            jobs = executed.len(),
            "another runner of the state folder died while it executed {} jobs",
            executed.len()
        );
        for (mark, alone) in executed {
            let known = counts.entry(mark).or_insert(Deaths { deaths: 0, alone: false, at: now });
            *known = Deaths { deaths: known.deaths.saturating_add(1), alone: known.alone || alone, at: now };
        }
    }
    bound(&mut counts);
    if counts != before {
        let new = files.dir().join("counts.json.new");
        std::fs::write(&new, serde_json::to_vec(&counts).expect("counts are numbers"))?;
        std::fs::rename(new, path)?;
    }
    for id in dead {
        files.remove(id);
    }
    Ok(counts)
}

/// Reads the file of counts. One that is damaged begins anew.
fn read_counts(path: &std::path::Path) -> io::Result<HashMap<Mark, Deaths>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(COUNTS_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => return Err(e),
    };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|e| {
        warn!(error = %e, "`{}` is damaged: deaths are counted anew", path.display());
        HashMap::new()
    }))
}

fn bound(counts: &mut HashMap<Mark, Deaths>) {
    let over = counts.len().saturating_sub(COUNTED_MAX);
    if over > 0 {
        let mut oldest: Vec<(UnixMs, Mark)> = counts.iter().map(|(mark, known)| (known.at, *mark)).collect();
        oldest.sort_unstable();
        for (_, mark) in &oldest[..over] {
            counts.remove(mark);
        }
    }
}

/// The file whose lock is held while the folder is changed.
fn open_lock(files: &RunnerFiles) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).open(files.dir().join("folder.lock"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::envelope::Source;
    use super::super::record::Record;
    use super::*;
    use crate::queue::Receipt;

    /// A runner of a folder, which dies as it is dropped.
    struct Runner {
        suspects: Suspects,
        slots: Slots,
    }

    impl Runner {
        fn start(dir: &Path) -> Runner {
            let mut runner = Runner { suspects: Suspects::default(), slots: Slots::default() };
            runner.suspects.enter(&Options::new("", "jobs", dir), &runner.slots).unwrap();
            runner
        }

        /// What becomes of a job that it receives.
        fn judged(&self, mark: Mark) -> &'static str {
            let receipt = Receipt { record: 7, fence: 1 };
            let mut received = vec![Received { job: Arc::default(), alone: false, receipt, mark }];
            match (self.suspects.judge(&mut received).as_slice(), received.as_slice()) {
                ([], [one]) if one.alone => "alone",
                ([], [_]) => "together",
                ([(7, _)], []) => "buried",
                other => panic!("{other:?}"),
            }
        }
    }

    fn mark(offset: i64) -> Mark {
        Mark::of(&Record { place: Source { offset, ..Source::default() }, ..Record::default() })
    }

    #[test]
    fn job_that_is_executed_at_two_deaths_runs_alone_and_is_buried_if_that_kills_too() {
        let dir = tempfile::tempdir().unwrap();
        let (bad, ended, innocent) = (mark(1), mark(2), mark(3));
        for expected in ["together", "together", "alone"] {
            let runner = Runner::start(dir.path());
            assert_eq!(runner.judged(bad), expected);
            assert_eq!(runner.judged(ended), "together");
            let slot = runner.slots.executing(ended, false);
            runner.slots.executing(bad, expected == "alone");
            runner.slots.executed(slot);
            if expected == "together" {
                runner.slots.executing(innocent, false);
            } else {
                runner.slots.executed(runner.slots.executing(innocent, true));
            }
        }
        let mut runner = Runner::start(dir.path());
        assert_eq!([bad, innocent, ended].map(|mark| runner.judged(mark)), ["buried", "alone", "together"]);
        runner.suspects.forget(bad);
        runner.suspects.forget(innocent);
        runner.suspects.leave(UnixMs(0));
        let runner = Runner::start(dir.path());
        assert_eq!(runner.judged(bad), "together", "somebody requeued it");
        assert!(runner.suspects.is_empty());
    }

    #[test]
    fn runner_that_lives_counts_for_one_that_died() {
        let dir = tempfile::tempdir().unwrap();
        let mut lives = Runner::start(dir.path());
        let (here, there) = (mark(1), mark(2));
        lives.slots.executing(here, false);
        for _ in 0..2 {
            let dies = Runner::start(dir.path());
            dies.slots.executing(there, false);
            drop(dies);
            lives.suspects.look(UnixMs(0));
        }
        assert_eq!([here, there].map(|mark| lives.judged(mark)), ["together", "alone"]);
        let leaves = Runner::start(dir.path());
        leaves.slots.executing(here, false);
        leaves.suspects.leave(UnixMs(0));
        lives.suspects.look(UnixMs(0));
        assert_eq!(lives.judged(here), "together", "who leaves does not die");
    }

    #[test]
    fn counts_are_bounded_and_begin_anew_where_they_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let counted = |at| Deaths { deaths: 1, alone: false, at: UnixMs(at) };
        let mut counts: HashMap<Mark, Deaths> = (0..).map(|at| (mark(at), counted(at))).take(COUNTED_MAX + 5).collect();
        bound(&mut counts);
        assert_eq!((counts.len(), counts.values().map(|known| known.at.0).min()), (COUNTED_MAX, Some(5)));
        let bytes = serde_json::to_vec(&counts).unwrap();
        assert!(bytes.len() as u64 <= COUNTS_BYTES_MAX / 4, "{}", bytes.len());
        let path = dir.path().join("counts.json");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_counts(&path).unwrap(), counts);
        for damaged in [&bytes[..100], b"", b"{\"x\":{\"deaths\":1,\"alone\":false,\"at_ms\":1}}", b"[]"] {
            std::fs::write(&path, damaged).unwrap();
            assert!(read_counts(&path).unwrap().is_empty());
        }
    }
}
