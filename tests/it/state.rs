//! What a handler keeps from one job to another: that nothing of it is half there, and nothing of it is counted twice.

use std::collections::BTreeSet;

use serde_json::json;

use crate::eventually;
use crate::support::{Seen, TestRunner, guests};

/// A runner with the handler `keep`, which keeps counters.
fn runner(config: &str) -> TestRunner {
    let runner = TestRunner::new().config(config).manifest("keep", "grants.state = true");
    runner.put("keep.wasm", &guests::keeping());
    runner
}

fn ask(runner: &TestRunner, command: &str) -> Seen {
    runner.ended(&runner.enqueue("keep", &format!(r#"{{"do":"{command}"}}"#)))
}

#[test]
fn counter_goes_on_from_job_to_job_and_from_runner_to_runner() {
    let mut runner = runner("").start();
    assert_eq!(ask(&runner, "get a").result, None);
    for count in 1..=3 {
        assert_eq!(ask(&runner, "count a").result, Some(json!(count)));
    }
    assert_eq!(ask(&runner, "count b").result, Some(json!(1)));
    assert!(runner.stop().success());
    // Another generation of the handler has it too.
    runner.put("keep.toml", b"grants.state = true\nconcurrency = 1");
    runner.restart(&[]);
    assert_eq!(ask(&runner, "count a").result, Some(json!(4)));
    assert_eq!(ask(&runner, "keys").result, Some(json!(2)));
    assert_eq!(ask(&runner, "drop a").state, "completed");
    assert_eq!(ask(&runner, "keys").result, Some(json!(1)));
}

#[test]
fn what_a_handler_keeps_is_listed_and_forgotten_by_hand() {
    let runner = runner("").start();
    ask(&runner, "count a");
    ask(&runner, "count b");
    let listed = String::from_utf8(runner.stdout(&["handlers", "forget", "--json"])).unwrap();
    assert_eq!(listed, "{\"bytes\":4,\"handler\":\"keep\",\"keys\":2}\n");
    runner.stdout(&["handlers", "forget", "keep"]);
    assert_eq!(runner.stdout(&["handlers", "forget", "--json"]), b"");
    assert!(!runner.sandhog(&["handlers", "forget", "keep"]).status.success(), "there is nothing any more");
    assert_eq!(ask(&runner, "count a").result, Some(json!(1)));
}

#[test]
fn only_what_completes_or_asks_for_a_retry_leaves_something() {
    let mut runner = runner("").start();
    for (command, kind) in [("err a", "error"), ("trap a", "trap"), ("reject a", "rejected")] {
        assert_eq!(ask(&runner, command).kind(), kind);
    }
    assert_eq!(ask(&runner, "get a").result, None);
    let retry = ask(&runner, "retry a");
    assert_eq!((retry.state.as_str(), retry.attempt, retry.result), ("completed", 2, Some(json!(1))));
    let slow = runner.enqueue("keep", r#"{"do":"slow a"}"#);
    eventually!(runner.says("begun") >= 1);
    runner.kill();
    runner.restart(&[]);
    assert_eq!(runner.ended(&slow).result, Some(json!(2)), "the attempt that was killed left nothing");
}

#[test]
fn attempts_that_collide_are_made_again_and_nothing_is_counted_twice() {
    const JOBS: usize = 400;
    let first = runner("slots = 4").start();
    let second = first.twin().start();
    let line = "{\"job_type\":\"keep\",\"do\":\"count a\"}\n";
    assert_eq!(first.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
    eventually!(first.count("completed") == JOBS as u64);
    let jobs = first.jobs(&["--type", "keep"]);
    assert!(jobs.iter().all(|job| job.failures == 0));
    let sums: BTreeSet<u64> = jobs.iter().filter_map(|job| first.job(&job.id).result?.as_u64()).collect();
    assert_eq!(sums, (1..=JOBS as u64).collect());
    drop(second);
}

#[test]
fn what_attempts_swap_at_the_same_time_is_swapped_by_one_and_the_others_look_again() {
    const JOBS: usize = 200;
    let runner = TestRunner::new().config("slots = 4").manifest("swap", "grants.state = true");
    runner.put("swap.wasm", &guests::swapping());
    let first = runner.start();
    let second = first.twin().start();
    let line = "{\"job_type\":\"swap\",\"do\":\"a\"}\n";
    assert_eq!(first.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
    eventually!(first.count("completed") == JOBS as u64);
    let lengths =
        first.jobs(&["--type", "swap"]).iter().map(|job| first.job(&job.id).result.unwrap()).collect::<Vec<_>>();
    let lengths: BTreeSet<u64> = lengths.iter().map(|length| length.as_u64().unwrap()).collect();
    assert_eq!(lengths, (1..=JOBS as u64).collect());
    let ask = |word: &str| first.ended(&first.enqueue("swap", &format!(r#"{{"do":"{word}"}}"#))).result;
    assert_eq!(ask("s"), Some(json!(7)), "the attempt itself wrote in between");
    assert_eq!(ask("a"), Some(json!(8)));
    assert_eq!(ask("d"), Some(json!(0)), "less than nothing");
    drop(second);
}

#[test]
fn quota_is_an_error_for_the_guest() {
    let runner = runner("[limits]\nstate = '10KiB'\nstate_keys = 3").start();
    assert_eq!(ask(&runner, "set a").state, "completed");
    assert_eq!(ask(&runner, "set b").state, "completed");
    let refused = "the state would have more than 10240 bytes, which is the limit (`limits.state`)";
    assert_eq!(ask(&runner, "set c").why(), refused);
    assert_eq!(ask(&runner, "count c").state, "completed");
    let refused = "the state would have more than 3 keys, which is the limit (`limits.state_keys`)";
    assert_eq!(ask(&runner, "count d").why(), refused);
    assert_eq!(ask(&runner, "bucket").why(), "no-such-store");
}

#[test]
fn handler_without_the_grant_is_refused_with_the_line_that_would_give_it() {
    let runner = TestRunner::new();
    runner.put("keep.wasm", &guests::keeping());
    let runner = runner.start();
    let refused = eventually!(
        runner.log().iter().map(crate::support::message).find(|message| message.contains("`keep`")).map(str::to_owned)
    );
    assert!(refused.contains("wasi:keyvalue/store@0.2.0-draft") && refused.contains("state = true"), "{refused}");
}
