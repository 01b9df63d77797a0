//! The benchmark, as people call it. How fast anything is no test can claim: a test machine is busy.

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::eventually;
use crate::kafka::Broker;
use crate::support::TestRunner;

const FIELDS: [&str; 7] = ["limit", "met", "name", "ratio", "target", "unit", "value"];

fn bench(runner: &TestRunner, arguments: &[&str]) -> Output {
    runner.sandhog(&[&["bench", "--quick", "--runs", "1"], arguments].concat())
}

fn figures(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is left in the folder that it worked in.
fn left_over(runner: &TestRunner) -> Vec<String> {
    let entries = std::fs::read_dir(runner.path(".")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("sandhog-bench")).collect()
}

#[test]
fn figures_are_an_array_of_objects_with_their_limits_and_ratios() {
    let runner = TestRunner::new();
    let output = bench(&runner, &["--json", "--only", "attempt/built-in/1", "--only", "scaling"]);
    let figures = figures(&output);
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    let expected = ["attempt/built-in/1-thread", "attempt/built-in/1-thread/no-scan", "scaling/built-in"];
    assert_eq!(names, expected);
    for figure in &figures {
        assert_eq!(figure.as_object().unwrap().keys().collect::<Vec<_>>(), FIELDS);
        let number = |field: &str| figure[field].as_f64().unwrap();
        assert!(number("value") > 0.0 && number("limit") > 0.0, "{figure}");
        assert!((number("ratio") - number("value") / number("limit")).abs() < 0.01, "{figure}");
    }
    assert_eq!((&figures[0]["target"], figures[0]["unit"].as_str()), (&Value::from(1.25), Some("µs")));
    assert!(figures[0]["met"].is_boolean(), "{}", figures[0]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let conditions: Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert!(conditions["cores"].as_u64().unwrap() >= 1, "{conditions}");
    assert!(conditions["sync_p50_ms"].as_f64().unwrap() > 0.0, "{conditions}");
    assert_eq!(left_over(&runner), [""; 0]);
}

#[test]
fn handler_of_a_file_is_drained_by_a_real_runner_beside_a_bare_pipeline() {
    let runner = TestRunner::new().handler("idle", "idle");
    std::fs::write(runner.path("body.json"), r#"{ "n": 1 }"#).unwrap();
    let arguments = ["--handler", "handlers/idle.wasm", "--body", "body.json", "--only", "drain/idle/unique-ids"];
    let output = bench(&runner, &[&arguments[..], &["--json"]].concat());
    let figures = figures(&output);
    assert_eq!(figures.len(), 1);
    assert_eq!(figures[0]["name"], "drain/idle/unique-ids");
    assert!(figures[0]["value"].as_f64().unwrap() > 100.0, "{}", figures[0]);
    assert_eq!(left_over(&runner), [""; 0]);
}

#[test]
fn kafka_is_measured_where_one_is_named_and_nothing_stays_in_it() {
    let Some(broker) = Broker::shared() else { return };
    let runner = TestRunner::new();
    let output = bench(&runner, &["--json", "--kafka", broker.address(), "--only", "kafka/drain"]);
    let figures = figures(&output);
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kafka/drain/built-in", "kafka/drain/built-in/exactly-once"]);
    for figure in &figures {
        assert!(figure["value"].as_f64().unwrap() > 100.0 && figure["limit"].as_f64().unwrap() > 100.0, "{figure}");
    }
    assert_eq!(left_over(&runner), [""; 0]);
    eventually!(!broker.topics().iter().any(|topic| topic.starts_with("sandhog-bench-")));
}

#[test]
fn table_names_the_machine_and_every_figure() {
    let runner = TestRunner::new();
    let output = bench(&runner, &["--only", "attempt/built-in/all-cores/no-scan"]);
    assert!(output.status.success());
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in ["machine ", "kernel ", "disk sync ", "FIGURE ", "attempt/built-in/all-cores/no-scan ", "targets met"]
    {
        assert!(table.contains(words), "`{words}` is not in\n{table}");
    }
}

#[test]
fn interrupted_benchmark_leaves_no_process_and_no_file() {
    let runner = TestRunner::new();
    let folder = std::fs::canonicalize(runner.path(".")).unwrap();
    // Processes that work below the test's folder.
    let works_below = || {
        let processes = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("cwd")).ok());
        processes.filter(|cwd| cwd.starts_with(&folder) && *cwd != folder).count()
    };
    let mut bench = runner
        .command()
        .args(["bench", "--only", "idle/cpu"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually!(works_below() == 1);
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    let ended = eventually!(bench.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    assert_eq!((works_below(), left_over(&runner)), (0, vec![]));
}

#[test]
fn unknown_figure_is_a_usage_error_that_lists_them() {
    let output = bench(&TestRunner::new(), &["--only", "attempt/nobody"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.starts_with("error: there is no figure `attempt/nobody`\nhint: there are attempt/built-in/1-thread, ")
    );
    assert!(stderr.contains("start/20-handlers"), "{stderr}");
}

#[test]
fn handler_that_does_not_complete_its_jobs_is_a_failed_measurement() {
    let runner = TestRunner::new().handler("obey", "obedient");
    std::fs::write(runner.path("body.json"), r#"{ "do": "err" }"#).unwrap();
    let arguments = ["--handler", "handlers/obey.wasm", "--body", "body.json", "--only", "attempt/obey"];
    let output = bench(&runner, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("`obey` does not complete its job"), "{stderr}");
    assert_eq!(left_over(&runner), [""; 0]);
}
