//! What a runner's process gives up: that it is gone, and that whoever runs jobs does not miss it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::grants::{self, https};
use crate::support::{TestRunner, guests, project};

/// Whether this kernel has Landlock, as the runner says; a test that needs it makes no claim otherwise.
fn has_landlock(runner: &TestRunner) -> bool {
    let said = runner.said_once("hardening: ");
    let has = said.contains("landlock (version ");
    if !has {
        eprintln!("NOT TESTED: what runners cannot open, since this kernel has no Landlock");
    }
    has
}

/// What the kernel says of each thread of the runner.
fn threads(runner: &TestRunner) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", runner.pid().as_raw_nonzero())).expect("it runs");
    // A thread that has just ended is none.
    tasks.filter_map(|task| fs::read_to_string(task.expect("it runs").path().join("status")).ok()).collect()
}

/// The line of such a status.
fn line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

#[test]
fn every_thread_is_without_new_privileges_and_with_the_filter_and_jobs_run() {
    let runner = TestRunner::obeying();
    assert_eq!(runner.ended(&runner.ask("complete")).state, "completed");
    let threads = threads(&runner);
    assert!(threads.len() > 3, "{threads:?}");
    for status in &threads {
        assert_eq!((line(status, "NoNewPrivs"), line(status, "Seccomp")), ("1", "2"), "{status}");
    }
    let said = runner.said_once("hardening: ");
    assert!(said.starts_with("hardening: no-new-privileges, ") && said.ends_with(", seccomp"), "{said}");
}

#[test]
fn what_is_off_is_said_and_new_privileges_are_never_there() {
    let runner = TestRunner::new().handler("obey", "obedient");
    let runner = runner.config("hardening = { landlock = 'off', seccomp = 'off' }").start();
    for status in &threads(&runner) {
        assert_eq!((line(status, "NoNewPrivs"), line(status, "Seccomp")), ("1", "0"), "{status}");
    }
    let said = runner.said_once("hardening: ");
    assert_eq!(said, "hardening: no-new-privileges, landlock is off, seccomp is off");
}

#[test]
fn grants_work_under_it_and_what_came_after_the_start_is_out_of_reach() {
    let runner = TestRunner::new();
    let path = |name: &str| runner.path(name).display().to_string();
    for folder in ["queue", "assets", "elsewhere"] {
        fs::create_dir(runner.path(folder)).expect("the folder is ours");
    }
    fs::write(runner.path("assets/there"), "x").expect("the folder is ours");
    // The runner could read what lies beside its queue.
    let config = format!(
        "queue.url = 'sqlite:{}'\n[handlers]\nallow = ['*: read {}', '*: read {}']\n",
        path("queue/jobs.db"),
        path("assets"),
        path("later")
    );
    let mut runner = runner.config(&config);
    let grants = |folder: &str| format!("grants.read = {{ '/assets' = '{}' }}", runner.path(folder).display());
    let (good, late, foreign) = (grants("assets"), grants("later"), grants("elsewhere"));
    runner.put("obey.toml", good.as_bytes());
    runner.put_guest("obey", "obedient");
    runner.restart(&[]);
    assert_eq!(runner.ended(&runner.ask("complete")).state, "completed");
    if !has_landlock(&runner) {
        return;
    }
    assert_eq!(runner.says("/later` is not there: should it come"), 1);

    fs::create_dir(runner.path("later")).expect("the name is new");
    runner.put("late.toml", late.as_bytes());
    runner.put_guest("late", "idle");
    crate::eventually!(runner.says("cannot load handler `late`") == 1);
    let refused = runner.said_once("cannot load handler `late`");
    assert!(refused.contains("Permission denied") && refused.contains("start it again"), "{refused}");

    // What nobody allowed is refused for that, whether the runner could open it or not.
    runner.put("foreign.toml", foreign.as_bytes());
    runner.put_guest("foreign", "idle");
    crate::eventually!(runner.says("cannot load handler `foreign`") == 1);
    let refused = runner.said_once("cannot load handler `foreign`");
    assert!(refused.contains("is not allowed by the operator") && refused.contains("foreign: read "), "{refused}");

    assert!(runner.stop().success());
    runner.restart(&[]);
    crate::eventually!(runner.says("handler `late`") >= 2);
    assert_eq!(runner.says("cannot load handler `late`"), 1, "it is there since before the start");
}

