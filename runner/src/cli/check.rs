//! `sandhog check`

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::fault::Fault;
use super::invoke::{HandlerFile, read_handler, runtime, sandbox};
use super::terminal::{plain, plain_lines, size, took, write_json, write_pairs};
use crate::config::{Config, quantity};
use crate::generation::Generation;
use crate::grants::Grants;
use crate::manifest::Manifest;
use crate::sandbox::{Facts, FileKind, LoadError, Quiet, Sandbox};

/// Say what handlers are made of, and whether they would load.
///
/// Each is read with the manifest beside it, compiled, and started once, as the runner does when it loads it. The exit code
/// is 1 if any would not load.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Handlers' components
    #[arg(value_name = "HANDLER.wasm", required = true)]
    handlers: Vec<PathBuf>,
    /// An object a handler, each in a line of its own
    #[arg(long)]
    json: bool,
}

/// What is known of a handler, and why it would not load: no reasons if it would.
pub(super) struct Checked {
    generation: Option<Generation>,
    pub(super) facts: Facts,
    manifest: Option<Manifest>,
    pub(super) reasons: Vec<String>,
}

// === impl Check ===

impl Check {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let runtime = runtime()?;
        // The sandbox lives as long as a runtime is there.
        let _inside = runtime.enter();
        let sandbox = sandbox(config)?;
        let mut all_load = true;
        for (at, path) in self.handlers.iter().enumerate() {
            let checked = match read_handler(path, config) {
                Ok(handler) => check(handler, &sandbox, config),
                Err(e) => Checked {
                    generation: None,
                    facts: Facts::default(),
                    manifest: None,
                    reasons: vec![format!("{e:#}")],
                },
            };
            all_load &= checked.reasons.is_empty();
            let name = path.display().to_string();
            if self.json {
                write_json(out, &checked.as_json(&name)?)?;
                continue;
            }
            let verdict = if checked.reasons.is_empty() { "would load" } else { "would not load" };
            writeln!(out, "{}{}: {verdict}", if at > 0 { "\n" } else { "" }, plain(&name))?;
            write_pairs(out, &checked.as_pairs())?;
        }
        if all_load { Ok(()) } else { Err(Fault::Said) }
    }
}

/// Looks at a handler as the runner does when it loads it.
pub(super) fn check(handler: HandlerFile, sandbox: &Sandbox, config: &Config) -> Checked {
    let generation = Generation::of(&handler.component, handler.manifest_text.as_ref().map(String::as_bytes));
    let (manifest, mut reasons) = match handler.manifest {
        Ok(manifest) => (Some(manifest), Vec::new()),
        Err(faults) => (None, faults.0.iter().map(crate::config::Fault::with_hint).collect()),
    };
    let limits = manifest.as_ref().map_or(&config.limits, |manifest| &manifest.limits);
    let nothing = Grants::default();
    let grants = manifest.as_ref().map_or(&nothing, |manifest| &manifest.grants);
    let inspection = sandbox.inspect(&handler.component, limits, grants);
    // Of a manifest that is refused it is not known what it would grant.
    let is_known = |error: &LoadError| manifest.is_some() || !matches!(error, LoadError::NotGranted { .. });
    reasons.extend(inspection.error.filter(is_known).map(|error| error.with_hint()));
    Checked { generation: Some(generation), facts: inspection.facts, manifest, reasons }
}

// === impl Checked ===

