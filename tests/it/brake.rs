//! The brake: a new generation that fails every job in one way is paused before it has emptied the backlog into dead letters.

use std::collections::BTreeSet;

use crate::eventually;
use crate::reload::variant;
use crate::support::{Seen, TestRunner, guests};

/// So many failures of one kind brake a generation.
const FAILURES: u64 = 20;

/// How many attempts run at a time here: those that ran already when the brake came on may fail too.
const SLOTS: u64 = 4;

const PAUSED: &str = "handler `obey` is paused";

/// A runner whose handler `obey` has completed a job.
fn proven(config: &str) -> TestRunner {
    let runner = TestRunner::new().handler("obey", "obedient").config(&format!("slots = {SLOTS}\n{config}")).start();
    completes(&runner);
    runner
}

fn completes(runner: &TestRunner) -> Seen {
    let job = runner.ended(&runner.ask("complete"));
    assert_eq!(job.state, "completed", "{job:?}");
    job
}

/// The same handler, of which every job traps that should complete.
fn bad() -> Vec<u8> {
    traps_at("complete")
}

/// The same handler, which no longer knows a word, and traps at it.
fn traps_at(word: &str) -> Vec<u8> {
    let text = guests::text("obedient").replace(&format!("\"{word}\")"), "\"unheard-of\")");
    guests::encoded(&guests::module(&text, &guests::contract(), "job-handler"))
}

fn good() -> Vec<u8> {
    variant(&guests::guest("obedient"), "good again")
}

fn enqueue(runner: &TestRunner, jobs: usize) {
    let lines = "{\"job_type\":\"obey\",\"do\":\"complete\"}\n".repeat(jobs);
    assert_eq!(runner.enqueue_lines(lines, &[]).len(), jobs);
}

/// Waits until the handler is paused, and all of these jobs that are not dead wait; answers how many are dead.
fn until_paused(runner: &TestRunner, jobs: u64) -> u64 {
    eventually!(runner.says(PAUSED) > 0);
    eventually!(runner.count("parked") + runner.count("dead") == jobs);
    runner.count("dead")
}

#[test]
fn bad_generation_is_paused_under_a_backlog_and_a_good_one_works_it_off() {
    const JOBS: u64 = 3_000;
    let runner = proven("");
    runner.put("obey.wasm", &bad());
    eventually!(runner.says("handler `obey` loaded") == 2);
    enqueue(&runner, JOBS as usize);
    let dead = until_paused(&runner, JOBS);
    assert!((FAILURES..=FAILURES + SLOTS).contains(&dead), "{dead} dead letters");
    let said = runner.said_once(PAUSED);
    for word in ["trap", "sandhog handlers rollback obey", "sandhog handlers resume obey"] {
        assert!(said.contains(word), "{said}");
    }
    let more = runner.ask("complete");
    assert_eq!(runner.until(&more, "parked").attempt, 0, "its types are paused");
    runner.put("obey.wasm", &good());
    eventually!(runner.count("completed") == 1 + JOBS - dead + 1);
    assert_eq!((runner.count("dead"), runner.count("parked")), (dead, 0));
    for job in runner.jobs(&["--state", "completed"]) {
        assert_eq!(job.attempt, 1, "to be parked is no attempt: {job:?}");
    }
    assert_eq!(runner.says(PAUSED), 1);
}

