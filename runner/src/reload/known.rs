//! What a runner knows of one handler's files, and what is to be done about them. It does nothing itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::folder::{FileLook, Look};
use super::load::Source;
use crate::generation::Generation;
use crate::handler::Handler;
use crate::trial::Standing;

/// A pair must look the same for this long before it is read: it may still be being written.
pub(super) const SETTLED: Duration = Duration::from_millis(100);

/// How long a new component waits for its manifest, and how long a file must be gone before that is believed: some programs
/// replace a file by deleting and writing it.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What is known of one handler's files.
pub(super) struct Known {
    /// How they looked last, and since when.
    look: Option<Look>,
    pub(super) since: Instant,
    /// How they looked when they were read last.
    tried: Option<Look>,
    /// What was wrong with them then, so that it is said once.
    pub(super) fault: Option<String>,
    /// Something of it is being loaded, and nothing else of it is until that is done.
    pub(super) loading: bool,
    /// The generation that is served.
    pub(super) serving: Option<Arc<Handler>>,
    /// The one that will be served once it is ready.
    pub(super) coming: Option<Coming>,
    /// Whether an instance is being set up.
    pub(super) setting_up: bool,
    /// Why the one that is served or coming is not ready, as it was kept last.
    pub(super) not_ready: Option<(Generation, String)>,
    serving_has_manifest: bool,
    /// What is kept of its standing.
    pub(super) noted: Option<Standing>,
    /// How what is kept of the handler looked when it was read last.
    pub(super) record_look: Option<FileLook>,
    /// The generation that an earlier run served last.
    pub(super) last_good: Option<Generation>,
    /// Whether a person paused it.
    pub(super) paused: bool,
    pinned: Option<Generation>,
    /// The pin cannot be kept.
    void: bool,
}

/// A generation that was loaded and is not ready, while another one is served.
pub(super) struct Coming {
    pub(super) handler: Arc<Handler>,
    pub(super) has_manifest: bool,
    pub(super) source: Source,
    pub(super) took: Duration,
}

/// What to do about a pair of files now.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Wait(Duration),
    Load(Source),
    Forget,
}

// === impl Known ===

impl Known {
    pub(super) fn new(now: Instant) -> Known {
        Known {
            look: None,
            since: now,
            tried: None,
            fault: None,
            loading: false,
            serving: None,
            coming: None,
            setting_up: false,
            not_ready: None,
            serving_has_manifest: false,
            noted: None,
            record_look: None,
            last_good: None,
            paused: false,
            pinned: None,
            void: false,
        }
    }

    /// What to do about files that look like this `now`.
    pub(super) fn step(&mut self, look: Option<&Look>, now: Instant, at_once: bool) -> Step {
        if self.look.as_ref() != look {
            self.look = look.cloned();
            self.since = now;
        }
        if self.loading {
            return Step::Nothing;
        }
        let Some(look) = look else {
            return self.after(GRACE, now, Step::Forget);
        };
        if let Some(pinned) = self.pinned()
            && self.serving.as_ref().is_none_or(|serving| serving.generation != *pinned)
        {
            return Step::Load(Source::Pinned(pinned.clone()));
        }
        if self.tried.as_ref() == Some(look) {
            return Step::Nothing;
        }
        // A component that comes alone may have its manifest coming; one whose manifest went may get it back.
        let awaits_manifest = !look.has_manifest() && (self.serving.is_none() || self.serving_has_manifest);
        let patience = match (at_once, awaits_manifest) {
            (true, _) => Duration::ZERO,
            (false, true) => GRACE,
            (false, false) => SETTLED,
        };
        self.after(patience, now, Step::Load(Source::Folder))
    }

    /// Something of it is being loaded from now on.
    pub(super) fn begin(&mut self, source: &Source) {
        self.loading = true;
        self.coming = None;
        if *source == Source::Folder {
            self.tried.clone_from(&self.look);
        }
    }

    /// The generation that is served whatever lies in the folder.
    pub(super) fn pinned(&self) -> Option<&Generation> {
        self.pinned.as_ref().filter(|_| !self.void)
    }

    /// Takes up what people pinned. What lies in the folder is looked at again then: it may be what is to be served now.
    pub(super) fn pin(&mut self, pinned: Option<Generation>) {
        if self.pinned != pinned {
            self.pinned = pinned;
            self.void = false;
            self.tried = None;
        }
    }

    /// What is pinned cannot be served: the pin counts for nothing until it is changed.
    pub(super) fn void_pin(&mut self) {
        self.void = true;
        self.tried = None;
    }

    /// Takes over what was loaded.
    pub(super) fn serve(&mut self, handler: Arc<Handler>, has_manifest: bool, source: &Source) {
        self.noted = Some(handler.trial().standing());
        handler.pause(self.paused);
        self.serving = Some(handler);
        if *source == Source::Folder {
            self.serving_has_manifest = has_manifest;
        }
    }

    /// The generation that is to be made ready: the coming one, else the one that is served, if it is not.
    pub(super) fn to_set_up(&self) -> Option<&Arc<Handler>> {
        let coming = self.coming.as_ref().map(|coming| &coming.handler);
        coming.or(self.serving.as_ref().filter(|handler| handler.not_ready().is_some()))
    }

    fn after(&self, patience: Duration, now: Instant, step: Step) -> Step {
        match patience.saturating_sub(now.duration_since(self.since)) {
            Duration::ZERO => step,
            wait => Step::Wait(wait),
        }
    }
}
