//! Guests that mean no good: each ends as what it is, in its time, and the jobs beside it go on.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sandhog::queue::sqlite::{Options, SqliteQueue};
use sandhog::queue::{NewJob, Queue};

use crate::eventually;
use crate::reload::{serving, until_looked_at, variant};
use crate::support::{Seen, TestRunner, guests};

const TIMEOUT: &str = "timeout = '500ms'";
const LIMIT: Duration = Duration::from_millis(500);

/// How much longer than its limit an attempt may take.
const OVER: Duration = Duration::from_millis(100);

/// The same where other processes have the cores: no attempt is longer, and one of a few is within [`OVER`].
const OVER_MAX: Duration = Duration::from_secs(3);

/// How often a good job is enqueued beside hostile guests.
const EVERY: Duration = Duration::from_millis(10);

/// Handlers with what they are told; the kind of the failure, and what its message says.
const HOSTILE: [(&str, &str, &str, &str); 19] = [
    ("obey", "spin", "timeout", "500 ms"),
    ("obey", "flood", "timeout", "500 ms"),
    ("obey", "log-blank 16000000", "timeout", "500 ms"),
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
    // Two on each core of a small machine: the more there are, the later each of them comes to look at its clock.
    let mut runner = TestRunner::new().config("slots = 4").handler("good", "obedient").handler("obey", "obedient");
    for guest in ["realloc", "post_return", "memories"] {
        runner.put_guest(guest, guest);
    }
    runner.put("preview1.wasm", &preview1("preview1"));
    runner.put("handles.wasm", &guests::leaking_handles());
    for name in ["obey", "realloc", "post_return", "memories", "preview1", "handles"] {
        runner = runner.manifest(name, TIMEOUT);
    }
    let runner = runner.start();
    let mut late = HOSTILE.to_vec();
    for round in 0.. {
        assert!(round < 10, "each time longer than they may be: {late:?}");
        let enqueue = |(handler, word, ..): &(&str, &str, &str, &str)| {
            let hostile = runner.enqueue(handler, &format!(r#"{{"do":"{word}"}}"#));
            (hostile, runner.enqueue("good", r#"{"do":"seen"}"#))
        };
        let jobs: Vec<_> = late.iter().map(enqueue).collect();
        let mut jobs = jobs.iter();
        late.retain(|(handler, word, kind, why)| {
            let (hostile, good) = jobs.next().expect("one was enqueued for each");
            let job = runner.ended(hostile);
            assert_eq!(
                (job.state.as_str(), job.kind(), job.attempt),
                ("dead", *kind, 1),
                "{handler} {word}: {}",
                job.why()
            );
            assert!(job.why().contains(why), "{handler} {word}: {}", job.why());
            let good = runner.ended(good);
            assert_eq!((good.state.as_str(), good.result), ("completed", Some(0.into())), "beside {handler} {word}");
            let duration = Duration::from_micros(job.failed_attempts[0].duration_us);
            assert!(duration < LIMIT + OVER_MAX, "{handler} {word}: {duration:?}");
            duration >= LIMIT + OVER
        });
        if late.is_empty() {
            break;
        }
    }
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
    let jobs: Vec<Seen> = ids.iter().map(|id| runner.ended(id)).collect();
    let late = |job: &Seen| job.duration_us.is_some_and(|us| us > 100_000 + OVER_MAX.as_micros() as u64);
    assert!(!jobs.iter().any(late), "{jobs:?}");
    let kinds: Vec<&str> = jobs.iter().map(Seen::kind).collect();
    assert!(kinds.iter().all(|kind| ["timeout", "none"].contains(kind)), "{kinds:?}");
    assert!(kinds.contains(&"timeout") && kinds.contains(&"none"), "{kinds:?}");
}

/// Milliseconds: of good jobs from enqueue to end, and of a [`Witness`] beside them.
#[derive(Debug)]
struct Waits {
    jobs: Quantiles,
    witness: Quantiles,
}

#[derive(Debug)]
struct Quantiles {
    p50: i64,
    p99: i64,
}

/// A thread that makes 4 KiB durable every 10 ms, and notes how late it was done: what the machine, its disk and its other
/// processes make of the least that a job needs.
struct Witness {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<i64>>,
}

// === impl Waits ===

impl Waits {
    /// All but one in a hundred are done within 50 ms, or where the machine is late itself, within five times what it takes
    /// for the least. There the median tells more: it is not carried away by single stalls.
    fn are_short(&self) -> bool {
        self.jobs.p50 < 50.max(10 * self.witness.p50) && self.jobs.p99 < 50.max(5 * self.witness.p99)
    }
}

// === impl Quantiles ===

impl Quantiles {
    fn of(mut all: Vec<i64>) -> Quantiles {
        all.sort_unstable();
        Quantiles { p50: all[all.len() / 2], p99: all[all.len() * 99 / 100] }
    }
}

// === impl Witness ===

impl Witness {
    fn start(path: &Path) -> Witness {
        let mut file = File::create(path).unwrap();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut late = Vec::new();
            loop {
                let due = Instant::now() + EVERY;
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return late;
                }
                file.write_all(&[0; 4096]).unwrap();
                file.sync_data().unwrap();
                late.push(i64::try_from(due.elapsed().as_millis()).unwrap());
            }
        });
        Witness { stop, thread }
    }

    fn stop(self) -> Vec<i64> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// Enqueues a hundred good jobs a second for a while, beside a guest on each core that does what `word` says.
async fn waits_beside(word: &str) -> Waits {
    const JOBS: usize = 200;
    let cores = std::thread::available_parallelism().unwrap().get();
    // However long the disk takes: no call too many ends them.
    let mut runner = TestRunner::new().handler("good", "obedient").config("limits.host_calls = 4000000000");
    for core in 0..cores {
        let name = format!("bad-{core}");
        runner = runner.handler(&name, "obedient").manifest(&name, "timeout = '5m'");
    }
    let runner = runner.start();
    for core in 0..cores {
        runner.enqueue(&format!("bad-{core}"), &format!(r#"{{"do":"{word}"}}"#));
    }
    eventually!(runner.count("running") == cores as u64);

    // What a slow disk takes shows in the waits: it is no reason to give up.
    let busy = crate::support::patience();
    let options = Options { busy, ..Options::new(runner.path("sandhog.db"), runner.path("sandhog.db.state")) };
    let queue = SqliteQueue::open(options).unwrap();
    let witness = Witness::start(&runner.path("witness"));
    let mut every = tokio::time::interval(EVERY);
    for _ in 0..JOBS {
        every.tick().await;
        let [job_type, body] = ["good", r#"{"do":"complete"}"#].map(str::to_owned);
        let job = NewJob::Job { job_type, body, id: None, run_at: None, metadata: Vec::new(), keep: None };
        queue.enqueue(vec![job]).await.unwrap();
    }
    eventually!(runner.count("completed") == JOBS as u64);
    let witnessed = witness.stop();
    assert_eq!(runner.count("running"), cores as u64, "they are hostile still");
    let done = runner.jobs(&["--state", "completed"]);
    let waits = done.iter().map(|job| job.ended_at.expect("it ended") - job.enqueued_at).collect();
    Waits { jobs: Quantiles::of(waits), witness: Quantiles::of(witnessed) }
}

#[tokio::test]
async fn good_jobs_beside_a_hostile_guest_on_each_core_are_not_delayed() {
    for word in ["spin", "flood", "wipe 1500", "log-blank 16000000"] {
        // Other tests run beside this one, and take what they take in bursts.
        let mut tries = Vec::new();
        while !tries.last().is_some_and(Waits::are_short) {
            assert!(tries.len() < 10, "beside `{word}`: {tries:?}");
            tries.push(waits_beside(word).await);
        }
    }
}
