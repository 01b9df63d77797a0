//! Claims about `context`: what is set up before jobs and torn down after them.

use std::time::Instant;

use super::*;
use crate::grants::Grants;
use crate::limits::Reuse;

pub(super) fn attentive(settings: &[(&str, i64)]) -> Component {
    SANDBOX.load(&guests::attentive(settings), &limits(), &Grants::default()).unwrap()
}

pub(super) fn reusing(settings: &[(&str, i64)], jobs: u32) -> Component {
    attentive(settings).reusing(Reuse { jobs, idle: Duration::from_secs(600), instances: 4 })
}

/// Runs jobs one after the other with one ear. Answers their outcomes and what was heard in all of them.
pub(super) fn work(component: &Component, bodies: &[&str], limits: &Limits) -> (Vec<Outcome>, Vec<String>) {
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    let run =
        |body: &&str| runtime.block_on(component.run(&job(body), 3, limits, &CancellationToken::new(), &log)).outcome;
    let outcomes = bodies.iter().map(run).collect();
    (outcomes, said(&ear))
}

fn said(ear: &Ear) -> Vec<String> {
    std::mem::take(&mut *ear.heard.lock().unwrap()).into_iter().map(|(_, _, line)| line).collect()
}

fn not_ready(reason: &str) -> Outcome {
    Outcome::NotReady { reason: reason.to_owned() }
}

#[test]
fn fresh_instance_is_set_up_before_its_job_and_torn_down_after_it() {
    let (outcomes, said) = work(&attentive(&[]), &["seen", "log 1", "seen"], &limits());
    assert_eq!(outcomes, [complete("0"), complete("1"), complete("0")]);
    let around = ["set up", "torn down"];
    assert_eq!(said, [&around[..], &["set up", "a line", "torn down"], &around[..]].concat());
}

#[test]
fn reused_instance_is_set_up_before_its_first_job_and_torn_down_after_its_last() {
    let (outcomes, said) = work(&reusing(&[], 3), &["log 1"; 7], &limits());
    assert_eq!(outcomes, vec![complete("1"); 7]);
    let one = ["set up", "a line", "a line", "a line", "torn down"];
    assert_eq!(said, [&one[..], &one[..], &["set up", "a line"]].concat());
}

#[test]
fn instance_that_broke_is_not_torn_down() {
    for (body, limits) in [("trap", limits()), ("spin", short())] {
        for component in [attentive(&[]), reusing(&[], 100)] {
            let (outcomes, said) = work(&component, &[body], &limits);
            assert!(matches!(&outcomes[0], Outcome::Failed(_)), "{outcomes:?}");
            // The next thing that happens is that another one is set up, for the failure hook.
            assert_eq!(said[..2], ["set up", "set up"], "{body}");
        }
    }
}

#[test]
fn set_up_that_fails_is_no_attempt() {
    let limits = Limits { timeout: Duration::from_millis(300), memory_bytes: 8 << 20, ..limits() };
    for (how, why) in [
        (1, "set-up: error: away"),
        (2, "set-up: trap: unreachable at set-up"),
        (3, "set-up: timeout: 300 ms"),
        (4, "set-up: out-of-memory: asked for 8.1 MiB of 8 MiB"),
        (5, "set-up: error: set-up and tear-down are part of no job, and cannot enqueue any"),
    ] {
        for component in [attentive(&[("set-up", how)]), reusing(&[("set-up", how)], 100)] {
            let (outcomes, _) = work(&component, &["complete"], &limits);
            let Outcome::NotReady { reason } = &outcomes[0] else { panic!("{how}: {outcomes:?}") };
            assert!(reason.starts_with(why) || how == 4 && reason.starts_with("set-up: out-of-memory: "), "{reason}");
            let log: Arc<dyn GuestLog> = Arc::new(Ear::default());
            assert_eq!(TIMERS.block_on(component.set_up(&limits, &log)), Err(reason.clone()));
        }
    }
    assert_eq!(work(&attentive(&[("set-up", 1)]), &["trap"], &limits).0, [not_ready("set-up: error: away")]);
}

#[test]
fn tear_down_that_fails_changes_nothing_and_is_said() {
    let limits = Limits { timeout: Duration::from_millis(300), ..limits() };
    for (how, said) in [(2, "tear-down: trap: unreachable at tear-down"), (3, "tear-down: timeout: 300 ms")] {
        for component in [attentive(&[("tear-down", how)]), reusing(&[("tear-down", how)], 2)] {
            let (outcomes, heard) = work(&component, &["result 1", "result 2"], &limits);
            assert_eq!(outcomes, [complete("1"), complete("2")]);
            assert!(heard.iter().any(|line| line.starts_with(said)), "{heard:?}");
        }
    }
}

#[test]
fn first_instance_is_set_up_before_a_job_comes() {
    let component = reusing(&[], 100);
    assert!(component.is_set_up_once() && !attentive(&[]).is_set_up_once());
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    TIMERS.block_on(component.set_up(&limits(), &log)).unwrap();
    assert_eq!(said(&ear), ["set up"]);
    let runtime = Builder::new_current_thread().build().unwrap();
    let attempt = runtime.block_on(component.run(&job("log 1"), 3, &limits(), &CancellationToken::new(), &log));
    assert_eq!((attempt.outcome, said(&ear)), (complete("1"), vec!["a line".to_owned()]));
}

#[test]
fn instances_that_wait_are_torn_down_when_they_are_idle_and_when_their_component_goes() {
    let sandbox = Sandbox::new(Config { slots: 2, threads: 1, ..config() }).unwrap();
    let component = sandbox.load(&guests::attentive(&[]), &limits(), &Grants::default()).unwrap();
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let reuse = |idle| Reuse { jobs: 100, idle, instances: 4 };
    let runtime = Builder::new_current_thread().build().unwrap();
    let run = |component: &Component| {
        runtime.block_on(component.run(&job("complete"), 3, &limits(), &CancellationToken::new(), &log)).outcome
    };
    let idle = component.clone().reusing(reuse(Duration::from_millis(20)));
    assert_eq!(run(&idle), Outcome::Complete { result: None });
    let patience = Instant::now() + Duration::from_secs(60);
    while ear.heard.lock().unwrap().len() < 2 {
        assert!(Instant::now() < patience, "it still waits");
        std::thread::yield_now();
    }
    assert_eq!(said(&ear), ["set up", "torn down"]);

    let goes = component.reusing(reuse(Duration::from_secs(600)));
    assert_eq!(run(&goes), Outcome::Complete { result: None });
    drop(goes);
    TIMERS.block_on(sandbox.torn_down());
    assert_eq!(said(&ear), ["set up", "torn down"]);
}

#[test]
fn tear_down_that_hangs_is_broken_off_when_nobody_waits_any_more() {
    let sandbox = Sandbox::new(Config { slots: 2, threads: 1, ..config() }).unwrap();
    let component = sandbox.load(&guests::attentive(&[("tear-down", 3)]), &limits(), &Grants::default()).unwrap();
    let component = component.reusing(Reuse { jobs: 100, idle: Duration::from_secs(600), instances: 4 });
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(component.run(&job("complete"), 3, &limits(), &CancellationToken::new(), &log));
    drop(component);
    sandbox.stop_tearing_down();
    TIMERS.block_on(sandbox.torn_down());
    // It may be stopped before it says a word.
    assert_eq!(said(&ear).last().map(String::as_str), Some("tear-down: the runner stops"));
}
