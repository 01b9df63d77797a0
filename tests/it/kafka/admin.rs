//! The HTTP API of a runner on Kafka: what Kafka cannot answer says so, and what it can is answered.

use serde_json::json;

use super::Broker;
use crate::eventually;
use crate::support::{Answer, Api};

fn is_refused(answer: &Answer) -> bool {
    let error = &answer.json()["error"];
    assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{answer:?}");
    (answer.status, error["code"].as_str()) == (501, Some("queue-cannot"))
}

#[test]
fn what_kafka_cannot_answer_says_so_and_the_rest_is_answered() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let runner = topic.runner("").handler("obey", "obedient").start();
    let api = Api::of(&runner);
    eventually!(api.get("/readyz").status == 200);
    let ask = |command: &str| json!({"job_type": "obey", "do": command}).to_string();

    let later = api.post("/v1/jobs?after=1h", &ask("complete")).json()["id"].as_str().unwrap().replace('/', "%2F");
    assert!(is_refused(&api.get(&format!("/v1/jobs/{later}/wait"))));
    assert!(is_refused(&api.send("DELETE", &format!("/v1/jobs/{later}"), &[], "")));

    // What runs here is broken off.
    let spinning = api.enqueue(&ask("begin-spin"));
    eventually!(runner.says("begun") == 1);
    let path = spinning.replace('/', "%2F");
    assert_eq!(api.send("DELETE", &format!("/v1/jobs/{path}"), &[], "").status, 202);
    let dead = || api.get("/v1/dead").json()["jobs"].as_array().cloned().unwrap();
    let letter = eventually!(dead().pop());
    assert_eq!((&letter["id"], &letter["failure"]["kind"]), (&json!(spinning), &json!("cancelled")));

    let lines = format!("{}\n{}\n", ask("complete"), ask("complete"));
    let answer = api.send("POST", "/v1/jobs", &[("content-type", "application/x-ndjson")], &lines);
    assert!(answer.lines().iter().all(|line| line["id"].is_string()), "{answer:?}");
}
