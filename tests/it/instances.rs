//! Instances: a fresh one for every attempt, unless the manifest has them reused.

use crate::eventually;
use crate::support::TestRunner;

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
