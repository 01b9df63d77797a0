//! One load: a pair of files becomes a handler that can be served, and is kept. It blocks: a compiler takes its time, and a
//! guest's start function as long as its timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::folder::{Folder, Pair};
use super::history::History;
use super::record::{Record, Refused};
use super::tally::Tally;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::generation::Generation;
use crate::handler::Handler;
use crate::manifest::Manifest;
use crate::sandbox::{HandlerState, Sandbox};
use crate::state::StateStore;
use crate::telemetry::HandlerLog;
use crate::trial::Trial;

/// What all loads have in common.
pub(super) struct Loader {
    pub(super) folder: Folder,
    pub(super) history: History,
    pub(super) config: Arc<Config>,
    pub(super) sandbox: Sandbox,
    /// Where handlers keep what they keep.
    pub(super) state: Arc<dyn StateStore>,
    /// Told when the attempts of a generation came to something.
    pub(super) decided: Arc<Notify>,
    pub(super) tally: Arc<Tally>,
}

/// What is to be loaded.
pub(super) struct Load {
    pub(super) name: Arc<str>,
    pub(super) source: Source,
    /// The generation that is served whatever lies in the folder.
    pub(super) pinned: Option<Generation>,
    /// The one that is served now.
    pub(super) serving: Option<Arc<Handler>>,
}

/// Where a pair comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// The handlers' folder.
    Folder,
    /// What is kept, since the handler is pinned to it.
    Pinned(Generation),
    /// What is kept, since the pair in the folder is bad.
    LastGood(Generation),
}

/// What came of a load.
#[derive(Debug)]
pub(super) enum Loaded {
    /// The pair is what is served already.
    Same,
    /// The pair in the folder is another one than the handler is pinned to.
    Aside(Generation),
    /// A handler to be served.
    Handler { handler: Arc<Handler>, has_manifest: bool, took: Duration },
}

// === impl Loader ===

impl Loader {
    /// Loads it, or says what is wrong with it.
    pub(super) fn load(&self, load: &Load) -> Result<Loaded, String> {
        let started = Instant::now();
        let pair = match &load.source {
            Source::Folder => self.folder.read(&load.name).map_err(|error| error.to_string())?,
            Source::Pinned(kept) | Source::LastGood(kept) => {
                self.history.pair(kept).ok_or("what was kept of it is gone or damaged")?
            }
        };
        let generation = pair.generation();
        if load.source == Source::Folder && load.pinned.as_ref().is_some_and(|pinned| *pinned != generation) {
            return Ok(Loaded::Aside(generation));
        }
        if let Some(serving) = load.serving.as_ref().filter(|serving| serving.generation == generation) {
            let job_types = serving.job_types.iter().map(ToString::to_string).collect();
            self.note(load, &generation, &pair, job_types);
            return Ok(Loaded::Same);
        }
        let (handler, compiled) =
            self.make(&load.name, &generation, &pair).inspect_err(|why| self.refuse(load, generation.clone(), why))?;
        let job_types = handler.job_types.iter().map(ToString::to_string).collect();
        let record = self.note(load, &generation, &pair, job_types);
        let (before, standing) = record.kept(&generation).map(|kept| (kept.before, kept.standing)).unwrap_or_default();
        let trial = Trial::new(before, standing, self.config.handlers.brake);
        let handler = Arc::new(handler.on_trial(trial, Arc::clone(&self.decided)));
        let took = started.elapsed();
        self.tally.loaded(took, compiled);
        Ok(Loaded::Handler { handler, has_manifest: pair.manifest.is_some(), took })
    }

    /// The handler, and how long compiling it took, where its code was not there already.
    fn make(
        &self,
        name: &Arc<str>,
        generation: &Generation,
        pair: &Pair,
    ) -> Result<(Handler, Option<Duration>), String> {
        let manifest = pair.manifest.as_deref().map(std::str::from_utf8).transpose();
        let manifest = manifest.map_err(|error| format!("`{name}.toml` is not UTF-8: {error}"))?.unwrap_or_default();
        let manifest =
            Manifest::parse(manifest, name, self.folder.path(), &self.config).map_err(|errors| errors.to_string())?;
        let component = self
            .sandbox
            .load(&pair.component, &manifest.limits, &manifest.grants)
            .map_err(|error| error.with_hint())?;
        let facts = component.facts();
        let compiled = (!facts.from_cache).then_some(facts.compile_time);
        let component = match &manifest.reuse {
            Some(reuse) => component.reusing(reuse.clone()),
            None => component,
        };
        let component = match manifest.grants.state {
            true => component.with_state(HandlerState {
                store: Arc::clone(&self.state),
                handler: Arc::clone(name),
                quota: manifest.limits.state,
            }),
            false => component,
        };
        let log = Arc::new(HandlerLog::new(generation.clone()));
        Ok((Handler::new(Arc::clone(name), generation.clone(), manifest, component, log), compiled))
    }

    /// Keeps the pair as one that is served. Answers what is kept now, or would be.
    fn note(&self, load: &Load, generation: &Generation, pair: &Pair, job_types: Vec<String>) -> Record {
        let now = SystemClock.now();
        let change = |record: &mut Record| {
            if let Some(serving) = &load.serving {
                record.note(&serving.generation, serving.trial().standing());
            }
            record.not_ready = None;
            match load.source {
                Source::Folder => record.deployed(generation, job_types.clone(), now),
                Source::Pinned(_) | Source::LastGood(_) => record.serving = Some(generation.clone()),
            }
        };
        let mut unkept = self.history.read(&load.name).unwrap_or_default();
        self.history.keep(&load.name, pair, generation, change).unwrap_or_else(|error| {
            let name = &load.name;
            tracing::warn!(error = %error, handler.name = %name, "cannot keep generation {generation} of handler `{name}`: {error}");
            change(&mut unkept);
            unkept
        })
    }

    /// Keeps why a pair in the folder is no handler, for people who ask.
    fn refuse(&self, load: &Load, generation: Generation, why: &str) {
        self.tally.refused();
        if load.source != Source::Folder {
            return;
        }
        let refused = Some(Refused { generation, why: why.to_owned() });
        if let Err(error) = self.history.change(&load.name, |record| record.refused = refused) {
            tracing::debug!(error = %error, handler.name = %load.name, "cannot keep why a pair was refused");
        }
    }
}
