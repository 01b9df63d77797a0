//! Watches folders: says when it is time to look at them again.

use std::path::Path;
use std::time::Duration;

use notify::event::AccessKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

/// How long a folder must be quiet, roughly, before it is looked at: an editor or a copy makes many events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How often a folder is looked at anyway: events can be lost, and some file systems send none.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A watch on folders. They are watched and not their files, so that a file that is renamed over stays watched.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<()>,
    /// Keeps the channel open where there is no watcher.
    _changed: mpsc::Sender<()>,
    _debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
}

// === impl Watch ===

impl Watch {
    /// Watches `folders`. Where the system cannot, that is logged, and they are looked at every ten seconds.
    pub fn new(folders: &[&Path]) -> Watch {
        let (changed, events) = mpsc::channel(1);
        let on_change = changed.clone();
        let on_events = move |result: DebounceEventResult| {
            match result {
                Ok(events) if events.iter().all(is_a_look) => return,
                Ok(_) => {}
                Err(errors) => {
                    let error = errors.first().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(error, "events of folders were lost, they are looked at again: {error}");
                }
            }
            // A full channel says it already.
            on_change.try_send(()).ok();
        };
        let mut debouncer = new_debouncer(DEBOUNCE, None, on_events);
        for folder in folders {
            let watched = match &mut debouncer {
                Ok(debouncer) => {
                    debouncer.watch(folder, RecursiveMode::NonRecursive).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = watched {
                let path = folder.display();
                tracing::warn!(
                    error,
                    "folder `{path}` cannot be watched and is looked at every {LOOK_AGAIN:?}: {error}"
                );
            }
        }
        Watch { events, _changed: changed, _debouncer: debouncer.ok() }
    }

    /// Waits until a folder changed, or for `at_most`, or until it is time to look again anyway.
    pub async fn changed(&mut self, at_most: Option<Duration>) {
        let patience = at_most.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        // Time over is as good a reason to look as an event.
        tokio::time::timeout(patience, self.events.recv()).await.ok();
    }
}

/// Whether an event only says that somebody opened a file or a folder, as we do when we look.
fn is_a_look(event: &DebouncedEvent) -> bool {
    matches!(event.kind, EventKind::Access(AccessKind::Open(_)))
}
