//! What starts a runner and watches over it: systemd's protocol, and the first process of a container.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually;
use crate::support::{TestRunner, patience};

/// What listens as systemd does, outside of all that the runner may open.
struct Supervisor {
    folder: TempDir,
    socket: UnixDatagram,
}

// === impl Supervisor ===

impl Supervisor {
    fn new() -> Supervisor {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        Supervisor { folder, socket }
    }

    /// A runner's command that is watched over.
    fn over(&self, runner: &TestRunner) -> Command {
        let mut command = runner.command();
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "300000");
        command
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("it says something in time");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// Waits for a message with that line, and answers what came before.
    fn hears_until(&self, line: &str) -> (Vec<String>, String) {
        let mut before = Vec::new();
        loop {
            let message = self.hears();
            if message.lines().any(|found| found == line) {
                return (before, message);
            }
            before.push(message);
        }
    }
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn supervisor_hears_of_readiness_of_life_and_of_the_end() {
    let supervisor = Supervisor::new();
    let mut runner = TestRunner::new().handler("obey", "obedient");
    runner.spawn_as(supervisor.over(&runner), &[]);
    let (_, ready) = supervisor.hears_until("READY=1");
    assert!(ready.contains("STATUS=ready: handlers from "), "{ready}");
    eventually!(runner.says("ready: ") == 1);
    for _ in 0..5 {
        supervisor.hears_until("WATCHDOG=1");
    }
    runner.terminate();
    let (before, stopping) = supervisor.hears_until("STOPPING=1");
    assert!(before.iter().all(|message| message == "WATCHDOG=1\n"), "{before:?}");
    assert!(stopping.contains("STATUS=draining"), "{stopping}");
    assert!(runner.wait().success());
}

#[test]
fn runner_that_works_nothing_is_ready_all_the_same() {
    let supervisor = Supervisor::new();
    let mut runner = TestRunner::new().config("enabled = false");
    runner.spawn_as(supervisor.over(&runner), &[]);
    supervisor.hears_until("READY=1");
    assert!(runner.stop().success());
}

#[test]
fn supervisor_that_is_gone_stops_no_runner() {
    let mut runner = TestRunner::new().handler("obey", "obedient");
    let mut command = runner.command();
    command.env("NOTIFY_SOCKET", runner.path("nobody-listens"));
    runner.spawn_as(command, &[]);
    assert_eq!(runner.ended(&runner.ask("complete")).state, "completed");
    eventually!(runner.says("the supervisor cannot be told") == 1);
}

#[test]
fn first_process_of_a_container_buries_orphans_and_drains() {
    const NAMESPACE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = Command::new("unshare").args(NAMESPACE).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|tried| tried.success()) {
        eprintln!(
            "NOT TESTED: `sandhog run` as the first process of a container, since `unshare --pid` is not allowed here"
        );
        return;
    }
    let mut runner = TestRunner::new().handler("obey", "obedient");
    assert!(Command::new("mkfifo").arg(runner.path("end")).status().unwrap().success());
    // A child whose parent ends at once; and the runner, in the shell's place.
    let script = r#"(cat end >/dev/null &); exec "$0" "$@""#;
    let arguments = [NAMESPACE.as_slice(), &["sh", "-c", script]].concat();
    runner.spawn_as(runner.command_of("unshare", &arguments), &[]);
    eventually!(runner.says("ready: ") == 1);
    let [first] = children(runner.pid().as_raw_nonzero().get())[..] else { panic!("`unshare` has one child") };
    let [orphan] = children(first)[..] else { panic!("the runner was given one orphan") };
    drop(fs::File::options().write(true).open(runner.path("end")).unwrap());
    // One that nobody buries stays.
    eventually!(!fs::exists(format!("/proc/{orphan}")).unwrap());
    let id = runner.ask("complete");
    assert_eq!(runner.ended(&id).state, "completed");
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    assert!(runner.wait().success());
    assert_eq!(runner.says("stopped"), 1);
}
