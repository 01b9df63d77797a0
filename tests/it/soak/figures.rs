//! What must stay flat: what a process holds, and what lies on the disk.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use crate::support::TestRunner;

/// What a process of the runner holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) resident_bytes: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
}

/// What lies on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    pub(super) database_bytes: u64,
    pub(super) log_bytes: u64,
    pub(super) state_files: usize,
}

// === impl Held ===

impl Held {
    /// What it holds now; nothing where it is gone.
    pub(crate) fn now(pid: Pid) -> Option<Held> {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let files = fs::read_dir(format!("{folder}/fd")).ok()?.count() as u64;
        Some(Held { resident_bytes: number("VmRSS:")? << 10, files, threads: number("Threads:")? })
    }

    /// The middle of each figure.
    pub(crate) fn median(of: &[Held]) -> Held {
        let middle = |figure: fn(&Held) -> u64| {
            let mut figures: Vec<u64> = of.iter().map(figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or(0)
        };
        Held {
            resident_bytes: middle(|held| held.resident_bytes),
            files: middle(|held| held.files),
            threads: middle(|held| held.threads),
        }
    }
}

// === impl Stored ===

impl Stored {
    /// What lies there now.
    pub(super) fn now(runner: &TestRunner) -> Stored {
        let size = |name: &str| fs::metadata(runner.path(name)).map_or(0, |metadata| metadata.len());
        let state_files = files(&runner.path("sandhog.db.state")).len();
        Stored { database_bytes: size("sandhog.db"), log_bytes: size("sandhog.db-wal"), state_files }
    }

    /// The larger of each figure.
    pub(super) fn max(self, other: Stored) -> Stored {
        Stored {
            database_bytes: self.database_bytes.max(other.database_bytes),
            log_bytes: self.log_bytes.max(other.log_bytes),
            state_files: self.state_files.max(other.state_files),
        }
    }
}

/// The paths of all files in a folder, from the folder on.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        // What is renamed or deleted meanwhile is none.
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(path) = path.strip_prefix(folder) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// Megabytes, for people.
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
