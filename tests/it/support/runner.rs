//! The real binary as a child process, in a folder of its own, spoken to as people speak to it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use super::guests;
use super::seen::{Enqueued, Seen};
use crate::eventually;

/// A folder with `handlers/`, perhaps a `sandhog.toml`, and the queue `sandhog.db`, and a runner in it, once it was started.
/// The runner is killed when this is dropped.
pub(crate) struct TestRunner {
    folder: Arc<TempDir>,
    handlers: PathBuf,
    process: Option<Process>,
    /// The log lines of this runner, those of its earlier processes first.
    log: Arc<Mutex<Vec<Value>>>,
    /// How many lines there were when each of its processes was started.
    starts: Vec<usize>,
}

struct Process {
    child: Child,
    reader: JoinHandle<()>,
}

/// A job that is about to be enqueued.
pub(crate) struct Enqueue<'a> {
    runner: &'a TestRunner,
    arguments: Vec<String>,
}

// === impl TestRunner ===

impl TestRunner {
    /// A folder, with nothing started.
    pub(crate) fn new() -> TestRunner {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let handlers = folder.path().join("handlers");
        fs::create_dir(&handlers).expect("a new folder is empty");
        TestRunner { folder: Arc::new(folder), handlers, process: None, log: Arc::default(), starts: Vec::new() }
    }

    /// The usual case: a runner with the obedient guest as handler `obey`.
    pub(crate) fn obeying() -> TestRunner {
        TestRunner::new().handler("obey", "obedient").start()
    }

    /// Puts the guest `tests/guests/GUEST.wat` into the folder as the handler `name`.
    pub(crate) fn handler(self, name: &str, guest: &str) -> TestRunner {
        self.put(&format!("{name}.wasm"), &guests::guest(guest));
        self
    }

    /// Gives the handler `name` a manifest.
    pub(crate) fn manifest(self, name: &str, toml: &str) -> TestRunner {
        self.put(&format!("{name}.toml"), toml.as_bytes());
        self
    }

    /// Writes `sandhog.toml`.
    pub(crate) fn config(self, toml: &str) -> TestRunner {
        fs::write(self.path("sandhog.toml"), toml).expect("the folder is ours");
        self
    }

    /// A second runner on the same queue, with a folder of handlers of its own, which is empty.
    pub(crate) fn beside(&self, folder_of_handlers: &str) -> TestRunner {
        let handlers = self.path(folder_of_handlers);
        fs::create_dir(&handlers).expect("the name is new");
        TestRunner {
            folder: Arc::clone(&self.folder),
            handlers,
            process: None,
            log: Arc::default(),
            starts: Vec::new(),
        }
    }

    /// A second runner on the same queue, with the same folder of handlers.
    pub(crate) fn twin(&self) -> TestRunner {
        let (folder, handlers) = (Arc::clone(&self.folder), self.handlers.clone());
        TestRunner { folder, handlers, process: None, log: Arc::default(), starts: Vec::new() }
    }

    /// Starts the runner, and waits until it is ready.
    pub(crate) fn start(mut self) -> TestRunner {
        self.restart(&[]);
        self
    }

    /// The same with arguments for `sandhog run`.
    pub(crate) fn start_with(mut self, arguments: &[&str]) -> TestRunner {
        self.restart(arguments);
        self
    }

    /// Starts the runner again on what is there, and waits until it is ready.
    pub(crate) fn restart(&mut self, arguments: &[&str]) {
        let ready = self.says("ready: ");
        self.spawn(arguments);
        eventually!(self.says("ready: ") > ready || self.is_gone());
        assert!(self.says("ready: ") > ready, "it did not start");
    }

    /// Starts the runner, and does not wait.
    pub(crate) fn spawn(&mut self, arguments: &[&str]) {
        self.spawn_as(self.command(), arguments);
    }

