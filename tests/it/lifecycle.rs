//! A job's life: what it is given, how it completes, waits, comes again and is kept. How it fails is in `burial`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::eventually;
use crate::support::{TestRunner, now_ms};

/// Retries follow each other without a test having to wait for them.
const QUICK_RETRY: &str = "[retry]\nmax_failures = 3\nbackoff = { first = '20ms', factor = 1, max = '20ms' }\n";

// === complete ===

#[test]
fn completed_job_is_kept_with_its_result_and_what_it_took() {
    let runner = TestRunner::obeying();
    let job = runner.ended(&runner.ask("result [1, 2.50]"));
    assert_eq!((job.state.as_str(), job.attempt, job.failures), ("completed", 1, 0));
    assert_eq!(job.job_type.as_deref(), Some("obey"));
    assert_eq!(job.result, Some(json!([1, 2.5])));
    let (started_at, ended_at) = (job.started_at.expect("it started"), job.ended_at.expect("it ended"));
    assert!(job.enqueued_at <= started_at && started_at <= ended_at, "{job:?}");
    assert!(job.duration_us.is_some_and(|us| us > 0), "{job:?}");
    assert_eq!(job.generation.expect("it had a handler").len(), 12);
    assert_eq!(job.failure, None);
}

#[test]
fn job_completes_without_a_result_too() {
    let runner = TestRunner::obeying();
    let job = runner.ended(&runner.ask("complete"));
    assert_eq!((job.state.as_str(), job.result), ("completed", None));
}

#[test]
fn result_that_is_no_json_is_kept_as_a_json_string_with_a_warning() {
    let runner = TestRunner::obeying();
    let job = runner.ended(&runner.ask("result <p>not json</p>"));
    assert_eq!((job.state.as_str(), job.result), ("completed", Some(json!("<p>not json</p>"))));
    let warned = || {
        runner.log().iter().any(|line| line["target"] == "guest" && line["level"] == "WARN" && line["job.id"] == job.id)
    };
    eventually!(warned());
}

#[test]
fn completed_jobs_are_forgotten_at_once_if_none_are_to_be_kept() {
    let runner = TestRunner::new().handler("obey", "obedient").config("queue.keep_completed = 0").start();
    let id = runner.ask("complete");
    eventually!(!runner.sandhog(&["jobs", "show", &id]).status.success());
    assert_eq!(runner.jobs(&[]).len(), 0);
}

// === what a guest is given ===

#[test]
fn guest_sees_its_job_as_it_was_enqueued() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '7s'").start();
    let body = r#"{"do":"job", "n": [1]}"#;
    let id = runner.enqueueing("obey", body).named("order-7").header("tenant=blue").header("tenant=red").id();
    let job = runner.ended(&id);
    let seen = job.result.expect("the guest answered");
    assert_eq!(
        [&seen["id"], &seen["job-type"], &seen["body"]],
        [&json!("order-7"), &json!("obey"), &json!({"do": "job", "n": [1]})]
    );
    assert_eq!(
        [&seen["attempt"], &seen["failures"], &seen["max-failures"], &seen["timeout-ms"], &seen["enqueued-at-ms"]],
        [&json!(1), &json!(0), &json!(1), &json!(7_000), &json!(job.enqueued_at)]
    );
    let metadata: Vec<(String, String)> = serde_json::from_value(seen["metadata"].clone()).expect("pairs");
    let values = |name: &str| -> Vec<&str> {
        metadata.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("header.tenant"), ["blue", "red"]);
    assert_eq!(values("queue"), ["sandhog.db"]);
}

#[test]
fn body_reaches_the_guest_byte_for_byte() {
    let runner = TestRunner::obeying();
    let body = "{\"do\":\"body\",\t \"a\": 1.50, \"é\\u00e9\":\"😀\\n\",\"a\":1e400 }  ";
    let job = runner.ended(&runner.enqueue("obey", body));
    assert_eq!(job.result, Some(json!(format!("body: {body}"))));
    assert_eq!(runner.body(&job.id), body.as_bytes());
}

