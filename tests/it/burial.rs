//! How jobs fail and end as dead letters, and what people do about them.

use crate::support::TestRunner;

/// A manifest of three failures with a short backoff.
const THREE_FAILURES: &str = "timeout = '500ms'\n[retry]\nmax_failures = 3\n\
    backoff = { first = '100ms', factor = 2, max = '10s', jitter = 0 }\n";

/// Commands of the obedient guest, the kind that each fails with, and what its message says.
const FAILURES: [(&str, &str, &str); 7] = [
    ("err", "error", "boom"),
    ("trap", "trap", "unreachable"),
    ("divide", "trap", "divide by zero"),
    ("recurse", "trap", "stack"),
    ("grow 4096", "out-of-memory", "asked for"),
    ("table 1000000", "limit:table-elements", "asked for"),
    ("fill 2000000", "limit:result-bytes", "of"),
];

// === failures ===

#[test]
fn failure_takes_the_job_off_the_queue_with_its_kind() {
    let runner = TestRunner::obeying();
    let jobs: Vec<String> = FAILURES.iter().map(|(command, ..)| runner.ask(command)).collect();
    for (id, (command, kind, why)) in jobs.iter().zip(FAILURES) {
        let job = runner.ended(id);
        assert_eq!((job.state.as_str(), job.kind(), job.attempt, job.failures), ("dead", kind, 1, 1), "{command}");
        assert!(job.why().contains(why), "{command}: {}", job.why());
    }
    assert_eq!(runner.dead().len(), FAILURES.len());
}

#[test]
fn failure_is_retried_with_backoff_and_buried_with_the_history_of_its_attempts() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", THREE_FAILURES).start();
    let jobs: Vec<String> = FAILURES.iter().map(|(command, ..)| runner.ask(command)).collect();
    for (id, (command, kind, why)) in jobs.iter().zip(FAILURES) {
        let job = runner.ended(id);
        assert_eq!((job.state.as_str(), job.kind(), job.attempt, job.failures), ("dead", kind, 3, 3), "{command}");
        let numbers: Vec<u32> = job.failed_attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!((numbers, job.failed_attempts_omitted), (vec![1, 2, 3], 0), "{command}");
        for attempt in &job.failed_attempts {
            let failure = attempt.failure.as_ref().expect("it failed");
            assert!(failure.kind == kind && failure.message.contains(why), "{command}: {failure:?}");
            assert!(attempt.generation.len() == 12 && attempt.duration_us > 0, "{command}: {attempt:?}");
        }
        let starts: Vec<i64> = job.failed_attempts.iter().map(|attempt| attempt.started_at).collect();
        assert!(starts[1] - starts[0] >= 100 && starts[2] - starts[1] >= 200, "{command}: {starts:?}");
    }
}

#[test]
fn attempt_that_takes_too_long_is_a_failure() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", THREE_FAILURES).start();
    let job = runner.ended(&runner.ask("spin"));
    assert_eq!((job.kind(), job.attempt, job.failures), ("timeout", 3, 3));
    assert!(job.why().contains("500 ms"), "{}", job.why());
    assert!(job.failed_attempts.iter().all(|attempt| attempt.duration_us >= 500_000), "{job:?}");
}

#[test]
fn guest_stands_under_the_limits_of_its_manifest() {
    let runner = TestRunner::new()
        .handler("small", "obedient")
        .manifest("small", "memory = '1MiB'")
        .handler("large", "obedient")
        .start();
    let of = |job_type: &str| runner.ended(&runner.enqueue(job_type, r#"{"do":"grow 32"}"#));
    assert_eq!(of("large").state, "completed");
    assert_eq!(of("small").kind(), "out-of-memory");
}

#[test]
fn job_that_fails_and_then_works_is_complete() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", THREE_FAILURES).start();
    let job = runner.ended(&runner.ask("until 3 trap"));
    assert_eq!((job.state.as_str(), job.attempt, job.failures), ("completed", 3, 2));
    assert!(runner.dead().is_empty());
}

#[test]
fn history_of_attempts_is_bounded() {
    let manifest = "[retry]\nmax_failures = 20\nbackoff = { first = '1ms', factor = 1, max = '1ms' }";
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", manifest).start();
    let job = runner.ended(&runner.ask("err"));
    assert_eq!((job.attempt, job.failures), (20, 20));
    let numbers: Vec<u32> = job.failed_attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert_eq!(job.failed_attempts_omitted, 7);
}

#[test]
fn rejected_job_is_buried_at_once_whatever_the_policy() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", THREE_FAILURES).start();
    let job = runner.ended(&runner.ask("reject"));
    assert_eq!((job.state.as_str(), job.kind(), job.why(), job.attempt), ("dead", "rejected", "never", 1));
}

