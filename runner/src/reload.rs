//! Keeps the registry in step with the handlers' folder, and with what people pinned and resumed.
//!
//! A handler's generation is the pair of its component and its manifest. A pair that does not load is reported once, and the
//! last good one stays. Compiling is slow and happens off the jobs' path, several pairs at a time and each by itself, so
//! that a slow one holds up no other; jobs see the registry swapped whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use self::folder::{Folder, Look, Pair};
use self::history::{History, HistoryError};
use self::known::{Coming, Known, Step};
use self::load::{Load, Loaded, Loader, Source};
use self::record::Refused;
use self::tally::Tally;
use crate::config::Config;
use crate::generation::Generation;
use crate::handler::Handler;
use crate::readiness::NotReady;
use crate::registry::{Conflict, Registry};
use crate::sandbox::{self, Sandbox};
use crate::state::StateStore;
use crate::watch::Watch;

pub(crate) mod folder;
pub(crate) mod history;
mod known;
mod load;
pub(crate) mod overview;
pub(crate) mod record;
pub mod tally;

/// Loads what lies in a folder, and again when it changes.
pub struct Reload {
    loader: Arc<Loader>,
    registry: Arc<ArcSwap<Registry>>,
    handlers: BTreeMap<Arc<str>, Known>,
    conflicts: Vec<Conflict>,
    folder_error: Option<String>,
    /// The loads that are under way, at most one of a handler.
    loads: JoinSet<(Arc<str>, Source, Result<Loaded, String>)>,
    /// The set-ups that are tried again, at most one of a handler.
    set_ups: JoinSet<(Arc<str>, Arc<Handler>)>,
    /// How many of them work at a time.
    permits: Arc<Semaphore>,
    /// What lay there at the start and is not loaded yet.
    starting: BTreeSet<Arc<str>>,
    on_change: Box<dyn Fn() + Send + Sync>,
}

// === impl Reload ===

impl Reload {
    /// Loads handlers of `sandbox`, which keep what they keep in `state`, into `registry` and calls `on_change` whenever it has swapped it.
    pub fn new(
        config: Arc<Config>,
        sandbox: Sandbox,
        state: Arc<dyn StateStore>,
        registry: Arc<ArcSwap<Registry>>,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Reload {
        let folder = Folder::new(config.handlers.dir.clone());
        let history = History::new(&config.state_dir, &config.handlers.dir);
        let decided = Arc::new(Notify::new());
        Reload {
            loader: Arc::new(Loader { folder, history, config, sandbox, state, decided, tally: Arc::default() }),
            registry,
            handlers: BTreeMap::new(),
            conflicts: Vec::new(),
            folder_error: None,
            loads: JoinSet::new(),
            set_ups: JoinSet::new(),
            permits: Arc::new(Semaphore::new(sandbox::loads_at_once() as usize)),
            starting: BTreeSet::new(),
            on_change: Box::new(on_change),
        }
    }

    /// What loading comes to, as it goes on.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.loader.tally)
    }

    /// Loads what is there, as it is, calls `ready` when all of that is done, and follows the folder for as long as it is
    /// polled. Each handler is served as soon as it is loaded.
    pub async fn follow(&mut self, ready: impl FnOnce()) {
        // Watched before it is read, so that no change falls between.
        let mut watch = self.watch();
        let now = Instant::now();
        // What was deleted while no runner looked is forgotten like what is deleted now.
        self.handlers = self.loader.history.names().into_iter().map(|name| (name, Known::new(now))).collect();
        let decided = Arc::clone(&self.loader.decided);
        let mut look_again = self.pass(true).await;
        let mut ready = Some(ready);
        loop {
            let refused = self.handlers.values().filter(|known| known.fault.is_some()).count();
            self.loader.tally.are_refused(refused + self.conflicts.len());
            if self.starting.is_empty()
                && let Some(ready) = ready.take()
            {
                if self.handlers.is_empty() && self.folder_error.is_none() {
                    tracing::info!("no handler in `{}` yet: jobs wait for theirs", self.loader.folder.path().display());
                }
                ready();
            }
            tokio::select! {
                () = watch.changed(look_again) => {}
                () = decided.notified() => {}
                Some(done) = self.set_ups.join_next() => {
                    let (name, handler) = done.expect("a set-up that breaks down says so");
                    self.was_set_up(&name, &handler);
                }
                Some(done) = self.loads.join_next() => {
                    let (name, source, loaded) = done.expect("a load that breaks down answers so");
                    self.loaded(&name, source, loaded);
                    if ready.is_some() && self.starting.is_empty() {
                        // That comes first: nobody is to see a job run before it is said.
                        look_again = Some(Duration::ZERO);
                        continue;
                    }
                }
            }
            look_again = self.pass(false).await;
        }
    }

