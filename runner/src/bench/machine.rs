//! What the figures depend on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{millis, quantile};
use crate::sandbox;

/// So many writes of so many bytes, each made durable.
const SYNCS: usize = 200;
const SYNC_BYTES: usize = 4096;

/// The machine, and the program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Conditions {
    /// That this process may use.
    pub(crate) cores: u32,
    /// The processor's name for itself.
    pub(crate) cpu: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Whether the kernel tells which pages a guest wrote, and that can be used here.
    pub(crate) page_map_scan: bool,
    /// Whether there is swap space.
    pub(crate) swap: bool,
    /// Where the files are made.
    pub(crate) dir: PathBuf,
    /// The kind of file system that is.
    pub(crate) file_system: String,
    /// How long a write of 4 KiB takes to be durable there, in milliseconds: the median.
    pub(crate) sync_p50_ms: f64,
    /// The same, of 99 in 100.
    pub(crate) sync_p99_ms: f64,
    /// How many threads of all programs ran or wanted to, over the last minute.
    pub(crate) load: f64,
    /// This program's.
    pub(crate) version: &'static str,
}

// === impl Conditions ===

impl Conditions {
    /// Looks. `folder` is one that may be written to.
    pub(super) fn look(folder: &Path, cores: u32) -> Result<Conditions> {
        let syncs =
            time_syncs(&folder.join("sync")).with_context(|| format!("cannot write to `{}`", folder.display()))?;
        let dir = folder.parent().unwrap_or(folder).to_owned();
        Ok(Conditions {
            cores,
            cpu: cpu(),
            kernel: read("/proc/sys/kernel/osrelease"),
            page_map_scan: sandbox::page_map_scan_is_safe(),
            swap: sandbox::swap_is_listed(),
            file_system: file_system(&dir),
            dir,
            sync_p50_ms: quantile(&syncs, 0.5),
            sync_p99_ms: quantile(&syncs, 0.99),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            version: env!("CARGO_PKG_VERSION"),
        })
    }

    /// Whether other programs take so much of the cores that the figures say little.
    fn is_busy(&self) -> bool {
        self.load > f64::from(self.cores) / 4.0
    }

    /// In a few lines, for people.
    pub(crate) fn as_pairs(&self) -> Vec<(&'static str, String)> {
        let yes = |yes| if yes { "yes" } else { "no" };
        vec![
            ("machine", format!("{} cores, {}", self.cores, self.cpu)),
            ("load", format!("{:.2}{}", self.load, if self.is_busy() { ": too busy for exact figures" } else { "" })),
            ("kernel", self.kernel.clone()),
            ("memory", format!("page-map scan: {}; swap: {}", yes(self.page_map_scan), yes(self.swap))),
            ("disk", format!("`{}`, {}", self.dir.display(), self.file_system)),
            ("disk sync", format!("p50 {:.2} ms, p99 {:.2} ms", self.sync_p50_ms, self.sync_p99_ms)),
            ("version", self.version.to_owned()),
        ]
    }
}

/// Milliseconds of each.
fn time_syncs(path: &Path) -> std::io::Result<Vec<f64>> {
    let mut file = File::create(path)?;
    let page = [0; SYNC_BYTES];
    let times = (0..SYNCS).map(|_| {
        let begun = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        Ok(millis(begun.elapsed()))
    });
    times.collect()
}

fn cpu() -> String {
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The type of the mount with the longest path that `dir` is in.
fn file_system(dir: &Path) -> String {
    let mounts = read("/proc/self/mounts");
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        dir.starts_with(at).then_some((at.len(), words.next()?))
    });
    // Of two on one place the later one is seen.
    mounted.max_by_key(|(length, _)| *length).map_or("an unknown file system", |(_, kind)| kind).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
