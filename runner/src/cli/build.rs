//! `sandhog build`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::check::{Checked, check};
use super::fault::Fault;
use super::invoke::{read_handler, runtime, sandbox};
use super::terminal::{note, plain, plain_lines, size, took, write_json, write_pairs};
use crate::build::sources::Sources;
use crate::build::{self, BuildError, Built};
use crate::config::Config;
use crate::language::{Exports, Imports, Project, WorkError};
use crate::watch::Watch;

/// Build the handler in a folder: `NAME.wasm`, beside its manifest `NAME.toml`.
///
/// The language is found out by what lies there, and its tools must be on this machine: nothing is downloaded. What comes
/// out is checked as the runner checks it when it loads it.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// The handler's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Where the component and its manifest go, such as the handlers' folder of a runner [default: DIR]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Build again whenever a file changes, until it is interrupted; the runner checks what comes
    #[arg(long)]
    watch: bool,
    /// One object a build
    #[arg(long)]
    json: bool,
}

// === impl Build ===

impl Build {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let runtime = runtime()?;
        if self.watch {
            return runtime.block_on(self.build_again_and_again(config, out));
        }
        // The sandbox lives as long as a runtime is there.
        let _inside = runtime.enter();
        self.build(&self.open()?, config, out)
    }

    async fn build_again_and_again(&self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        loop {
            let project = self.open()?;
            let seen = Sources::of(&project);
            let mut watch = Watch::new(&seen.folders());
            match self.build(&project, config, out) {
                // What is wrong now is mended by the next change.
                Err(fault @ (Fault::Failed { .. } | Fault::Said)) => drop(fault.report()),
                done => done?,
            }
            out.flush()?;
            // What was changed while it was built is noticed at once.
            while Sources::of(&project) == seen {
                watch.changed(None).await;
            }
        }
    }

    fn open(&self) -> Result<Project, Fault> {
        let opened = Project::open(&self.folder);
        opened
            .with_context(|| format!("cannot open the handler's folder `{}`", self.folder.display()))
            .map_err(Fault::from)
    }

    fn build(&self, project: &Project, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let (built, component) = build_into(project, self.into.as_deref().unwrap_or(&self.folder))?;
        if self.watch && !self.json {
            let (path, took, size) = (shown(&component), took(built.took), size(built.component.len() as u64));
            writeln!(out, "{path}: built in {took}, {size}")?;
            return Ok(());
        }
        let checked = check(read_handler(&component, config)?, &sandbox(config)?, config);
        let sources = (project.imports(), exports_of(&checked));
        if self.json {
            write_json(out, &as_json(&built, &checked, &component, sources)?)?;
        } else {
            let verdict = if checked.reasons.is_empty() { "" } else { ", and would not load" };
            writeln!(out, "{}: built in {}{verdict}", shown(&component), took(built.took))?;
            let mut pairs = vec![("  language", built.language.to_owned()), ("  world", world(sources))];
            pairs.extend(checked.as_pairs());
            write_pairs(out, &pairs)?;
        }
        if checked.reasons.is_empty() { Ok(()) } else { Err(Fault::Said) }
    }
}

/// Builds and installs; what tools say goes to stderr. Answers where the component is.
pub(super) fn build_into(project: &Project, folder: &Path) -> Result<(Built, PathBuf), Fault> {
    let built = build::build(project).map_err(fault)?;
    if !built.said.is_empty() {
        note(format_args!("{}", plain_lines(&built.said)));
    }
    let component = build::install(&built, project, folder).map_err(fault)?;
    Ok((built, component))
}

fn as_json(
    built: &Built,
    checked: &Checked,
    component: &Path,
    sources: (Imports, Exports),
) -> Result<serde_json::Value, Fault> {
    let mut object = checked.as_json(&component.display().to_string())?;
    object["language"] = json!(built.language);
    object["build_ms"] = json!(u64::try_from(built.took.as_millis()).unwrap_or(u64::MAX));
    object["world"] = json!(sources.1.world());
    Ok(object)
}

fn exports_of(checked: &Checked) -> Exports {
    let has = |interface| checked.facts.exports_contract(interface);
    Exports { context: has("context"), failure_hook: has("failure-hook") }
}

/// The world, and why this one.
fn world((imports, exports): (Imports, Exports)) -> String {
    let why = match (exports.context, exports.failure_hook) {
        (false, false) => "a handler and nothing beside it",
        (true, false) => "set-up and tear-down are there",
        (false, true) => "a failure hook is there",
        (true, true) => "set-up and tear-down are there, and a failure hook",
    };
    let granted: Vec<&str> = [(imports.http, "http"), (imports.config, "config"), (imports.state, "state")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    let granted = match granted.as_slice() {
        [] => String::new(),
        granted => format!("; its manifest grants {}", granted.join(", ")),
    };
    format!("{}: {why}{granted}", exports.world())
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

/// What tools said goes first, as they said it; then what it means.
fn fault(error: BuildError) -> Fault {
    match &error {
        BuildError::Work(WorkError::Command { said, .. }) => note(format_args!("{}", plain_lines(said))),
        BuildError::Missing { tools, .. } => {
            let width = tools.iter().map(|tool| tool.name.len()).max().unwrap_or(0);
            let lines = tools.iter().map(|tool| {
                let (name, why, install) = (tool.name, tool.why, tool.install);
                format!("missing: {name:width$}  {why}\n         {:width$}  {install}", "")
            });
            note(format_args!("{}", lines.collect::<Vec<_>>().join("\n")));
        }
        _ => {}
    }
    let hint = error.hint();
    match hint {
        Some(hint) => Fault::failed(error).with_hint(hint),
        None => Fault::failed(error),
    }
}