    /// Makes durable what the attempts of the generations that are served came to.
    pub async fn note_standings(&mut self) {
        for (name, known) in &mut self.handlers {
            let Some(handler) = known.serving.as_ref() else { continue };
            let standing = handler.trial().standing();
            if known.noted == Some(standing) {
                continue;
            }
            let (history, of, generation) = (self.loader.history.clone(), Arc::clone(name), handler.generation.clone());
            let note = move || history.change(&of, |record| record.note(&generation, standing));
            let noted = blocking(note).await.and_then(|noted| noted.map_err(|error| error.to_string()));
            // Not before: should this be dropped while it waits, the next call notes it again.
            known.noted = Some(standing);
            if let Err(error) = noted {
                tracing::warn!(error, handler.name = %name, "cannot keep what is known of handler `{name}`: {error}");
            }
        }
    }

    /// Watches the folder, and what is kept of its handlers, which commands change.
    fn watch(&self) -> Watch {
        if let Err(error) = self.loader.history.make() {
            tracing::warn!(error = %error, "cannot keep generations of handlers: {error}");
        }
        Watch::new(&[self.loader.folder.path(), self.loader.history.dir()])
    }

    /// Looks at the folder once, and does what is to be done. Answers when to look again.
    async fn pass(&mut self, at_once: bool) -> Option<Duration> {
        self.note_standings().await;
        let mut look_again = self.set_up().await;
        let Some(looks) = self.look() else { return look_again };
        let names: Vec<Arc<str>> = looks.keys().chain(self.handlers.keys()).cloned().collect();
        for name in names {
            self.take_up(&name);
            let now = Instant::now();
            let known = self.handlers.entry(Arc::clone(&name)).or_insert_with(|| Known::new(now));
            match known.step(looks.get(&name), now, at_once) {
                Step::Nothing => {}
                Step::Wait(wait) => look_again = Some(look_again.map_or(wait, |sooner| sooner.min(wait))),
                Step::Load(source) => {
                    self.starting.extend(at_once.then(|| Arc::clone(&name)));
                    self.load(&name, source);
                }
                Step::Forget => self.forget(&name).await,
            }
        }
        look_again
    }

    /// What lies in the folder; nothing if it cannot be read, which is said once.
    fn look(&mut self) -> Option<BTreeMap<Arc<str>, Look>> {
        match self.loader.folder.look() {
            Ok(looks) => {
                self.folder_error = None;
                Some(looks)
            }
            Err(error) => {
                // What is loaded stays: a folder that cannot be read says nothing about its files.
                let error = error.to_string();
                if self.folder_error.as_ref() != Some(&error) {
                    let path = self.loader.folder.path().display();
                    tracing::warn!(error, "cannot read handlers' folder `{path}`: {error}");
                    self.folder_error = Some(error);
                }
                None
            }
        }
    }

    /// Takes up what commands and other runners changed in what is kept of a handler.
    fn take_up(&mut self, name: &Arc<str>) {
        let look = self.loader.history.look(name);
        let known = self.handlers.entry(Arc::clone(name)).or_insert_with(|| Known::new(Instant::now()));
        if look == known.record_look {
            return;
        }
        known.record_look = look;
        let record = self.loader.history.read(name).unwrap_or_else(|error: HistoryError| {
            tracing::warn!(error = %error, handler.name = %name, "what is kept of handler `{name}` counts for nothing: {error}");
            record::Record::default()
        });
        known.pin(record.pinned.clone());
        known.last_good.clone_from(&record.serving);
        known.paused = record.paused;
        let Some(handler) = &known.serving else { return };
        let was_paused = handler.is_paused();
        handler.pause(record.paused);
        if let Some(kept) = record.kept(&handler.generation) {
            known.noted = Some(handler.trial().raise(kept.standing)).filter(|standing| *standing == kept.standing);
        }
        let generation = &handler.generation;
        match (was_paused, handler.is_paused()) {
            (false, true) if record.paused => tracing::info!(
                handler.name = %name, handler.generation = %generation, "handler `{name}` is paused: its jobs wait"
            ),
            (false, true) => tracing::warn!(
                handler.name = %name, handler.generation = %generation,
                "handler `{name}` is paused: another runner braked generation {generation}"
            ),
            (true, false) => tracing::info!(
                handler.name = %name, handler.generation = %generation,
                "handler `{name}` is resumed, generation {generation}"
            ),
            _ => return,
        }
        (self.on_change)();
    }