    /// The same, for a command that another starts: `sandhog` is the last of its arguments.
    pub(crate) fn spawn_as(&mut self, mut child: Command, arguments: &[&str]) {
        assert!(self.process.is_none(), "the runner is there already");
        child.arg("run").arg("--handlers").arg(&self.handlers).args(arguments);
        child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("the binary was built");
        let stderr = child.stderr.take().expect("it is piped");
        self.starts.push(self.log.lock().expect("nobody panics holding it").len());
        let log = Arc::clone(&self.log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // What is no line of the log (an error at start, a panic) is kept as text.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                log.lock().expect("nobody panics holding it").push(line);
            }
        });
        self.process = Some(Process { child, reader });
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the folder of handlers.
    pub(crate) fn handler_path(&self, name: &str) -> PathBuf {
        self.handlers.join(name)
    }

    /// Puts a file into the handlers' folder as people should: written elsewhere and renamed in.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let part = self.path(&format!("{name}.part"));
        fs::write(&part, bytes).expect("the folder is ours");
        fs::rename(part, self.handlers.join(name)).expect("both are in one file system");
    }

    /// Puts a guest into the handlers' folder as the handler `name`.
    pub(crate) fn put_guest(&self, name: &str, guest: &str) {
        self.put(&format!("{name}.wasm"), &guests::guest(guest));
    }

    /// Deletes a file of the handlers' folder.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.handlers.join(name)).expect("it is there");
    }

    // --- the runner's log ---

    /// The lines so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().expect("nobody panics holding it").clone()
    }

    /// The lines so far of each process, where none was taken.
    pub(crate) fn log_by_process(&self) -> Vec<Vec<Value>> {
        let log = self.log();
        let ends = self.starts.iter().skip(1).copied().chain([log.len()]);
        self.starts.iter().zip(ends).map(|(&start, end)| log[start..end].to_vec()).collect()
    }

    /// The lines so far, which are forgotten: for a test that would not have room for all of them.
    pub(crate) fn take_log(&self) -> Vec<Value> {
        self.log.lock().expect("nobody panics holding it").drain(..).collect()
    }

    /// How many lines have `text` in their message.
    pub(crate) fn says(&self, text: &str) -> usize {
        // Asked again and again while thousands of lines come in: they are not copied for it.
        let log = self.log.lock().expect("nobody panics holding it");
        log.iter().filter(|line| message(line).contains(text)).count()
    }

    /// The only message with `text` in it.
    pub(crate) fn said_once(&self, text: &str) -> String {
        let log = self.log();
        let messages: Vec<&str> = log.iter().map(message).filter(|message| message.contains(text)).collect();
        assert_eq!(messages.len(), 1, "`{text}`: {messages:#?}");
        messages[0].to_owned()
    }

    // --- signals ---

    /// SIGTERM: drain.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("it runs");
    }

    /// SIGSTOP: it stands still, until it is told to go on.
    pub(crate) fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it runs");
    }

    /// SIGCONT: it goes on.
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it is there");
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        kill_process(self.pid(), Signal::KILL).expect("it runs");
        self.wait();
    }

    /// Waits until the runner ends by itself; its log is complete then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually!(self.is_gone());
        let Process { mut child, reader } = self.process.take().expect("it was started");
        reader.join().expect("the reader does not panic");
        child.wait().expect("it is our child")
    }

    /// Whether it was started, and nobody waited for its end.
    pub(crate) fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Whether the runner has ended, and all that it said is read.
    pub(crate) fn is_gone(&mut self) -> bool {
        let process = self.process.as_mut().expect("it was started");
        process.child.try_wait().expect("it is our child").is_some() && process.reader.is_finished()
    }

    /// SIGTERM, and waits until it is gone.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Lets the runner write no byte to any file, or lets it write again. Its log is a pipe, which is none.
    pub(crate) fn fill_disk(&self, full: bool) {
        let limit = Rlimit { current: full.then_some(0), maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("it runs, and is ours");
    }

    pub(crate) fn pid(&self) -> Pid {
        let process = self.process.as_ref().expect("it was started");
        Pid::from_child(&process.child)
    }

    // --- the command line ---

    /// `sandhog`, in this folder, and without settings from the environment of the test.
    pub(crate) fn command(&self) -> Command {
        self.here(Command::new(env!("CARGO_BIN_EXE_sandhog")))
    }

    /// `PROGRAM ARGUMENTS sandhog`, alike.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_sandhog"));
        self.here(command)
    }

    fn here(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SANDHOG_")) {
            command.env_remove(name);
        }
        // Many runners are there at one time: each has a port of its own.
        command.env("SANDHOG_ADMIN__LISTEN", "127.0.0.1:0");
        command
    }

    /// What `sandhog ARGUMENTS` answers.
    pub(crate) fn sandhog(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().expect("the binary was built")
    }

    /// What `sandhog ARGUMENTS` writes to stdout, as it must be well.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.sandhog(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sandhog {arguments:?}: {}: {stderr}", output.status);
        output.stdout
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Vec<T> {
        let stdout = self.stdout(arguments);
        let lines = serde_json::Deserializer::from_slice(&stdout).into_iter();
        lines.map(|line| line.unwrap_or_else(|e| panic!("sandhog {arguments:?}: {e}"))).collect()
    }

    /// Enqueues a job and answers its id.
    pub(crate) fn enqueue(&self, job_type: &str, body: &str) -> String {
        self.enqueueing(job_type, body).id()
    }

    /// Enqueues a job of type `obey` that the obedient guest understands, and answers its id.
    pub(crate) fn ask(&self, command: &str) -> String {
        self.enqueue("obey", &format!(r#"{{"do":"{command}"}}"#))
    }

    /// A job that is about to be enqueued.
    pub(crate) fn enqueueing(&self, job_type: &str, body: &str) -> Enqueue<'_> {
        let arguments = ["enqueue", "--json", job_type, body].map(str::to_owned).to_vec();
        Enqueue { runner: self, arguments }
    }

    /// Enqueues a file of jobs, one a line, with more arguments.
    pub(crate) fn enqueue_lines(&self, lines: impl AsRef<[u8]>, arguments: &[&str]) -> Vec<Enqueued> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("the folder is ours");
        file.write_all(lines.as_ref()).expect("there is room");
        let path = file.path().to_str().expect("the path is text");
        self.json(&[&["enqueue", "--json", "--file", path], arguments].concat())
    }

    /// All that is known of a job.
    pub(crate) fn job(&self, id: &str) -> Seen {
        self.json(&["jobs", "show", "--json", "--body", id]).remove(0)
    }

    /// The bytes of a job's body.
    pub(crate) fn body(&self, id: &str) -> Vec<u8> {
        self.stdout(&["jobs", "show", "--body", id])
    }

    /// Whether the job is in that state.
    pub(crate) fn is(&self, id: &str, state: &str) -> bool {
        self.job(id).state == state
    }

    /// The job, once it is in that state.
    pub(crate) fn until(&self, id: &str, state: &str) -> Seen {
        eventually!(Some(self.job(id)).filter(|job| job.state == state))
    }

    /// The job, once it has ended.
    pub(crate) fn ended(&self, id: &str) -> Seen {
        eventually!(Some(self.job(id)).filter(|job| job.state == "dead" || job.state == "completed"))
    }

    /// The jobs that `sandhog jobs list ARGUMENTS` shows.
    pub(crate) fn jobs(&self, arguments: &[&str]) -> Vec<Seen> {
        self.json(&[&["jobs", "list", "--json", "--limit", "1000000"], arguments].concat())
    }

    /// All dead letters.
    pub(crate) fn dead(&self) -> Vec<Seen> {
        self.json(&["dead", "list", "--json", "--limit", "1000000"])
    }

    /// How many jobs are in that state.
    pub(crate) fn count(&self, state: &str) -> u64 {
        let counts = self.stats()["counts"].as_array().cloned().expect("stats have counts");
        counts.iter().filter(|count| count["state"] == state).filter_map(|count| count["jobs"].as_u64()).sum()
    }

    /// What `sandhog stats` says.
    pub(crate) fn stats(&self) -> Value {
        self.json(&["stats", "--json"]).remove(0)
    }
}

impl Drop for TestRunner {
    fn drop(&mut self) {
        if let Some(Process { mut child, reader }) = self.process.take() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
            reader.join().ok();
        }
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("the last lines of the runner's log:");
            for line in &log[log.len().saturating_sub(40)..] {
                eprintln!("  {line}");
            }
        }
    }
}

/// What a line of the log says.
pub(crate) fn message(line: &Value) -> &str {
    line.as_str().or_else(|| line["message"].as_str()).unwrap_or_default()
}

// === impl Enqueue ===

impl Enqueue<'_> {
    /// With an id.
    pub(crate) fn named(self, id: &str) -> Self {
        self.with(&["--id", id])
    }

    /// Later.
    pub(crate) fn after(self, duration: &str) -> Self {
        self.with(&["--after", duration])
    }

    /// With a header.
    pub(crate) fn header(self, pair: &str) -> Self {
        self.with(&["--header", pair])
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Enqueues it.
    pub(crate) fn send(self) -> Enqueued {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.runner.json(&arguments).remove(0)
    }

    /// Enqueues it, and answers its id.
    pub(crate) fn id(self) -> String {
        self.send().id
    }
}

/// The path of a file of the project.
pub(crate) fn project(path: impl AsRef<Path>) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}
