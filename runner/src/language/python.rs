//! Python: componentize-py puts the handler and `CPython` into a component, as they are once all modules are loaded.

use std::path::{Path, PathBuf};

use super::template::files;
use super::work::write_file;
use super::{Exports, File, Imports, Language, Project, Tool, WORLD, Work, WorkError, read_file};

/// Python.
#[derive(Debug)]
pub(crate) struct Python;

const TOOLS: [Tool; 1] = [Tool {
    name: "componentize-py",
    why: "puts the handler and Python into a component",
    install: "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1",
    find: |project| project.which("componentize-py"),
}];

const SOURCE: &str = "handler.py";

const ENTRY: &str = include_str!("../../../languages/python/build/sandhog_entry.py");
const HOST: &str = include_str!("../../../languages/python/build/host.py");
const CONFIG: &str = include_str!("../../../languages/python/build/config.py");
const HTTP: &str = include_str!("../../../languages/python/build/http.py");
const STATE: &str = include_str!("../../../languages/python/build/state.py");

// === impl Python ===

impl Language for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["py"]
    }

    fn title(&self) -> &'static str {
        "Python"
    }

    fn is_in(&self, project: &Project) -> bool {
        !project.files("py").is_empty()
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        TOOLS.to_vec()
    }

    fn template(&self) -> Vec<File> {
        let mut template = files!(
            "languages/python/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "handler.py",
                "jobs/greet.json",
                "jobs/later.json",
                "requirements.txt",
                "test_handler.py",
            ]
        )
        .to_vec();
        template.extend(files!("languages/python/sdk", "", ["sandhog.py"]));
        template
    }

    fn exports(&self, project: &Project) -> Result<Exports, WorkError> {
        if !project.has(SOURCE) {
            return Err(WorkError::Source(format!("there is no `{SOURCE}` in `{}`", project.folder().display())));
        }
        let source = read_file(&project.folder().join(SOURCE))?;
        let source = String::from_utf8_lossy(&source);
        if !defines(&source, "handle") {
            return Err(WorkError::Source(format!("`{SOURCE}` has no function `handle`")));
        }
        let context = defines(&source, "set_up") || defines(&source, "tear_down");
        Ok(Exports { context, failure_hook: defines(&source, "job_failed") })
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        let folder = work.project().folder();
        if !work.project().has("sandhog.py") {
            let missing = format!("there is no `sandhog.py` in `{}`", folder.display());
            return Err(WorkError::Source(format!("{missing}: take it from what `sandhog new` writes")));
        }
        let (modules, wit, made) = (write_modules(work)?, work.wit()?, work.scratch("made.wasm")?);
        let mut componentize = work.command("componentize-py");
        componentize.args(["--quiet", "--full-names", "--world", WORLD, "--wit-path"]).arg(wit);
        componentize.args(["componentize", "sandhog_entry", "--python-path"]).arg(folder);
        componentize.arg("--python-path").arg(modules).arg("--output").arg(&made);
        // Packages come from the project's own environment, if it has one, and not from the one that the tool is in.
        let environment = folder.join(".venv");
        if environment.is_dir() {
            componentize.env("VIRTUAL_ENV", environment);
        }
        work.run_talkative(&mut componentize)?;
        read_file(&made)
    }
}

/// Writes the module that is the component's, and what it takes of the sandbox.
fn write_modules(work: &Work<'_>) -> Result<PathBuf, WorkError> {
    let Imports { http, config, state, folders: _ } = work.project().imports();
    let granted = [(config, CONFIG), (state, STATE), (http, HTTP)];
    let host: String =
        std::iter::once(HOST).chain(granted.iter().filter(|(is, _)| *is).map(|(_, text)| *text)).collect();
    write_file(&work.scratch("python/sandhog_host.py")?, host.as_bytes())?;
    let entry = work.scratch("python/sandhog_entry.py")?;
    write_file(&entry, ENTRY.as_bytes())?;
    Ok(entry.parent().map(Path::to_owned).expect("a file is in a folder"))
}

/// Whether a function of this name is defined: by the module, or as a method of a class in it. (A function in a function looks
/// like a method: one too many exported does no harm.)
fn defines(source: &str, name: &str) -> bool {
    source.lines().any(|line| {
        let rest = line.strip_prefix("    ").unwrap_or(line).strip_prefix("def ");
        let rest = rest.and_then(|rest| rest.trim_start().strip_prefix(name));
        rest.is_some_and(|rest| rest.trim_start().starts_with('('))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_methods_are_found_and_what_is_deeper_is_not() {
        let source = "def handle(job):\n    def tear_down(): pass\n    return None\n\nclass A:\n    def set_up (self):\n        def job_failed(): pass\n";
        let found = ["handle", "set_up", "tear_down", "job_failed", "hand"].map(|name| defines(source, name));
        assert_eq!(found, [true, true, true, false, false]);
    }
}