    /// Begins a load. Its result comes to [`Reload::loaded`].
    fn load(&mut self, name: &Arc<str>, source: Source) {
        let known = self.handlers.get_mut(name).expect("a handler is known before it is loaded");
        known.begin(&source);
        let (pinned, serving) = (known.pinned().cloned(), known.serving.clone());
        let load = Load { name: Arc::clone(name), source, pinned, serving };
        let (loader, permits) = (Arc::clone(&self.loader), Arc::clone(&self.permits));
        self.loads.spawn(async move {
            let permit = permits.acquire_owned().await.expect("it is never closed");
            let (name, source) = (Arc::clone(&load.name), load.source.clone());
            let loaded = blocking(move || {
                let _permit = permit;
                loader.load(&load)
            });
            let loaded = loaded.await.and_then(|loaded| loaded);
            if let Ok(Loaded::Handler { handler, .. }) = &loaded
                && handler.is_set_up_once()
            {
                handler.set_up().await;
            }
            (name, source, loaded)
        });
    }

    /// Serves what was loaded, or says why not.
    fn loaded(&mut self, name: &Arc<str>, source: Source, loaded: Result<Loaded, String>) {
        let known = self.handlers.get_mut(name).expect("a handler stays known while it is loaded");
        known.loading = false;
        if source == Source::Folder && loaded.is_ok() {
            known.fault = None;
        }
        match loaded {
            Ok(Loaded::Same) => {}
            Ok(Loaded::Aside(found)) => {
                let pinned = known.pinned().map(ToString::to_string).unwrap_or_default();
                tracing::info!(
                    handler.name = %name, handler.generation = %found,
                    "handler `{name}` stays on generation {pinned}, to which it is pinned: the folder has {found}"
                );
            }
            Ok(Loaded::Handler { handler, has_manifest, took }) => {
                let coming = Coming { handler, has_manifest, source, took };
                match coming.handler.not_ready() {
                    // The old one stays meanwhile.
                    Some(_) if known.serving.is_some() => known.coming = Some(coming),
                    _ => self.serve(name, coming),
                }
            }
            Err(fault) => self.failed(name, &source, fault),
        }
        // Where it failed, something else of it may be loading by now.
        if !self.handlers[name].loading && self.starting.remove(name) && self.starting.is_empty() {
            self.publish();
        }
    }

    fn serve(&mut self, name: &Arc<str>, Coming { handler, has_manifest, source, took }: Coming) {
        let known = self.handlers.get_mut(name).expect("what is served is known");
        known.serve(Arc::clone(&handler), has_manifest, &source);
        self.publish();
        log_served(&handler, &source, took);
    }

