//! Jobs that enqueue jobs: what a user sees of them, and that they are there exactly when their parent's attempt is settled.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::eventually;
use crate::support::{Random, TestRunner};

/// A runner whose handler `obey` may enqueue what `follow` serves.
fn runner(manifest: &str) -> TestRunner {
    TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", &format!("grants.enqueue = ['follow', 'obey']\n{manifest}"))
        .handler("follow", "obedient")
}

/// The ids of all follow-ups.
fn follow_ups(runner: &TestRunner) -> BTreeSet<String> {
    runner.jobs(&["--type", "follow"]).into_iter().map(|job| job.id).collect()
}

#[test]
fn follow_ups_run_whatever_the_handler_answered() {
    let runner = runner("").start();
    let complete = runner.ended(&runner.ask("follow 2 complete"));
    let reject = runner.ended(&runner.ask("follow 1 reject"));
    let retry = runner.ended(&runner.ask("follow 1 then 10 complete"));
    assert_eq!((complete.state.as_str(), reject.kind(), retry.attempt), ("completed", "rejected", 2));
    let of = |job: &str, n: u32| format!("{job}/1/{n}");
    let expected = [of(&complete.id, 1), of(&complete.id, 2), of(&reject.id, 1), of(&retry.id, 1)];
    for id in &expected {
        assert_eq!(runner.ended(id).state, "completed");
    }
    assert_eq!(follow_ups(&runner), expected.into());
    let metadata = runner.job(&of(&complete.id, 1)).metadata;
    let said = |name: &str, value: &str| metadata.contains(&(name.to_owned(), value.to_owned()));
    assert!(said("parent", &complete.id) && said("depth", "1"), "{metadata:?}");
}

#[test]
fn failed_attempt_enqueues_nothing() {
    let mut runner =
        runner("timeout = '300ms'\n[retry]\nmax_failures = 2\nbackoff = { first = '10ms', factor = 1, max = '10ms' }")
            .start();
    let jobs = ["err", "trap", "spin", "grow 100000"].map(|end| runner.ask(&format!("follow 3 {end}")));
    for job in &jobs {
        assert_eq!(runner.ended(job).failures, 2);
    }
    let interrupted = runner.ask("follow 3 begin-spin");
    eventually!(runner.says("begun") == 1);
    runner.kill();
    assert_eq!(runner.job(&interrupted).state, "running");
    assert_eq!(follow_ups(&runner), BTreeSet::new());
}

#[test]
fn handler_enqueues_only_what_its_manifest_grants() {
    let runner = TestRunner::new().handler("obey", "obedient").handler("follow", "obedient");
    let runner = runner.manifest("obey", "grants.enqueue = 'obey'").start();
    let job = runner.ended(&runner.ask("follow 1 complete"));
    assert_eq!(
        job.why(),
        "enqueueing `follow` is not granted to this handler: its manifest grants it with `enqueue = [\"follow\"]` in \
         `[grants]`"
    );
}

#[test]
fn chain_of_follow_ups_ends() {
    let runner = runner("").config("limits.follow_up_depth = 70").start();
    runner.enqueueing("obey", r#"{"job_type":"obey","do":"chain"}"#).named("a").send();
    let last = eventually!(runner.dead().pop());
    assert_eq!(last.why(), "this job is follow-up 70 in a chain, which is the limit (`limits.follow_up_depth`)");
    assert_eq!(runner.jobs(&["--type", "obey"]).len(), 71);
    assert!(runner.job(&last.id).metadata.contains(&("depth".to_owned(), "70".to_owned())));
}

/// What must be so whenever one looks: a job that was settled as complete brought both of its follow-ups, and another none.
fn check(file: &Connection) {
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let missing = number(
        "select count(*) from job where job_type = 'obey' and state = 5 and
            (not exists(select 1 from identity where identity.id = job.id || '/' || job.attempt || '/1')
             or not exists(select 1 from identity where identity.id = job.id || '/' || job.attempt || '/2'))",
    );
    let completed = number("select count(*) from job where job_type = 'obey' and state = 5");
    let follow_ups = number("select count(*) from job where job_type = 'follow'");
    assert_eq!((missing, follow_ups), (0, 2 * completed));
}

#[test]
fn two_hundred_kills_leave_follow_ups_exactly_where_their_parent_was_settled() {
    const JOBS: usize = 24_000;
    const KILLS: usize = 200;
    let mut random = Random::seeded();
    let mut runner = TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", "grants.enqueue = 'follow'")
        .config("slots = 4\nqueue.keep_completed = { age = '1h', bytes = '1GiB' }");
    let line = "{\"job_type\":\"obey\",\"do\":\"follow 2 report 1\"}\n";
    assert_eq!(runner.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
    let file = Connection::open(runner.path("sandhog.db")).unwrap();
    file.busy_timeout(crate::support::patience()).unwrap();
    for _ in 0..KILLS {
        runner.take_log();
        runner.spawn(&[]);
        // Some way into the backlog, so that no job is there at three deaths.
        let begun = 30 + random.below(60);
        eventually!(runner.says("begun") >= begun);
        runner.kill();
        check(&file);
    }
    let completed: i64 =
        file.query_row("select count(*) from job where job_type = 'obey' and state = 5", [], |row| row.get(0)).unwrap();
    assert!(completed >= 1_000, "{completed} jobs completed between the kills");
    // One that happened to run at three deaths is suspected of them.
    let dead = "select count(*) from job where state = 4 and kind <> 'suspect'";
    let dead: i64 = file.query_row(dead, [], |row| row.get(0)).unwrap();
    assert_eq!(dead, 0);
}