#[test]
fn guest_sees_how_often_it_was_tried_and_failed() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", QUICK_RETRY).start();
    let job = runner.ended(&runner.ask("fail-before 3 job"));
    let seen = job.result.expect("the third attempt answered");
    assert_eq!([&seen["attempt"], &seen["failures"], &seen["max-failures"]], [&json!(3), &json!(2), &json!(3)]);
    assert_eq!((job.attempt, job.failures), (3, 2));
}

// === retries that a guest asks for ===

#[test]
fn retry_that_is_asked_for_comes_after_its_delay_with_its_body_and_is_no_failure() {
    let runner = TestRunner::obeying();
    let id = runner.ask("then 700 then 50 body");
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.attempt, job.failures, job.retries_requested), ("completed", 3, 0, 2));
    assert_eq!(job.result, Some(json!("body: body")), "the last attempt saw the last changed body");
    let waited = job.started_at.expect("it started") - job.enqueued_at;
    assert!(waited >= 750, "{waited} ms");
    assert_eq!(job.body.as_deref(), Some(r#"{"do":"then 700 then 50 body"}"#), "the original is kept");
}

#[test]
fn job_that_asked_for_a_retry_is_scheduled_until_then() {
    let runner = TestRunner::obeying();
    let id = runner.ask("then 3600000 complete");
    let job = runner.until(&id, "scheduled");
    let wait = job.run_at.expect("it is due some time") - job.enqueued_at;
    assert!((3_600_000..3_660_000).contains(&wait), "{wait} ms");
    assert_eq!((job.attempt, job.retries_requested), (1, 1));
}

#[test]
fn retry_without_a_delay_comes_after_the_backoff() {
    let manifest = "[retry]\nmax_attempts = 3\nbackoff = { first = '300ms', factor = 2, max = '1m', jitter = 0 }";
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", manifest).start();
    let job = runner.ended(&runner.ask("retry-plain"));
    assert_eq!((job.kind(), job.attempt, job.failures), ("out-of-attempts", 3, 0));
    let waited = job.started_at.expect("it started") - job.enqueued_at;
    assert!(waited >= 900, "{waited} ms, of 300 and 600");
}

#[test]
fn job_may_not_ask_for_retries_longer_than_expire_after() {
    let manifest = "[retry]\nexpire_after = '500ms'\nbackoff = { first = '50ms', factor = 1, max = '50ms' }";
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", manifest).start();
    let job = runner.ended(&runner.ask("retry-plain"));
    assert_eq!((job.state.as_str(), job.kind(), job.failures), ("dead", "expired", 0));
    assert!(job.attempt > 1, "{job:?}");
    assert!(job.ended_at.expect("it ended") - job.enqueued_at >= 500, "{job:?}");
}

// === types ===

#[test]
fn job_without_a_handler_is_parked_and_runs_when_it_arrives() {
    let runner = TestRunner::obeying();
    let id = runner.enqueue("late", r#"{"do":"job"}"#);
    let job = runner.until(&id, "parked");
    assert_eq!((job.attempt, job.started_at), (0, None));
    runner.put_guest("late", "obedient");
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.attempt), ("completed", 1));
}

#[test]
fn job_without_a_handler_is_buried_after_park_for() {
    let runner = TestRunner::new().config("queue.park_for = '1s'").start();
    let job = runner.ended(&runner.enqueue("nobody", "{}"));
    assert_eq!((job.state.as_str(), job.kind(), job.attempt), ("dead", "expired", 0));
}

