//! `sandhog handlers`

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::fault::Fault;
use super::terminal::{note, plain, plain_cut, relative, size, write_json, write_table};
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::Config;
use crate::generation::Generation;
use crate::queue;
use crate::reload::overview::{ChangeError, HandlerState, ListedHandler, Overview};
use crate::reload::record::{Record, Refusal};
use crate::state::Size;

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
    Overview::new(config).change(name, change).map_err(|error| match error {
        ChangeError::History(error) => {
            anyhow::Error::new(error).context(format!("cannot {doing} handler `{}`", plain(name))).into()
        }
        why => Fault::failed(format!("cannot {doing} handler `{}`: {why}", plain(name))).with_hint(HINT),
    })
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
        let overview = Overview::new(config);
        let (listed, damaged) = overview
            .list(config)
            .with_context(|| format!("cannot read handlers' folder `{}`", config.handlers.dir.display()))?;
        for (name, error) in damaged {
            note(format_args!("what is kept of handler `{}` counts for nothing: {error}", plain(&name)));
        }
        if self.json {
            return Ok(listed.iter().try_for_each(|handler| write_json(out, handler))?);
        }
        if listed.is_empty() {
            note(format_args!("no handlers"));
            return Ok(());
        }
        let now = SystemClock.now();
        let rows = listed.iter().map(|handler| row(handler, now)).collect();
        Ok(write_table(out, &["HANDLER", "STATE", "SERVED", "IN FOLDER", "TYPES", "KEPT"], rows)?)
    }
}

fn row(listed: &ListedHandler, now: UnixMs) -> Vec<String> {
    let named = |generation: &Option<Generation>| generation.as_ref().map_or("-".to_owned(), ToString::to_string);
    let state = match (&listed.state, &listed.why) {
        (HandlerState::Bad | HandlerState::NotReady, Some(why)) => {
            format!("{}: {}", word(listed.state), plain_cut(why, 60))
        }
        (state, _) => word(*state).to_owned(),
    };
    let kept = listed.generations.iter().filter(|kept| Some(&kept.generation) != listed.generation.as_ref());
    let kept = kept.map(|kept| format!("{} ({})", kept.generation, relative(kept.first_served_at_ms, now)));
    vec![
        plain(&listed.handler),
        state,
        named(&listed.generation),
        named(&listed.in_folder),
        plain_cut(&listed.job_types.join(", "), 40),
        kept.collect::<Vec<_>>().join(", "),
    ]
}

fn word(state: HandlerState) -> &'static str {
    match state {
        HandlerState::Gone => "gone",
        HandlerState::Braked => "braked",
        HandlerState::Paused => "paused",
        HandlerState::Pinned => "pinned",
        HandlerState::Bad => "bad",
        HandlerState::NotReady => "not ready",
        HandlerState::New => "new",
        HandlerState::Good => "good",
    }
}
