//! `sandhog test`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use similar::{ChangeTag, TextDiff};

use super::build::build_into;
use super::fault::Fault;
use super::invoke::{default_type, parse, read_handler, runtime, sandbox};
use super::terminal::{note, plain, took};
use crate::build;
use crate::cases::{Case, Did};
use crate::config::Config;
use crate::language::Project;
use crate::manifest::Manifest;
use crate::sandbox::Component;

/// Run the cases of a handler, `jobs/*.json` in its folder, and compare what it does.
///
/// The handler is built first, if its source has changed. A case holds a job, and what is expected of it: outcome, result,
/// log lines, follow-up jobs, state. One without that is recorded with `--update`. The manifest's limits and grants are in
/// force. The exit code is 1 if anything differs.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// The handler's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Only cases with this in their names
    #[arg(value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// Write what the handler does into the cases, instead of comparing
    #[arg(long)]
    update: bool,
}

/// The folder of a project's cases.
const JOBS: &str = "jobs";

// === impl Test ===

impl Test {
    pub(super) fn run(self, config: &Config, out: &mut dyn Write) -> Result<(), Fault> {
        let project = Project::open(&self.folder)
            .with_context(|| format!("cannot open the handler's folder `{}`", self.folder.display()))?;
        let cases = cases_in(&project.folder().join(JOBS), &self.filter)?;
        if !build::is_fresh(&project) {
            let (built, _) = build_into(&project, &self.folder)?;
            note(format_args!("built in {}", took(built.took)));
        }
        let handler_path = self.folder.join(format!("{}.wasm", project.name()));
        let handler = read_handler(&handler_path, config)?;
        let manifest = handler.manifest.map_err(Fault::Config)?;
        runtime()?.block_on(async {
            let component = sandbox(config)?
                .load(&handler.component, &manifest.limits, &manifest.grants)
                .with_context(|| format!("cannot load handler `{}`", handler_path.display()))?;
            let mut differing = 0_u32;
            for path in &cases {
                let as_expected = self
                    .run_case(path, component.clone(), &manifest, default_type(&manifest, &handler_path), config, out)
                    .await?;
                differing += u32::from(!as_expected);
            }
            let ran = if cases.len() == 1 { "1 case".to_owned() } else { format!("{} cases", cases.len()) };
            if !self.update {
                writeln!(out, "{ran}, {differing} not as expected")?;
            }
            if differing == 0 { Ok(()) } else { Err(Fault::Said) }
        })
    }

    /// Whether the handler did what was expected.
    async fn run_case(
        &self,
        path: &Path,
        component: Component,
        manifest: &Manifest,
        default_type: &str,
        config: &Config,
        out: &mut dyn Write,
    ) -> Result<bool, Fault> {
        let name = name(path);
        let in_case = || format!("case `{}`", path.display());
        let text = std::fs::read_to_string(path).with_context(in_case)?;
        let mut case: Case = serde_json::from_str(&text).with_context(in_case)?;
        let (_, head) = parse(case.body().as_bytes(), case.job_type(), default_type, config)
            .map_err(|malformed| Fault::failed(format!("{}: the body is no job: {malformed}", in_case())))?;
        let (did, duration) = case.run(head, component, manifest).await;
        if self.update {
            case.expected = Some(did.recorded());
            let text = serde_json::to_string_pretty(&case).context("cannot write a case as JSON")? + "\n";
            std::fs::write(path, text).with_context(in_case)?;
            writeln!(out, "{name}: recorded")?;
            return Ok(true);
        }
        let Some(expected) = case.expected else {
            writeln!(out, "{name}: nothing is expected yet; `--update` records this:")?;
            write_diff(out, &Did::default(), &did.recorded())?;
            return Ok(false);
        };
        let did = did.only(&expected);
        if did == expected {
            writeln!(out, "{name}: as expected, in {}", took(duration))?;
            return Ok(true);
        }
        writeln!(out, "{name}: differs")?;
        write_diff(out, &expected, &did)?;
        Ok(false)
    }
}

/// The files of cases, sorted.
fn cases_in(folder: &Path, only: &str) -> Result<Vec<PathBuf>, Fault> {
    let mut cases = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read the cases in `{}`", folder.display()));
    for entry in entries? {
        let path = entry.with_context(|| format!("cannot read the cases in `{}`", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "json") && name(&path).contains(only) {
            cases.push(path);
        }
    }
    cases.sort_unstable();
    if cases.is_empty() {
        let hint = "a case is a file like `{\"job\": {\"name\": \"Ada\"}}`; `--update` records what the handler does";
        return Err(Fault::failed(format!("there are no cases in `{}`", folder.display())).with_hint(hint));
    }
    Ok(cases)
}

/// What was expected and is not there with `-`, what is there instead with `+`.
fn write_diff(out: &mut dyn Write, expected: &Did, did: &Did) -> Result<(), Fault> {
    let pretty = |did: &Did| serde_json::to_string_pretty(did).context("cannot write JSON");
    let (expected, did) = (pretty(expected)?, pretty(did)?);
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for change in TextDiff::from_lines(&expected, &did).iter_all_changes() {
        let (sign, colour) = match change.tag() {
            ChangeTag::Delete => ("-", "\x1b[31m"),
            ChangeTag::Insert => ("+", "\x1b[32m"),
            ChangeTag::Equal => (" ", ""),
        };
        let (colour, end) = if colours && !colour.is_empty() { (colour, "\x1b[0m") } else { ("", "") };
        writeln!(out, "  {colour}{sign} {}{end}", plain(change.value()))?;
    }
    Ok(())
}

/// What a case is called.
fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
