//! How often handlers were loaded and refused, and how long that took: for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What loading came to since the runner started.
#[derive(Debug, Default)]
pub struct Tally {
    loaded: AtomicU64,
    refused: AtomicU64,
    load_micros: AtomicU64,
    compiles: AtomicU64,
    compile_micros: AtomicU64,
    refused_now: AtomicU64,
}

// === impl Tally ===

impl Tally {
    /// A generation was loaded. `compiled` says how long compiling took, where its code was not there already.
    pub(super) fn loaded(&self, took: Duration, compiled: Option<Duration>) {
        self.loaded.fetch_add(1, Relaxed);
        self.load_micros.fetch_add(micros(took), Relaxed);
        if let Some(took) = compiled {
            self.compiles.fetch_add(1, Relaxed);
            self.compile_micros.fetch_add(micros(took), Relaxed);
        }
    }

    /// A pair was refused.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// So many handlers have a pair in the folder now that is refused.
    pub(super) fn are_refused(&self, handlers: usize) {
        self.refused_now.store(handlers as u64, Relaxed);
    }

    /// How many generations were loaded, and how many pairs refused.
    pub fn reloads(&self) -> [(&'static str, u64); 2] {
        [("loaded", self.loaded.load(Relaxed)), ("refused", self.refused.load(Relaxed))]
    }

    /// How long loading took, compiling included.
    pub fn load_time(&self) -> Duration {
        Duration::from_micros(self.load_micros.load(Relaxed))
    }

    /// How many components were compiled.
    pub fn compiles(&self) -> u64 {
        self.compiles.load(Relaxed)
    }

    /// How long compiling took.
    pub fn compile_time(&self) -> Duration {
        Duration::from_micros(self.compile_micros.load(Relaxed))
    }

    /// How many handlers have a pair in the folder that is refused.
    pub fn refused_now(&self) -> u64 {
        self.refused_now.load(Relaxed)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
