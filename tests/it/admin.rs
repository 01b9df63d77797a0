//! The HTTP API, over real sockets, of the real binary.

use std::time::Instant;

use serde_json::{Value, json};

use crate::eventually;
use crate::support::{Api, TestRunner, project};

mod attackers;
mod crowds;
mod streams;

fn obeying() -> (TestRunner, Api) {
    let runner = TestRunner::obeying();
    let api = Api::of(&runner);
    (runner, api)
}

fn ask(command: &str) -> String {
    json!({"job_type": "obey", "do": command}).to_string()
}

#[test]
fn job_comes_in_runs_and_is_waited_for_like_a_function() {
    let (_runner, api) = obeying();
    let id = api.enqueue(&ask("result 5"));
    let job = api.ended(&id);
    assert_eq!((&job["state"], &job["result"]), (&json!("completed"), &json!(5)));
    assert!(job.get("body").is_none(), "{job}");
    let shown = api.get(&format!("/v1/jobs/{id}?body=true")).json();
    assert_eq!(shown["body"], ask("result 5"));
    // What ended is waited for no more.
    assert_eq!(api.ended(&id)["id"], *id);
}

#[test]
fn waiting_ends_with_the_time_and_says_so() {
    let (_runner, api) = obeying();
    let id = api.enqueue(&ask("spin"));
    let answer = api.get(&format!("/v1/jobs/{id}/wait?timeout=300ms"));
    assert_eq!((answer.status, &answer.json()["done"]), (200, &json!(false)));
    assert_eq!(api.get(&format!("/v1/jobs/{id}/wait?timeout=11m")).code(), "parameter-refused");
    assert_eq!(api.get("/v1/jobs/nobody/wait").code(), "job-not-found");
}

#[test]
fn who_waits_gets_the_result_where_nothing_is_kept_and_others_hear_that_it_is_gone() {
    let runner = TestRunner::new().handler("obey", "obedient").config("[queue]\nkeep_completed = 0").start();
    let api = Api::of(&runner);
    let id = api.enqueue(&json!({"job_type": "obey", "do": "work 500"}).to_string());
    assert_eq!(api.ended(&id)["state"], "completed");
    let kept = api.post("/v1/jobs?keep=1h", &ask("result 7")).json()["id"].clone();
    assert_eq!(api.ended(kept.as_str().unwrap())["result"], 7);
    let gone = api.enqueue(&ask("complete"));
    let answer = eventually!(Some(api.get(&format!("/v1/jobs/{gone}"))).filter(|answer| answer.status != 200));
    assert_eq!((answer.status, answer.code()), (410, "job-gone".to_owned()));
    assert_eq!(api.get(&format!("/v1/jobs/{gone}/wait")).status, 410);
}

#[test]
fn idempotency_key_is_the_id_of_one_job() {
    let (_runner, api) = obeying();
    let send = || {
        let headers = [("content-type", "application/json"), ("idempotency-key", "order-7")];
        api.send("POST", "/v1/jobs", &headers, &ask("complete"))
    };
    let (first, second) = (send(), send());
    assert_eq!((first.status, first.json()), (201, json!({"id": "order-7", "duplicate": false})));
    assert_eq!((second.status, second.json()), (200, json!({"id": "order-7", "duplicate": true})));
    let headers = [("content-type", "application/json"), ("idempotency-key", "x")];
    assert_eq!(api.send("POST", "/v1/jobs", &headers, "[{},{}]").code(), "idempotency-key-refused");
}

#[test]
fn array_is_added_whole_or_not_at_all() {
    let (runner, api) = obeying();
    let answer = api.post("/v1/jobs", &format!("[{},\n {{\"job_type\": 5}}]", ask("complete")));
    assert_eq!((answer.status, answer.code()), (400, "job-refused".to_owned()));
    let error = &answer.json()["error"];
    assert_eq!((&error["element"], &error["line"], &error["column"]), (&json!(1), &json!(2), &json!(2)));
    assert_eq!(runner.jobs(&[]).len(), 0);
    let answer = api.post("/v1/jobs", &format!("[{},{}]", ask("complete"), ask("complete")));
    assert_eq!((answer.status, answer.json()["jobs"].as_array().unwrap().len()), (201, 2));
}