#[test]
fn failures_of_one_job_do_not_touch_the_next() {
    let runner =
        TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '1s'\nconcurrency = 1").start();
    let bad: Vec<String> = ["trap", "spin", "grow 4096", "recurse", "flood", "bad-text"]
        .iter()
        .map(|command| runner.ask(command))
        .collect();
    let good = runner.ask("seen");
    let job = runner.ended(&good);
    assert_eq!(job.result, Some(serde_json::json!(0)), "its instance was its own");
    for id in &bad {
        assert_eq!(runner.ended(id).state, "dead");
    }
}

// === malformed ===

#[test]
fn malformed_lines_become_dead_letters_with_their_exact_bytes() {
    let runner = TestRunner::obeying();
    let bad: [(&[u8], &str); 6] = [
        (b"not json", "not JSON"),
        (b"{\"job_type\":\"a\xff\xfe\"}", "not UTF-8"),
        (b"[1, 2]", "not a JSON object"),
        (b"{\"type\":\"a\"}", "no `job_type`"),
        (b"{\"job_type\":\"\"}", "is empty"),
        (b"\x00\x01\x02 \t{}", "not JSON"),
    ];
    let good = b"{\"job_type\":\"obey\",\"do\":\"complete\"}";
    let lines: Vec<&[u8]> = bad.iter().map(|(bytes, _)| *bytes).chain([good.as_slice()]).collect();
    let enqueued = runner.enqueue_lines(lines.join(&b'\n'), &["--bury-bad"]);
    for (enqueued, (bytes, why)) in enqueued.iter().zip(bad) {
        let job = runner.job(&enqueued.id);
        assert_eq!((job.state.as_str(), job.kind(), job.attempt, &job.job_type), ("dead", "malformed", 0, &None));
        assert!(job.why().contains(why), "{}", job.why());
        assert_eq!(runner.body(&enqueued.id), bytes);
    }
    assert_eq!(runner.ended(&enqueued[bad.len()].id).state, "completed");
}

#[test]
fn body_over_the_limit_is_malformed() {
    let runner = TestRunner::new().config("limits.body = '1KiB'");
    let line = format!("{{\"job_type\":\"a\",\"x\":\"{}\"}}", "x".repeat(1_024));
    let enqueued = runner.enqueue_lines(&line, &["--bury-bad"]);
    let job = runner.job(&enqueued[0].id);
    assert_eq!((job.state.as_str(), job.kind()), ("dead", "malformed"));
    assert_eq!(runner.body(&job.id), line.as_bytes());
}

#[test]
fn malformed_dead_letter_cannot_be_requeued() {
    let runner = TestRunner::new();
    let id = runner.enqueue_lines("nonsense", &["--bury-bad"]).remove(0).id;
    assert!(!runner.sandhog(&["dead", "requeue", &id]).status.success());
    let job = runner.job(&id);
    assert_eq!((job.state.as_str(), job.kind(), job.requeues), ("dead", "malformed", 0));
}

// === dead letters and people ===

