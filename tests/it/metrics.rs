//! `GET /metrics` of a real runner, and the rules for alerts on what it says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::eventually;
use crate::support::{TestRunner, project};

/// What the runner answers to a scraper: the head, and the metrics.
fn scrape(runner: &TestRunner, accept: &str) -> (String, String) {
    let said = runner.said_once("the HTTP API listens on ");
    let address = said.rsplit(' ').next().unwrap().trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The value of a series, once it is there.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn scraper_sees_what_became_of_jobs() {
    let runner = TestRunner::obeying();
    for command in ["complete", "complete", "err"] {
        runner.ended(&runner.ask(command));
    }
    runner.enqueue("nobody's", "{}");
    let says = |series: &str, expected: f64| {
        eventually!(value(&scrape(&runner, "*/*").1, series) == Some(expected));
    };
    says(r#"sandhog_attempts_total{job_type="obey",outcome="completed"}"#, 2.0);
    says(r#"sandhog_attempts_total{job_type="obey",outcome="failed"}"#, 1.0);
    says(r#"sandhog_dead_letters_total{job_type="obey",kind="error"}"#, 1.0);
    says(r#"sandhog_queue_depth{job_type="obey",state="dead"}"#, 1.0);
    says(r#"sandhog_queue_depth{job_type="unknown",state="parked"}"#, 1.0);
    says(r#"sandhog_settlements_total{result="settled"}"#, 3.0);
    says(r#"sandhog_handlers{state="serving"}"#, 1.0);
    says(r#"sandhog_handler_reloads_total{result="loaded"}"#, 1.0);
}

#[test]
fn scraper_gets_the_format_that_it_asks_for() {
    let runner = TestRunner::obeying();
    let (head, text) = scrape(&runner, "application/openmetrics-text; version=1.0.0,text/plain;q=0.5");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let (head, text) = scrape(&runner, "*/*");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(!text.contains("# EOF"), "{text}");
}

#[test]
fn refused_handler_and_sick_queue_are_seen() {
    let runner = TestRunner::obeying();
    runner.put("bad.wasm", b"no component");
    eventually!(value(&scrape(&runner, "*/*").1, r#"sandhog_handlers{state="refused"}"#) == Some(1.0));
    runner.fill_disk(true);
    // Its settlement finds no room.
    runner.ask("complete");
    eventually!(value(&scrape(&runner, "*/*").1, "sandhog_queue_sick_seconds_total") > Some(0.0));
    runner.fill_disk(false);
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let tool = Command::new(project("tools/promtool")).output().unwrap();
    if !tool.status.success() {
        let why = String::from_utf8_lossy(&tool.stderr);
        // Not by a macro, whose output the test runner would keep to itself.
        writeln!(std::io::stderr(), "NOT TESTED: alerts ({})", why.trim()).unwrap();
        return;
    }
    let tool = String::from_utf8(tool.stdout).unwrap();
    for arguments in [["check", "rules", "docs/deploy/alerts.yaml"], ["test", "rules", "tests/prometheus/alerts.yaml"]]
    {
        let output = Command::new(tool.trim()).args(arguments).current_dir(project(".")).output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}{errors}");
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let read = |name: &str| std::fs::read_to_string(project(name)).unwrap();
    let document = read("docs/metrics.md");
    let dashboard = read("docs/deploy/grafana.json");
    let json: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(json["panels"].as_array().unwrap().len() > 20);
    for (file, text) in [("grafana.json", dashboard), ("alerts.yaml", read("docs/deploy/alerts.yaml"))] {
        for piece in text.split("sandhog_").skip(1) {
            let name: String = piece.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            let name = name.trim_end_matches("_bucket");
            let known = ["`", "{"].iter().any(|end| document.contains(&format!("| `sandhog_{name}{end}")));
            assert!(known, "{file}: `sandhog_{name}` is not in docs/metrics.md");
        }
    }
}
