//! SDKs and templates without a sandbox, as their authors' tests have them.

use std::path::Path;
use std::process::Command;

use crate::languages::{not_tested, sandhog};
use crate::support::project;

/// Runs a program in a folder, with what `tools/languages` installed. Where it is missing, nothing is claimed.
fn passes(language: &str, folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    // The tools are those of a build.
    let path = sandhog(folder).get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path.map(Into::into));
    command.env("PATH", path.unwrap_or_else(|| std::env::var_os("PATH").unwrap_or_default()));
    // What Python compiles does not belong into a source tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    match command.output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{language}: {command:?}: {}", String::from_utf8_lossy(&said));
        }
        Err(why) => not_tested(language, &format!("cannot run `{program}`: {why}")),
    }
}

/// What `sandhog new` writes, with the packages that `npm install` would bring.
fn new(language: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = sandhog(folder.path()).args(["new", "sample", "--lang", language]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let packages = project("target/languages/node_modules");
    std::os::unix::fs::symlink(packages, folder.path().join("sample/node_modules")).unwrap();
    folder
}

#[test]
fn javascript_sdk_and_template_hold_in_node() {
    passes("JavaScript", &project("languages/javascript/tests"), "node", &["--test"]);
    passes("JavaScript", &new("javascript").path().join("sample"), "node", &["--test"]);
}

#[test]
fn typescript_template_holds_in_node_and_its_types_fit() {
    let folder = new("typescript");
    let sample = folder.path().join("sample");
    passes("TypeScript", &sample, "tsc", &["--noEmit"]);
    passes("TypeScript", &sample, "npm", &["test"]);
}

#[test]
fn types_of_the_sdk_fit_the_handlers_of_these_tests() {
    let folder = new("typescript");
    let sample = folder.path().join("sample");
    let handler = project("tests/languages/typescript/handler.ts");
    std::fs::copy(handler, sample.join("handler.ts")).unwrap();
    passes("TypeScript", &sample, "tsc", &["--noEmit"]);
}

#[test]
fn python_sdk_and_template_hold_without_a_sandbox() {
    passes("Python", &project("languages/python/tests"), "python3", &["test_sandhog.py"]);
    passes("Python", &new("python").path().join("sample"), "python3", &["-m", "unittest"]);
}
