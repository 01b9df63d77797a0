//! What is counted, and how it is written.

use std::collections::BTreeSet;
use std::io::Write;
use std::pin::Pin;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Config, Environment, Flags};
use crate::generation::Generation;
use crate::handler::Guest;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::outcome::{Failure, Kind, Outcome};
use crate::queue::{Blocked, Count, State};
use crate::sandbox::{Attempt, GuestLog, Level, Source};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

struct NoGuest;

impl Guest for NoGuest {
    fn run<'a>(
        &'a self,
        _: &'a Arc<Job>,
        _: u32,
        _: &'a Limits,
        _: &'a CancellationToken,
        _: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Attempt> + Send + 'a>> {
        unreachable!("nothing runs here")
    }
}

struct NoLog;

impl GuestLog for NoLog {
    fn line(&self, _: Option<&Job>, _: Source, _: Level, _: &str) {}
}

fn handler(name: &str, job_types: &[String]) -> Arc<Handler> {
    let nothing = Environment { variables: BTreeMap::new(), cores: 2 };
    let config = Config::resolve(&Flags::default(), &nothing, None).unwrap();
    let text = format!("job_types = {job_types:?}");
    let manifest = Manifest::parse(&text, name, std::path::Path::new("."), &config).unwrap();
    let generation = Generation::of(name.as_bytes(), None);
    Arc::new(Handler::new(name.into(), generation, manifest, NoGuest, Arc::new(NoLog)))
}

fn metrics(handlers: &[(&str, &[String])]) -> Metrics {
    let handlers = handlers.iter().map(|(name, job_types)| handler(name, job_types));
    Metrics::new(Arc::new(ArcSwap::from_pointee(Registry::of(handlers).0)), 2)
}

fn ended(metrics: &Metrics, job_type: &str, outcome: &Outcome, micros: u64) {
    let of_any_type = handler("any", &["any".to_owned()]);
    let end = End { outcome, duration: Duration::from_micros(micros), memory_peak_bytes: 1 << 20, denied: 2 };
    metrics.ended(&of_any_type, &job(job_type), &end);
}

fn job(job_type: &str) -> Job {
    Job { job_type: job_type.to_owned(), ..Job::default() }
}

fn stats(counts: &[(Option<&str>, State, u64)]) -> Stats {
    let count = |(job_type, state, jobs): &(Option<&str>, State, u64)| Count {
        job_type: job_type.map(str::to_owned),
        state: *state,
        jobs: *jobs,
    };
    Stats { counts: counts.iter().map(count).collect(), ..Stats::default() }
}

/// Everything that can be said is said.
fn all() -> (Metrics, Readings) {
    let metrics = metrics(&[("resize", &["resize".to_owned(), "a\"b\\c".to_owned()])]);
    ended(&metrics, "resize", &Outcome::Complete { result: None }, 1_500);
    ended(&metrics, "a\"b\\c", &Outcome::Failed(Failure::new(Kind::Trap, "x")), 20);
    metrics.settled(&job("resize"), &Fate::Buried(Kind::Limit("handles".into())), Settled::Settled);
    let blocked = Blocked { topic: "t".into(), partition: 1, offset: 7, reason: "x".into(), stalls: 3 };
    let counts = [(Some("resize"), State::Ready, 4), (Some("nobody's"), State::Parked, 2), (None, State::Dead, 1)];
    let stats = Stats {
        oldest_ready_at: Some(UnixMs(1_000)),
        runners: Some(2),
        fenced_total: Some(1),
        blocked: vec![blocked],
        ..stats(&counts)
    };
    let readings = Readings {
        now: UnixMs(31_000),
        stats: Some((Arc::new(stats), Duration::from_millis(500))),
        slots: 8,
        running: 3,
        in_flight: 20,
        pool: Some(Occupancy { busy: 3, waiting: 1, size: 32 }),
        loads: Some(Arc::default()),
        traces: Some(traces::Counts::default()),
        ..Readings::default()
    };
    (metrics, readings)
}

#[track_caller]
fn says(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "`{line}` is not in\n{text}");
}

