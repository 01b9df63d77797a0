//! Handlers in every language there is: each is made as a user makes it, with `sandhog new` and `sandhog build`, and does
//! what the conformance list says.
//!
//! `tests/languages/LANG` holds what is put over the template. Where the tools of a language are missing, its tests pass
//! without a claim, and say so.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{Server, project};

mod commands;
mod conformance;
mod natively;

/// The languages, as the command line calls them, and as people do.
pub(crate) const LANGUAGES: [(&str, &str); 8] = [
    ("rust", "Rust"),
    ("javascript", "JavaScript"),
    ("typescript", "TypeScript"),
    ("python", "Python"),
    ("go", "Go"),
    ("c", "C"),
    ("cpp", "C++"),
    ("zig", "Zig"),
];

/// A handler that was built, in a folder where it may do what the conformance list needs.
pub(crate) struct Handler {
    pub(crate) language: &'static str,
    folder: PathBuf,
    pub(crate) server: Server,
    /// What the conformance list says of it, once it was asked.
    column: OnceLock<Vec<String>>,
}

/// The handler in this language; none where its tools are missing. It is built once.
pub(crate) fn handler(language: &'static str) -> Option<&'static Handler> {
    static BUILT: OnceLock<BTreeMap<&'static str, OnceLock<Option<Handler>>>> = OnceLock::new();
    let all = BUILT.get_or_init(|| LANGUAGES.map(|(name, _)| (name, OnceLock::new())).into());
    all[language].get_or_init(|| Handler::build(language)).as_ref()
}

/// A run of the program, with the tools that `tools/languages` installed.
pub(crate) fn sandhog(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandhog"));
    // Variables that are for the tests would be taken for the program's, and cargo's for those of what it builds.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SANDHOG_") || text.starts_with("CARGO") && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = project("target/languages/bin");
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).unwrap();
    command.env("PATH", path).current_dir(folder);
    command
}

/// Copies a folder over another. What is the same stays untouched, so that what was built of it is still fresh.
pub(crate) fn copy_over(from: &Path, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = into.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_over(&path, &target);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if std::fs::read(&target).ok().as_ref() != Some(&bytes) {
            std::fs::write(&target, bytes).unwrap();
        }
    }
}

/// Says that something is not tested here.
pub(crate) fn not_tested(language: &str, why: &str) {
    // Past what captures the output of tests that pass.
    writeln!(std::io::stderr(), "NOT TESTED: {language}: {why}").expect("there is a standard error");
}

/// Whether a build found its tools missing, which is said.
pub(crate) fn lacks_tools(language: &str, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let lacks = said.contains("missing: ");
    if lacks {
        not_tested(language, said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("no tools"));
    }
    lacks
}

// === impl Handler ===

impl Handler {
    fn build(language: &'static str) -> Option<Handler> {
        let folder = project("target/conformance").join(language);
        let source = folder.join("conformance");
        let over = project("tests/languages").join(language);
        if !over.is_dir() {
            not_tested(language, "it has no handler of the conformance list");
            return None;
        }
        let new = tempfile::tempdir().unwrap();
        let output = sandhog(new.path()).args(["new", "conformance", "--lang", language]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        copy_over(&new.path().join("conformance"), &source);
        copy_over(&over, &source);
        let server = Server::start();
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::create_dir_all(folder.join("state")).unwrap();
        std::fs::write(folder.join("data/in.txt"), "from a file").unwrap();
        let (port, here) = (server.port, folder.display());
        let allow = format!(
            "state_dir = \"{here}/state\"\n[handlers]\nallow = [\"*: http http://127.0.0.1:{port}/\", \"*: write {here}\"]\n"
        );
        std::fs::write(folder.join("sandhog.toml"), allow).unwrap();
        let manifest = format!(
            "timeout = '3s'\nmemory = '96MiB'\nretry.max_failures = 3\n[grants]\nhttp = ['http://127.0.0.1:{port}/']\n\
             config = {{ colour = 'green' }}\nstate = true\nenqueue = ['follow']\nwrite = {{ '/data' = '{here}/data' }}\n"
        );
        std::fs::write(source.join("conformance.toml"), manifest).unwrap();
        let output = sandhog(&folder).args(["build", "conformance", "--json"]).output().unwrap();
        if lacks_tools(language, &output) {
            return None;
        }
        assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
        Some(Handler { language, folder, server, column: OnceLock::new() })
    }

    /// What `sandhog invoke --json` says of a job with this body.
    pub(crate) fn invoke(&self, body: &Value) -> Value {
        let mut command = sandhog(&self.folder);
        command.args(["invoke", "conformance/conformance.wasm", "-", "--json"]);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut pipe, body) = (child.stdin.take().unwrap(), body.to_string());
        let writer = std::thread::spawn(move || pipe.write_all(body.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let said = serde_json::from_slice(&output.stdout);
        said.unwrap_or_else(|e| panic!("{}: {e}: {}", self.language, String::from_utf8_lossy(&output.stderr)))
    }

    /// A file in the folder that it may write.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }
}
