//! Files in the handlers' folder that nobody should put there: each is said once, and what was good stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use sandhog::generation::Generation;

use crate::eventually;
use crate::reload::{serving, until_looked_at, variant};
use crate::support::{TestRunner, guests};

const FAULT: &str = "cannot load handler";

#[test]
fn file_that_may_not_be_read_is_said_once_and_read_when_it_may() {
    let mut runner = TestRunner::new().handler("obey", "obedient").handler("secret", "obedient");
    let readable = |name: &str, mode| {
        fs::set_permissions(runner.handler_path(name), Permissions::from_mode(mode)).expect("the file is ours");
    };
    readable("secret.wasm", 0o000);
    if fs::File::open(runner.handler_path("secret.wasm")).is_err() {
        runner.spawn(&[]);
    } else {
        // Root reads all files, by a capability that the runner is started without.
        let without = ["--bounding-set=-all", "--inh-caps=-all"];
        if !Command::new("setpriv").args(without).arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: files that may not be read: root reads all, and there is no `setpriv` to be less");
            return;
        }
        let command = runner.command_of("setpriv", &without);
        runner.spawn_as(command, &[]);
    }
    eventually!(runner.says("ready: ") == 1);
    let before = serving(&runner, "obey");
    let set = |name: &str, mode| {
        fs::set_permissions(runner.handler_path(name), Permissions::from_mode(mode)).expect("the file is ours");
    };
    set("obey.wasm", 0o000);
    until_looked_at(&runner, "marker");
    for name in ["secret", "obey"] {
        eventually!(runner.says(&format!("{FAULT} `{name}`")) > 0);
        let said = runner.said_once(&format!("{FAULT} `{name}`"));
        assert!(said.contains("Permission denied"), "{said}");
    }
    assert_eq!(serving(&runner, "obey"), before);
    set("secret.wasm", 0o644);
    assert_eq!(serving(&runner, "secret"), before, "it is of the same bytes");
}

#[test]
fn what_is_no_file_of_bytes_blocks_nobody() {
    let runner = TestRunner::obeying();
    let made =
        Command::new("mkfifo").arg(runner.handler_path("pipe.wasm")).status().expect("every system has `mkfifo`");
    assert!(made.success());
    let _listener = UnixListener::bind(runner.handler_path("socket.wasm")).expect("the folder is ours");
    std::os::unix::fs::symlink("loop.wasm", runner.handler_path("loop.wasm")).expect("the folder is ours");
    until_looked_at(&runner, "marker");
    for (name, why) in [("pipe", "is not a file"), ("socket", "is not a file"), ("loop", "symbolic links")] {
        eventually!(runner.says(&format!("{FAULT} `{name}`")) > 0);
        let said = runner.said_once(&format!("{FAULT} `{name}`"));
        assert!(said.contains(why), "{said}");
    }
    serving(&runner, "obey");
}

#[test]
fn component_of_another_world_or_compiled_code_is_refused_once() {
    let runner = TestRunner::obeying();
    let before = serving(&runner, "obey");
    let wit = "package some:where@1.0.0; world tool { export run: func(); }";
    let tool = guests::module("(module (func (export \"run\")))", wit, "tool");
    runner.put("tool.wasm", &guests::encoded(&tool));
    let wit = format!("{}\nworld w {{ include job-handler; import open: func(); }}", guests::contract());
    let wants = guests::text("idle").replacen("(module", "(module (import \"$root\" \"open\" (func))", 1);
    runner.put("wants.wasm", &guests::encoded(&guests::module(&wants, &wit, "w")));
    let compiled = fs::read_dir(runner.path("sandhog.db.state/compiled")).expect("the runner keeps compiled code");
    let compiled = compiled.map(|entry| entry.expect("it can be read").path());
    let largest = compiled.max_by_key(|path| fs::metadata(path).expect("it is there").len()).expect("there is some");
    let code = fs::read(largest).expect("it is ours");
    runner.put("compiled.wasm", &code);
    runner.put("obey.wasm", &code);
    until_looked_at(&runner, "marker");
    for (name, why) in [
        ("tool", "missing export `sandhog:jobs/handler@1.0.0`"),
        ("wants", "imports `open`"),
        ("compiled", "compiled code, which is never loaded"),
        ("obey", "compiled code, which is never loaded"),
    ] {
        eventually!(runner.says(&format!("{FAULT} `{name}`")) > 0);
        let said = runner.said_once(&format!("{FAULT} `{name}`"));
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(serving(&runner, "obey"), before);
}

#[test]
fn file_that_is_renamed_over_again_and_again_ends_on_the_last() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '5s'").start();
    let component = guests::guest("obedient");
    let until = Instant::now() + Duration::from_secs(2);
    let (mut round, mut jobs) = (0, Vec::new());
    while Instant::now() < until {
        let next = Instant::now() + Duration::from_millis(20);
        // Every third is bad.
        let bytes = if round % 3 == 0 { b"no component".to_vec() } else { variant(&component, &format!("r{round}")) };
        runner.put("obey.wasm", &bytes);
        if round % 10 == 0 {
            jobs.push(runner.ask("complete"));
        }
        round += 1;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let last = variant(&component, "last");
    runner.put("obey.wasm", &last);
    let last = Generation::of(&last, Some(b"timeout = '5s'")).to_string();
    eventually!(serving(&runner, "obey") == last);
    assert!(!jobs.is_empty());
    for id in jobs {
        assert_eq!(runner.ended(&id).state, "completed");
    }
    assert!(runner.says(FAULT) <= round, "no bad file is said twice");
}

#[test]
fn files_that_are_deleted_while_they_load_are_gone_and_harm_nobody() {
    let runner = TestRunner::obeying();
    let component = guests::guest("obedient");
    let names: Vec<String> = (0..20).map(|n| format!("brief-{n}")).collect();
    for name in &names {
        // With its manifest there, a new handler is not waited for.
        runner.put(&format!("{name}.toml"), b"");
        runner.put(&format!("{name}.wasm"), &variant(&component, name));
    }
    for name in &names {
        std::thread::park_timeout(Duration::from_millis(15));
        runner.remove(&format!("{name}.wasm"));
    }
    until_looked_at(&runner, "marker");
    for name in &names {
        assert!(runner.says(&format!("{FAULT} `{name}`")) <= 1, "{name}");
        let loaded = runner.says(&format!("handler `{name}` loaded"));
        eventually!(runner.says(&format!("handler `{name}` was deleted")) == loaded);
    }
    assert!(runner.is(&runner.enqueue(&names[0], "{}"), "parked"));
    serving(&runner, "obey");
}
