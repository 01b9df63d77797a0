//! Instances: a fresh one for every attempt, unless the manifest has them reused.

use crate::eventually;
use crate::support::{TestRunner, guests, now_ms};

/// What jobs of a type answered, one after the other.
fn answers(runner: &TestRunner, job_type: &str, body: &str, jobs: usize) -> Vec<String> {
    let answer = || {
        let job = runner.ended(&runner.enqueue(job_type, body));
        assert_eq!(job.state, "completed", "{job:?}");
        job.result.expect("it has a result").to_string()
    };
    (0..jobs).map(|_| answer()).collect()
}

#[test]
fn what_an_attempt_leaves_is_not_seen_by_the_next() {
    let runner = TestRunner::new()
        .handler("fresh", "hoarder")
        .handler("reused", "hoarder")
        .manifest("reused", "instances = { reuse = 3 }")
        .config("slots = 1")
        .start();
    assert_eq!(answers(&runner, "fresh", "{}", 10), ["0"; 10]);
    // The same handler finds what is there, where instances are reused.
    let found = answers(&runner, "reused", "{}", 4);
    assert_eq!((found[0].as_str(), found[3].as_str()), ("0", "0"), "{found:?}");
    assert!(found[1].parse::<u32>().unwrap() > 4096 && found[1] != found[2], "{found:?}");
    assert_eq!(answers(&runner, "fresh", "{}", 2), ["0"; 2]);
}

#[test]
fn reused_instance_works_one_job_after_the_other_up_to_its_bound() {
    let runner = TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", "instances = { reuse = 3 }\nconcurrency = 1")
        .start();
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 5), ["0", "1", "2", "0", "1"]);
    assert_eq!(runner.ended(&runner.ask("trap")).kind(), "trap");
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
}

#[test]
fn generations_do_not_share_an_instance() {
    let runner = TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", "instances = { reuse = 1000 }\nconcurrency = 1")
        .start();
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
    runner.put("obey.toml", b"instances = { reuse = 999 }\nconcurrency = 1");
    eventually!(runner.says("handler `obey` reloaded") + runner.says("handler `obey` loaded") >= 2);
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
}

const REUSED: &str = "instances = { reuse = 1000 }\nconcurrency = 1\ntimeout = '2s'\nmemory = '16MiB'";

