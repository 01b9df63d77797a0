//! Drains, kills, and who takes over. Whatever ends a runner, no job is lost and none is blamed for it.

use crate::eventually;
use crate::support::{Seen, TestRunner, now_ms};

/// What a runner's lease on its jobs would make the others wait, in milliseconds: take-over must not depend on it.
const LEASE_MS: i64 = 30_000;

/// Attempts that end only with their runner, unless a test takes a minute.
const PATIENT: &str = "timeout = '10m'";

fn patient() -> TestRunner {
    TestRunner::new().handler("obey", "obedient").manifest("obey", PATIENT)
}

/// How often the guests of this job said that they began.
fn begun(runner: &TestRunner, id: &str) -> usize {
    runner.log().iter().filter(|line| line["message"] == "begun" && line["job.id"] == id).count()
}

/// What an interruption leaves behind.
fn assert_interrupted(job: &Seen, times: u32) {
    assert_eq!((job.attempt, job.failures, job.interruptions), (times, 0, times), "{job:?}");
    assert!(job.ended_at.is_none() && job.failed_attempts.is_empty(), "{job:?}");
}

// === drains ===

#[test]
fn sigterm_lets_the_running_job_complete_and_starts_no_other() {
    let mut runner =
        TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '10m'\nconcurrency = 1").start();
    let running = runner.ask("work 2000");
    let waiting: Vec<String> = (0..5).map(|_| runner.ask("complete")).collect();
    eventually!(begun(&runner, &running) == 1);
    runner.terminate();
    assert!(runner.wait().success());
    runner.said_once("draining: 1 running jobs");
    let job = runner.job(&running);
    assert_eq!((job.state.as_str(), job.attempt), ("completed", 1));
    for id in waiting {
        let job = runner.job(&id);
        assert_eq!((job.attempt, job.ended_at), (0, None), "{job:?}");
    }
}

#[test]
fn runner_without_work_ends_at_once() {
    let mut runner = patient().start();
    assert!(runner.stop().success());
    runner.said_once("stopped");
}

#[test]
fn drain_timeout_releases_what_still_runs_which_is_no_failure() {
    let mut runner = patient().start_with(&["--drain-timeout", "300ms"]);
    let id = runner.ask("until 2 begin-spin");
    eventually!(begun(&runner, &id) == 1);
    assert!(runner.stop().success());
    runner.said_once("the drain timeout is over");
    assert_interrupted(&runner.job(&id), 1);
    runner.restart(&[]);
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.attempt, job.failures), ("completed", 2, 0));
}

#[test]
fn second_signal_stops_at_once() {
    let mut runner = patient().start_with(&["--drain-timeout", "10m"]);
    let id = runner.ask("begin-spin");
    eventually!(begun(&runner, &id) == 1);
    runner.terminate();
    eventually!(runner.says("draining: ") == 1);
    runner.terminate();
    assert!(runner.wait().success());
    runner.said_once("told to stop at once");
    assert_interrupted(&runner.job(&id), 1);
}

#[test]
fn interruptions_do_not_count_towards_max_attempts() {
    let mut runner = TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", "timeout = '10m'\n[retry]\nmax_attempts = 2")
        .start_with(&["--drain-timeout", "1ms"]);
    // Spins at first, and asks for a retry once it was interrupted: its second attempt of its own will.
    let id = runner.ask("then 1 until 3 begin-spin");
    eventually!(begun(&runner, &id) == 1);
    runner.stop();
    runner.restart(&[]);
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.attempt, job.interruptions), ("completed", 3, 1));
}

// === kills ===