#[test]
fn body_that_is_no_job_is_refused_with_the_place() {
    let (_runner, api) = obeying();
    let answer = api.post("/v1/jobs", "{\"job_type\": \"a\",\n  oops}");
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["line"], &error["column"]), (400, &json!(2), &json!(3)));
    assert_eq!(api.post("/v1/jobs", "{}").code(), "job-refused");
    assert_eq!(api.post("/v1/jobs?after=soon", &ask("complete")).code(), "parameter-refused");
    assert_eq!(api.post("/v1/jobs?later=1m", &ask("complete")).code(), "parameter-refused");
    assert_eq!(api.post("/v1/jobs", &format!("{{\"job_type\":\"a\",\"x\":\"{}\"}}", "x".repeat(9 << 20))).status, 413);
}

#[test]
fn full_backlog_takes_no_more() {
    let mut runner = TestRunner::new().config("enabled = false\n[queue]\nbacklog = 2");
    runner.spawn(&[]);
    let api = Api::of(&runner);
    eventually!(api.get("/readyz").status == 200);
    (0..2).for_each(|_| drop(api.post("/v1/jobs", &ask("complete"))));
    let full = eventually!(Some(api.post("/v1/jobs", &ask("complete"))).filter(|answer| answer.status != 201));
    assert_eq!((full.status, full.code(), full.header("retry-after")), (429, "backlog-full".to_owned(), Some("1")));
    let stream = api.send("POST", "/v1/jobs", &[("content-type", "application/x-ndjson")], &ask("complete"));
    assert_eq!(stream.code(), "backlog-full");
}

#[test]
fn job_is_scheduled_and_has_the_headers_of_its_request() {
    let (_runner, api) = obeying();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("content-type", "application/json"), ("Sandhog-Header-Color", "red"), ("traceparent", trace)];
    let answer = api.send("POST", "/v1/jobs?after=1h", &headers, &ask("complete"));
    let job = api.get(&format!("/v1/jobs/{}", answer.json()["id"].as_str().unwrap())).json();
    assert_eq!(job["state"], "scheduled");
    let metadata = job["metadata"].as_array().unwrap();
    assert!(metadata.contains(&json!(["header.color", "red"])), "{job}");
    assert!(metadata.contains(&json!(["traceparent", trace])), "{job}");
}

#[test]
fn list_comes_in_pages_by_state_and_type() {
    let (_runner, api) = obeying();
    let ids: Vec<String> = (0..5).map(|_| api.enqueue(&ask("reject"))).collect();
    ids.iter().for_each(|id| drop(api.ended(id)));
    api.post("/v1/jobs?after=1h", &ask("complete"));
    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?state=dead&type=obey&limit=2&order=newest".to_owned());
    loop {
        let page = api.get(&path).json();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs?state=dead&type=obey&limit=2&order=newest&cursor={next}"),
            None => break,
        }
    }
    seen.reverse();
    assert_eq!(seen, ids);
    assert_eq!(api.get("/v1/jobs?state=scheduled").json()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/jobs?state=asleep").code(), "parameter-refused");
    assert_eq!(api.get("/v1/jobs?limit=0").code(), "parameter-refused");
}

#[test]
fn waiting_job_is_cancelled_at_once_and_running_one_is_broken_off() {
    let (_runner, api) = obeying();
    let answer = api.post("/v1/jobs?after=1h", &ask("complete")).json();
    let path = format!("/v1/jobs/{}", answer["id"].as_str().unwrap());
    assert_eq!(api.send("DELETE", &path, &[], "").json()["cancelled"], "buried");
    assert_eq!(api.send("DELETE", &path, &[], "").code(), "job-ended");
    let spinning = api.enqueue(&ask("spin"));
    eventually!(api.get(&format!("/v1/jobs/{spinning}")).json()["state"] == "running");
    let begun = Instant::now();
    assert_eq!(api.send("DELETE", &format!("/v1/jobs/{spinning}"), &[], "").status, 202);
    let job = api.ended(&spinning);
    assert_eq!(job["failure"]["kind"], "cancelled");
    assert!(begun.elapsed().as_secs() < 20, "its timeout is 30 seconds");
    assert_eq!(api.send("DELETE", "/v1/jobs/nobody", &[], "").status, 404);
}

