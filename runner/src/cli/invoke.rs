//! `sandhog invoke`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::enqueue::read_body;
use super::fault::Fault;
use super::terminal::{note, plain, plain_lines, size, took, write_json, write_pairs};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::generation::Generation;
use crate::job::{self, Head, Job, Malformed};
use crate::manifest::Manifest;
use crate::outcome::{Failure, Outcome};
use crate::registry::OTHERS;
use crate::sandbox::{self, Attempt, GuestLog, HandlerState, Level, Sandbox, Source};
use crate::state;

/// Run one job in the sandbox, without a queue.
///
/// The limits are those of the handler's manifest. What the handler writes is shown on stderr. The exit code is 0 if it
/// completes or asks for a retry, else 1.
#[derive(Debug, Args)]
pub(super) struct Invoke {
    /// The handler's component; its manifest beside it counts
    #[arg(value_name = "HANDLER.wasm")]
    handler: PathBuf,
    /// The job's body, an object; `-` reads it from stdin
    #[arg(value_name = "JSON", default_value = "{}")]
    body: String,
    /// The job's type; the body may then be any text [default: the body's `job_type`, else the first that the handler
    /// serves]
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
    /// One object
    #[arg(long)]
    json: bool,
}

/// A handler's file, and what its manifest says.
pub(super) struct HandlerFile {
    /// The component, as found.
    pub(super) component: Vec<u8>,
    /// The manifest, as found.
    pub(super) manifest_text: Option<String>,
    /// What it says.
    pub(super) manifest: Result<Manifest, crate::manifest::ManifestErrors>,
}

/// Shows a guest's lines as they come, or keeps them for the end. The sandbox bounds them.
struct ShownLog {
    kept: Option<Mutex<Vec<Value>>>,
}

/// Reads a handler and the manifest beside it.
pub(super) fn read_handler(path: &Path, config: &Config) -> anyhow::Result<HandlerFile> {
    let component = std::fs::read(path).with_context(|| format!("cannot read handler `{}`", path.display()))?;
    let beside = path.with_extension("toml");
    let manifest_text = match std::fs::read_to_string(&beside) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| format!("cannot read manifest `{}`", beside.display())),
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new(""));
    let manifest = Manifest::parse(manifest_text.as_deref().unwrap_or_default(), &stem, folder, config);
    Ok(HandlerFile { component, manifest_text, manifest })
}

/// The runtime of a command that runs handlers: while one of its threads runs a guest, the other keeps the time.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("cannot start the runtime")
}

/// The sandbox of a command: one slot, and the runner's compiled code where there is a runner.
pub(super) fn sandbox(config: &Config) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::new(sandbox::Config {
        slots: 1,
        threads: 1,
        memory_ceiling_bytes: config.ceilings.memory_bytes,
        compiled_dir: config.state_dir.is_dir().then(|| config.state_dir.join("compiled")),
        timers: tokio::runtime::Handle::current(),
        guests: tokio::runtime::Handle::current(),
    })?)
}

// === impl Invoke ===

impl Invoke {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let handler = read_handler(&self.handler, config)?;
        let manifest = handler.manifest.map_err(Fault::Config)?;
        let generation = Generation::of(&handler.component, handler.manifest_text.as_ref().map(String::as_bytes));
        let job = Arc::new(self.job(&manifest, config)?);
        let log = Arc::new(ShownLog { kept: self.json.then(Mutex::default) });
        let attempt = runtime()?.block_on(async {
            let component = sandbox(config)?
                .load(&handler.component, &manifest.limits, &manifest.grants)
                .with_context(|| format!("cannot load handler `{}`", self.handler.display()))?;
            // What it would keep is kept nowhere.
            let (store, handler) = (Arc::new(state::Given::default()), generation.as_str().into());
            let component = match manifest.grants.state {
                true => component.with_state(HandlerState { store, handler, quota: manifest.limits.state }),
                false => component,
            };
            let guest_log: Arc<dyn GuestLog> = Arc::<ShownLog>::clone(&log);
            let (stop, limits) = (CancellationToken::new(), &manifest.limits);
            anyhow::Ok(component.run(&job, manifest.retry.max_failures, limits, &stop, &guest_log).await)
        })?;
        if self.json {
            write_json(out, &as_json(&attempt, &job, &generation, &log))?;
        } else {
            write_pairs(out, &as_pairs(&attempt, &generation))?;
        }
        match attempt.outcome {
            Outcome::Complete { .. } | Outcome::Retry(_) => Ok(()),
            _ => Err(Fault::Said),
        }
    }

    fn job(&self, manifest: &Manifest, config: &Config) -> Result<Job, Fault> {
        let body = read_body(&self.body, config.body_bytes_max)?;
        let parsed = parse(&body, self.job_type.as_deref(), default_type(manifest, &self.handler), config);
        let (text, head) = parsed.map_err(|malformed| Fault::failed(format!("the body is no job: {malformed}")))?;
        Ok(Job {
            id: head.job_id.unwrap_or_else(|| Uuid::now_v7().to_string()),
            job_type: head.job_type,
            body: text.to_owned(),
            attempt: 1,
            enqueued_at: SystemClock.now(),
            ..Job::default()
        })
    }
}

