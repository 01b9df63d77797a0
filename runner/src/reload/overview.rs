//! The handlers as people see them: what lies in the folder, what is kept of each, and what they may change of that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::folder::{Folder, Look};
use super::history::{History, HistoryError};
use super::record::{Kept, Record, Refusal};
use crate::config::Config;
use crate::generation::Generation;
use crate::manifest::Manifest;
use crate::trial::Standing;

/// The folder of handlers and what is kept of them, looked at from outside of a runner's own following.
#[derive(Debug)]
pub(crate) struct Overview {
    folder: Folder,
    history: History,
    /// What was found in the folder, by its looks: a component may have many megabytes, and need not be read twice.
    found: Mutex<BTreeMap<Arc<str>, (Look, Found)>>,
}

/// A handler, as far as the folder and what is kept of it tell.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct ListedHandler {
    /// Its file's name without `.wasm`.
    pub(crate) handler: String,
    pub(crate) state: HandlerState,
    /// Why the pair in the folder is no handler, or not ready.
    pub(crate) why: Option<String>,
    /// What is served, or will be.
    #[schema(value_type = Option<String>)]
    pub(crate) generation: Option<Generation>,
    /// What lies in the folder.
    #[schema(value_type = Option<String>)]
    pub(crate) in_folder: Option<Generation>,
    /// Whether it stays on its generation, whatever lies in the folder.
    pub(crate) pinned: bool,
    /// Whether the generation is paused since all its attempts failed.
    pub(crate) braked: bool,
    /// Whether a person paused it.
    pub(crate) paused: bool,
    /// What it serves; `*` is every type that no other handler claims.
    pub(crate) job_types: Vec<String>,
    /// Those that can be served, the last one that came into the folder first.
    pub(crate) generations: Vec<Kept>,
    /// What an attempt may use; none if its manifest cannot be read.
    pub(crate) limits: Option<ListedLimits>,
    /// What its manifest grants, a line each, without values.
    pub(crate) grants: Vec<String>,
}

/// The limits of a handler that its manifest may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ListedLimits {
    /// The longest that an attempt may take.
    pub(crate) timeout_ms: u64,
    /// The most memory of an attempt.
    pub(crate) memory_bytes: u64,
    /// How many attempts may run at a time.
    pub(crate) concurrency: u32,
    /// How much of the slots' time is its own while others want some too.
    pub(crate) weight: u32,
}

/// What is to be known first of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HandlerState {
    /// Its file was deleted.
    Gone,
    /// Its types are paused, since it only failed.
    Braked,
    /// A person paused it.
    Paused,
    /// It stays on a generation.
    Pinned,
    /// What lies in the folder does not load.
    Bad,
    /// Its instances cannot be set up now.
    NotReady,
    /// No runner has loaded yet what lies in the folder.
    New,
    /// What lies in the folder is served.
    Good,
}

/// Why a handler cannot be changed as somebody asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("what was kept of generation `{0}` is gone or damaged")]
    Lost(Generation),
    #[error("{0}")]
    History(HistoryError),
}

/// Handlers of which what is kept counts for nothing.
pub(crate) type Damaged = Vec<(Arc<str>, HistoryError)>;

/// What lies in the folder as a handler.
#[derive(Debug, Clone, Default)]
struct Found {
    generation: Option<Generation>,
    manifest: Option<Manifest>,
    /// Why it is none, as far as its files can be read without compiling anything.
    why: Option<String>,
}

// === impl Overview ===

impl Overview {
    /// Of the handlers of `config`.
    pub(crate) fn new(config: &Config) -> Overview {
        let folder = Folder::new(config.handlers.dir.clone());
        let history = History::new(&config.state_dir, &config.handlers.dir);
        Overview { folder, history, found: Mutex::default() }
    }

    /// All handlers by name, and of which what is kept is damaged. Reads files.
    pub(crate) fn list(&self, config: &Config) -> io::Result<(Vec<ListedHandler>, Damaged)> {
        let looks = self.folder.look()?;
        let names: BTreeSet<Arc<str>> = looks.keys().cloned().chain(self.history.names()).collect();
        let mut before = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        before.retain(|name, _| looks.contains_key(name));
        let (mut listed, mut damaged) = (Vec::new(), Vec::new());
        for name in names {
            let record = self.history.read(&name).unwrap_or_else(|error| {
                damaged.push((Arc::clone(&name), error));
                Record::default()
            });
            let found = looks.get(&name).map(|look| match before.get(&name).filter(|(seen, _)| seen == look) {
                Some((_, found)) => found.clone(),
                None => {
                    let found = Found::read(&self.folder, &name, config);
                    before.insert(Arc::clone(&name), (look.clone(), found.clone()));
                    found
                }
            });
            let manifest = |generation: &Generation| self.manifest(&name, generation, config);
            listed.push(ListedHandler::of(&name, record, found, config.handlers.brake, manifest));
        }
        Ok((listed, damaged))
    }

    /// Changes what is kept of the handler `name`, if it can be done. Answers which generation it is about.
    pub(crate) fn change(
        &self,
        name: &str,
        change: impl Fn(&mut Record) -> Result<Generation, Refusal>,
    ) -> Result<Generation, ChangeError> {
        if name.contains('/') || self.history.look(name).is_none() {
            return Err(ChangeError::Refused(Refusal::NeverServed));
        }
        let mut record = self.history.read(name).map_err(ChangeError::History)?;
        let generation = change(&mut record).map_err(ChangeError::Refused)?;
        if record.pinned.as_ref() == Some(&generation) && self.history.pair(&generation).is_none() {
            return Err(ChangeError::Lost(generation));
        }
        // Another process may have changed it meanwhile.
        let (changed, _) = self.history.change(name, change).map_err(ChangeError::History)?;
        changed.map_err(ChangeError::Refused)
    }

