//! Claims about instances that are reused.

use std::time::Instant;

use super::*;
use crate::grants::Grants;
use crate::limits::Reuse;

fn reuse(jobs: u32) -> Reuse {
    Reuse { jobs, idle: Duration::from_secs(600), instances: 4 }
}

fn reusing(jobs: u32) -> Component {
    OBEDIENT.clone().reusing(reuse(jobs))
}

/// What `seen` answers: how many jobs the instance had before.
#[track_caller]
fn seen(component: &Component, limits: &Limits) -> u32 {
    match run(component, "seen", limits).0.outcome {
        Outcome::Complete { result: Some(seen) } => seen.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn waiting(component: &Component) -> u32 {
    component.shelf.as_ref().expect("its instances are reused").waiting()
}

#[test]
fn instance_works_as_many_jobs_as_it_may() {
    let component = reusing(3);
    let all: Vec<u32> = (0..8).map(|_| seen(&component, &limits())).collect();
    assert_eq!(all, [0, 1, 2, 0, 1, 2, 0, 1]);
}

#[test]
fn instance_goes_on_after_an_answer_and_after_nothing_else() {
    for (body, stays) in
        [("complete", true), ("retry", true), ("reject", true), ("err", true), ("trap", false), ("spin", false)]
    {
        let component = reusing(100);
        assert_eq!(seen(&component, &limits()), 0);
        let limits = if body == "spin" { short() } else { limits() };
        run(&component, body, &limits);
        assert_eq!(seen(&component, &super::limits()), if stays { 2 } else { 0 }, "{body}");
    }
    // An answer over the limit is the limit's end, not the guest's.
    let (component, limits) = (reusing(100), Limits { result_bytes: 2048, ..limits() });
    assert_eq!(seen(&component, &limits), 0);
    check_failure(
        &run(&component, "fill 3072", &limits).0,
        Kind::Limit("result-bytes".into()),
        "a result of 3 KiB, of 2 KiB",
    );
    assert_eq!(seen(&component, &limits), 0);
}

#[test]
fn interrupted_instance_is_not_used_again() {
    let component = reusing(100);
    assert_eq!(seen(&component, &limits()), 0);
    let ear = Arc::new(Ear::default());
    ear.stop.cancel();
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    let attempt = runtime.block_on(component.run(&job("spin"), 1, &limits(), &ear.stop, &log));
    assert!(matches!(attempt.outcome, Outcome::Interrupted { .. }), "{attempt:?}");
    assert_eq!(seen(&component, &limits()), 0);
}

#[test]
fn limits_of_an_attempt_begin_anew_with_each_job() {
    let limits = Limits { host_calls: 10, log_bytes: 50, ..limits() };
    let (component, ear) = (reusing(100), Arc::new(Ear::default()));
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    for round in 0..3 {
        let attempt = runtime.block_on(component.run(&job("log 10"), 1, &limits, &CancellationToken::new(), &log));
        assert_eq!(attempt.outcome, complete("1"), "{round}");
        let heard = std::mem::take(&mut *ear.heard.lock().unwrap());
        let lines: Vec<_> = heard.iter().map(|(_, _, line)| line.as_str()).collect();
        assert_eq!(lines[..7], ["a line"; 7], "{round}");
        assert_eq!(lines[7..], ["log cut: over the limit of 50 bytes an attempt"], "{round}");
    }
    assert_eq!(seen(&component, &limits), 3);
}

#[test]
fn time_begins_anew_with_each_job() {
    let (component, limits) = (reusing(1_000_000), short());
    let started = Instant::now();
    while started.elapsed() < limits.timeout * 3 {
        seen(&component, &limits);
    }
    assert!(seen(&component, &limits) > 0, "it outlived the timeout of a job");
    check_failure(&run(&component, "spin", &limits).0, Kind::Timeout, "100 ms");
}

#[test]
fn memory_that_jobs_leave_behind_counts_for_those_after_them() {
    let (component, limits) = (reusing(100), Limits { memory_bytes: 8 << 20, ..limits() });
    let first = run(&component, "grow 100", &limits).0;
    assert_eq!(first.outcome, complete("1"));
    let second = run(&component, "seen", &limits).0;
    assert_eq!((&second.outcome, second.memory_peak_bytes), (&complete("1"), first.memory_peak_bytes));
    let third = run(&component, "grow 100", &limits).0;
    assert!(matches!(&third.outcome, Outcome::Failed(failure) if failure.kind == Kind::OutOfMemory), "{third:?}");
    // And no longer once that instance is gone.
    assert_eq!(run(&component, "grow 100", &limits).0.outcome, complete("1"));
}

#[test]
fn what_a_guest_says_is_said_of_the_job_it_works_now() {
    let module = guests::module(&guests::text("preview1"), &guests::contract(), "job-handler");
    let component = SANDBOX.load(&module, &limits(), &Grants::default()).unwrap().reusing(reuse(100));
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    for _ in 0..3 {
        // Its stdout is a handle that it got in the first job.
        let attempt = runtime.block_on(component.run(&job("o"), 1, &limits(), &CancellationToken::new(), &log));
        assert_eq!(attempt.outcome, Outcome::Complete { result: None });
        let heard = std::mem::take(&mut *ear.heard.lock().unwrap());
        assert_eq!(heard, [(Source::Stdout, Level::Info, "hello".to_owned())]);
    }
    let component = reusing(100);
    let (attempt, _) = run(&component, "log-line 10", &limits());
    assert_eq!(attempt.last_words, None);
    let (attempt, _) = run(&component, "trap", &limits());
    check_failure(&attempt, Kind::Trap, "unreachable at render");
}

#[test]
fn instance_that_waits_for_too_long_ends() {
    let component = OBEDIENT.clone().reusing(Reuse { idle: Duration::from_millis(20), ..reuse(100) });
    assert_eq!(seen(&component, &limits()), 0);
    let patience = Instant::now() + Duration::from_secs(60);
    while waiting(&component) > 0 {
        assert!(Instant::now() < patience, "it still waits");
        std::thread::yield_now();
    }
    assert_eq!(seen(&component, &limits()), 0);
}

#[test]
fn neither_components_nor_generations_share_an_instance() {
    let (one, other) = (reusing(100), reusing(100));
    assert_eq!((seen(&one, &limits()), seen(&other, &limits()), seen(&one, &limits())), (0, 0, 1));
}

#[test]
fn types_do_not_share_an_instance() {
    let component = OBEDIENT.clone().reusing(Reuse { instances: 2, ..reuse(100) });
    let log: Arc<dyn GuestLog> = Arc::new(Ear::default());
    let runtime = Builder::new_current_thread().build().unwrap();
    let seen = |job_type: &str| {
        let job = Arc::new(Job { job_type: job_type.to_owned(), ..Job::clone(&job("seen")) });
        let attempt = runtime.block_on(component.run(&job, 1, &limits(), &CancellationToken::new(), &log));
        let Outcome::Complete { result: Some(seen) } = attempt.outcome else { panic!("{attempt:?}") };
        seen
    };
    let all: Vec<String> = ["a", "b", "a", "b", "c", "b", "a"].into_iter().map(seen).collect();
    // Two may wait: the third type takes the place of the one that waited for longest.
    assert_eq!(all, ["0", "0", "1", "1", "0", "2", "0"]);
    assert_eq!(waiting(&component), 2);
}

#[test]
fn waiting_instances_take_no_room_from_attempts() {
    let sandbox = Sandbox::new(Config { slots: 2, threads: 1, ..config() }).unwrap();
    let load = |text: &str| sandbox.load(&guests::guest(text), &limits(), &Grants::default()).unwrap();
    let obedient = load("obedient");
    // More than can be kept: what there is no room for ends.
    let many: Vec<Component> = (0..50).map(|_| obedient.clone().reusing(reuse(100))).collect();
    for _ in 0..3 {
        for component in &many {
            seen(component, &limits());
        }
    }
    let kept: u32 = many.iter().map(waiting).sum();
    assert_eq!(kept, 2, "as many as there are slots");
    assert_eq!(run(&obedient, "seen", &limits()).0.outcome, complete("0"));
}

#[test]
fn no_more_instances_are_kept_than_attempts_may_run() {
    let component = OBEDIENT.clone().reusing(Reuse { instances: 1, ..reuse(1_000) });
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log: Arc<dyn GuestLog> = Arc::new(Ear::default());
    runtime.block_on(async {
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (component, log) = (component.clone(), Arc::clone(&log));
            attempts.spawn(async move {
                component.run(&job("seen"), 1, &limits(), &CancellationToken::new(), &log).await;
            });
        }
        attempts.join_all().await;
    });
    assert_eq!(waiting(&component), 1);
    // One job at a time finds it, whichever thread it runs on.
    let first = seen(&component, &limits());
    let next = std::thread::scope(|scope| scope.spawn(|| seen(&component, &limits())).join().unwrap());
    assert_eq!(next, first + 1);
}