/// Reads the body of a job without a queue: its type is the one that is given, or its own, or the handler's.
pub(super) fn parse<'a>(
    body: &'a [u8],
    job_type: Option<&str>,
    default_type: &str,
    config: &Config,
) -> Result<(&'a str, Head), Malformed> {
    let bytes_max = config.body_bytes_max;
    match job_type {
        Some(job_type) => job::parse_of_type(body, bytes_max, job_type).or_else(|malformed| match malformed {
            // As on a topic of text, whose jobs have their type from elsewhere.
            Malformed::NotJson(_) | Malformed::NotAnObject => {
                let text = std::str::from_utf8(body).expect("what is not UTF-8 has another fault");
                Ok((text, Head { job_type: job_type.to_owned(), job_id: None }))
            }
            malformed => Err(malformed),
        }),
        None => job::parse(body, bytes_max).or_else(|malformed| match malformed {
            Malformed::NoType => job::parse_of_type(body, bytes_max, default_type),
            malformed => Err(malformed),
        }),
    }
}

/// The type of a job that has none: the first that the handler serves by name, else the handler's own.
pub(super) fn default_type<'a>(manifest: &'a Manifest, handler: &'a Path) -> &'a str {
    let named = manifest.job_types.iter().map(String::as_str).find(|job_type| *job_type != OTHERS);
    named.or_else(|| handler.file_stem()?.to_str()).unwrap_or("job")
}

/// The outcome's name, and what goes with it.
fn outcome(outcome: &Outcome) -> (&'static str, Vec<(&'static str, String)>) {
    match outcome {
        Outcome::Complete { result } => ("complete", result.iter().map(|result| ("result", result.clone())).collect()),
        Outcome::Retry(request) => {
            let mut said = Vec::new();
            said.extend(request.after.map(|after| ("after", took(after))));
            said.extend(request.reason.clone().map(|reason| ("reason", reason)));
            said.extend(request.body.clone().map(|body| ("changed body", body)));
            ("retry", said)
        }
        Outcome::Reject { reason } => ("reject", vec![("reason", reason.clone())]),
        Outcome::Failed(Failure { kind, message }) => {
            ("failed", vec![("kind", kind.to_string()), ("message", message.clone())])
        }
        Outcome::Interrupted { reason } => ("interrupted", vec![("reason", reason.to_string())]),
        Outcome::Cancelled => ("cancelled", Vec::new()),
        Outcome::NotReady { reason } => ("not-ready", vec![("reason", reason.clone())]),
    }
}

fn as_pairs(attempt: &Attempt, generation: &Generation) -> Vec<(&'static str, String)> {
    let (name, said) = outcome(&attempt.outcome);
    let mut pairs = vec![("outcome", name.to_owned())];
    pairs.extend(said.into_iter().map(|(name, value)| (name, plain_lines(&value))));
    pairs.push(("ran", took(attempt.duration)));
    pairs.push(("memory", size(attempt.memory_peak_bytes)));
    pairs.push(("generation", generation.to_string()));
    if !attempt.follow_ups.is_empty() {
        pairs.push(("follow-ups", format!("{}, which are enqueued nowhere here", attempt.follow_ups.len())));
    }
    if let Some(words) = &attempt.last_words {
        pairs.push(("last words", plain_lines(words)));
    }
    if attempt.denied > 0 {
        pairs.push(("denied", format!("{} times", attempt.denied)));
    }
    if !attempt.frames.is_empty() {
        let frames: Vec<String> = attempt.frames.iter().map(|frame| plain(frame)).collect();
        pairs.push(("frames", frames.join("\n")));
    }
    pairs
}

fn as_json(attempt: &Attempt, job: &Job, generation: &Generation, log: &ShownLog) -> Value {
    let (name, said) = outcome(&attempt.outcome);
    let mut object = json!({
        "outcome": name,
        "job_id": job.id,
        "job_type": job.job_type,
        "duration_us": u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
        "memory_peak_bytes": attempt.memory_peak_bytes,
        "generation": generation,
        "follow_ups": attempt.follow_ups.len(),
        "frames": attempt.frames,
        "last_words": attempt.last_words,
        "denied": attempt.denied,
        "log": log.kept.as_ref().map(|kept| kept.lock().expect("no writer panics").clone()).unwrap_or_default(),
    });
    for (name, value) in said.into_iter().filter(|(name, _)| *name != "after") {
        // A result is JSON already.
        let result = (name == "result").then(|| serde_json::from_str(&value).ok()).flatten();
        object[name.replace(' ', "_")] = result.unwrap_or_else(|| json!(value));
    }
    if let Outcome::Retry(request) = &attempt.outcome {
        object["after_ms"] = json!(request.after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
    }
    object
}

// === impl ShownLog ===

impl GuestLog for ShownLog {
    fn line(&self, _: Option<&Job>, source: Source, level: Level, line: &str) {
        let level = level.as_str();
        match &self.kept {
            Some(kept) => {
                let line = json!({ "source": source.as_str(), "level": level, "line": line });
                kept.lock().expect("no writer panics").push(line);
            }
            None if matches!(source, Source::Log) => note(format_args!("{level}: {}", plain(line))),
            None => note(format_args!("{}: {}", source.as_str(), plain(line))),
        }
    }
}