#[test]
fn handler_for_every_other_type_takes_what_no_handler_claims() {
    let runner = TestRunner::new()
        .handler("obey", "obedient")
        .handler("others", "obedient")
        .manifest("others", "job_types = ['*']\ntimeout = '5s'")
        .start();
    let timeout = |job_type: &str| -> (Value, Value) {
        let seen = runner.ended(&runner.enqueue(job_type, r#"{"do":"job"}"#)).result.expect("the guest answered");
        (seen["job-type"].clone(), seen["timeout-ms"].clone())
    };
    assert_eq!(timeout("anything"), (json!("anything"), json!(5_000)));
    assert_eq!(timeout("wörld / 2"), (json!("wörld / 2"), json!(5_000)));
    assert_eq!(timeout("obey"), (json!("obey"), json!(30_000)));
}

#[test]
fn handler_serves_every_type_of_its_manifest_and_not_its_name() {
    let runner =
        TestRunner::new().handler("images", "obedient").manifest("images", "job_types = ['resize', 'crop']").start();
    for job_type in ["resize", "crop"] {
        let job = runner.ended(&runner.enqueue(job_type, r#"{"do":"job"}"#));
        assert_eq!(job.result.expect("the guest answered")["job-type"], job_type);
    }
    assert!(runner.is(&runner.enqueue("images", "{}"), "parked"));
}

// === ids, times ===

#[test]
fn same_id_twice_is_one_job() {
    let send = |runner: &TestRunner| runner.enqueueing("obey", r#"{"do":"complete"}"#).named("once").send();
    let runner = TestRunner::new();
    let (first, second) = (send(&runner), send(&runner));
    assert_eq!((first.id.as_str(), first.duplicate), ("once", false));
    assert_eq!((second.id.as_str(), second.duplicate), ("once", true));
    let runner = runner.handler("obey", "obedient").start();
    assert_eq!(runner.ended("once").attempt, 1);
    assert!(send(&runner).duplicate, "a job that ended within the last day is still the same");
    assert_eq!(runner.jobs(&[]).len(), 1);
}

#[test]
fn job_id_in_the_body_is_the_job_s_id() {
    let runner = TestRunner::new();
    let lines =
        "{\"job_type\":\"a\",\"job_id\":\"x-1\"}\n{\"job_type\":\"a\",\"job_id\":\"x-1\"}\n{\"job_type\":\"a\"}\n";
    let enqueued = runner.enqueue_lines(lines, &[]);
    assert_eq!(enqueued.iter().map(|job| job.duplicate).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(runner.job("x-1").id, "x-1");
    assert_eq!(runner.jobs(&[]).len(), 2);
}

#[test]
fn job_for_later_is_scheduled_and_runs_then() {
    let runner = TestRunner::obeying();
    let asked_at = now_ms();
    let id = runner.enqueueing("obey", r#"{"do":"complete"}"#).after("1500ms").id();
    let job = runner.job(&id);
    assert_eq!((job.state.as_str(), job.attempt), ("scheduled", 0));
    let due = job.run_at.expect("it is due some time");
    assert!(due >= asked_at + 1_500);
    let job = runner.ended(&id);
    assert!(job.started_at.expect("it started") >= due, "{job:?}");
}

// === --until-empty ===

#[test]
fn run_until_empty_works_what_is_due_and_lists_what_waits() {
    let mut runner = TestRunner::new().handler("obey", "obedient");
    let ended = [runner.ask("complete"), runner.ask("reject")];
    let again = runner.ask("then 3600000 complete");
    let later = runner.enqueueing("obey", r#"{"do":"complete"}"#).after("1h").id();
    let parked: Vec<String> = (0..3).map(|_| runner.enqueue("nobody", "{}")).collect();
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
    for (id, state) in ended.iter().zip(["completed", "dead"]) {
        assert!(runner.is(id, state), "{:?}", runner.job(id));
    }
    // Nobody serves a type any more, but what is parked and what is scheduled was told apart before.
    assert_eq!((runner.job(&again).attempt, runner.job(&later).attempt), (1, 0));
    assert!(parked.iter().all(|id| runner.job(id).attempt == 0));
    runner.said_once("`obey` that stay scheduled: 2");
    runner.said_once("`nobody` that stay parked: 3");
}

#[test]
fn run_until_empty_ends_at_once_on_an_empty_queue() {
    let mut runner = TestRunner::new();
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
}

#[test]
fn runner_that_is_not_enabled_works_nothing() {
    let mut runner = TestRunner::new().handler("obey", "obedient").config("enabled = false");
    let id = runner.ask("complete");
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
    assert_eq!(runner.job(&id).attempt, 0);
    runner.said_once("`enabled` is false");
}

// === many ===

#[test]
fn many_jobs_of_many_types_all_complete_once() {
    let mut runner = TestRunner::new().handler("others", "obedient").manifest("others", "job_types = '*'");
    let line = |n: u32| format!("{{\"job_type\":\"type-{}\",\"do\":\"result {n}\"}}\n", n % 37);
    let enqueued = runner.enqueue_lines((0..3_000).map(line).collect::<String>(), &[]);
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
    let jobs = runner.jobs(&["--state", "completed"]);
    assert_eq!(jobs.len(), enqueued.len());
    assert!(jobs.iter().all(|job| job.attempt == 1), "none ran twice");
}

#[test]
fn slow_jobs_of_one_type_do_not_keep_another_waiting() {
    let runner = TestRunner::new()
        .handler("obey", "obedient")
        .handler("slow", "obedient")
        .manifest("slow", "concurrency = 2\ntimeout = '50s'")
        .start();
    let slow: Vec<String> = (0..20).map(|_| runner.enqueue("slow", r#"{"do":"begin-spin"}"#)).collect();
    eventually!(runner.says("begun") == 2);
    let job = runner.ended(&runner.ask("complete"));
    let waited = Duration::from_millis((job.ended_at.expect("it ended") - job.enqueued_at).unsigned_abs());
    assert!(waited < Duration::from_secs(40), "{waited:?}");
    assert_eq!(runner.says("begun"), 2, "its concurrency bounds how many run");
    assert!(slow.iter().all(|id| runner.job(id).ended_at.is_none()));
}

#[test]
fn handlers_with_a_backlog_share_the_slots_by_weight() {
    let mut runner = TestRunner::new()
        .handler("heavy", "obedient")
        .manifest("heavy", "weight = 3\nconcurrency = 20")
        .handler("light", "obedient")
        .manifest("light", "concurrency = 20")
        .config("slots = 1");
    for job_type in ["light", "heavy"] {
        let jobs = format!("{{\"job_type\":\"{job_type}\",\"do\":\"work 5\"}}\n").repeat(80);
        runner.enqueue_lines(jobs, &[]);
    }
    runner.restart(&["--until-empty"]);
    assert!(runner.wait().success());
    let mut jobs = runner.jobs(&["--state", "completed"]);
    jobs.sort_by_key(|job| job.started_at);
    assert_eq!(jobs.len(), 160);
    // One is loaded before the other.
    let both = jobs.iter().position(|job| job.job_type.as_deref() == Some("heavy")).unwrap();
    let heavy = jobs[both..][..40].iter().filter(|job| job.job_type.as_deref() == Some("heavy")).count();
    assert!((24..=36).contains(&heavy), "{heavy} of 40 where 30 are due");
}

#[test]
fn jobs_that_take_their_full_timeout_starve_no_others() {
    let runner = TestRunner::new()
        .handler("slow", "obedient")
        .manifest("slow", "timeout = '500ms'")
        .handler("quick", "obedient")
        .config("slots = 2")
        .start();
    let line = |job_type: &str, what: &str| format!("{{\"job_type\":\"{job_type}\",\"do\":\"{what}\"}}\n");
    runner.enqueue_lines(line("slow", "spin").repeat(60) + &line("quick", "complete").repeat(60), &[]);
    eventually!(runner.count("completed") == 60);
    assert!(runner.count("dead") < 30, "{} slow jobs are over", runner.count("dead"));
}
