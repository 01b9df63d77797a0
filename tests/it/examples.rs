//! The example handlers, built from source and run by the real program. What each answers is compared.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::TestRunner;

mod compiled;
mod scripts;
mod thumbnail;

/// The folder of the built examples.
fn handlers() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // Variables that cargo sets for tests would be taken for the build's own.
        let built = Command::new(root.join("tools/build-guests")).env_remove("CARGO").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        root.join("target/handlers")
    })
}

/// What `sandhog invoke --json` says of one job, and whether it ended well.
fn invoke(handler: &str, job_type: &str, body: &Value) -> (bool, Value) {
    let file = handlers().join(format!("{handler}.wasm"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandhog"));
    // Variables that are for the tests would be taken for the program's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SANDHOG_")) {
        command.env_remove(name);
    }
    command.arg("invoke").arg(file).arg(body.to_string()).args(["--type", job_type, "--json"]);
    let output = command.output().unwrap();
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), said)
}

#[test]
fn greet_greets() {
    let (well, said) = invoke("greet", "greet", &json!({ "name": "Ada" }));
    assert!(well);
    assert_eq!(said["result"], json!("Hello, Ada!"), "{said}");
}

#[test]
fn render_markdown_renders_and_its_second_build_is_another() {
    let body = json!({ "markdown": "# It's \"here\"\n\n- [x] done" });
    let (_, plain) = invoke("render-markdown", "render-markdown", &body);
    let html =
        "<h1>It's \"here\"</h1>\n<ul>\n<li><input disabled=\"\" type=\"checkbox\" checked=\"\"/>\ndone</li>\n</ul>\n";
    assert_eq!(plain["result"]["html"], json!(html), "{plain}");
    let (_, smart) = invoke("render-markdown+smart", "render-markdown", &body);
    assert_eq!(smart["result"]["smart"], json!(true), "{smart}");
    assert!(
        smart["result"]["html"].as_str().unwrap().starts_with("<h1>It\u{2019}s \u{201c}here\u{201d}</h1>"),
        "{smart}"
    );
}

#[test]
fn poll_asks_twice_and_completes_with_the_body_that_it_left() {
    let (well, first) = invoke("poll", "poll", &json!({}));
    assert!(well);
    assert_eq!(first["outcome"], json!("retry"), "{first}");
    let (_, third) = invoke("poll", "poll", &json!({ "polls": 2 }));
    assert_eq!(third["result"], json!({ "polls": 3 }), "{third}");
}

#[test]
fn visits_counts_and_greets_the_visitor_it_was_told_to() {
    let body = json!({ "page": "/", "greet_at": 1 });
    let (well, said) = invoke("visits", "visits", &body);
    assert!(well, "{said}");
    assert_eq!((&said["result"], &said["follow_ups"]), (&json!({ "page": "/", "visits": 1 }), &json!(1)), "{said}");
    // A handler that keeps nothing imports no store.
    let greet = std::fs::read(handlers().join("greet.wasm")).unwrap();
    assert!(!greet.windows(13).any(|bytes| bytes == b"wasi:keyvalue"));
}

#[test]
fn hostile_ends_as_its_job_type_says() {
    for (job_type, kind) in [("trap", "trap"), ("spin", "timeout"), ("memory-hog", "out-of-memory")] {
        let (well, said) = invoke("hostile", job_type, &json!({}));
        assert!(!well);
        assert_eq!(said["kind"], json!(kind), "{said}");
    }
}

#[test]
fn report_failure_says_what_became_of_another_s_job() {
    let mut runner = TestRunner::new().handler("obey", "obedient").config("failures.job_type = 'report-failure'");
    runner.put("report-failure.wasm", &std::fs::read(handlers().join("report-failure.wasm")).unwrap());
    runner = runner.start();
    let job = runner.ended(&runner.enqueueing("obey", r#"{"do":"err"}"#).named("a").id());
    let report = runner.ended(&format!("{}/report/1", job.id));
    assert_eq!(report.result, Some(json!("a (obey) is dead: error: boom, after 1 starts")));
    let malformed = runner.enqueue_lines("[]", &["--bury-bad"]).remove(0).id;
    let report = runner.ended(&format!("{malformed}/report/1"));
    let line = format!("{malformed} (no job) is dead: malformed: not a JSON object, after 0 starts");
    assert_eq!((report.result, runner.says(&line)), (Some(json!(line)), 1));
}

#[test]
fn counter_counts_from_job_to_job_and_says_at_the_end_how_many_they_were() {
    let mut runner = TestRunner::new();
    for file in ["counter.toml", "counter.wasm"] {
        runner.put(file, &std::fs::read(handlers().join(file)).unwrap());
    }
    runner = runner.start();
    assert_eq!(runner.says("counting from 0"), 1, "it is set up when it is loaded");
    for count in 1..=3 {
        assert_eq!(runner.ended(&runner.enqueue("counter", "{}")).result, Some(json!(count)));
    }
    let failed = runner.enqueueing("counter", r#"{"fail":true}"#).named("the-fourth").id();
    assert_eq!(runner.ended(&failed).kind(), "error");
    assert_eq!(runner.says("job the-fourth failed as number 4: told to fail"), 1);
    assert_eq!(runner.ended(&runner.enqueue("counter", "{}")).result, Some(json!(5)));
    assert!(runner.stop().success());
    assert_eq!((runner.says("counting from 0"), runner.says("jobs worked: 5")), (1, 1));
}
