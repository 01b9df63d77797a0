//! Guests that mean no good: each ends as what it is, in its time, and the jobs beside it go on.

use std::time::{Duration, Instant};

use sandhog::queue::sqlite::{Options, SqliteQueue};
use sandhog::queue::{NewJob, Queue};

use crate::eventually;
use crate::reload::{serving, until_looked_at, variant};
use crate::support::{TestRunner, guests};

const TIMEOUT: &str = "timeout = '500ms'";

/// How much longer than its limit an attempt may take. On a machine with nothing else to do it is some 10 ms; this holds on
/// one that is busy.
const OVER_MAX: Duration = Duration::from_secs(3);

/// Handlers with what they are told; the kind of the failure, and what its message says.
const HOSTILE: [(&str, &str, &str, &str); 18] = [
    ("obey", "spin", "timeout", "500 ms"),
    ("obey", "flood", "timeout", "500 ms"),
    ("obey", "wipe 1500", "timeout", "500 ms"),
    ("preview1", "s", "timeout", "500 ms"),
    ("preview1", "n", "timeout", "500 ms"),
    ("preview1", "f", "timeout", "500 ms"),
    ("realloc", "", "timeout", "500 ms"),
    ("post_return", "", "timeout", "500 ms"),
    ("obey", "recurse", "trap", "stack"),
    ("obey", "trap", "trap", "unreachable"),
    ("preview1", "x", "trap", "exit with code"),
    ("obey", "bad-text", "trap", "not UTF-8"),
    ("obey", "lie", "trap", "out of bounds"),
    ("obey", "grow 65000", "out-of-memory", "of 128 MiB"),
    ("memories", "", "out-of-memory", "of 128 MiB"),
    ("obey", "table 4000000000", "limit:table-elements", "asked for"),
    ("obey", "fill 100000000", "limit:result-bytes", "16 MiB"),
    ("handles", "", "limit:handles", "1000 handles"),
];

/// A module for WASI preview 1, with its type.
fn preview1(name: &str) -> Vec<u8> {
    guests::module(&guests::text(name), &guests::contract(), "job-handler")
}