#[test]
fn dead_letter_says_all_that_is_known() {
    let runner = TestRunner::obeying();
    let body = r#"{"do":"then 10 trap"}"#;
    let id = runner.enqueueing("obey", body).named("order-9").header("tenant=blue").id();
    let letter = runner.ended(&id);
    assert_eq!((letter.id.as_str(), letter.job_type.as_deref()), ("order-9", Some("obey")));
    assert_eq!((letter.attempt, letter.failures, letter.retries_requested, letter.requeues), (2, 1, 1, 0));
    assert_eq!(letter.source, serde_json::json!({ "queue": "sandhog.db" }));
    assert!(letter.metadata.contains(&("header.tenant".into(), "blue".into())), "{:?}", letter.metadata);
    assert_eq!(letter.body.as_deref(), Some(body), "as it was enqueued");
    assert_eq!(letter.changed_body.as_deref(), Some("trap"));
    let [attempt] = letter.failed_attempts.as_slice() else { panic!("{letter:?}") };
    assert_eq!((attempt.number, &attempt.failure), (2, &letter.failure));
    let buried_at = letter.ended_at.expect("it ended");
    assert!(letter.enqueued_at <= attempt.started_at && attempt.started_at <= buried_at, "{letter:?}");
    let listed = runner.dead();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id.as_str(), &listed[0].failure), ("order-9", &letter.failure));
}

#[test]
fn requeued_job_starts_anew_but_for_its_id_and_its_attempts() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "retry.max_attempts = 4").start();
    let id = runner.ask("until 3 err");
    for (attempt, requeues) in [(1, 0), (2, 1)] {
        let job = runner.until(&id, "dead");
        assert_eq!((job.attempt, job.failures, job.requeues), (attempt, 1, requeues));
        runner.stdout(&["dead", "requeue", &id]);
        // It is dead again, or complete, only after it ran.
        crate::eventually!(runner.job(&id).attempt > attempt);
    }
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.attempt, job.failures, job.requeues), ("completed", 3, 0, 2));
    assert!(runner.dead().is_empty());
}

#[test]
fn requeued_job_has_a_new_clock() {
    let manifest = "[retry]\nexpire_after = '300ms'\nbackoff = { first = '400ms', factor = 1, max = '400ms' }";
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", manifest).start();
    let id = runner.ask("retry-plain");
    let first = runner.until(&id, "dead");
    assert_eq!(first.kind(), "expired");
    runner.stdout(&["dead", "requeue", &id]);
    let again = crate::eventually!(Some(runner.job(&id)).filter(|job| job.state == "dead" && job.requeues == 1));
    assert!(again.attempt >= first.attempt + 2, "it could ask for a retry again: {again:?}");
}

#[test]
fn deleted_dead_letter_is_gone() {
    let runner = TestRunner::obeying();
    let (gone, kept) = (runner.ask("trap"), runner.ask("err"));
    runner.until(&gone, "dead");
    runner.until(&kept, "dead");
    runner.stdout(&["dead", "delete", "--kind", "trap", "--dry-run"]);
    assert_eq!(runner.dead().len(), 2, "a dry run changes nothing");
    runner.stdout(&["dead", "delete", "--kind", "trap"]);
    assert_eq!(runner.dead().iter().map(|letter| letter.id.clone()).collect::<Vec<_>>(), [kept]);
    assert!(!runner.sandhog(&["jobs", "show", &gone]).status.success());
}

// === what stands in the log ===

#[test]
fn guest_s_lines_stand_in_the_log_beside_their_job_and_its_body_does_not() {
    let mut runner =
        TestRunner::new().handler("obey", "obedient").config("log.level = 'warn,sandhog=trace,guest=trace'").start();
    let secret = "c0ffee-5ec2e7";
    let ids = ["log 2", "trap", "retry", "result 1"]
        .map(|command| runner.enqueue("obey", &format!(r#"{{"do":"{command}","password":"{secret}"}}"#)));
    runner.ended(&ids[0]);
    runner.ended(&ids[1]);
    runner.ended(&ids[3]);
    runner.enqueue_lines(secret, &["--bury-bad"]);
    runner.stop();
    let log = runner.log();
    let lines: Vec<_> = log.iter().filter(|line| line["target"] == "guest" && line["job.id"] == ids[0]).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert_eq!(
            (&line["message"], &line["job.type"], &line["attempt"]),
            (&"a line".into(), &"obey".into(), &1.into())
        );
        assert!(line["handler.generation"].is_string(), "{line}");
    }
    assert!(!log.iter().any(|line| line.to_string().contains(secret)));
}
