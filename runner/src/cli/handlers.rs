//! `sandhog handlers`

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::fault::Fault;
use super::terminal::{note, plain, plain_cut, relative, size, write_json, write_table};
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::Config;
use crate::generation::Generation;
use crate::manifest::Manifest;
use crate::queue;
use crate::reload::folder::Folder;
use crate::reload::history::History;
use crate::reload::record::{Kept, Record, Refusal};
use crate::state::Size;
use crate::trial::Standing;

/// Look at handlers, and say which generation is served; without a command, list them.
///
/// It holds with a running runner, within about a second, and at the next start.
#[derive(Debug, Args)]
pub(super) struct Handlers {
    #[command(subcommand)]
    command: Option<HandlersCommand>,
    /// Folder of handlers [default: ./handlers] [env: `SANDHOG_HANDLERS`]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Configuration")]
    pub(super) handlers: Option<String>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum HandlersCommand {
    /// List handlers: what lies in the folder, what is served, and what was served before
    List(List),
    /// Serve the generation before the present one, and stay on it whatever lies in the folder (those that were braked are
    /// passed over)
    Rollback(Named),
    Pin(Pin),
    /// Serve what lies in the folder again
    Unpin(Named),
    /// Start no more of its jobs, over restarts and reloads, until it is resumed; what runs ends
    Pause(Named),
    /// Let a handler run that was paused, or its generation that was braked, which is not braked again
    Resume(Named),
    Forget(Forget),
}

/// Delete what a handler keeps from job to job (`grants.state`); without a name, list who keeps how much.
///
/// It works on the queue's file; with Kafka, on the file in this runner's state folder.
#[derive(Debug, Args)]
struct Forget {
    /// The handler: its file's name without `.wasm`
    name: Option<String>,
    /// An object a handler, each in a line of its own
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

#[derive(Debug, Default, PartialEq, Args)]
struct List {
    /// An object a handler, each in a line of its own
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// The handler: its file's name without `.wasm`
    name: String,
}

/// Stay on a generation, whatever lies in the folder.
#[derive(Debug, Args)]
struct Pin {
    /// The handler: its file's name without `.wasm`
    name: String,
    /// The generation, or how its name begins [default: the one that is served]
    generation: Option<String>,
}

/// A handler, as far as the folder and what is kept of it tell.
#[derive(Debug, Serialize)]
struct Listed {
    handler: String,
    state: State,
    /// Why the pair in the folder is no handler, or not ready.
    why: Option<String>,
    /// What is served, or will be.
    generation: Option<Generation>,
    /// What lies in the folder.
    in_folder: Option<Generation>,
    pinned: bool,
    braked: bool,
    job_types: Vec<String>,
    /// Those that can be served, the last one that came into the folder first.
    generations: Vec<Kept>,
}

/// What lies in the folder as a handler.
#[derive(Debug, Clone, Default)]
struct Found {
    generation: Option<Generation>,
    job_types: Vec<String>,
    /// Why it is none, as far as its files can be read without compiling anything.
    why: Option<String>,
}

/// What is to be known first of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
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

// === impl Handlers ===

impl Handlers {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        if self.command.is_some() && self.list != List::default() {
            return Err(Fault::usage("options of the list stand behind `list`, and others behind their command"));
        }
        match self.command {
            None => self.list.run(config, out),
            Some(HandlersCommand::List(list)) => list.run(config, out),
            Some(HandlersCommand::Rollback(Named { name })) => {
                let generation = change(config, &name, "roll back", Record::roll_back)?;
                note(format_args!("handler `{}` is pinned to generation {generation}", plain(&name)));
                Ok(())
            }
            Some(HandlersCommand::Pin(Pin { name, generation })) => {
                let generation = change(config, &name, "pin", |record| record.pin(generation.as_deref()))?;
                note(format_args!("handler `{}` is pinned to generation {generation}", plain(&name)));
                Ok(())
            }
            Some(HandlersCommand::Unpin(Named { name })) => {
                let generation = change(config, &name, "unpin", Record::unpin)?;
                note(format_args!("handler `{}` is no longer pinned to generation {generation}", plain(&name)));
                Ok(())
            }
            Some(HandlersCommand::Pause(Named { name })) => {
                change(config, &name, "pause", Record::pause)?;
                note(format_args!("handler `{}` is paused: its jobs wait", plain(&name)));
                Ok(())
            }
            Some(HandlersCommand::Resume(Named { name })) => {
                let generation = change(config, &name, "resume", Record::resume)?;
                note(format_args!("handler `{}` is resumed, generation {generation}", plain(&name)));
                Ok(())
            }
            Some(HandlersCommand::Forget(forget)) => forget.run(config, out),
        }
    }
}

/// Changes what is kept of a handler, if it can be done.
fn change(
    config: &Config,
    name: &str,
    doing: &str,
    change: impl Fn(&mut Record) -> Result<Generation, Refusal>,
) -> Result<Generation, Fault> {
    const HINT: &str = "`sandhog handlers` lists what there is";
    let history = History::new(&config.state_dir, &config.handlers.dir);
    let failed = |why: &dyn std::fmt::Display| {
        Fault::failed(format!("cannot {doing} handler `{}`: {why}", plain(name))).with_hint(HINT)
    };
    let kept = |error| anyhow::Error::new(error).context(format!("cannot {doing} handler `{}`", plain(name)));
    if name.contains('/') || history.look(name).is_none() {
        return Err(failed(&Refusal::NeverServed));
    }
    let mut record = history.read(name).map_err(kept)?;
    let generation = change(&mut record).map_err(|why| failed(&why))?;
    if record.pinned.as_ref() == Some(&generation) && history.pair(&generation).is_none() {
        return Err(failed(&format!("what was kept of generation `{generation}` is gone or damaged")));
    }
    // Another process may have changed it meanwhile.
    let (changed, _) = history.change(name, change).map_err(kept)?;
    changed.map_err(|why| failed(&why))
}

// === impl Forget ===

impl Forget {
    fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let state = queue::open_state(config)?;
        let Some(name) = self.name else {
            let kept = state.kept()?;
            if self.json {
                let line =
                    |(handler, Size { keys, bytes })| json!({ "handler": handler, "keys": keys, "bytes": bytes });
                return Ok(kept.into_iter().try_for_each(|one| write_json(out, &line(one)))?);
            }
            if kept.is_empty() {
                note(format_args!("no handler keeps anything"));
                return Ok(());
            }
            let row =
                |(handler, Size { keys, bytes }): &(String, Size)| vec![plain(handler), keys.to_string(), size(*bytes)];
            return Ok(write_table(out, &["HANDLER", "KEYS", "SIZE"], kept.iter().map(row).collect())?);
        };
        match state.forget(&name)? {
            Size { keys: 0, .. } => Err(Fault::failed(format!("handler `{}` keeps nothing", plain(&name)))
                .with_hint("`sandhog handlers forget` lists who keeps something")),
            Size { keys, bytes } => {
                note(format_args!("{keys} keys of handler `{}` are deleted, {}", plain(&name), size(bytes)));
                Ok(())
            }
        }
    }
}