#[test]
fn every_hostile_guest_is_stopped_in_its_time_and_the_jobs_beside_it_are_done() {
    let mut runner = TestRunner::new().handler("good", "obedient").handler("obey", "obedient");
    for guest in ["realloc", "post_return", "memories"] {
        runner.put_guest(guest, guest);
    }
    runner.put("preview1.wasm", &preview1("preview1"));
    runner.put("handles.wasm", &guests::leaking_handles());
    for name in ["obey", "realloc", "post_return", "memories", "preview1", "handles"] {
        runner = runner.manifest(name, TIMEOUT);
    }
    let runner = runner.start();
    let mut jobs = Vec::new();
    for (handler, word, ..) in HOSTILE {
        let hostile = runner.enqueue(handler, &format!(r#"{{"do":"{word}"}}"#));
        jobs.push((hostile, runner.enqueue("good", r#"{"do":"seen"}"#)));
    }
    let mut longest = 0;
    for ((handler, word, kind, why), (hostile, good)) in HOSTILE.into_iter().zip(jobs) {
        let job = runner.ended(&hostile);
        assert_eq!((job.state.as_str(), job.kind(), job.attempt), ("dead", kind, 1), "{handler} {word}: {}", job.why());
        assert!(job.why().contains(why), "{handler} {word}: {}", job.why());
        let duration = Duration::from_micros(job.failed_attempts[0].duration_us);
        assert!(duration < Duration::from_millis(500) + OVER_MAX, "{handler} {word}: {duration:?}");
        longest = longest.max(duration.as_millis());
        let good = runner.ended(&good);
        assert_eq!((good.state.as_str(), good.result), ("completed", Some(0.into())), "beside {handler} {word}");
    }
    eprintln!("the longest attempt took {longest} ms, of 500");
}

#[test]
fn neither_guests_nor_names_of_files_can_write_lines_or_orders_into_a_log_of_text() {
    let runner = TestRunner::new().config("log.format = 'text'").handler("e\u{1b}[31mv\nil", "idle");
    runner.put("preview1.wasm", &preview1("preview1"));
    let mut runner = runner.start();
    let id = runner.enqueue("preview1", r#"{"do":"e"}"#);
    assert!(runner.ended(&id).why().contains("line 1\nValueError: boom"), "a dead letter keeps its lines");
    runner.stop();
    let said = runner.said_once(&format!("job `{id}` buried"));
    assert!(said.contains("Traceback:   line 1 ValueError: boom"), "{said}");
    assert_eq!(runner.says("cannot load handler `e\u{fffd}[31mv il`"), 1);
    for line in runner.log() {
        let line = line.as_str().expect("it is text").to_owned();
        assert!(line.starts_with("20") && !line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn flood_of_ten_million_lines_is_cut_and_is_no_failure() {
    let runner = TestRunner::obeying();
    let id = runner.ask("log 10000000");
    assert_eq!(runner.ended(&id).state, "completed");
    let log = runner.log();
    let lines: Vec<_> = log.iter().filter(|line| line["job.id"] == id && line["target"] == "guest").collect();
    // 64 KiB of lines of seven bytes, and the marker.
    assert_eq!(lines.len(), (64 << 10) / 7 + 1);
    assert!(
        lines.last().is_some_and(|line| line["message"].as_str().unwrap().contains("log cut")),
        "{:?}",
        lines.last()
    );
}

#[test]
fn handler_whose_instances_cannot_be_made_is_refused_in_its_time() {
    let runner = TestRunner::obeying();
    let five = guests::text("memories").replace("(memory $last 1)", "(memory $fourth 1) (memory $last 1)");
    for (name, manifest, bytes) in [
        ("start", TIMEOUT, guests::guest("start")),
        ("memories", "", guests::encoded(&guests::module(&five, &guests::contract(), "job-handler"))),
    ] {
        runner.put(&format!("{name}.toml"), manifest.as_bytes());
        runner.put(&format!("{name}.wasm"), &bytes);
    }
    until_looked_at(&runner, "marker");
    for (name, why) in [("start", "cannot be instantiated: timeout: 500 ms"), ("memories", "memories")] {
        eventually!(runner.says(&format!("cannot load handler `{name}`")) > 0);
        let said = runner.said_once(&format!("cannot load handler `{name}`"));
        assert!(said.contains(why), "{said}");
    }
    serving(&runner, "obey");
}

#[test]
fn guest_that_spins_while_its_instance_is_made_is_stopped() {
    let runner = TestRunner::new().manifest("dice", "timeout = '100ms'").start();
    let component = preview1("initialize");
    // Its first instance is made when it is loaded, and half of all are not.
    for round in 0.. {
        runner.put("dice.wasm", &variant(&component, &format!("round-{round}")));
        until_looked_at(&runner, &format!("marker-{round}"));
        if runner.says("handler `dice` loaded") > 0 {
            break;
        }
        assert!(round < 30, "no dice are that bad");
    }
    let ids: Vec<String> = (0..20).map(|_| runner.enqueue("dice", "{}")).collect();
    let kinds: Vec<String> = ids.iter().map(|id| runner.ended(id).kind().to_owned()).collect();
    assert!(kinds.iter().all(|kind| kind == "timeout" || kind == "none"), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "timeout") && kinds.iter().any(|kind| kind == "none"), "{kinds:?}");
}

#[tokio::test]
async fn good_jobs_beside_a_spinning_guest_on_each_core_are_not_delayed() {
    const JOBS: usize = 300;
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut runner = TestRunner::off_the_disk().handler("good", "obedient");
    for core in 0..cores {
        let name = format!("spin-{core}");
        runner = runner.handler(&name, "obedient").manifest(&name, "timeout = '5m'");
    }
    let runner = runner.start();
    for core in 0..cores {
        runner.enqueue(&format!("spin-{core}"), r#"{"do":"begin-spin"}"#);
    }
    eventually!(runner.says("begun") == cores);

    let options = Options::new(runner.path("sandhog.db"), runner.path("sandhog.db.state"));
    let queue = SqliteQueue::open(options).unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(10));
    let started = Instant::now();
    for _ in 0..JOBS {
        every.tick().await;
        let [job_type, body] = ["good", r#"{"do":"complete"}"#].map(str::to_owned);
        let job = NewJob::Job { job_type, body, id: None, run_at: None, metadata: Vec::new() };
        queue.enqueue(vec![job]).await.unwrap();
    }
    let rate = JOBS as f64 / started.elapsed().as_secs_f64();
    eventually!(runner.count("completed") == JOBS as u64);
    let mut waits: Vec<i64> = runner
        .jobs(&["--state", "completed"])
        .iter()
        .map(|job| job.ended_at.expect("it ended") - job.enqueued_at)
        .collect();
    waits.sort_unstable();
    let (p50, p99, longest) = (waits[JOBS / 2], waits[JOBS * 99 / 100], waits[JOBS - 1]);
    eprintln!(
        "{rate:.0} jobs a second beside {cores} spinning guests: p50 {p50} ms, p99 {p99} ms, longest {longest} ms"
    );
    assert!(p99 < 1_000, "p99 is {p99} ms");
    assert_eq!(runner.count("running"), cores as u64, "they spin still");
}
