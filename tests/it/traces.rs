//! Spans of attempts, as a real receiver of OpenTelemetry's gets them: `tools/otel/receiver`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;

use sandhog::config::{Config, Environment, Flags};
use sandhog::queue::{self, NewJob};
use serde_json::{Value, json};

use self::receiver::{Receiver, Span};
use crate::eventually;
use crate::support::TestRunner;

mod receiver;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ENQUEUER: &str = "b7ad6b7169203331";

/// A runner with the obedient guest, which may enqueue, that sends spans to `receiver`.
fn runner(receiver: &Receiver, traces: &str) -> TestRunner {
    let endpoint = &receiver.endpoint;
    TestRunner::new()
        .handler("obey", "obedient")
        .manifest("obey", "grants.enqueue = ['follow']\nretry.backoff.first = '10ms'")
        .handler("follow", "obedient")
        .config(&format!("[traces]\nendpoint = '{endpoint}'\n{traces}"))
}

/// Enqueues a job with a place in a trace, as the API does and Kafka's records can; answers its id.
fn enqueue(runner: &TestRunner, job_type: &str, body: &Value, traceparent: &str) -> String {
    let queue = Some(format!("sqlite:{}", runner.path("sandhog.db").display()));
    let nothing = Environment { variables: BTreeMap::new(), cores: 2 };
    let config = Config::resolve(&Flags { queue, ..Flags::default() }, &nothing, None).unwrap();
    let metadata =
        vec![("traceparent".to_owned(), traceparent.to_owned()), ("tracestate".to_owned(), "vendor=value".to_owned())];
    let job = NewJob::Job {
        job_type: job_type.to_owned(),
        body: body.to_string(),
        id: None,
        run_at: None,
        metadata,
        keep: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = queue::open(&config).await.unwrap();
        let id = queue.enqueue(vec![job]).await.unwrap().remove(0).id;
        queue.close().await;
        id
    })
}

fn sampled() -> String {
    format!("00-{TRACE}-{ENQUEUER}-01")
}

/// The span of the attempt at this job.
fn span_of(receiver: &Receiver, job: &str) -> Span {
    eventually!(receiver.spans().into_iter().find(|span| span.text("messaging.message.id") == job))
}

#[test]
fn enqueuer_attempt_and_follow_up_are_one_trace() {
    let Some(receiver) = Receiver::start() else { return };
    let runner = runner(&receiver, "").start();
    let id = enqueue(&runner, "obey", &json!({ "do": "follow 1 complete" }), &sampled());
    let attempt = span_of(&receiver, &id);
    assert_eq!((attempt.trace.as_str(), attempt.parent.as_str()), (TRACE, ENQUEUER));
    assert_eq!((attempt.name.as_str(), attempt.kind), ("attempt obey", 5));
    assert_eq!(attempt.json["traceState"], "vendor=value");
    assert_eq!(attempt.status(), 0, "what went well says nothing");
    assert_eq!(attempt.text("sandhog.outcome"), "completed");
    assert_eq!(attempt.text("sandhog.handler.name"), "obey");
    assert_eq!(attempt.text("messaging.destination.name"), "sandhog.db");
    let follow_up = span_of(&receiver, &format!("{id}/1/1"));
    assert_eq!((follow_up.trace.as_str(), follow_up.parent.as_str()), (TRACE, attempt.id.as_str()));
    assert_eq!(follow_up.name, "attempt follow");
    assert_eq!(receiver.service(), "sandhog");
}

#[test]
fn failed_attempt_is_an_error_that_says_what_follows() {
    let Some(receiver) = Receiver::start() else { return };
    let runner = runner(&receiver, "").manifest("obey", "retry = { max_failures = 2, backoff.first = '10ms' }").start();
    let id = enqueue(&runner, "obey", &json!({ "do": "err" }), &sampled());
    let of = |number: i64| {
        let is_it = |span: &Span| span.text("messaging.message.id") == id && span.number("sandhog.attempt") == number;
        eventually!(receiver.spans().into_iter().find(is_it))
    };
    for (number, event) in [(1, "retry"), (2, "buried")] {
        let span = of(number);
        assert_eq!(span.status(), 2, "{span:?}");
        assert_eq!((span.text("error.type"), span.parent.as_str()), ("error", ENQUEUER));
        assert_eq!(span.json["events"][0]["name"], event);
        assert!(span.json["status"]["message"].as_str().unwrap().contains("boom"), "{span:?}");
    }
}

#[test]
fn job_that_its_enqueuer_did_not_sample_has_no_span_and_still_a_place() {
    let Some(receiver) = Receiver::start() else { return };
    let runner = runner(&receiver, "").start();
    let unsampled = enqueue(&runner, "obey", &json!({ "do": "job" }), &format!("00-{TRACE}-{ENQUEUER}-00"));
    let seen = runner.ended(&unsampled);
    let place = traceparent(&seen.result.unwrap());
    assert!(place.starts_with(&format!("00-{TRACE}-")) && place.ends_with("-00"), "{place}");
    assert!(!place.contains(ENQUEUER), "the handler is below its attempt, not below the enqueuer: {place}");
    let sampled = enqueue(&runner, "obey", &json!({ "do": "job" }), &sampled());
    let span = span_of(&receiver, &sampled);
    let seen = runner.ended(&sampled);
    assert_eq!(traceparent(&seen.result.unwrap()), format!("00-{TRACE}-{}-01", span.id));
    // It would have been sent before.
    assert!(receiver.spans().iter().all(|span| span.text("messaging.message.id") != unsampled));
    assert_eq!(seen.metadata.iter().find(|(name, _)| name == "traceparent").unwrap().1, self::sampled());
}

