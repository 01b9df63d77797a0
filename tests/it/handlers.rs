//! `sandhog handlers`: rollback, pins and the brake by the command line, with a runner and without.

use std::fs;

use serde_json::Value;

use crate::eventually;
use crate::reload::{serving, until_looked_at, variant};
use crate::support::{TestRunner, guests};

/// What `sandhog handlers --json` says of the handler `obey`.
fn listed(runner: &TestRunner) -> Value {
    let stdout = String::from_utf8(runner.stdout(&["handlers", "list", "--json"])).expect("JSON is text");
    let mut lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    lines.find(|line| line["handler"] == "obey").unwrap_or(Value::Null)
}

/// What a command of the group says, which must go well.
fn handlers(runner: &TestRunner, arguments: &[&str]) -> String {
    let output = runner.sandhog(&[&["handlers"], arguments].concat());
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Why a command of the group fails.
fn refused(runner: &TestRunner, arguments: &[&str]) -> String {
    let output = runner.sandhog(&[&["handlers"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("it is text")
}

fn ask(runner: &TestRunner, jobs: usize) {
    runner.enqueue_lines("{\"job_type\":\"obey\",\"do\":\"complete\"}\n".repeat(jobs), &[]);
}

fn put_variant(runner: &TestRunner, name: &str) {
    runner.put("obey.wasm", &variant(&guests::guest("obedient"), name));
}

/// A runner that served three generations, and their names.
fn of_three() -> (TestRunner, [String; 3]) {
    let runner = TestRunner::obeying();
    let mut names = vec![serving(&runner, "obey")];
    for name in ["second", "third"] {
        put_variant(&runner, name);
        eventually!(serving(&runner, "obey") != names[names.len() - 1]);
        names.push(serving(&runner, "obey"));
    }
    (runner, names.try_into().expect("there are three"))
}

#[test]
fn rollback_is_taken_up_by_a_running_runner_and_held_until_unpin() {
    let (runner, [first, second, third]) = of_three();
    assert_eq!(listed(&runner)["state"], "good");
    let said = handlers(&runner, &["rollback", "obey"]);
    assert!(said.contains(&second), "{said}");
    eventually!(serving(&runner, "obey") == second);
    handlers(&runner, &["rollback", "obey"]);
    eventually!(serving(&runner, "obey") == first);
    assert!(refused(&runner, &["rollback", "obey"]).contains("no generation before"));
    // Whatever lies in the folder.
    put_variant(&runner, "fourth");
    eventually!(runner.says("to which it is pinned: the folder has") > 0);
    until_looked_at(&runner, "marker");
    assert_eq!(serving(&runner, "obey"), first);
    let listed_now = listed(&runner);
    assert_eq!(
        (&listed_now["state"], &listed_now["pinned"], &listed_now["generation"]),
        (&"pinned".into(), &true.into(), &first.clone().into())
    );
    let fourth = listed_now["in_folder"].as_str().expect("something lies there").to_owned();
    assert!(![&first, &second, &third].contains(&&fourth));
    runner.said_once(&format!("the folder has {fourth}"));
    handlers(&runner, &["unpin", "obey"]);
    eventually!(serving(&runner, "obey") == fourth);
    let kept = listed(&runner)["generations"].as_array().expect("a list").clone();
    let kept: Vec<&str> = kept.iter().filter_map(|kept| kept["generation"].as_str()).collect();
    assert_eq!(kept, [&fourth, &third, &second, &first]);
}

#[test]
fn pin_without_a_runner_holds_at_the_next_start_whatever_lies_in_the_folder() {
    let (mut runner, [first, second, third]) = of_three();
    runner.stop();
    assert!(handlers(&runner, &["pin", "obey", &second[..8]]).contains(&second));
    runner.put("obey.wasm", b"this is no component");
    for _ in 0..2 {
        runner.restart(&[]);
        assert_eq!(serving(&runner, "obey"), second);
        runner.stop();
    }
    handlers(&runner, &["rollback", "obey"]);
    runner.restart(&[]);
    assert_eq!(serving(&runner, "obey"), first);
    handlers(&runner, &["pin", "obey", &third]);
    eventually!(serving(&runner, "obey") == third);
    handlers(&runner, &["unpin", "obey"]);
    put_variant(&runner, "fifth");
    eventually!(![&first, &second, &third].contains(&&serving(&runner, "obey")));
}

#[test]
fn pin_to_what_is_served_keeps_a_new_file_out() {
    let runner = TestRunner::obeying();
    let first = serving(&runner, "obey");
    handlers(&runner, &["pin", "obey"]);
    put_variant(&runner, "second");
    eventually!(runner.says("to which it is pinned") == 1);
    assert_eq!(serving(&runner, "obey"), first);
    assert_eq!(runner.says("handler `obey` loaded"), 1);
}

#[test]
fn deleted_handler_parks_its_jobs_pinned_or_not_and_is_forgotten() {
    let runner = TestRunner::obeying();
    handlers(&runner, &["pin", "obey"]);
    runner.remove("obey.wasm");
    eventually!(runner.says("handler `obey` was deleted") == 1);
    let id = runner.ask("complete");
    runner.until(&id, "parked");
    assert_eq!(listed(&runner), Value::Null);
    assert!(refused(&runner, &["rollback", "obey"]).contains("no generation of it was served"));
    put_variant(&runner, "second");
    assert_eq!(runner.ended(&id).state, "completed", "the pin is gone");
    assert_eq!(listed(&runner)["pinned"], false);
}

#[test]
fn handler_that_no_runner_has_seen_is_listed_by_what_its_files_say() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "job_types = ['a', 'b']");
    let new = listed(&runner);
    assert_eq!((&new["state"], &new["generation"]), (&"new".into(), &Value::Null));
    assert_eq!(new["job_types"].as_array().map(Vec::len), Some(2), "{new}");
    let runner = runner.manifest("obey", "job_types = []");
    assert_eq!(listed(&runner)["state"], "bad");
}

#[test]
fn what_was_deleted_while_no_runner_looked_is_forgotten_too() {
    let mut runner = TestRunner::obeying();
    runner.stop();
    runner.remove("obey.wasm");
    assert_eq!(listed(&runner)["state"], "gone");
    runner.restart(&[]);
    eventually!(listed(&runner) == Value::Null);
}

#[test]
fn bad_file_is_listed_with_what_is_wrong_and_what_is_served() {
    let runner = TestRunner::obeying();
    let first = serving(&runner, "obey");
    runner.put("obey.wasm", b"this is no component");
    eventually!(listed(&runner)["state"] == "bad");
    let bad = listed(&runner);
    assert!(bad["why"].as_str().is_some_and(|why| why.contains("not a component")), "{bad}");
    assert_eq!((&bad["generation"], &bad["job_types"][0]), (&first.into(), &"obey".into()));
    let table = String::from_utf8(runner.stdout(&["handlers"])).expect("a table is text");
    assert!(table.contains("bad: not a component"), "{table}");
}

#[test]
fn resume_lifts_the_brake_for_good_and_rollback_goes_past_it() {
    let mut runner = TestRunner::obeying();
    let first = serving(&runner, "obey");
    let text = guests::text("obedient").replace("\"complete\")", "\"unheard-of\")");
    runner.put("obey.wasm", &guests::encoded(&guests::module(&text, &guests::contract(), "job-handler")));
    eventually!(runner.says("handler `obey` loaded") == 2);
    assert!(refused(&runner, &["resume", "obey"]).contains("is not braked"));
    ask(&runner, 400);
    eventually!(runner.says("handler `obey` is paused") == 1);
    eventually!(listed(&runner)["state"] == "braked");
    handlers(&runner, &["rollback", "obey"]);
    eventually!(runner.count("parked") == 0 && runner.count("ready") == 0 && runner.count("running") == 0);
    let dead = runner.count("dead");
    assert_eq!(runner.count("completed"), 1 + 400 - dead);
    // Back to the bad one, which is still paused, until somebody wants it to run.
    handlers(&runner, &["unpin", "obey"]);
    eventually!(listed(&runner)["state"] == "braked" && runner.says("handler `obey` is paused") == 2);
    ask(&runner, 100);
    eventually!(runner.count("parked") == 100);
    handlers(&runner, &["resume", "obey"]);
    eventually!(runner.count("dead") == dead + 100);
    runner.stop();
    runner.restart(&[]);
    ask(&runner, 100);
    eventually!(runner.count("dead") == dead + 200);
    assert_eq!(runner.says("handler `obey` is paused"), 2, "it is not braked again");
    handlers(&runner, &["rollback", "obey"]);
    eventually!(runner.says(&format!("handler `obey` is pinned to generation {first}")) == 2);
    assert_eq!(serving(&runner, "obey"), first);
}

#[test]
fn runners_with_one_folder_share_pins_and_the_brake() {
    let mut first = TestRunner::obeying();
    let second = first.twin().start();
    let generation = serving(&first, "obey");
    put_variant(&first, "second");
    eventually!(first.says("handler `obey` loaded") == 2 && second.says("handler `obey` loaded") == 2);
    handlers(&first, &["rollback", "obey"]);
    eventually!(first.says("handler `obey` loaded") == 3 && second.says("handler `obey` loaded") == 3);
    assert!(second.says(&format!("is pinned to generation {generation}")) == 1);
    first.stop();
    assert_eq!(serving(&second, "obey"), generation);
}

#[test]
fn damaged_state_is_said_once_and_harms_nobody() {
    let mut runner = TestRunner::obeying();
    let first = serving(&runner, "obey");
    handlers(&runner, &["pin", "obey"]);
    runner.stop();
    let kept = runner.path("sandhog.db.state/generations");
    let kept = fs::read_dir(kept).expect("it is kept").next().expect("for one folder").expect("it can be read").path();
    // A pair that is not what its name says counts for nothing, nor does a pin to it.
    fs::write(kept.join(format!("{first}.wasm")), guests::guest("idle")).expect("it is ours");
    put_variant(&runner, "second");
    runner.restart(&[]);
    runner.said_once("is gone or damaged");
    assert_ne!(serving(&runner, "obey"), first);
    runner.stop();
    fs::write(kept.join("obey.json"), b"{\"serving\": \"../../x\"").expect("it is ours");
    runner.restart(&[]);
    runner.said_once("what is kept of handler `obey` counts for nothing");
    assert_ne!(serving(&runner, "obey"), first);
    assert_eq!(listed(&runner)["state"], "good");
}
