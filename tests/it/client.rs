//! Commands that ask the runners that run now, and commands that wait for jobs.

use std::process::Output;

use crate::eventually;
use crate::support::TestRunner;

/// What a command said on stdout and stderr.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command that must fail, and what it says.
#[track_caller]
fn fails(runner: &TestRunner, arguments: &[&str]) -> String {
    let output = runner.sandhog(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

/// A command that must do, and what it says on stdout.
#[track_caller]
fn does(runner: &TestRunner, arguments: &[&str]) -> String {
    String::from_utf8(runner.stdout(arguments)).unwrap()
}

#[test]
fn health_is_of_runners_that_run_and_not_of_those_that_were_killed() {
    let runner = TestRunner::new().handler("obey", "obedient");
    assert!(fails(&runner, &["health"]).contains("no runner runs on the state folder"));
    let mut runner = runner.start();
    let pid = runner.pid().as_raw_nonzero().to_string();
    assert_eq!(does(&runner, &["health"]), format!("{pid}: ok\n"));
    assert_eq!(does(&runner, &["health", "--ready", "--pid", &pid]), format!("{pid}: ok\n"));
    assert!(fails(&runner, &["health", "--pid", "1"]).contains("no runner with process id 1 runs"));
    runner.kill();
    assert!(fails(&runner, &["health"]).contains("no runner runs on the state folder"));
}

#[test]
fn drain_waits_until_what_runs_has_ended_and_the_runner_with_it() {
    let mut runner = TestRunner::obeying();
    runner.ask("begin-spin");
    eventually!(runner.says("begun") == 1);
    does(&runner, &["drain", "--no-wait"]);
    assert!(fails(&runner, &["health", "--ready"]).contains("it drains"));
    assert!(does(&runner, &["health"]).contains("ok"));
    // A second signal breaks off what runs, as ever.
    runner.terminate();
    eventually!(runner.says("signal received") == 1);
    runner.terminate();
    assert!(runner.wait().success());

    runner.restart(&["--drain-timeout", "100ms"]);
    eventually!(runner.says("begun") == 2);
    let told = said(&runner.sandhog(&["drain"]));
    assert!(told.contains(" drains\n") && told.contains(" has ended\n"), "{told}");
    assert!(runner.wait().success());
    assert!(fails(&runner, &["drain"]).contains("no runner runs on the state folder"));
}

#[test]
fn stats_say_what_runners_do_now() {
    let runner = TestRunner::obeying();
    runner.ask("begin-spin");
    eventually!(runner.says("begun") == 1);
    let here = runner.stats()["here"].as_array().unwrap().clone();
    assert_eq!(here.len(), 1, "{here:?}");
    assert_eq!(here[0]["pid"], runner.pid().as_raw_nonzero().get());
    assert_eq!((&here[0]["busy"], &here[0]["in_flight"], &here[0]["draining"]), (&1.into(), &1.into(), &false.into()));
    assert!(does(&runner, &["stats"]).contains("BUSY SLOTS"));
}

#[test]
fn enqueue_waits_for_the_result_and_fails_with_a_dead_letter() {
    let runner = TestRunner::new().handler("obey", "obedient").config("queue.keep_completed = 0").start();
    let wait = |command: &str| {
        let body = format!(r#"{{"do":"{command}"}}"#);
        runner.sandhog(&["enqueue", "--wait", "obey", &body])
    };
    let result = wait("result 5");
    assert!(result.status.success() && result.stdout == b"5\n", "{}", said(&result));
    let nothing = wait("complete");
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{}", said(&nothing));
    let failed = wait("err");
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("is a dead letter: error: boom"), "{}", said(&failed));
    let json = runner.sandhog(&["enqueue", "--wait", "--json", "obey", r#"{"do":"result 7"}"#]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["state"], &json["result"]), (&"completed".into(), &7.into()));
}

#[test]
fn waiting_ends_with_the_job_or_with_patience_and_knows_what_is_gone() {
    let runner = TestRunner::new().handler("obey", "obedient").config("queue.keep_completed = 0").start();
    let id = runner.ask("begin-spin");
    let late = fails(&runner, &["jobs", "wait", &id, "--timeout", "100ms"]);
    assert!(late.contains("has not ended within 100ms"), "{late}");
    assert!(fails(&runner, &["jobs", "wait", "nobody"]).contains("there is no job `nobody`"));
    let waits = std::thread::scope(|scope| {
        let waits = scope.spawn(|| fails(&runner, &["jobs", "wait", &id]));
        runner.stdout(&["jobs", "cancel", &id]);
        waits.join().unwrap()
    });
    assert!(waits.contains("is a dead letter: cancelled"), "{waits}");
    let gone = runner.enqueueing("obey", r#"{"do":"complete"}"#).named("gone").id();
    eventually!(runner.jobs(&[]).iter().all(|job| job.id != gone));
    assert!(fails(&runner, &["jobs", "wait", &gone]).contains("has ended, and is no longer kept"));
}

#[test]
fn cancelled_job_is_a_dead_letter_whether_it_waits_or_runs() {
    let runner = TestRunner::new().handler("obey", "obedient");
    let waits = runner.ask("complete");
    assert!(said(&runner.sandhog(&["jobs", "cancel", &waits])).contains("is cancelled, and a dead letter"));
    assert_eq!(runner.job(&waits).kind(), "cancelled");
    let runner = runner.start();
    let runs = runner.ask("begin-spin");
    eventually!(runner.says("begun") == 1);
    assert!(said(&runner.sandhog(&["jobs", "cancel", &runs])).contains("its runner breaks it off"));
    assert_eq!(runner.ended(&runs).kind(), "cancelled");
    assert!(fails(&runner, &["jobs", "cancel", &runs]).contains("has ended already: it is dead"));
    assert!(fails(&runner, &["jobs", "cancel", "nobody"]).contains("there is no job `nobody`"));
}