// === impl List ===

impl List {
    fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let folder = Folder::new(config.handlers.dir.clone());
        let history = History::new(&config.state_dir, &config.handlers.dir);
        let looks =
            folder.look().with_context(|| format!("cannot read handlers' folder `{}`", folder.path().display()))?;
        let names: BTreeSet<Arc<str>> = looks.keys().cloned().chain(history.names()).collect();
        let mut listed = Vec::new();
        for name in names {
            let record = history.read(&name).unwrap_or_else(|error| {
                note(format_args!("what is kept of handler `{}` counts for nothing: {error}", plain(&name)));
                Record::default()
            });
            let found = looks.contains_key(&name).then(|| Found::read(&folder, &name, config));
            listed.push(Listed::of(&name, record, found, config.handlers.brake));
        }
        if self.json {
            return Ok(listed.iter().try_for_each(|handler| write_json(out, handler))?);
        }
        if listed.is_empty() {
            note(format_args!("no handlers"));
            return Ok(());
        }
        let now = SystemClock.now();
        let rows = listed.iter().map(|handler| handler.row(now)).collect();
        Ok(write_table(out, &["HANDLER", "STATE", "SERVED", "IN FOLDER", "TYPES", "KEPT"], rows)?)
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
            Ok(manifest) => Found { generation, job_types: manifest.job_types, why: None },
            Err(faults) => Found { generation, job_types: Vec::new(), why: Some(faults.to_string()) },
        }
    }
}

