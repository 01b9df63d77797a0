//! A queue's file that cannot be written for a while, under a runner at work: it says so once, keeps what it has to settle,
//! and goes on by itself. And one that is damaged, where it does not.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::eventually;
use crate::support::TestRunner;

const JOBS: usize = 400;

/// A runner that has begun to work its jobs.
fn at_work() -> TestRunner {
    let runner = TestRunner::new().handler("obey", "obedient");
    enqueue(&runner);
    let runner = runner.start();
    eventually!(runner.says("begun") > 20);
    runner
}

fn enqueue(runner: &TestRunner) {
    let line = "{\"job_type\":\"obey\",\"do\":\"work 5\"}\n";
    assert_eq!(runner.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
}

/// Nothing is lost, and nothing ran more often than the queue knows.
fn assert_completed(runner: &TestRunner, jobs: usize, attempt: u32) {
    eventually!(runner.count("completed") == jobs as u64);
    let ran = runner.jobs(&[]);
    assert_eq!(ran.len(), jobs);
    assert!(ran.iter().all(|job| job.attempt <= attempt && job.failures == 0), "{ran:?}");
}

fn assert_fell_sick_once_and_got_well(runner: &TestRunner, why: &str) {
    let said = runner.log().into_iter().find(|line| crate::support::message(line).contains("is sick"));
    let error = said.expect("it said so")["error"].to_string();
    assert!(error.contains(why), "{error}");
    runner.said_once("is sick");
    runner.said_once("` is well again");
}

#[test]
fn full_disk_while_settling_is_waited_out_and_no_job_runs_twice() {
    let mut runner = at_work();
    runner.fill_disk(true);
    eventually!(runner.says("is sick") == 1);
    // Others may have room: what they enqueue meanwhile is not lost either.
    enqueue(&runner);
    let begun = runner.says("begun");
    assert!(begun < 2 * JOBS, "it does not claim what it cannot settle");
    runner.fill_disk(false);
    assert_completed(&runner, 2 * JOBS, 1);
    assert_eq!(runner.says("begun"), 2 * JOBS);
    assert_fell_sick_once_and_got_well(&runner, "reading or writing the file failed");
    assert!(runner.stop().success());
}

#[test]
fn runner_killed_while_its_disk_is_full_loses_nothing() {
    let mut runner = at_work();
    runner.fill_disk(true);
    eventually!(runner.says("is sick") == 1);
    runner.kill();
    runner.restart(&[]);
    assert_completed(&runner, JOBS, 2);
}

#[test]
fn file_that_another_process_keeps_locked_is_waited_for_and_no_job_runs_twice() {
    let runner = at_work();
    let other = Connection::open(runner.path("sandhog.db")).unwrap();
    other.busy_timeout(crate::support::patience()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let asked = Instant::now();
    let refused = runner.sandhog(&["enqueue", "obey", r#"{"do":"complete"}"#]);
    // It waits for the lock once: 5 s.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("another process holds the file's write lock"), "{said}");
    eventually!(runner.says("is sick") == 1);
    other.execute_batch("rollback").unwrap();
    assert_completed(&runner, JOBS, 1);
    assert_eq!(runner.says("begun"), JOBS);
    assert_fell_sick_once_and_got_well(&runner, "another process holds the file's write lock");
}

#[test]
fn jobs_can_be_looked_at_while_another_process_keeps_the_file_locked() {
    let runner = TestRunner::new();
    enqueue(&runner);
    let other = Connection::open(runner.path("sandhog.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    assert_eq!(runner.jobs(&[]).len(), JOBS);
    assert_eq!(runner.count("ready"), JOBS as u64);
    assert!(runner.dead().is_empty());
}

#[test]
fn read_only_file_is_a_clear_error_and_its_jobs_run_when_it_can_be_written() {
    let mut runner = TestRunner::new().handler("obey", "obedient");
    enqueue(&runner);
    let may = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let (folder, file) = (runner.path("."), runner.path("sandhog.db"));
    let mode = file.metadata().unwrap().mode();
    may(&folder, 0o777);
    may(&file, 0o444);
    let run = |mut command: Command| {
        // Nothing is read-only for root.
        if file.metadata().unwrap().uid() == 0 {
            command.uid(65_534).gid(65_534);
        }
        command.arg("run").output()
    };
    match run(runner.command()) {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{said}");
            assert_eq!(said.matches("read-only").count(), 1, "{said}");
            assert!(said.contains("must be writable"), "{said}");
        }
        Err(e) => eprintln!("SKIPPED: nobody but root can start the binary here, and root may write any file: {e}"),
    }
    may(&file, mode);
    may(&folder, 0o700);
    runner.restart(&[]);
    assert_completed(&runner, JOBS, 1);
}

// === damage ===

/// A folder with a queue of some hundred pages, and nobody at work.
fn with_a_large_file() -> TestRunner {
    let runner = TestRunner::new();
    let line = format!("{{\"job_type\":\"obey\",\"do\":\"complete\",\"pad\":\"{}\"}}\n", "x".repeat(2_000));
    assert_eq!(runner.enqueue_lines(line.repeat(JOBS), &[]).len(), JOBS);
    runner
}

/// Overwrites some pages in the middle of the file, where rows are.
fn damage(runner: &TestRunner) {
    const PAGE: u64 = 4_096;
    let file = File::options().write(true).open(runner.path("sandhog.db")).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    assert!(pages > 100, "{pages} pages");
    file.write_all_at(&[0x5a; 8 * PAGE as usize], pages / 2 * PAGE).unwrap();
}

/// Every way to ask says that the file is damaged, and what to do about it.
fn assert_said_to_be_damaged(runner: &TestRunner) {
    for asked in [&["jobs", "list", "--limit", "1000"][..], &["run", "--until-empty"]] {
        let output = runner.sandhog(asked);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{asked:?}: {said}");
        assert!(said.contains("the file is damaged") && said.contains("hint: stop every runner"), "{asked:?}: {said}");
    }
}

#[test]
fn file_damaged_in_its_middle_is_said_to_be_damaged_and_its_copy_has_every_job() {
    let mut runner = with_a_large_file().handler("obey", "obedient");
    let copy = std::fs::read(runner.path("sandhog.db")).unwrap();
    damage(&runner);
    assert_said_to_be_damaged(&runner);
    // What the hint says.
    std::fs::write(runner.path("sandhog.db"), copy).unwrap();
    for gone in ["sandhog.db-wal", "sandhog.db-shm"] {
        std::fs::remove_file(runner.path(gone)).ok();
    }
    runner.restart(&[]);
    assert_completed(&runner, JOBS, 1);
}

#[test]
fn runner_whose_file_is_damaged_while_it_runs_ends_and_says_so() {
    let mut runner = with_a_large_file().start();
    damage(&runner);
    runner.put_guest("obey", "obedient");
    assert_eq!(runner.wait().code(), Some(1));
    assert!(runner.says("the file is damaged") > 0 && runner.says("hint: stop every runner") > 0);
    assert_said_to_be_damaged(&runner);
}