#[test]
fn job_without_a_place_begins_a_trace_where_the_ratio_says_so() {
    let Some(receiver) = Receiver::start() else { return };
    let none = runner(&receiver, "sample_ratio = 0").start();
    let id = none.ask("job");
    assert!(traceparent(&none.ended(&id).result.unwrap()).ends_with("-00"));
    drop(none);
    let all = runner(&receiver, "").start();
    let span = span_of(&receiver, &all.ask("job"));
    assert_eq!(span.parent, "");
    assert!(receiver.spans().iter().all(|span| span.text("messaging.message.id") != id));
}

#[test]
fn lines_of_an_attempt_have_its_ids() {
    let Some(receiver) = Receiver::start() else { return };
    let runner = runner(&receiver, "").start();
    let id = enqueue(&runner, "obey", &json!({ "do": "panic" }), &sampled());
    let span = span_of(&receiver, &id);
    for says in ["panicked at", "buried"] {
        let log = runner.log();
        let line = log.iter().find(|line| line["message"].as_str().is_some_and(|message| message.contains(says)));
        let line = line.unwrap_or_else(|| panic!("no line says `{says}`"));
        assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(span.trace), &json!(span.id)), "{line}");
    }
}

#[test]
fn request_of_a_handler_goes_on_with_its_span() {
    let Some(receiver) = Receiver::start() else { return };
    let (listener, (said, heads)) = (TcpListener::bind("127.0.0.1:0").unwrap(), channel());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            said.send(head).ok();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        }
    });
    let endpoint = &receiver.endpoint;
    let url = format!("http://{address}");
    let runner = TestRunner::new()
        .manifest("reach", &format!("[grants]\nhttp = ['{url}']"))
        .config(&format!("traces.endpoint = '{endpoint}'\nhandlers.allow = ['*: http {url}']"));
    runner.put("reach.wasm", crate::grants::reach());
    let runner = runner.start();
    let body = json!({ "steps": [{ "get": ["http", address.to_string(), "/"] }] });
    let id = enqueue(&runner, "reach", &body, &sampled());
    let span = span_of(&receiver, &id);
    let head = heads.recv_timeout(crate::support::patience()).unwrap();
    let has = |line: &str| head.iter().any(|found| found.eq_ignore_ascii_case(line));
    assert!(has(&format!("traceparent: 00-{TRACE}-{}-01", span.id)), "{head:?}");
    assert!(has("tracestate: vendor=value"), "{head:?}");
}

#[test]
fn receiver_that_was_away_gets_what_was_kept() {
    let Some(receiver) = Receiver::start() else { return };
    let (endpoint, port) = (receiver.endpoint.clone(), receiver.port);
    drop(receiver);
    let runner = TestRunner::new().handler("obey", "obedient").config(&format!("traces.endpoint = '{endpoint}'"));
    let runner = runner.start();
    let ids: Vec<String> = (0..3).map(|_| enqueue(&runner, "obey", &json!({ "do": "complete" }), &sampled())).collect();
    eventually!(runner.says("cannot send spans to") > 0);
    assert!(ids.iter().all(|id| runner.ended(id).state == "completed"), "jobs wait for nobody's spans");
    let receiver = Receiver::at(port).unwrap();
    for id in &ids {
        span_of(&receiver, id);
    }
    eventually!(runner.says("spans are taken again") > 0);
    runner.said_once("cannot send spans to");
}

#[test]
fn runner_that_stops_sends_its_last_spans() {
    let Some(receiver) = Receiver::start() else { return };
    let mut runner = runner(&receiver, "").start();
    let id = enqueue(&runner, "obey", &json!({ "do": "complete" }), &sampled());
    runner.ended(&id);
    assert!(runner.stop().success());
    span_of(&receiver, &id);
}

#[test]
fn without_an_endpoint_a_place_is_passed_on_as_it_is() {
    let runner = TestRunner::obeying();
    let id = enqueue(&runner, "obey", &json!({ "do": "job" }), &sampled());
    assert_eq!(traceparent(&runner.ended(&id).result.unwrap()), sampled());
    assert!(runner.ended(&runner.ask("job")).result.unwrap().to_string().find("traceparent").is_none());
}

/// What a handler that answers its job was told of its place.
fn traceparent(job: &Value) -> String {
    let pairs = job["metadata"].as_array().unwrap();
    pairs.iter().find(|pair| pair[0] == "traceparent").unwrap()[1].as_str().unwrap().to_owned()
}