#[test]
fn paused_type_is_left_alone_by_a_handler_of_all_others_here_and_elsewhere() {
    let runner = proven("").manifest("all", "job_types = '*'").handler("all", "obedient");
    let second = runner.beside("handlers-2").manifest("all", "job_types = '*'").handler("all", "obedient").start();
    runner.put("obey.wasm", &bad());
    eventually!(runner.says("handler `obey` loaded") == 2 && runner.says("handler `all` loaded") == 1);
    enqueue(&runner, 200);
    let dead = until_paused(&runner, 200);
    assert!(dead <= FAILURES + SLOTS, "{dead} dead letters");
    // What comes behind them is worked, so that they would have been.
    let other = runner.ended(&runner.enqueue("other", r#"{"do":"complete"}"#));
    assert_eq!(other.state, "completed");
    assert_eq!(second.count("parked"), 200 - dead);
    runner.put("obey.wasm", &good());
    eventually!(runner.count("completed") == 2 + 200 - dead);
}

#[test]
fn brake_holds_over_restarts_and_lists_its_jobs_when_the_queue_is_empty_otherwise() {
    let mut runner = proven("");
    runner.stop();
    // The usual way to bring a new version: replace the file, and start.
    runner.put("obey.wasm", &bad());
    runner.enqueue("obey", r#"{"do":"complete"}"#);
    enqueue(&runner, 500);
    runner.spawn(&["--until-empty"]);
    assert!(runner.wait().success());
    let dead = runner.count("dead");
    assert!((FAILURES..=FAILURES + SLOTS).contains(&dead), "{dead} dead letters");
    runner.said_once("`obey` that stay parked: ");
    for start in 2..=3 {
        runner.restart(&[]);
        assert_eq!(runner.says(PAUSED), start, "each start says it");
        assert_eq!(until_paused(&runner, 501), dead, "not one more");
        runner.kill();
    }
    runner.put("obey.wasm", &good());
    runner.restart(&[]);
    eventually!(runner.count("completed") == 1 + 501 - dead);
}

#[test]
fn brake_that_is_turned_off_pauses_nothing() {
    let runner = proven("[handlers]\nbrake = false");
    runner.put("obey.wasm", &bad());
    eventually!(runner.says("handler `obey` loaded") == 2);
    enqueue(&runner, 200);
    eventually!(runner.count("dead") == 200);
    assert_eq!(runner.says(PAUSED), 0);
}

#[test]
fn generation_that_fails_in_different_ways_is_not_braked() {
    let runner = proven("");
    runner.put("obey.wasm", &bad());
    eventually!(runner.says("handler `obey` loaded") == 2);
    runner.ended(&runner.ask("err"));
    runner.ended(&runner.ask("trap"));
    enqueue(&runner, 200);
    eventually!(runner.count("dead") == 202);
    assert_eq!(runner.says(PAUSED), 0);
}

#[test]
fn generation_whose_predecessor_never_completed_is_not_braked() {
    let runner = TestRunner::new().start();
    runner.put("obey.wasm", &bad());
    enqueue(&runner, 100);
    eventually!(runner.count("dead") == 100);
    runner.put("obey.wasm", &variant(&bad(), "second"));
    eventually!(runner.says("handler `obey` loaded") == 2);
    enqueue(&runner, 100);
    eventually!(runner.count("dead") == 200);
    assert_eq!(runner.says(PAUSED), 0);
}

#[test]
fn second_bad_generation_is_braked_too_and_the_first_stays_so() {
    let runner = proven("");
    let mut dead = 0;
    for (round, name) in (1..).zip(["first", "second"]) {
        runner.put("obey.wasm", &variant(&bad(), name));
        eventually!(runner.says("handler `obey` loaded") == 1 + round);
        enqueue(&runner, 300);
        eventually!(runner.says(PAUSED) == round);
        eventually!(runner.count("parked") + runner.count("dead") == 300 * round as u64);
        assert!(runner.count("dead") <= dead + FAILURES + SLOTS);
        dead = runner.count("dead");
    }
    runner.put("obey.wasm", &variant(&bad(), "first"));
    eventually!(runner.says("handler `obey` loaded") == 4);
    let waits = runner.ask("complete");
    assert!(runner.is(&waits, "parked"));
    runner.put("obey.wasm", &good());
    assert_eq!(runner.ended(&waits).state, "completed");
    eventually!(runner.count("parked") == 0);
    assert_eq!(runner.count("dead"), dead);
}

#[test]
fn old_generation_that_comes_back_is_worked_at_once() {
    let runner = proven("");
    runner.put("obey.wasm", &bad());
    eventually!(runner.says("handler `obey` loaded") == 2);
    enqueue(&runner, 300);
    let dead = until_paused(&runner, 300);
    runner.put_guest("obey", "obedient");
    eventually!(runner.count("completed") == 1 + 300 - dead);
    let generations: BTreeSet<_> =
        runner.jobs(&["--state", "completed"]).into_iter().filter_map(|job| job.generation).collect();
    assert_eq!(generations.len(), 1);
}

#[test]
fn handler_that_a_person_paused_waits_over_reloads_and_restarts_until_it_is_resumed() {
    let mut runner = TestRunner::obeying();
    runner.ended(&runner.ask("complete"));
    assert!(runner.sandhog(&["handlers", "pause", "obey"]).status.success());
    eventually!(runner.says("handler `obey` is paused: its jobs wait") == 1);
    let waits = runner.ask("complete");
    eventually!(runner.is(&waits, "parked"));
    runner.put("obey.wasm", &variant(&guests::guest("obedient"), "next"));
    eventually!(runner.says("handler `obey` loaded") == 2);
    runner.stop();
    runner.restart(&[]);
    // What is enqueued for another handler is worked meanwhile.
    runner.put_guest("other", "obedient");
    runner.ended(&runner.enqueue("other", r#"{"do":"complete"}"#));
    assert!(runner.is(&waits, "parked"));
    let listed = runner.sandhog(&["handlers", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(r#""state":"paused""#));
    assert!(runner.sandhog(&["handlers", "resume", "obey"]).status.success());
    assert_eq!(runner.ended(&waits).state, "completed");
    assert!(!runner.sandhog(&["handlers", "resume", "obey"]).status.success(), "there is nothing to resume");
}