/// How the list shows a handler: its state, and why.
fn listed(runner: &TestRunner, handler: &str) -> (String, String) {
    let list = runner.stdout(&["handlers", "--json"]);
    let rows = String::from_utf8(list).unwrap();
    let mut rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.find(|row| row["handler"] == handler).expect("it is listed");
    (row["state"].as_str().unwrap().to_owned(), row["why"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn handler_that_cannot_be_set_up_is_not_ready_and_its_jobs_wait() {
    let runner = TestRunner::new().handler("good", "obedient");
    for (name, how) in [("away", 1), ("traps", 2), ("hangs", 3), ("grows", 4)] {
        runner.put(&format!("{name}.toml"), REUSED.as_bytes());
        runner.put(&format!("{name}.wasm"), &guests::attentive(&[("set-up", how)]));
    }
    let runner = runner.start();
    let names = ["away", "traps", "hangs", "grows"];
    let jobs = names.map(|name| runner.enqueue(name, r#"{"do":"seen"}"#));
    assert_eq!(runner.ended(&runner.enqueue("good", r#"{"do":"complete"}"#)).state, "completed");
    for (name, why) in names.iter().zip(["error: away", "trap: unreachable", "timeout: 2 s", "out-of-memory: "]) {
        let (state, said) = eventually!(Some(listed(&runner, name)).filter(|(state, _)| state == "not-ready"));
        assert!(said.starts_with(&format!("set-up: {why}")), "{state} {said}");
        assert_eq!(runner.says(&format!("handler `{name}` is not ready")), 1);
    }
    for job in &jobs {
        assert_eq!(eventually!(Some(runner.job(job)).filter(|job| job.state == "parked")).attempt, 0);
    }
    // A mended file is all it takes, and none of it was an attempt.
    for (name, job) in names.iter().zip(&jobs) {
        runner.put(&format!("{name}.wasm"), &guests::attentive(&[]));
        let job = runner.ended(job);
        assert_eq!((job.state.as_str(), job.attempt, job.failures), ("completed", 1, 0), "{name}");
        assert_eq!(listed(&runner, name).0, "good");
    }
}

#[test]
fn handler_becomes_ready_by_itself() {
    for manifest in [REUSED, ""] {
        let ready_at_ns = (now_ms() + 4_000) * 1_000_000;
        let runner = TestRunner::new();
        runner.put("late.toml", manifest.as_bytes());
        runner.put("late.wasm", &guests::attentive(&[("set-up", 6), ("ready-at", ready_at_ns)]));
        let runner = runner.start();
        let job = runner.ended(&runner.enqueue("late", r#"{"do":"result 1"}"#));
        assert_eq!((job.state.as_str(), job.attempt, job.failures), ("completed", 1, 0));
        assert!(job.ended_at.unwrap() * 1_000_000 >= ready_at_ns);
        eventually!(listed(&runner, "late").0 == "good");
    }
}

#[test]
fn generation_that_is_not_ready_does_not_replace_the_one_before() {
    let runner = TestRunner::new().manifest("obey", REUSED);
    runner.put("obey.wasm", &guests::attentive(&[]));
    let runner = runner.start();
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
    runner.put("obey.wasm", &guests::attentive(&[("set-up", 1)]));
    eventually!(runner.says("handler `obey` is not ready") == 1);
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["2", "3"], "the instance is the old one");
    assert_eq!(listed(&runner, "obey"), ("not-ready".to_owned(), "set-up: error: away".to_owned()));
    assert_eq!(runner.says("torn down"), 0);
    runner.put("obey.wasm", &guests::attentive(&[("set-up", 0), ("ready-at", 1)]));
    eventually!(runner.says("handler `obey` loaded") == 2);
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
    eventually!(runner.says("torn down") == 1);
}

#[test]
fn reload_and_drain_tear_down_what_waits() {
    let mut runner = TestRunner::new().manifest("obey", REUSED);
    runner.put("obey.wasm", &guests::attentive(&[]));
    runner = runner.start();
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 2), ["0", "1"]);
    runner.put("obey.toml", format!("{REUSED}\n[retry]\nmax_failures = 2").as_bytes());
    eventually!(runner.says("torn down") == 1);
    assert_eq!(answers(&runner, "obey", r#"{"do":"seen"}"#, 1), ["0"]);
    assert!(runner.stop().success());
    assert_eq!((runner.says("set up"), runner.says("torn down")), (2, 2));
}

#[test]
fn tear_down_that_hangs_holds_up_no_end() {
    let mut runner = TestRunner::new().manifest("obey", "instances = { reuse = 1000 }").config("drain_timeout = '1s'");
    runner.put("obey.wasm", &guests::attentive(&[("tear-down", 3)]));
    runner = runner.start();
    assert_eq!(answers(&runner, "obey", r#"{"do":"result 1"}"#, 1), ["1"]);
    assert!(runner.stop().success());
    assert_eq!(runner.says("tear-down: the runner stops"), 1);
}

#[test]
fn failing_failure_hook_changes_nothing_about_the_job() {
    let runner = TestRunner::new().manifest("tells", "retry = { max_failures = 2, backoff = { first = '10ms' } }");
    runner.put("tells.wasm", &guests::attentive(&[]));
    runner.put("traps.wasm", &guests::attentive(&[("job-failed", 2)]));
    runner.put("hangs.toml", b"timeout = '1s'");
    runner.put("hangs.wasm", &guests::attentive(&[("job-failed", 3)]));
    let runner = runner.start();
    let jobs = ["tells", "traps", "hangs"].map(|name| runner.enqueue(name, r#"{"do":"err"}"#));
    for job in &jobs {
        let job = runner.ended(job);
        assert_eq!((job.state.as_str(), job.kind()), ("dead", "error"));
    }
    assert_eq!(
        runner.says("boom"),
        2 + 1 + 1 + runner.says("buried: error: boom") + runner.says("retried: error: boom")
    );
    assert_eq!(runner.says("failure hook: trap: unreachable"), 1);
    assert_eq!(runner.says("failure hook: timeout: 1 s"), 1);
}
