//! Keeps the registry in step with the handlers' folder.
//!
//! A handler's generation is the pair of its component and its manifest. A pair that does not load is reported once, and the
//! last good one stays. Compiling is slow and happens here, one pair at a time, off the jobs' path; jobs see the registry
//! swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::folder::{Folder, Look, Pair};
use self::last_good::LastGood;
use crate::config::Config;
use crate::generation::Generation;
use crate::handler::Handler;
use crate::manifest::Manifest;
use crate::registry::{Conflict, Registry};
use crate::sandbox::Sandbox;
use crate::telemetry::HandlerLog;
use crate::watch::Watch;

pub(crate) mod folder;
mod last_good;

/// A pair must look the same for this long before it is read: it may still be being written.
const SETTLED: Duration = Duration::from_millis(100);

/// How long a new component waits for its manifest, and how long a file must be gone before that is believed: some programs
/// replace a file by deleting and writing it.
const GRACE: Duration = Duration::from_secs(1);

/// Loads what lies in a folder, and again when it changes.
pub struct Reload {
    folder: Folder,
    config: Arc<Config>,
    sandbox: Sandbox,
    registry: Arc<ArcSwap<Registry>>,
    last_good: LastGood,
    handlers: BTreeMap<Arc<str>, Known>,
    conflicts: Vec<Conflict>,
    folder_error: Option<String>,
    on_change: Box<dyn Fn() + Send + Sync>,
}

/// What is known of one handler's files.
struct Known {
    /// How they looked last, and since when.
    look: Option<Look>,
    since: Instant,
    /// How they looked when they were read last.
    tried: Option<Look>,
    /// What was wrong with them then, so that it is said once.
    fault: Option<String>,
    /// The last good generation.
    serving: Option<Arc<Handler>>,
    serving_has_manifest: bool,
}

/// What to do about a pair of files now.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Wait(Duration),
    Load,
    Forget,
}

// === impl Reload ===

impl Reload {
    /// Loads handlers of `sandbox` into `registry` and calls `on_change` whenever it has swapped it.
    pub fn new(
        config: Arc<Config>,
        sandbox: Sandbox,
        registry: Arc<ArcSwap<Registry>>,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Reload {
        let last_good = LastGood::new(&config.state_dir, &config.handlers.dir);
        Reload {
            folder: Folder::new(config.handlers.dir.clone()),
            config,
            sandbox,
            registry,
            last_good,
            handlers: BTreeMap::new(),
            conflicts: Vec::new(),
            folder_error: None,
            on_change: Box::new(on_change),
        }
    }

    /// Loads all that is there, as it is.
    pub async fn load_all(&mut self) {
        self.pass(true).await;
        if self.handlers.is_empty() && self.folder_error.is_none() {
            tracing::info!("no handler in `{}` yet: jobs wait for theirs", self.folder.path().display());
        }
    }

    /// Follows the folder, for as long as it is polled.
    pub async fn follow(&mut self, mut watch: Watch) {
        let mut look_again = None;
        loop {
            watch.changed(look_again).await;
            look_again = self.pass(false).await;
        }
    }

    /// Looks at the folder once, and does what is to be done. Answers when to look again.
    async fn pass(&mut self, at_once: bool) -> Option<Duration> {
        let looks = match self.folder.look() {
            Ok(looks) => {
                self.folder_error = None;
                looks
            }
            Err(error) => {
                // What is loaded stays: a folder that cannot be read says nothing about its files.
                let error = error.to_string();
                if self.folder_error.as_ref() != Some(&error) {
                    tracing::warn!(error, "cannot read handlers' folder `{}`: {error}", self.folder.path().display());
                    self.folder_error = Some(error);
                }
                return None;
            }
        };
        let names: Vec<Arc<str>> = looks.keys().chain(self.handlers.keys()).cloned().collect();
        let mut look_again: Option<Duration> = None;
        for name in names {
            let known = self.handlers.entry(Arc::clone(&name)).or_insert_with(Known::new);
            match known.step(looks.get(&name), Instant::now(), at_once) {
                Step::Nothing => {}
                Step::Wait(wait) => look_again = Some(look_again.map_or(wait, |sooner| sooner.min(wait))),
                Step::Load => self.load(&name).await,
                Step::Forget => self.forget(&name),
            }
        }
        look_again
    }

    async fn load(&mut self, name: &Arc<str>) {
        let loaded = self.load_changed(name).await;
        let known = self.handlers.get_mut(name).expect("a handler is known before it is loaded");
        match loaded {
            Ok(None) => known.fault = None,
            Ok(Some(handler)) => {
                known.fault = None;
                self.serve(name, handler);
            }
            Err(fault) => {
                if known.fault.as_ref() != Some(&fault) {
                    let stays =
                        known.serving.as_ref().map(|handler| format!("; generation {} stays", handler.generation));
                    tracing::warn!(
                        handler.name = %name,
                        "cannot load handler `{name}`: {fault}{}", stays.unwrap_or_default()
                    );
                }
                known.fault = Some(fault);
                if known.serving.is_none() {
                    self.fall_back(name).await;
                }
            }
        }
    }

    /// The handler that the pair in the folder makes; none if it is served already.
    async fn load_changed(&mut self, name: &Arc<str>) -> Result<Option<Arc<Handler>>, String> {
        let (folder, stem) = (self.folder.clone(), Arc::clone(name));
        let read = move || folder.read(&stem).map(|pair| (pair.generation(), Arc::new(pair)));
        let (generation, pair) = blocking(read).await?.map_err(|error| error.to_string())?;
        if self.handlers[name].serving.as_ref().is_some_and(|handler| handler.generation == generation) {
            return Ok(None);
        }
        let handler = self.make(name, &generation, Arc::clone(&pair)).await?;
        let known = self.handlers.get_mut(name).expect("a handler is known before it is loaded");
        known.serving_has_manifest = pair.manifest.is_some();
        let (last_good, stem) = (self.last_good.clone(), Arc::clone(name));
        if let Err(error) = blocking(move || last_good.keep(&stem, &generation, &pair)).await? {
            tracing::warn!(error = %error, handler.name = %name, "cannot keep the last good pair of handler `{name}`: {error}");
        }
        Ok(Some(handler))
    }

    async fn make(&self, name: &Arc<str>, generation: &Generation, pair: Arc<Pair>) -> Result<Arc<Handler>, String> {
        let manifest = pair.manifest.as_deref().map(std::str::from_utf8).transpose();
        let manifest = manifest.map_err(|error| format!("`{name}.toml` is not UTF-8: {error}"))?.unwrap_or_default();
        let manifest = Manifest::parse(manifest, name, &self.config).map_err(|errors| errors.to_string())?;
        let (sandbox, limits) = (self.sandbox.clone(), manifest.limits.clone());
        let started = Instant::now();
        let component = blocking(move || sandbox.load(&pair.component, &limits)).await?.map_err(|e| e.with_hint())?;
        let log = Arc::new(HandlerLog::new(generation.clone()));
        let handler = Handler::new(Arc::clone(name), generation.clone(), manifest, component, log);
        let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            handler.name = %name, handler.generation = %generation, load_ms,
            "handler `{name}` loaded, generation {generation}, for {}", handler.job_types.join(", ")
        );
        Ok(Arc::new(handler))
    }