#[test]
fn attempts_are_counted_by_type_and_outcome() {
    let (metrics, readings) = all();
    let text = metrics.render(&readings, false);
    says(&text, r#"sandhog_attempts_total{job_type="resize",outcome="completed"} 1.0"#);
    says(&text, r#"sandhog_attempts_total{job_type="a\"b\\c",outcome="failed"} 1.0"#);
    says(&text, r#"sandhog_attempt_duration_seconds_bucket{le="0.001",job_type="resize"} 0"#);
    says(&text, r#"sandhog_attempt_duration_seconds_bucket{le="0.005",job_type="resize"} 1"#);
    says(&text, r#"sandhog_attempt_duration_seconds_count{job_type="resize"} 1"#);
    says(&text, r#"sandhog_dead_letters_total{job_type="resize",kind="limit:handles"} 1.0"#);
    says(&text, r#"sandhog_host_calls_denied_total{job_type="resize"} 2.0"#);
    says(&text, r#"sandhog_instance_memory_peak_bytes{job_type="resize"} 1048576.0"#);
}

#[test]
fn backlog_is_worth_jobs_times_their_mean_time() {
    let (metrics, readings) = all();
    let text = metrics.render(&readings, false);
    says(&text, r#"sandhog_queue_depth{job_type="resize",state="ready"} 4.0"#);
    says(&text, r#"sandhog_queue_depth{job_type="unknown",state="parked"} 2.0"#);
    says(&text, r#"sandhog_queue_backlog_by_type_seconds{job_type="resize"} 0.006"#);
    says(&text, "sandhog_queue_backlog_seconds 0.006");
    says(&text, "sandhog_queue_oldest_ready_seconds 30.0");
}

#[test]
fn type_that_was_never_tried_takes_as_long_as_the_others_or_a_second() {
    let metrics = metrics(&[("a", &["a".to_owned(), "b".to_owned()])]);
    let stats = Arc::new(stats(&[(Some("b"), State::Ready, 10)]));
    let readings = Readings { stats: Some((stats, Duration::ZERO)), ..Readings::default() };
    says(&metrics.render(&readings, false), "sandhog_queue_backlog_seconds 10.0");
    ended(&metrics, "a", &Outcome::Complete { result: None }, 500_000);
    says(&metrics.render(&readings, false), "sandhog_queue_backlog_seconds 5.0");
}

#[test]
fn only_types_that_somebody_serves_by_name_are_labels() {
    let by_name = metrics(&[("resize", &["resize".to_owned()])]);
    let with_others = metrics(&[("rest", &["*".to_owned()])]);
    for number in 0..3_000 {
        ended(&by_name, &format!("made-up-{number}"), &Outcome::Complete { result: None }, 10);
        ended(&with_others, &format!("made-up-{number}"), &Outcome::Complete { result: None }, 10);
    }
    let text = by_name.render(&Readings::default(), true);
    says(&text, r#"sandhog_attempts_total{job_type="unknown",outcome="completed"} 3000.0"#);
    assert!(!text.contains("made-up"), "{text}");
    let text = with_others.render(&Readings::default(), true);
    says(&text, r#"sandhog_attempts_total{job_type="*",outcome="completed"} 3000.0"#);
}

#[test]
fn types_beyond_a_thousand_are_one() {
    let types: Vec<String> = (0..1_200).map(|number| format!("type-{number}")).collect();
    let metrics = metrics(&[("many", &types)]);
    for job_type in &types {
        ended(&metrics, job_type, &Outcome::Complete { result: None }, 10);
    }
    let text = metrics.render(&Readings::default(), true);
    assert_eq!(text.matches("outcome=\"completed\"").count(), 1_001);
    says(&text, r#"sandhog_attempts_total{job_type="other",outcome="completed"} 200.0"#);
}

#[test]
fn all_threads_count_and_nothing_is_counted_twice() {
    let metrics = metrics(&[("resize", &["resize".to_owned()])]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    ended(&metrics, "resize", &Outcome::Complete { result: None }, 10);
                }
            });
        }
    });
    let text = metrics.render(&Readings::default(), true);
    says(&text, r#"sandhog_attempts_total{job_type="resize",outcome="completed"} 2000.0"#);
}

#[test]
fn document_has_every_metric_and_no_other() {
    let (metrics, readings) = all();
    let text = metrics.render(&readings, false);
    let written: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).map(|(name, _)| name).collect();
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `sandhog_")?.split_once('`'));
    let documented: BTreeSet<String> =
        rows.map(|(name, _)| format!("sandhog_{}", name.split('{').next().unwrap_or(name))).collect();
    let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
    assert_eq!(written, documented);
}

#[test]
fn promtool_finds_nothing_to_say() {
    let (metrics, readings) = all();
    let tool = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/promtool")).output().unwrap();
    if !tool.status.success() {
        let why = String::from_utf8_lossy(&tool.stderr);
        // Not by a macro, whose output the test runner would keep to itself.
        writeln!(std::io::stderr(), "NOT TESTED: metrics ({})", why.trim()).unwrap();
        return;
    }
    let mut promtool = Command::new(String::from_utf8_lossy(&tool.stdout).trim());
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    let text = metrics.render(&readings, false);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