impl Checked {
    /// What is known of it, for people.
    pub(super) fn as_pairs(&self) -> Vec<(&'static str, String)> {
        let facts = &self.facts;
        let mut pairs: Vec<(&str, String)> = self.reasons.iter().map(|reason| ("  why not", plain(reason))).collect();
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, plain_lines(&value))));
        let kind = facts.kind.map(|kind| match kind {
            FileKind::Component => "component",
            FileKind::CoreModule => "core module",
        });
        let language = facts.language.as_ref().map(|language| format!(", {language}")).unwrap_or_default();
        add("  file", kind.map(|kind| format!("{kind}, {}{language}", size(facts.file_bytes as u64))));
        add("  exports", Some(by_package(&facts.exports)).filter(|names| !names.is_empty()));
        let reused = self.manifest.as_ref().is_some_and(|manifest| manifest.reuse.is_some());
        add("  context", facts.exports_contract("context").then(|| context(reused).to_owned()));
        let hook = "told of failed attempts and rejects, before they are settled";
        add("  failure hook", facts.exports_contract("failure-hook").then(|| hook.to_owned()));
        add("  imports", Some(by_package(&facts.imports)).filter(|names| !names.is_empty()));
        add("  quiet", facts.quiet.as_ref().map(quiet));
        if facts.code_bytes > 0 {
            let when = if facts.from_cache { "kept from before" } else { "compiled now" };
            let code = format!("{}, compiled in {}, {when}", size(facts.code_bytes as u64), took(facts.compile_time));
            add("  code", Some(code));
        }
        add("  memory", facts.memory_initial_bytes.map(|bytes| format!("{} at the start", size(bytes))));
        if let Some(manifest) = &self.manifest {
            add("  job types", Some(manifest.job_types.join(", ")));
            let timeout = quantity::format_duration(manifest.limits.timeout);
            let memory = quantity::format_size(manifest.limits.memory_bytes);
            let limits = format!("timeout {timeout}, memory {memory}, concurrency {}", manifest.concurrency);
            add("  limits", Some(limits));
            add("  grants", Some(manifest.grants.lines().join("\n")).filter(|lines| !lines.is_empty()));
            let reuse = manifest.reuse.as_ref();
            add(
                "  instances",
                reuse.map(|reuse| {
                    let idle = quantity::format_duration(reuse.idle);
                    format!("reused for up to {} jobs, and kept for {idle} without one", reuse.jobs)
                }),
            );
        }
        add("  generation", self.generation.as_ref().map(ToString::to_string));
        pairs
    }

    /// The same as an object.
    pub(super) fn as_json(&self, name: &str) -> Result<Value, Fault> {
        let mut facts = serde_json::to_value(&self.facts).context("cannot write facts as JSON")?;
        if let Value::Object(facts) = &mut facts {
            facts.remove("compile_time");
            facts.insert("compile_ms".to_owned(), json!(millis(self.facts.compile_time)));
        }
        let manifest = self.manifest.as_ref().map(|manifest| {
            json!({
                "job_types": manifest.job_types,
                "concurrency": manifest.concurrency,
                "timeout_ms": millis(manifest.limits.timeout),
                "memory_bytes": manifest.limits.memory_bytes,
                "grants": manifest.grants.lines(),
            })
        });
        Ok(json!({
            "handler": name,
            "loads": self.reasons.is_empty(),
            "reasons": self.reasons,
            "generation": self.generation,
            "facts": facts,
            "manifest": manifest,
        }))
    }
}

/// What it means that a handler exports `context`.
fn context(reused: bool) -> &'static str {
    if reused {
        "set up once for each instance, before its first job, and torn down after its last"
    } else {
        "set up and torn down around every attempt, within its timeout: `instances` in the manifest has it shared"
    }
}

fn quiet(quiet: &Quiet) -> String {
    match quiet {
        Quiet::Made { modules: 1 } => "yes: 1 core module was rewritten".to_owned(),
        Quiet::Made { modules } => format!("yes: {modules} core modules were rewritten"),
        Quiet::Unchanged { reason } => format!("as found: {reason}"),
    }
}

/// Names of interfaces, those of a package in one line: `wasi:io/{poll, streams}@0.2.6`.
fn by_package(names: &[String]) -> String {
    let mut packages: Vec<((&str, &str), Vec<&str>)> = Vec::new();
    for name in names {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/').unwrap_or((path, ""));
        match packages.iter_mut().find(|(key, _)| *key == (package, version)) {
            Some((_, interfaces)) => interfaces.push(interface),
            None => packages.push(((package, version), vec![interface])),
        }
    }
    let line = |((package, version), interfaces): &((&str, &str), Vec<&str>)| {
        let version = if version.is_empty() { String::new() } else { format!("@{version}") };
        match interfaces.as_slice() {
            [""] => format!("{package}{version}"),
            [interface] => format!("{package}/{interface}{version}"),
            interfaces => format!("{package}/{{{}}}{version}", interfaces.join(", ")),
        }
    };
    packages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_a_package_are_one_line() {
        let names = ["wasi:io/poll@0.2.6", "init", "wasi:io/streams@0.2.6", "wasi:io/poll@0.2.9"].map(str::to_owned);
        assert_eq!(by_package(&names), "wasi:io/{poll, streams}@0.2.6\ninit\nwasi:io/poll@0.2.9");
    }
}