#[test]
fn killed_runner_loses_nothing_and_its_jobs_run_again_at_once() {
    let mut runner = patient().start();
    let done: Vec<String> = (0..20).map(|_| runner.ask("complete")).collect();
    done.iter().for_each(|id| assert_eq!(runner.ended(id).attempt, 1));
    let interrupted: Vec<String> = (0..3).map(|_| runner.ask("until 2 begin-spin")).collect();
    eventually!(interrupted.iter().all(|id| begun(&runner, id) == 1));
    let scheduled = runner.enqueueing("obey", r#"{"do":"complete"}"#).after("1h").id();
    let parked = runner.enqueue("nobody", "{}");
    runner.kill();
    let while_down = runner.ask("complete");

    let restarted_at = now_ms();
    runner.restart(&[]);
    for id in &interrupted {
        let job = runner.ended(id);
        assert_eq!((job.state.as_str(), job.attempt, job.failures, job.interruptions), ("completed", 2, 0, 1));
        let waited = job.started_at.expect("it started") - restarted_at;
        assert!(waited < LEASE_MS / 2, "{waited} ms");
    }
    assert_eq!(runner.ended(&while_down).attempt, 1);
    assert!(done.iter().all(|id| runner.job(id).attempt == 1), "what was complete does not run again");
    assert!(runner.is(&scheduled, "scheduled") && runner.is(&parked, "parked"));
    assert_eq!(runner.jobs(&[]).len(), done.len() + interrupted.len() + 3);
}

#[test]
fn kills_under_load_lose_no_job() {
    let mut runner = patient();
    let line = "{\"job_type\":\"obey\",\"do\":\"work 1\"}\n";
    let enqueued = runner.enqueue_lines(line.repeat(2_000), &[]).len() as u64;
    for _ in 0..2 {
        let before = runner.count("completed");
        runner.restart(&[]);
        eventually!(runner.count("completed") > before);
        runner.kill();
    }
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
    let jobs = runner.jobs(&[]);
    assert_eq!(jobs.len() as u64, enqueued);
    for job in &jobs {
        // Nor is any suspect: none can have died alone.
        assert!(job.state == "completed" && job.failures == 0 && job.attempt <= 3, "{job:?}");
    }
}

#[test]
fn enqueued_job_survives_a_kill_of_whoever_works() {
    let mut runner = patient().start();
    for round in 0..3 {
        let id = runner.enqueueing("obey", r#"{"do":"complete"}"#).named(&format!("job-{round}")).id();
        runner.kill();
        assert!(!runner.job(&id).state.is_empty());
        runner.restart(&[]);
    }
    for round in 0..3 {
        assert_eq!(runner.ended(&format!("job-{round}")).state, "completed");
    }
}

#[test]
fn second_runner_takes_over_from_a_killed_one() {
    let mut first = patient().start();
    let second = first.beside("handlers-2").handler("obey", "obedient").manifest("obey", PATIENT);
    let jobs: Vec<String> = (0..3).map(|_| first.ask("until 2 begin-spin")).collect();
    eventually!(jobs.iter().all(|id| begun(&first, id) == 1));
    let second = second.start();
    assert_eq!(second.stats()["runners"], 2);
    let killed_at = now_ms();
    first.kill();
    for id in &jobs {
        let job = second.ended(id);
        assert_eq!((job.state.as_str(), job.attempt, job.interruptions), ("completed", 2, 1));
        let waited = job.started_at.expect("it started") - killed_at;
        assert!(waited < LEASE_MS / 2, "{waited} ms");
    }
    assert_eq!(second.stats()["runners"], 1);
}

#[test]
fn two_runners_share_a_queue_and_each_works_only_what_it_serves() {
    let first = TestRunner::new().handler("left", "obedient").handler("both", "obedient").start();
    let second = first.beside("handlers-2").handler("right", "obedient").handler("both", "obedient").start();
    let lines: String = (0..600)
        .map(|n| format!("{{\"job_type\":\"{}\",\"do\":\"complete\"}}\n", ["left", "both", "right"][n % 3]))
        .collect();
    first.enqueue_lines(lines, &[]);
    eventually!(first.count("completed") == 600);
    assert!(second.jobs(&[]).iter().all(|job| job.attempt == 1));
}

// === suspects ===

#[test]
fn job_that_kills_its_runner_again_and_again_ends_alone_as_suspect() {
    let mut runner = patient().config("failures.job_type = 'report'");
    let bad = runner.ask("begin-spin");
    let innocent: Vec<String> = (0..2).map(|_| runner.ask("until 3 begin-spin")).collect();
    // Twice all of them are at work when the runner dies, so that any may have done it.
    for death in 1..=2 {
        runner.restart(&[]);
        eventually!(innocent.iter().chain([&bad]).all(|id| begun(&runner, id) == death));
        runner.kill();
    }
    // Now each runs alone, and one of them dies so.
    runner.restart(&[]);
    eventually!(begun(&runner, &bad) == 3);
    runner.kill();
    runner.restart(&[]);
    let letter = runner.ended(&bad);
    assert_eq!((letter.state.as_str(), letter.kind(), letter.failures), ("dead", "suspect", 0));
    assert_eq!((letter.attempt, letter.interruptions), (3, 3));
    for id in &innocent {
        assert_eq!(runner.ended(id).state, "completed", "{:?}", runner.job(id));
    }
    let reports: Vec<String> = runner.jobs(&["--type", "report"]).into_iter().map(|report| report.id).collect();
    assert_eq!(reports, [format!("{bad}/report/1")], "no handler saw its end, and somebody is told");
}
