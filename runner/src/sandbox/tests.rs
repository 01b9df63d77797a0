//! Claims about attempts and about loading, with the guests of `tests/guests/`.

use std::sync::{LazyLock, Mutex};

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::clock::UnixMs;
use crate::outcome::{Kind, RetryRequest};

mod context;
#[path = "../../../tests/it/support/guests.rs"]
mod guests;
mod hook;
mod loading;
mod reuse;

static TIMERS: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::new(config()).unwrap());
static OBEDIENT: LazyLock<Component> = LazyLock::new(|| load("obedient"));
static PREVIEW1: LazyLock<Component> = LazyLock::new(|| {
    let module = guests::module(&guests::text("preview1"), &guests::contract(), "job-handler");
    SANDBOX.load(&module, &limits(), &Grants::default()).unwrap()
});

fn config() -> Config {
    Config {
        slots: 32,
        threads: 2,
        memory_ceiling_bytes: 256 << 20,
        compiled_dir: None,
        timers: TIMERS.handle().clone(),
        guests: TIMERS.handle().clone(),
    }
}

fn load(guest: &str) -> Component {
    SANDBOX.load(&guests::guest(guest), &limits(), &Grants::default()).unwrap()
}

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(60), ..Limits::default() }
}

fn short() -> Limits {
    Limits { timeout: Duration::from_millis(100), ..Limits::default() }
}

/// Remembers what guests say, and cancels the token it has with the first line.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(Source, Level, String)>>,
    stop: CancellationToken,
}

impl GuestLog for Ear {
    fn line(&self, job: Option<&Job>, source: Source, level: Level, line: &str) {
        assert!(job.is_none_or(|job| job.id == "7"));
        self.heard.lock().unwrap().push((source, level, line.to_owned()));
        self.stop.cancel();
    }
}

fn job(body: &str) -> Arc<Job> {
    Arc::new(Job {
        id: "7".to_owned(),
        job_type: "a".to_owned(),
        body: body.to_owned(),
        attempt: 2,
        failures: 1,
        retries_requested: 0,
        interruptions: 0,
        enqueued_at: UnixMs(1),
        first_started_at: None,
        metadata: vec![("queue".to_owned(), "q".to_owned())],
    })
}

/// Runs a job on a runtime that has no timers of its own, as guests may occupy it.
fn run(component: &Component, body: &str, limits: &Limits) -> (Attempt, Vec<(Source, Level, String)>) {
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    let attempt = runtime.block_on(component.run(&job(body), 3, limits, &CancellationToken::new(), &log));
    let heard = std::mem::take(&mut *ear.heard.lock().unwrap());
    (attempt, heard)
}

fn outcome(body: &str, limits: &Limits) -> Outcome {
    run(&OBEDIENT, body, limits).0.outcome
}

#[track_caller]
fn check_failure(attempt: &Attempt, kind: Kind, message: &str) {
    let Outcome::Failed(failure) = &attempt.outcome else { panic!("not failed: {attempt:?}") };
    assert_eq!((&failure.kind, failure.message.as_str()), (&kind, message), "{attempt:?}");
}

fn complete(result: &str) -> Outcome {
    Outcome::Complete { result: Some(result.to_owned()) }
}

// What a handler may answer.

#[test]
fn answers_become_outcomes() {
    assert_eq!(outcome("complete", &limits()), Outcome::Complete { result: None });
    assert_eq!(outcome("result [1, 2]", &limits()), complete("[1, 2]"));
    let request = RetryRequest {
        after: Some(Duration::from_millis(1500)),
        body: Some("again".to_owned()),
        reason: Some("not yet".to_owned()),
    };
    assert_eq!(outcome("retry", &limits()), Outcome::Retry(request));
    assert_eq!(outcome("reject", &limits()), Outcome::Reject { reason: "never".to_owned() });
    check_failure(&run(&OBEDIENT, "err", &limits()).0, Kind::Error, "boom");
}

