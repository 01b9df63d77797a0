//! `sandhog new`, `sandhog build` and `sandhog test`, with a handler in Rust.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tempfile::TempDir;

use super::sandhog;
use crate::eventually;
use crate::support::{TestRunner, project};

/// A handler `hello` from the template, in a fresh folder; what cargo builds for it is shared by all, one after the other: for cargo
/// they are one package, and what one of them built after another was changed would pass for that one's.
struct Hello {
    root: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A process that ends with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Hello {
    fn new() -> Hello {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let hello = Hello { root: tempfile::tempdir().unwrap(), _alone: alone };
        let (code, _, stderr) = hello.run(&["new", "hello", "--lang", "rust"]);
        assert_eq!(code, 0, "{stderr}");
        hello
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sandhog(self.root.path());
        command.args(arguments).env("CARGO_TARGET_DIR", project("target/conformance/target"));
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.root.path().join("hello").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }
}

#[test]
fn new_handler_passes_its_cases_and_one_that_differs_is_shown_until_it_is_recorded() {
    let hello = Hello::new();
    let (code, _, stderr) = hello.run(&["new", "hello", "--lang", "rust"]);
    assert_eq!((code, stderr.as_str()), (1, "error: `hello` is there already, and nothing is overwritten\n"));

    let (code, stdout, stderr) = hello.run(&["test", "hello"]);
    assert!(code == 0 && stdout.contains("2 cases, 0 not as expected"), "{stdout}{stderr}");

    hello.change("jobs/greet.json", "Hello, Ada!", "Hello, Bob!");
    let (code, stdout, _) = hello.run(&["test", "hello", "greet"]);
    let shows = ["greet: differs", r#"-   "result": "Hello, Bob!""#, r#"+   "result": "Hello, Ada!""#];
    assert!(code == 1 && shows.iter().all(|line| stdout.contains(line)), "{stdout}");

    let (code, stdout, _) = hello.run(&["test", "hello", "--update"]);
    assert!(code == 0 && stdout.contains("greet: recorded"), "{stdout}");
    let (code, stdout, _) = hello.run(&["test", "hello"]);
    assert!(code == 0 && stdout.contains("2 cases, 0 not as expected"), "{stdout}");
}

#[test]
fn compiler_is_quoted_where_it_refuses_and_the_component_that_was_there_stays() {
    let hello = Hello::new();
    assert_eq!(hello.run(&["build", "hello"]).0, 0);
    let component = hello.root.path().join("hello/hello.wasm");
    let before = std::fs::read(&component).unwrap();
    hello.change("src/lib.rs", "Outcome::complete", "Outcome::compleat");
    let (code, stdout, stderr) = hello.run(&["build", "hello"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("compleat") && stderr.contains("src/lib.rs") && !stderr.contains("\"reason\""), "{stderr}");
    assert_eq!(std::fs::read(&component).unwrap(), before);
}

#[test]
fn missing_tools_are_said_all_at_once_each_with_its_command() {
    let hello = Hello::new();
    let output = hello.command(&["build", "hello"]).env("PATH", "/nowhere").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for line in ["missing: cargo", "sh.rustup.rs", "missing: wasm32-wasip2", "rustup target add wasm32-wasip2"] {
        assert!(stderr.contains(line), "{stderr}");
    }
}

#[test]
fn language_that_is_not_known_is_answered_with_those_that_are() {
    let root = tempfile::tempdir().unwrap();
    let output = sandhog(root.path()).args(["new", "hello", "--lang", "cobol"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("`cobol`") && stderr.contains("rust"), "{stderr}");
    assert!(!root.path().join("hello").exists());
}

#[test]
fn what_is_saved_is_what_the_next_job_runs() {
    let hello = Hello::new();
    let runner = TestRunner::new();
    let handlers = runner.handler_path("");
    let mut watch = hello.command(&["build", "hello", "--watch", "--into", handlers.to_str().unwrap()]);
    let _watch = Watching(watch.stdout(Stdio::null()).spawn().unwrap());
    let runner = runner.start();
    let greets = |text: &str| {
        let job = runner.ended(&runner.enqueue("hello", r#"{"name": "Ada"}"#));
        job.result == Some(json!(text))
    };
    eventually!(runner.handler_path("hello.wasm").is_file());
    eventually!(greets("Hello, Ada!"));
    hello.change("src/lib.rs", "Hello, {}!", "Good day, {}!");
    eventually!(greets("Good day, Ada!"));
}