    /// Tries again to set up what is not ready, where it is time, and keeps for people why it is not. Answers when to look
    /// again.
    async fn set_up(&mut self) -> Option<Duration> {
        let mut look_again: Option<Duration> = None;
        for (name, known) in &mut self.handlers {
            let handler = known.to_set_up().cloned();
            let not_ready = handler.as_ref().and_then(|handler| handler.not_ready());
            if let (Some(handler), Some(NotReady { retry_at, .. }), false) = (&handler, &not_ready, known.setting_up) {
                let wait = retry_at.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    known.setting_up = true;
                    let (name, handler) = (Arc::clone(name), Arc::clone(handler));
                    self.set_ups.spawn(async move {
                        handler.set_up().await;
                        (name, handler)
                    });
                } else {
                    look_again = Some(look_again.map_or(wait, |sooner| sooner.min(wait)));
                }
            }
            let why = handler.zip(not_ready).map(|(handler, not_ready)| (handler.generation.clone(), not_ready.why));
            if why == known.not_ready {
                continue;
            }
            if let Some((generation, why)) = &why {
                let stays = known.coming.as_ref().and(known.serving.as_ref());
                let meanwhile = stays.map_or("its jobs wait".to_owned(), |old| format!("{} stays", old.generation));
                tracing::warn!(
                    handler.name = %name, handler.generation = %generation,
                    "handler `{name}` is not ready, generation {generation}: {why}; it is tried again, and {meanwhile}"
                );
            }
            known.not_ready.clone_from(&why);
            let (history, of) = (self.loader.history.clone(), Arc::clone(name));
            let refused = why.map(|(generation, why)| Refused { generation, why });
            let kept = blocking(move || history.change(&of, |record| record.not_ready.clone_from(&refused))).await;
            if let Err(error) = kept.and_then(|kept| kept.map_err(|error| error.to_string())) {
                tracing::debug!(error, handler.name = %name, "cannot keep whether a handler is ready");
            }
        }
        look_again
    }

    /// A set-up was tried again.
    fn was_set_up(&mut self, name: &Arc<str>, handler: &Arc<Handler>) {
        let Some(known) = self.handlers.get_mut(name) else { return };
        known.setting_up = false;
        if handler.not_ready().is_some() {
            return;
        }
        let generation = &handler.generation;
        tracing::info!(
            handler.name = %name, handler.generation = %generation, "handler `{name}` is ready, generation {generation}"
        );
        match known.coming.take_if(|coming| Arc::ptr_eq(&coming.handler, handler)) {
            Some(coming) => self.serve(name, coming),
            None => (self.on_change)(),
        }
    }

    fn failed(&mut self, name: &Arc<str>, source: &Source, fault: String) {
        let known = self.handlers.get_mut(name).expect("a handler stays known while it is loaded");
        let instead = match source {
            Source::Folder => {
                if known.fault.as_ref() != Some(&fault) {
                    let stays =
                        known.serving.as_ref().map(|handler| format!("; generation {} stays", handler.generation));
                    let stays = stays.unwrap_or_default();
                    tracing::warn!(handler.name = %name, "cannot load handler `{name}`: {fault}{stays}");
                }
                known.fault = Some(fault);
                known.last_good.clone().map(Source::LastGood)
            }
            Source::Pinned(pinned) => {
                tracing::warn!(
                    handler.name = %name, handler.generation = %pinned,
                    "cannot load generation {pinned}, to which handler `{name}` is pinned: {fault}; what lies in the folder counts"
                );
                known.void_pin();
                Some(Source::Folder)
            }
            Source::LastGood(_) => {
                tracing::warn!(handler.name = %name, "nor can its last good generation be loaded: {fault}");
                None
            }
        };
        if known.serving.is_none()
            && let Some(instead) = instead
        {
            self.load(name, instead);
        }
    }

    async fn forget(&mut self, name: &Arc<str>) {
        let known = self.handlers.remove(name);
        let (history, of) = (self.loader.history.clone(), Arc::clone(name));
        let forgotten = blocking(move || history.forget(&of)).await;
        if let Err(error) = forgotten.and_then(|forgotten| forgotten.map_err(|error| error.to_string())) {
            tracing::warn!(error, handler.name = %name, "cannot forget what is kept of handler `{name}`: {error}");
        }
        if known.is_some_and(|known| known.serving.is_some()) {
            self.publish();
            tracing::info!(handler.name = %name, "handler `{name}` was deleted: jobs of its types wait");
        }
    }

    /// Swaps the registry for one of what is served now.
    fn publish(&mut self) {
        let serving = self.handlers.values().filter_map(|known| known.serving.clone());
        // A handler of `*` would take the jobs of one that is still being loaded.
        let serving = serving.filter(|handler| self.starting.is_empty() || !handler.serves_others());
        let (registry, conflicts) = Registry::of(serving);
        for conflict in conflicts.iter().filter(|conflict| !self.conflicts.contains(conflict)) {
            tracing::warn!(handler.name = %conflict.name, "handler `{}` is not served: it {conflict}", conflict.name);
        }
        self.conflicts = conflicts;
        self.registry.store(Arc::new(registry));
        (self.on_change)();
    }
}

// === impl Pair ===

impl Pair {
    /// The generation that this pair is.
    pub(crate) fn generation(&self) -> Generation {
        Generation::of(&self.component, self.manifest.as_deref())
    }
}

/// Says that a handler is served, and by what.
fn log_served(handler: &Handler, source: &Source, took: Duration) {
    let (name, generation) = (&handler.name, &handler.generation);
    let load_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        handler.name = %name, handler.generation = %generation, load_ms,
        "handler `{name}` loaded, generation {generation}, for {}", handler.job_types.join(", ")
    );
    match source {
        Source::Folder => {}
        Source::Pinned(_) => tracing::info!(
            handler.name = %name, handler.generation = %generation,
            "handler `{name}` is pinned to generation {generation}"
        ),
        Source::LastGood(_) => tracing::warn!(
            handler.name = %name, handler.generation = %generation,
            "handler `{name}` is served by its last good generation {generation} of an earlier run"
        ),
    }
    if handler.trial().is_braked() {
        tracing::warn!(
            handler.name = %name, handler.generation = %generation,
            "handler `{name}` is paused: generation {generation} was braked; its jobs wait for a good file, for `sandhog \
             handlers rollback {name}`, or for `sandhog handlers resume {name}`"
        );
    }
}

/// Runs what takes its time (files, compiling) on a thread where it holds up nobody: timers of guests run on this one.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("loading it broke down: {error}"))
}

#[cfg(test)]
mod tests;