#[test]
fn result_that_is_not_json_is_kept_as_a_string_with_a_warning() {
    let (attempt, heard) = run(&OBEDIENT, "result a \"b\"", &limits());
    assert_eq!(attempt.outcome, complete(r#""a \"b\"""#));
    let warning = "the result is not JSON and is kept as a JSON string";
    assert_eq!(heard, [(Source::Log, Level::Warn, warning.to_owned())]);
}

#[test]
fn result_or_changed_body_over_the_limit_is_a_failure() {
    let limits = Limits { result_bytes: 2048, ..limits() };
    assert!(matches!(outcome("fill 2048", &limits), Outcome::Complete { .. }));
    let kind = || Kind::Limit("result-bytes".into());
    check_failure(&run(&OBEDIENT, "fill 3072", &limits).0, kind(), "a result of 3 KiB, of 2 KiB");
    check_failure(&run(&OBEDIENT, "retry-fill 3072", &limits).0, kind(), "a changed body of 3 KiB, of 2 KiB");
    let limits = Limits { host_call_bytes: 1 << 20, ..limits };
    check_failure(&run(&OBEDIENT, "fill 2000000", &limits).0, kind(), "more than 1 MiB in one call");
}

#[test]
fn enqueueing_is_refused() {
    let Outcome::Failed(failure) = outcome("follow 1 complete", &limits()) else { panic!("it was not refused") };
    assert!(failure.message.starts_with("enqueueing `follow` is not granted to this handler"), "{failure:?}");
    let Outcome::Failed(failure) = outcome("chain", &limits()) else { panic!("it was not refused") };
    assert!(failure.message.starts_with("the job is malformed: not JSON"), "{failure:?}");
}

#[test]
fn granted_jobs_are_asked_for_where_the_guest_answered() {
    let grants = Grants { enqueue: vec!["follow".to_owned()], ..Grants::default() };
    let component = SANDBOX.load(&guests::guest("obedient"), &limits(), &grants).unwrap();
    for (end, jobs) in [("complete", 2), ("reject", 2), ("retry", 2), ("err", 0), ("trap", 0)] {
        let attempt = run(&component, &format!("follow 2 {end}"), &limits()).0;
        assert_eq!(attempt.follow_ups.into_jobs(UnixMs(1)).len(), jobs, "{end}");
    }
}

#[test]
fn state_is_seen_where_it_is_granted_and_given() {
    let grants = Grants { state: true, ..Grants::default() };
    let component = SANDBOX.load(&guests::keeping(), &limits(), &grants).unwrap();
    let command = r#"{"do":"count a"}"#;
    check_failure(&run(&component, command, &limits()).0, Kind::Error, "access-denied");
    let state =
        HandlerState { store: Arc::new(crate::state::Given::default()), handler: "h".into(), quota: limits().state };
    let attempt = run(&component.with_state(state), command, &limits()).0;
    assert_eq!(attempt.outcome, complete("1"));
    assert_eq!(attempt.state.unwrap().writes["a"].as_deref(), Some(&b"1"[..]));
    let refused = SANDBOX.load(&guests::keeping(), &limits(), &Grants::default()).unwrap_err();
    assert!(matches!(refused, LoadError::NotGranted { .. }), "{refused}");
}

#[test]
fn second_draft_of_keys_and_values_reaches_the_same_state() {
    let grants = Grants { state: true, ..Grants::default() };
    let component = SANDBOX.load(&guests::swapping(), &limits(), &grants).unwrap();
    let state =
        HandlerState { store: Arc::new(crate::state::Given::default()), handler: "h".into(), quota: limits().state };
    let attempt = run(&component.with_state(state), r#"{"do":"a"}"#, &limits()).0;
    assert_eq!(attempt.outcome, complete("1"));
    let changes = attempt.state.unwrap();
    assert_eq!((changes.writes["text"].as_deref(), &changes.expected["text"]), (Some(&b"\0"[..]), &None));
}

#[test]
fn every_attempt_has_an_instance_of_its_own() {
    for _ in 0..100 {
        assert_eq!(outcome("seen", &limits()), complete("0"));
    }
}

// What goes wrong in a guest.

#[test]
fn trap_says_what_and_where() {
    let attempt = run(&OBEDIENT, "trap", &limits()).0;
    check_failure(&attempt, Kind::Trap, "unreachable at render");
    assert_eq!(attempt.frames, ["render", "handle-job"]);
    let attempt = run(&OBEDIENT, "divide", &limits()).0;
    check_failure(&attempt, Kind::Trap, "integer divide by zero at handle-job");
    let attempt = run(&OBEDIENT, "peek", &limits()).0;
    check_failure(&attempt, Kind::Trap, "out of bounds memory access at handle-job");
    let attempt = run(&OBEDIENT, "recurse", &limits()).0;
    check_failure(&attempt, Kind::Trap, "call stack exhausted at recurse");
    assert!((10..=20).contains(&attempt.frames.len()), "{attempt:?}");
}

#[test]
fn last_words_stand_in_the_failure() {
    let (attempt, heard) = run(&OBEDIENT, "panic", &limits());
    let words = "panicked at src/lib.rs:3:5: boom";
    check_failure(&attempt, Kind::Trap, &format!("unreachable at handle-job: {words}"));
    assert_eq!(attempt.last_words.as_deref(), Some(words));
    assert_eq!(heard, [(Source::Log, Level::Error, words.to_owned())]);

    let (attempt, heard) = run(&PREVIEW1, "e", &limits());
    let words = "Traceback:\n  line 1\nValueError: boom";
    check_failure(&attempt, Kind::Trap, &format!("unreachable at handle-job: {words}"));
    assert_eq!(heard.iter().map(|(_, _, line)| line.as_str()).collect::<Vec<_>>().join("\n"), words);
    assert!(heard.iter().all(|(source, level, _)| (*source, *level) == (Source::Stderr, Level::Warn)));
}

#[test]
fn exit_is_a_trap() {
    let attempt = run(&PREVIEW1, "x", &limits()).0;
    let Outcome::Failed(failure) = &attempt.outcome else { panic!("{attempt:?}") };
    assert_eq!(failure.kind, Kind::Trap);
    assert!(failure.message.starts_with("exit with code "), "{failure:?}");
}

#[test]
fn text_that_is_not_utf8_is_a_trap() {
    check_failure(&run(&OBEDIENT, "bad-text", &limits()).0, Kind::Trap, "text that is not UTF-8");
    let attempt = run(&OBEDIENT, "bad-log", &limits()).0;
    check_failure(&attempt, Kind::Trap, "text that is not UTF-8 at handle-job");
}

#[test]
fn guest_that_never_returns_is_stopped() {
    let attempt = run(&OBEDIENT, "spin", &short()).0;
    check_failure(&attempt, Kind::Timeout, "100 ms");
    assert_eq!(attempt.frames.len(), 1);
    check_failure(&run(&OBEDIENT, "flood", &short()).0, Kind::Timeout, "100 ms");
    check_failure(&run(&PREVIEW1, "f", &short()).0, Kind::Timeout, "100 ms");
}

#[test]
fn guest_that_waits_in_the_host_is_stopped() {
    check_failure(&run(&PREVIEW1, "s", &short()).0, Kind::Timeout, "100 ms");
}

#[test]
fn guests_that_spin_share_a_thread() {
    let (log, stop): (Arc<dyn GuestLog>, _) = (Arc::new(Ear::default()), CancellationToken::new());
    let (spin, echo) = (job("spin"), job("result 1"));
    let runtime = Builder::new_current_thread().build().unwrap();
    let (spinning, echoing) = runtime.block_on(async {
        let limits = Limits { timeout: Duration::from_millis(500), ..limits() };
        tokio::join!(OBEDIENT.run(&spin, 1, &limits, &stop, &log), OBEDIENT.run(&echo, 1, &limits, &stop, &log))
    });
    check_failure(&spinning, Kind::Timeout, "500 ms");
    assert_eq!(echoing.outcome, complete("1"));
    assert!(echoing.duration < Duration::from_millis(400), "{echoing:?}");
}

#[test]
fn attempt_is_interrupted_when_the_runner_stops() {
    for (component, body) in [(&*OBEDIENT, "flood"), (&*OBEDIENT, "spin"), (&*PREVIEW1, "s"), (&*PREVIEW1, "f")] {
        let ear = Arc::new(Ear::default());
        let stop = ear.stop.clone();
        if body == "spin" || body == "s" {
            stop.cancel();
        }
        let log: Arc<dyn GuestLog> = ear;
        let runtime = Builder::new_current_thread().build().unwrap();
        let attempt = runtime.block_on(component.run(&job(body), 1, &limits(), &stop, &log));
        assert_eq!(attempt.outcome, Outcome::Interrupted { reason: "the runner stops".into() }, "{body}");
    }
}

#[test]
fn attempt_without_a_free_sandbox_is_interrupted() {
    let sandbox = Sandbox::new(Config { slots: 1, ..config() }).unwrap();
    let module = guests::module(&guests::text("preview1"), &guests::contract(), "job-handler");
    let component = sandbox.load(&module, &limits(), &Grants::default()).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    let attempts = runtime.block_on(async {
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let component = component.clone();
            let log: Arc<dyn GuestLog> = Arc::new(Ear::default());
            attempts.spawn(async move {
                component.run(&job("s"), 1, &short(), &CancellationToken::new(), &log).await.outcome
            });
        }
        attempts.join_all().await
    });
    let interrupted = attempts.iter().filter(|outcome| matches!(outcome, Outcome::Interrupted { .. })).count();
    let timed_out = attempts.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    assert!(timed_out >= 1 && interrupted >= 1 && timed_out + interrupted == 20, "{attempts:?}");
}

#[test]
fn sandbox_without_room_for_a_pool_works_on_demand() {
    let sandbox = Sandbox::new(Config { slots: 1_000_000, ..config() }).unwrap();
    let component = sandbox.load(&guests::guest("obedient"), &limits(), &Grants::default()).unwrap();
    assert_eq!(run(&component, "result 1", &limits()).0.outcome, complete("1"));
    check_failure(&run(&component, "trap", &limits()).0, Kind::Trap, "unreachable at render");
    assert!(!sandbox.swap_appeared());
}

// Limits.

#[test]
fn memory_over_the_limit_is_out_of_memory() {
    let limits = Limits { memory_bytes: 8 << 20, ..limits() };
    let attempt = run(&OBEDIENT, "grow 64", &limits).0;
    assert_eq!(attempt.outcome, complete("1"));
    assert!((4 << 20..=6 << 20).contains(&attempt.memory_peak_bytes), "{attempt:?}");
    let attempt = run(&OBEDIENT, "grow 158", &limits).0;
    check_failure(&attempt, Kind::OutOfMemory, "asked for 10 MiB of 8 MiB");
    // A guest that can do without goes on.
    check_failure(&run(&OBEDIENT, "grow-softly 158", &limits).0, Kind::Error, "no memory");
    check_failure(&run(&OBEDIENT, "grow 60000", &limits).0, Kind::OutOfMemory, "asked for 3750.1 MiB of 8 MiB");
}

#[test]
fn all_memories_of_an_instance_count_together() {
    use wasmtime::ResourceLimiter;
    let mut meter = limits::Meter::new(&Limits { memory_bytes: 100, ..limits() }, 10);
    assert!(meter.memory_growing(0, 60, None).unwrap());
    assert!(meter.memory_growing(0, 50, None).unwrap());
    // What the system then refused is not counted; what the limit refused never was.
    meter.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
    assert_eq!(meter.refused(), None);
    assert!(meter.memory_growing(0, 50, None).unwrap());
    assert!(!meter.memory_growing(60, 61, None).unwrap());
    assert_eq!(meter.refused(), Some(limits::Refused::Memory { wanted: 111, limit: 100 }));
    assert_eq!(meter.memory_peak_bytes(), 110);
}

#[test]
fn table_over_the_limit_is_a_failure() {
    let limits = Limits { table_elements: 1000, ..limits() };
    assert_eq!(outcome("table 900", &limits), complete("1"));
    let attempt = run(&OBEDIENT, "table 50000", &limits).0;
    let Outcome::Failed(failure) = attempt.outcome else { panic!("{attempt:?}") };
    assert_eq!(failure.kind, Kind::Limit("table-elements".into()));
}

#[test]
fn handles_over_the_limit_are_a_failure() {
    let component = SANDBOX.load(&guests::leaking_handles(), &limits(), &Grants::default()).unwrap();
    let attempt = run(&component, "", &Limits { handles: 50, ..limits() }).0;
    check_failure(&attempt, Kind::Limit("handles".into()), "more than 50 handles");
}

#[test]
fn host_calls_over_the_limit_are_a_failure() {
    let limits = Limits { host_calls: 10, ..limits() };
    assert_eq!(outcome("log 10", &limits), complete("1"));
    check_failure(&run(&OBEDIENT, "log 11", &limits).0, Kind::Limit("host-calls".into()), "more than 10 calls");
    let limits = Limits { host_call_bytes: 1024, ..limits };
    let attempt = run(&OBEDIENT, "log-line 2000", &limits).0;
    check_failure(&attempt, Kind::Limit("host-call-bytes".into()), "more than 1 KiB in one call");
}

#[test]
fn log_is_cut_and_never_a_failure() {
    let limits = Limits { log_bytes: 70, log_line_bytes: 20, ..limits() };
    let (attempt, heard) = run(&OBEDIENT, "log 1000", &limits);
    assert_eq!(attempt.outcome, complete("1"));
    let lines: Vec<_> = heard.iter().map(|(_, _, line)| line.as_str()).collect();
    assert_eq!(lines[..10], ["a line"; 10]);
    assert_eq!(lines[10..], ["log cut: over the limit of 70 bytes an attempt"]);

    let (_, heard) = run(&OBEDIENT, "log-line 1000", &limits);
    assert_eq!(heard[0].2, "11111111111111111111… (cut: 1000 bytes)");
}

#[test]
fn message_of_too_many_lines_is_cut() {
    let ear = Arc::new(Ear::default());
    let mut lines = lines::Lines::new(Some(job("")), Arc::clone(&ear) as _, std::time::Instant::now(), &limits());
    for _ in 0..2 {
        lines.message(Level::Info, &"\n".repeat(1_500));
    }
    let heard = ear.heard.lock().unwrap();
    let cut = |(_, _, line): &&(Source, Level, String)| line == "message cut: over the limit of 1000 lines";
    assert_eq!((heard.len(), heard.iter().filter(cut).count()), (2_002, 2));
}

#[test]
fn stdout_goes_to_the_log_by_lines() {
    let (attempt, heard) = run(&PREVIEW1, "o", &limits());
    assert_eq!(attempt.outcome, Outcome::Complete { result: None });
    assert_eq!(heard, [(Source::Stdout, Level::Info, "hello".to_owned())]);
}

#[test]
fn lines_are_whole_and_printable_however_they_are_written() {
    let ear = Arc::new(Ear::default());
    let limits = Limits { log_line_bytes: 10, ..limits() };
    let mut lines = lines::Lines::new(Some(job("")), Arc::clone(&ear) as _, std::time::Instant::now(), &limits);
    for piece in ["a", "b\r", "\n\x1b[2J\tc\n\n0123456789", "012", "\nnaïve éé é\nend"] {
        lines.write(Source::Stdout, piece.as_bytes());
    }
    lines.write(Source::Stdout, b"\xff");
    lines.finish();
    let heard: Vec<_> = ear.heard.lock().unwrap().iter().map(|(_, _, line)| line.clone()).collect();
    let expected =
        ["ab", "\u{fffd}[2J\tc", "", "0123456789… (cut: 13 bytes)", "naïve é\u{fffd}… (cut: 14 bytes)", "end\u{fffd}"];
    assert_eq!(heard, expected);
}