#[test]
fn new_handlers_and_new_generations_load_under_it() {
    let runner = TestRunner::obeying();
    runner.put("obey.wasm", &guests::attentive(&[]));
    runner.put_guest("other", "obedient");
    let id = runner.enqueue("other", r#"{"do":"complete"}"#);
    assert_eq!(runner.ended(&id).state, "completed");
}

#[test]
fn queue_behind_a_link_works_under_it() {
    let runner = TestRunner::new().handler("obey", "obedient");
    fs::create_dir(runner.path("elsewhere")).expect("the folder is ours");
    drop(fs::File::create(runner.path("elsewhere/real.db")).expect("the folder is ours"));
    fs::create_dir(runner.path("links")).expect("the folder is ours");
    symlink("../elsewhere/real.db", runner.path("links/jobs.db")).expect("the name is new");
    let runner = runner.config("queue.url = 'sqlite:links/jobs.db'").start();
    assert_eq!(runner.ended(&runner.ask("complete")).state, "completed");
}

#[test]
fn runner_ends_for_good_under_it() {
    let mut runner = TestRunner::obeying();
    runner.ended(&runner.ask("complete"));
    assert!(runner.stop().success());
    assert!(!runner.path("sandhog.db-wal").exists(), "the queue was closed, and its log taken in");
}

#[test]
fn handlers_reach_servers_by_name_and_folders_as_they_are_granted_under_it() {
    let port = https::server();
    let mut runner = TestRunner::new();
    for folder in ["queue", "in", "out"] {
        fs::create_dir(runner.path(folder)).expect("the folder is ours");
    }
    fs::write(runner.path("in/a"), "alpha").expect("the folder is ours");
    fs::write(runner.path("secret"), "xyzzy").expect("the folder is ours");
    symlink("../secret", runner.path("in/link")).expect("the name is new");
    let (into, out) = (runner.path("in"), runner.path("out"));
    let (into, out, url) = (into.display(), out.display(), format!("https://localhost:{port}"));
    let config = format!(
        "queue.url = 'sqlite:queue/jobs.db'\n\
         handlers.allow = ['reach: http {url} private', 'reach: read {into}', 'reach: write {out}']"
    );
    runner = runner.config(&config).manifest(
        "reach",
        &format!(
            "[grants]\nhttp = [{{ url = '{url}', private = true }}]\nread = {{ '/in' = '{into}' }}\nwrite = {{ '/out' = '{out}' }}"
        ),
    );
    runner.put("reach.wasm", grants::reach());
    let mut command = runner.command();
    command.env("SSL_CERT_FILE", project("tests/tls/ca.pem"));
    runner.spawn_as(command, &[]);
    let steps = json!({ "steps": [
        { "get": ["https", format!("localhost:{port}"), "/"] },
        { "read": ["/in", "a"] },
        { "write": ["/out", "b", "beta"] },
        { "rename": ["/out", "b", "/out", "c"] },
        { "read": ["/in", "link"] },
    ]});
    let job = runner.ended(&runner.enqueue("reach", &steps.to_string()));
    let said = job.result.expect("it completes");
    assert_eq!(said[0], "ok: 200 secret");
    assert_eq!(said[1], "ok: alpha");
    assert!(said[2].as_str().is_some_and(|said| said.starts_with("ok")), "{said}");
    assert!(said[4].as_str().is_some_and(|said| said.starts_with("err")), "{said}");
}