// === impl Listed ===

impl Listed {
    /// Puts together what is kept and what lies in the folder, if anything does.
    fn of(handler: &str, record: Record, found: Option<Found>, brake: bool) -> Listed {
        let is_gone = found.is_none();
        let Found { generation: in_folder, job_types, why } = found.unwrap_or_default();
        let generation = record.present().cloned();
        let kept = generation.as_ref().and_then(|generation| record.kept(generation));
        let braked = brake && kept.is_some_and(|kept| kept.standing == Standing::Braked);
        let job_types = kept.map_or(job_types, |kept| kept.job_types.clone());
        let pinned = record.pinned.is_some();
        let refused = record.refused.filter(|refused| Some(&refused.generation) == in_folder.as_ref());
        let why = refused.map(|refused| refused.why).or(why);
        let not_ready = record.not_ready.filter(|not_ready| {
            let named = |generation: &Option<Generation>| Some(&not_ready.generation) == generation.as_ref();
            why.is_none() && (named(&in_folder) || named(&generation))
        });
        let state = match () {
            () if is_gone => State::Gone,
            () if braked => State::Braked,
            () if record.paused => State::Paused,
            () if not_ready.is_some() => State::NotReady,
            () if pinned => State::Pinned,
            () if why.is_some() => State::Bad,
            () if in_folder == generation => State::Good,
            () => State::New,
        };
        let why = not_ready.map(|not_ready| not_ready.why).or(why);
        let generations = record.generations;
        let handler = handler.to_owned();
        Listed { handler, state, why, generation, in_folder, pinned, braked, job_types, generations }
    }

    fn row(&self, now: UnixMs) -> Vec<String> {
        let named = |generation: &Option<Generation>| generation.as_ref().map_or("-".to_owned(), ToString::to_string);
        let state = match (&self.state, &self.why) {
            (State::Bad | State::NotReady, Some(why)) => format!("{}: {}", self.state.word(), plain_cut(why, 60)),
            (state, _) => state.word().to_owned(),
        };
        let kept = self.generations.iter().filter(|kept| Some(&kept.generation) != self.generation.as_ref());
        let kept = kept.map(|kept| format!("{} ({})", kept.generation, relative(kept.first_served_at_ms, now)));
        vec![
            plain(&self.handler),
            state,
            named(&self.generation),
            named(&self.in_folder),
            plain_cut(&self.job_types.join(", "), 40),
            kept.collect::<Vec<_>>().join(", "),
        ]
    }
}

// === impl State ===

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Gone => "gone",
            State::Braked => "braked",
            State::Paused => "paused",
            State::Pinned => "pinned",
            State::Bad => "bad",
            State::NotReady => "not ready",
            State::New => "new",
            State::Good => "good",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            (&served, None, true, State::Gone),
            (&served, found(&a), true, State::Good),
            (&served, found(&b), true, State::New),
            (&served, unreadable, true, State::Bad),
            (&refused, found(&b), true, State::Bad),
            (&refused, found(&a), true, State::Good),
            (&pinned, found(&b), true, State::Pinned),
            (&paused, found(&b), true, State::Paused),
            (&away, found(&b), true, State::NotReady),
            (&away, found(&a), true, State::Good),
            (&braked, found(&a), true, State::Braked),
            (&braked, found(&a), false, State::Good),
            (&Record::default(), found(&a), true, State::New),
        ] {
            let listed = Listed::of("t", record.clone(), found.clone(), brake);
            assert_eq!(listed.state, expected, "{record:?} {found:?}");
        }
    }
}