    /// The manifest of a generation that is kept.
    fn manifest(&self, name: &str, generation: &Generation, config: &Config) -> Option<Manifest> {
        let text = self.history.manifest(generation)?;
        Manifest::parse(&text, name, self.folder.path(), config).ok()
    }
}

// === impl Found ===

impl Found {
    fn read(folder: &Folder, name: &str, config: &Config) -> Found {
        let pair = match folder.read(name) {
            Ok(pair) => pair,
            Err(error) => return Found { why: Some(error.to_string()), ..Found::default() },
        };
        let generation = Some(pair.generation());
        let manifest = String::from_utf8_lossy(pair.manifest.as_deref().unwrap_or_default());
        match Manifest::parse(&manifest, name, folder.path(), config) {
            Ok(manifest) => Found { generation, manifest: Some(manifest), why: None },
            Err(faults) => Found { generation, manifest: None, why: Some(faults.to_string()) },
        }
    }
}

// === impl ListedHandler ===

impl ListedHandler {
    /// Puts together what is kept and what lies in the folder, if anything does. `manifest` reads one that is kept.
    fn of(
        handler: &str,
        record: Record,
        found: Option<Found>,
        brake: bool,
        manifest: impl Fn(&Generation) -> Option<Manifest>,
    ) -> ListedHandler {
        let is_gone = found.is_none();
        let Found { generation: in_folder, manifest: found, why } = found.unwrap_or_default();
        let generation = record.present().cloned();
        let kept = generation.as_ref().and_then(|generation| record.kept(generation));
        let braked = brake && kept.is_some_and(|kept| kept.standing == Standing::Braked);
        let manifest = match &generation {
            Some(generation) if Some(generation) != in_folder.as_ref() => manifest(generation),
            _ => found,
        };
        let job_types = kept.map(|kept| kept.job_types.clone());
        let job_types = job_types.or_else(|| Some(manifest.as_ref()?.job_types.clone())).unwrap_or_default();
        let pinned = record.pinned.is_some();
        let refused = record.refused.filter(|refused| Some(&refused.generation) == in_folder.as_ref());
        let why = refused.map(|refused| refused.why).or(why);
        let not_ready = record.not_ready.filter(|not_ready| {
            let named = |generation: &Option<Generation>| Some(&not_ready.generation) == generation.as_ref();
            why.is_none() && (named(&in_folder) || named(&generation))
        });
        let state = match () {
            () if is_gone => HandlerState::Gone,
            () if braked => HandlerState::Braked,
            () if record.paused => HandlerState::Paused,
            () if not_ready.is_some() => HandlerState::NotReady,
            () if pinned => HandlerState::Pinned,
            () if why.is_some() => HandlerState::Bad,
            () if in_folder == generation => HandlerState::Good,
            () => HandlerState::New,
        };
        ListedHandler {
            handler: handler.to_owned(),
            state,
            why: not_ready.map(|not_ready| not_ready.why).or(why),
            generation,
            in_folder,
            pinned,
            braked,
            paused: record.paused,
            job_types,
            generations: record.generations,
            limits: manifest.as_ref().map(ListedLimits::of),
            grants: manifest.map(|manifest| manifest.grants.lines()).unwrap_or_default(),
        }
    }
}

// === impl ListedLimits ===

impl ListedLimits {
    fn of(manifest: &Manifest) -> ListedLimits {
        ListedLimits {
            timeout_ms: u64::try_from(manifest.limits.timeout.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: manifest.limits.memory_bytes,
            concurrency: manifest.concurrency,
            weight: manifest.weight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::reload::record::Refused;

    #[test]
    fn state_says_what_is_to_be_known_first() {
        let [a, b] = ["aa", "bb"].map(Generation::named);
        let mut served = Record::default();
        served.deployed(&a, vec!["t".into()], UnixMs(0));
        let mut braked = served.clone();
        braked.note(&a, Standing::Braked);
        let paused = Record { paused: true, ..served.clone() };
        let pinned = Record { pinned: Some(a.clone()), ..served.clone() };
        let refused = Some(Refused { generation: b.clone(), why: "it is text".into() });
        let refused = Record { refused, ..served.clone() };
        let away = Some(Refused { generation: b.clone(), why: "set-up: error: away".into() });
        let away = Record { not_ready: away, ..served.clone() };
        let found = |generation: &Generation| Some(Found { generation: Some(generation.clone()), ..Found::default() });
        let unreadable = Some(Found { why: Some("it leads out".into()), ..Found::default() });
        for (record, found, brake, expected) in [
            (&served, None, true, HandlerState::Gone),
            (&served, found(&a), true, HandlerState::Good),
            (&served, found(&b), true, HandlerState::New),
            (&served, unreadable, true, HandlerState::Bad),
            (&refused, found(&b), true, HandlerState::Bad),
            (&refused, found(&a), true, HandlerState::Good),
            (&pinned, found(&b), true, HandlerState::Pinned),
            (&paused, found(&b), true, HandlerState::Paused),
            (&away, found(&b), true, HandlerState::NotReady),
            (&away, found(&a), true, HandlerState::Good),
            (&braked, found(&a), true, HandlerState::Braked),
            (&braked, found(&a), false, HandlerState::Good),
            (&Record::default(), found(&a), true, HandlerState::New),
        ] {
            let listed = ListedHandler::of("t", record.clone(), found.clone(), brake, |_| None);
            assert_eq!(listed.state, expected, "{record:?} {found:?}");
        }
    }
}
