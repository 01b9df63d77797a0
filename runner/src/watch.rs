//! Watches the handlers' folder: says when it is time to look at it again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

/// How long the folder must be quiet, roughly, before it is looked at: an editor or a copy makes many events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How often the folder is looked at anyway: events can be lost, and some file systems send none.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A watch on a folder. The folder is watched and not its files, so that a file that is renamed over stays watched.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<()>,
    /// Keeps the channel open where there is no watcher.
    _changed: mpsc::Sender<()>,
    _debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
}

// === impl Watch ===

impl Watch {
    /// Watches `folder`. Where the system cannot, that is logged, and the folder is looked at every ten seconds.
    pub fn new(folder: &Path) -> Watch {
        let (changed, events) = mpsc::channel(1);
        let (watched, on_change) = (PathBuf::from(folder), changed.clone());
        let on_events = move |result: DebounceEventResult| {
            if let Err(errors) = result {
                let error = errors.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(error, "events of folder `{}` were lost, it is looked at again", watched.display());
            }
            // A full channel says it already.
            on_change.try_send(()).ok();
        };
        let debouncer = new_debouncer(DEBOUNCE, None, on_events).and_then(|mut debouncer| {
            debouncer.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(debouncer)
        });
        let debouncer = debouncer.inspect_err(|error| {
            let path = folder.display();
            tracing::warn!(error = %error, "folder `{path}` cannot be watched and is looked at every {LOOK_AGAIN:?}: {error}");
        });
        Watch { events, _changed: changed, _debouncer: debouncer.ok() }
    }

    /// Waits until the folder changed, or for `at_most`, or until it is time to look again anyway.
    pub async fn changed(&mut self, at_most: Option<Duration>) {
        let patience = at_most.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        // Time over is as good a reason to look as an event.
        tokio::time::timeout(patience, self.events.recv()).await.ok();
    }
}