#[test]
fn dead_letter_that_dies_after_every_requeue_goes_back_by_force_alone() {
    let (_runner, api) = obeying();
    let id = api.enqueue(&ask("reject"));
    api.ended(&id);
    let requeue = |query: &str| api.post(&format!("/v1/dead/{id}/requeue{query}"), "");
    for _ in 0..3 {
        assert_eq!(requeue("").status, 200);
        api.ended(&id);
    }
    assert_eq!((requeue("").status, requeue("").code()), (409, "requeued-too-often".to_owned()));
    let all = api.post("/v1/dead/requeue", r#"{"type": "obey"}"#).json();
    assert_eq!((&all["count"], &all["stay"]), (&json!(0), &json!(1)));
    assert_eq!(requeue("?force=true").status, 200);
    api.ended(&id);
    let forced = api.post("/v1/dead/requeue", r#"{"all": true, "force": true}"#).json();
    assert_eq!(forced["count"], 1);
}

#[test]
fn dead_letters_are_grouped_and_changed_by_what_they_have_in_common() {
    let (_runner, api) = obeying();
    let ids: Vec<String> = ["reject", "reject", "trap"].iter().map(|command| api.enqueue(&ask(command))).collect();
    ids.iter().for_each(|id| drop(api.ended(id)));
    let groups = api.get("/v1/dead/groups").json();
    assert_eq!((&groups["groups"][0]["count"], &groups["groups"][0]["kind"]), (&json!(2), &json!("rejected")));
    assert_eq!(groups["groups"][1]["kind"], "trap");
    let shown = api.get(&format!("/v1/dead/{}", ids[0])).json();
    assert!(shown.get("body").is_none(), "{shown}");
    assert_eq!(api.get(&format!("/v1/dead/{}?body=true", ids[0])).json()["body"], ask("reject"));
    let delete = |body: &str| api.post("/v1/dead/delete", body);
    assert_eq!(delete(r#"{"kind": "rejected", "dry_run": true}"#).json()["count"], 2);
    assert_eq!(delete(r#"{"kind": "rejected"}"#).json()["count"], 2);
    assert_eq!(api.get("/v1/dead").json()["jobs"].as_array().unwrap().len(), 1);
    for nonsense in ["{}", r#"{"all": true, "kind": "trap"}"#, r#"{"typ": "obey"}"#, r#"{"kind": "sad"}"#, "[]", "no"] {
        assert_eq!((delete(nonsense).status, delete(nonsense).code()), (400, "body-refused".to_owned()), "{nonsense}");
    }
    assert_eq!(api.send("DELETE", &format!("/v1/dead/{}", ids[2]), &[], "").status, 200);
    assert_eq!(api.send("DELETE", &format!("/v1/dead/{}", ids[2]), &[], "").status, 410);
}

#[test]
fn paused_handler_s_jobs_wait_until_it_is_resumed() {
    let (_runner, api) = obeying();
    let handler = || api.get("/v1/handlers").json()["handlers"][0].clone();
    assert_eq!((&handler()["handler"], &handler()["live"]["paused"]), (&json!("obey"), &json!(false)));
    assert_eq!(handler()["limits"]["timeout_ms"], 30_000);
    assert_eq!(api.post("/v1/handlers/obey/pause", "").status, 200);
    eventually!(handler()["live"]["paused"] == true);
    let id = api.enqueue(&ask("complete"));
    eventually!(api.get(&format!("/v1/jobs/{id}")).json()["state"] == "parked");
    assert_eq!(api.post("/v1/handlers/obey/resume", "").status, 200);
    assert_eq!(api.ended(&id)["state"], "completed");
    assert_eq!(api.post("/v1/handlers/obey/rollback", "").code(), "handler-refused");
    assert_eq!(api.post("/v1/handlers/nobody/pause", "").code(), "handler-not-found");
    let pinned = api.post("/v1/handlers/obey/pin", "").json();
    assert_eq!(pinned["generation"], handler()["generation"]);
    assert_eq!(handler()["pinned"], true);
    assert_eq!(api.post("/v1/handlers/obey/unpin", "").status, 200);
}

#[test]
fn draining_runner_is_not_ready_and_still_enqueues() {
    let (mut runner, api) = obeying();
    assert_eq!((api.get("/healthz").status, api.get("/readyz").status), (200, 200));
    let held = api.enqueue(&ask("begin-spin"));
    eventually!(runner.is(&held, "running"));
    assert_eq!(api.post("/v1/drain", "").status, 202);
    eventually!(api.get("/readyz").status == 503);
    assert_eq!(api.get("/healthz").status, 200);
    let id = api.enqueue(&ask("complete"));
    assert_eq!(api.get("/v1/stats").json()["runner"]["draining"], true);
    runner.terminate();
    assert!(runner.wait().success());
    assert_eq!(runner.job(&id).state, "ready");
}

#[test]
fn runner_that_works_nothing_is_asked_all_the_same() {
    let runner = TestRunner::new().config("enabled = false");
    let mut runner = runner;
    runner.spawn(&[]);
    let api = Api::of(&runner);
    eventually!(api.get("/readyz").status == 200);
    let id = api.enqueue(&ask("complete"));
    assert_eq!(api.get(&format!("/v1/jobs/{id}")).json()["state"], "ready");
    assert!(runner.stop().success());
}

#[test]
fn events_tell_what_happens_to_a_job() {
    let (_runner, api) = obeying();
    let mut listening = api.connect();
    listening.write(b"GET /v1/events?type=obey HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(listening.head().unwrap().0, 200);
    let id = api.enqueue(&ask("reject"));
    let mut text = String::new();
    while !text.contains("event: buried") {
        text.push_str(&String::from_utf8_lossy(&listening.piece().unwrap().expect("it goes on")));
    }
    let data: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let told: Vec<(&str, &str)> =
        data.iter().map(|event| (event["event"].as_str().unwrap(), event["id"].as_str().unwrap())).collect();
    assert_eq!(told, [("started", id.as_str()), ("buried", id.as_str())]);
    assert_eq!(data[1]["kind"], "rejected");
}

#[test]
fn address_that_was_asked_for_and_is_taken_ends_the_start() {
    let (_runner, api) = obeying();
    let other = TestRunner::new();
    let output = other.command().env("SANDHOG_ADMIN__LISTEN", api.address.to_string()).arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("cannot listen on `{}`", api.address)), "{said}");
    let output = other.command().env("SANDHOG_ADMIN__LISTEN", "0.0.0.0:0").arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no token is asked for"), "{output:?}");
}

#[test]
fn document_is_the_one_that_is_committed() {
    let (_runner, api) = obeying();
    let answer = api.get("/v1/openapi.json");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let (path, served) = (project("docs/openapi.json"), answer.text() + "\n");
    if std::env::var_os("SANDHOG_BLESS").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == served, "`SANDHOG_BLESS=1 cargo test … document_is_the_one` writes docs/openapi.json anew");
    // Whatever it describes is there: only a handler answers these, and the fallbacks answer nothing of it.
    let document = answer.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "nobody").replace("{name}", "nobody");
        for method in methods.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            if path == "/v1/drain" || path == "/v1/events" {
                continue;
            }
            let answer = api.send(&method.to_uppercase(), &path, &[], "");
            let code = if answer.status < 400 { String::new() } else { answer.text() };
            assert!(!code.contains("no-such-route") && !code.contains("method-refused"), "{method} {path}: {code}");
        }
    }
}
