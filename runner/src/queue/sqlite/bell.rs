//! The bell: a small file that is written to after a commit, so that runners in other processes look for jobs.
//!
//! Watching the write-ahead log would not do: its last event comes before the commit can be seen.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Weak;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::Shared;
use crate::queue::QueueError;

/// The file, and who watches it.
#[derive(Debug)]
pub(super) struct Bell {
    path: PathBuf,
    file: File,
    rung: u64,
    warned: bool,
    watcher: Option<RecommendedWatcher>,
}

// === impl Bell ===

impl Bell {
    pub(super) fn open(state_dir: &Path) -> Result<Bell, QueueError> {
        let path = state_dir.join("bell");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| {
            QueueError::lasting(format!("cannot write to the bell `{}`: {e}", path.display()))
                .with_hint("`state_dir` names the folder; it must be writable")
        })?;
        Ok(Bell { path, file, rung: 0, warned: false, watcher: None })
    }

    /// Has the runners of other processes look.
    pub(super) fn ring(&mut self) {
        self.rung = self.rung.wrapping_add(1);
        if let Err(e) = self.file.write_all_at(&self.rung.to_le_bytes(), 0)
            && !std::mem::replace(&mut self.warned, true)
        {
            warn!(error = %e, "cannot ring the bell: other runners find new jobs some seconds later");
        }
    }

    /// Has `shared` told when anybody rings.
    pub(super) fn watch(&mut self, shared: Weak<Shared>) {
        if self.watcher.is_some() {
            return;
        }
        let heard = move |event: notify::Result<notify::Event>| {
            let rung = event.as_ref().is_ok_and(|event| matches!(event.kind, EventKind::Modify(_)));
            if (rung || event.is_err())
                && let Some(shared) = shared.upgrade()
            {
                shared.inbox.ring();
            }
        };
        let watcher = notify::recommended_watcher(heard).and_then(|mut watcher| {
            watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(e) => {
                warn!(error = %e, "cannot watch the bell: jobs of other processes are found some seconds later");
            }
        }
    }
}
