//! The runner-wide failure hook: one job for each dead letter, there exactly with it, whatever dies.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::eventually;
use crate::support::{Random, TestRunner};

fn reporting() -> TestRunner {
    TestRunner::new().config("failures.job_type = 'report'").handler("obey", "obedient")
}

/// The dead letter in the report of that id.
fn letter(runner: &TestRunner, id: &str) -> Value {
    let body = eventually!(runner.job(id).body);
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
    body["dead_letter"].clone()
}

#[test]
fn every_end_but_a_good_one_is_reported() {
    let runner = reporting().manifest("obey", "timeout = '300ms'").start();
    runner.ended(&runner.ask("complete"));
    let ends = ["err", "trap", "spin", "grow 4096", "reject"].map(|command| runner.ask(command));
    let malformed = runner.enqueue_lines("nonsense", &["--bury-bad"]).remove(0).id;
    for id in ends.iter().chain([&malformed]) {
        let job = runner.ended(id);
        let letter = letter(&runner, &format!("{id}/report/1"));
        assert_eq!(letter["failure"]["kind"], job.kind());
        assert_eq!((&letter["body"], &letter["id"]), (&json!(job.body), &json!(id)));
    }
    assert_eq!(runner.jobs(&["--type", "report"]).len(), 6);
}

#[test]
fn report_is_the_json_that_people_are_shown() {
    let runner = reporting().start();
    let id = runner.enqueueing("obey", r#"{"do":"then 10 trap"}"#).named("order-9").header("tenant=blue").id();
    runner.until(&id, "dead");
    let shown = runner.stdout(&["dead", "show", "order-9", "--json", "--body"]);
    assert_eq!(letter(&runner, "order-9/report/1"), serde_json::from_slice::<Value>(&shown).unwrap());
}

#[test]
fn failing_reporter_is_not_told_of_itself() {
    // The guest does not know what to do with a report, and traps.
    let runner = reporting().handler("report", "obedient").start();
    let job = runner.ended(&runner.ask("err")).id;
    let report = runner.until(&format!("{job}/report/1"), "dead");
    assert_eq!(report.kind(), "trap");
    runner.ended(&runner.ask("complete"));
    assert_eq!((runner.dead().len(), runner.jobs(&["--type", "report"]).len()), (2, 1));
}

#[test]
fn dead_letters_of_a_killed_runner_have_a_report_each() {
    const JOBS: usize = 12_000;
    const KILLS: usize = 100;
    let mut random = Random::seeded();
    let mut runner = reporting().config("failures.job_type = 'report'\nslots = 4");
    let line = "{\"job_type\":\"obey\",\"do\":\"reject\"}\n";
    assert_eq!(runner.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
    let file = Connection::open(runner.path("sandhog.db")).unwrap();
    file.busy_timeout(crate::support::patience()).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let dead = "select count(*) from job where state = 4 and job_type = 'obey'";
    for _ in 0..KILLS {
        let far_enough = number(dead) + 1 + random.below(60) as i64;
        runner.spawn(&[]);
        eventually!(number(dead) >= far_enough.min(JOBS as i64));
        runner.kill();
        let unreported = "select count(*) from job where state = 4 and job_type = 'obey' and not exists
            (select 1 from identity where identity.id = job.id || '/report/1')";
        let reports = number("select count(*) from job where job_type = 'report'");
        assert_eq!((number(unreported), reports), (0, number(dead)));
    }
}