    /// Serves the last good pair of an earlier run, where the one in the folder is bad.
    async fn fall_back(&mut self, name: &Arc<str>) {
        let Some((generation, pair)) = self.last_good.get(name) else { return };
        match self.make(name, &generation, Arc::new(pair)).await {
            Ok(handler) => {
                tracing::warn!(
                    handler.name = %name, handler.generation = %generation,
                    "handler `{name}` is served by its last good generation {generation} of an earlier run"
                );
                self.serve(name, handler);
            }
            Err(fault) => tracing::warn!(handler.name = %name, "nor can its last good generation be loaded: {fault}"),
        }
    }

    fn serve(&mut self, name: &Arc<str>, handler: Arc<Handler>) {
        self.handlers.get_mut(name).expect("a handler is known before it is served").serving = Some(handler);
        self.publish();
    }

    fn forget(&mut self, name: &Arc<str>) {
        let known = self.handlers.remove(name);
        if let Err(error) = self.last_good.forget(name) {
            tracing::warn!(error = %error, handler.name = %name, "cannot forget the last good pair of `{name}`: {error}");
        }
        if known.is_some_and(|known| known.serving.is_some()) {
            tracing::info!(handler.name = %name, "handler `{name}` was deleted: jobs of its types wait");
            self.publish();
        }
    }

    /// Swaps the registry for one of what is served now.
    fn publish(&mut self) {
        let serving = self.handlers.values().filter_map(|known| known.serving.clone());
        let (registry, conflicts) = Registry::of(serving);
        for conflict in conflicts.iter().filter(|conflict| !self.conflicts.contains(conflict)) {
            tracing::warn!(handler.name = %conflict.name, "handler `{}` is not served: it {conflict}", conflict.name);
        }
        self.conflicts = conflicts;
        self.registry.store(Arc::new(registry));
        (self.on_change)();
    }
}

// === impl Known ===

impl Known {
    fn new() -> Known {
        Known {
            look: None,
            since: Instant::now(),
            tried: None,
            fault: None,
            serving: None,
            serving_has_manifest: false,
        }
    }

    /// What to do about files that look like this `now`.
    fn step(&mut self, look: Option<&Look>, now: Instant, at_once: bool) -> Step {
        if self.look.as_ref() != look {
            self.look = look.cloned();
            self.since = now;
        }
        let Some(look) = look else {
            return self.after(GRACE, now, Step::Forget);
        };
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
        let step = self.after(patience, now, Step::Load);
        if step == Step::Load {
            self.tried = Some(look.clone());
        }
        step
    }

    fn after(&self, patience: Duration, now: Instant, step: Step) -> Step {
        match patience.saturating_sub(now.duration_since(self.since)) {
            Duration::ZERO => step,
            wait => Step::Wait(wait),
        }
    }
}

// === impl Pair ===

impl Pair {
    /// The generation that this pair is.
    pub(crate) fn generation(&self) -> Generation {
        Generation::of(&self.component, self.manifest.as_deref())
    }
}

/// Runs what takes its time (files, compiling) on a thread where it holds up nobody: timers of guests run on this one.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("loading it broke down: {error}"))
}

#[cfg(test)]
mod tests;
