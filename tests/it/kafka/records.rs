//! Records of other producers: what of them is a job, what reaches the handler, and what becomes of those that are none.

use std::collections::BTreeSet;

use super::told::Told;
use super::{Broker, Received, Record, Topic};
use crate::eventually;
use crate::inputs;
use crate::support::{TestRunner, now_ms};

/// Completions are said in the log.
const LOG: &str = "log.level = 'info,sandhog::dispatch=debug'";

/// A runner with the guest that tells what it was given.
fn telling(topic: &Topic) -> TestRunner {
    topic.runner(LOG).handler("tell", "teller").start()
}

/// The one dead letter of the value.
fn dead(topic: &Topic, value: &[u8]) -> Received {
    let mut dead = topic.dead();
    dead.retain(|letter| letter.value.as_deref() == Some(value));
    assert_eq!(dead.len(), 1, "{dead:?}");
    dead.remove(0)
}

/// Why a dead letter was buried: the kind and the message.
fn why(letter: &Received) -> (String, String) {
    let failure = &letter.envelope()["buried"]["failure"];
    let text = |key: &str| failure[key].as_str().unwrap_or_else(|| panic!("{failure}")).to_owned();
    (text("kind"), text("message"))
}

// === jobs ===

#[test]
fn job_of_any_producer_runs_and_its_handler_learns_where_it_stood() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(3);
    let body = r#"{ "n": 1.50, "job_type": "tell" }"#;
    let at = now_ms() - 5_000;
    let place = topic.send([Record::from(body).partition(2).timestamp(at)])[0];
    let runner = telling(&topic);
    let told = &Told::until(&runner, 1)[0];
    let id = format!("{}/{}/{}", topic.name, place.partition, place.offset);
    assert_eq!((told.id.as_str(), told.job_type.as_str(), told.body.as_str(), told.attempt), (&*id, "tell", body, 1));
    assert_eq!(told.of("queue"), [topic.name.as_str()]);
    assert_eq!([told.of("partition"), told.of("offset")], [["2"], ["0"]]);
    assert_eq!(told.of("timestamp-ms"), [at.to_string()]);
    assert_eq!(told.of("key"), Vec::<&str>::new());
    eventually!(topic.left() == 0);
}

#[test]
fn jobs_own_id_is_its_id() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let body = r#"{"job_type":"tell","job_id":"from-the-body"}"#;
    topic.send([Record::from(body), Record::from(body).header("id", "from-the-header")]);
    let ids: BTreeSet<String> = Told::until(&telling(&topic), 2).into_iter().map(|told| told.id).collect();
    assert_eq!(ids, ["from-the-body", "from-the-header"].map(str::to_owned).into());
}

#[test]
fn header_with_the_type_makes_any_text_a_job() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let bodies = ["plain words, no JSON", "<xml/>", "[1,2]", r#"{"job_type":"somebody-else"}"#, "\u{1F980}"];
    topic.send(bodies.map(|body| Record::from(body).header("job_type", "tell")));
    let told = Told::until(&telling(&topic), bodies.len());
    let found: BTreeSet<&str> = told.iter().map(|told| told.body.as_str()).collect();
    assert_eq!(found, bodies.into());
    assert!(told.iter().all(|told| told.job_type == "tell"), "{told:?}");
}

#[test]
fn topic_with_a_type_of_its_own_is_worked_whatever_its_texts_are() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    topic.send(["a message", "another"]);
    topic.send([Record::from("a third").header("job_type", "other")]);
    let default = format!("[queue.kafka.topic.{}]\njob_type = 'tell'", topic.name);
    let runner = topic.runner(&format!("{LOG}\n{default}")).handler("tell", "teller");
    let told = Told::until(&runner.manifest("tell", "job_types = ['tell', 'other']").start(), 3);
    let found: BTreeSet<(&str, &str)> = told.iter().map(|told| (&*told.job_type, &*told.body)).collect();
    assert_eq!(found, [("tell", "a message"), ("tell", "another"), ("other", "a third")].into());
}

#[test]
fn keys_and_headers_of_any_bytes_reach_the_handler() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let job = || Record::from(r#"{"job_type":"tell"}"#);
    topic.send([
        job().header("id", "1").key("order 7").header("tenant", "blue").header("tenant", "red").header("empty", ""),
        job().header("id", "2").key([0xff, 0, 1]).header("picture", [0xff, 0, 1]).null_header("nothing"),
        job().header("id", "3").key("").header_named_by_bytes(b"na\xffme".to_vec(), "value").header("after", "it"),
        job().header("id", "4").header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]);
    let told = Told::until(&telling(&topic), 4);
    let of = |id: &str| told.iter().find(|told| told.id == id).unwrap_or_else(|| panic!("no {id}: {told:?}"));
    assert_eq!(of("1").of("key"), ["order 7"]);
    assert_eq!(of("1").of("header.tenant"), ["blue", "red"]);
    assert_eq!(of("1").of("header.empty"), [""]);
    assert_eq!(of("2").of("header-base64.picture"), ["/wAB"]);
    assert_eq!(of("3").of("header.after"), ["it"]);
    assert_eq!(of("4").of("traceparent").len() + of("4").of("header.traceparent").len(), 1, "{:?}", of("4"));
}

#[test]
fn jobs_in_compressed_batches_run() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(2);
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let producer = topic.producer(&[("compression.codec", codec), ("linger.ms", "200")]);
        let body = format!(r#"{{"job_type":"tell","codec":"{codec}","pad":"{}"}}"#, "x".repeat(500));
        let jobs = (0..25).map(|at| Record::from(&*body).header("id", format!("{codec}-{at}")));
        assert_eq!(producer.send_all(jobs).len(), 25);
    }
    let told = Told::until(&telling(&topic), 100);
    assert_eq!(told.iter().map(|told| &told.id).collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn record_of_a_megabyte_is_retried_and_buried_with_all_its_bytes() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    // A record is its value, its headers and some dozen bytes: this is what a topic takes that was not told otherwise.
    let body = |command: &str| format!(r#"{{"job_type":"obey","do":"{command}","pad":"{}"}}"#, "x".repeat(1_048_000));
    let producer = topic.producer(&[("message.max.bytes", "2000000")]);
    let buried = body("fail-before 2 reject");
    producer.send_all([Record::from(&*buried), Record::from(body("report 0"))]);
    let retry = "[retry]\nmax_failures = 3\nbackoff = { first = '20ms', factor = 1, max = '20ms' }\n";
    let runner = topic.runner(LOG).handler("obey", "obedient").manifest("obey", retry).start();
    eventually!(topic.partitions(".dead") == 1 && topic.dead().len() == 1);
    let letter = dead(&topic, buried.as_bytes());
    assert_eq!(why(&letter), ("rejected".to_owned(), "never".to_owned()));
    assert_eq!(letter.envelope()["failed_attempts"].as_array().map(Vec::len), Some(1), "{}", letter.envelope());
    eventually!(topic.left() == 0);
    assert_eq!(runner.says("begun"), 2);
}

// === no jobs ===

#[test]
fn record_that_is_no_job_is_buried_with_its_bytes_and_holds_up_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let mut bad: Vec<(Vec<u8>, &str)> = inputs::bad().into_iter().map(|(bytes, why, _)| (bytes, why)).collect();
    bad.push((Vec::new(), "empty"));
    bad.push((b"not json".to_vec(), "not JSON"));
    for (at, (bytes, _)) in bad.iter().enumerate() {
        let key = if at % 2 == 0 { Record::from(bytes.clone()).key("key") } else { Record::from(bytes.clone()) };
        topic.send([key.header("a", "b"), Record::from(r#"{"job_type":"tell"}"#)]);
    }
    let odd = inputs::odd();
    topic.send(odd.iter().map(|body| Record::from(&**body)));
    let runner = topic.runner(LOG).handler("tell", "teller").handler("obey", "obedient").start();
    eventually!(runner.says("` completed") == bad.len() + odd.len());
    eventually!(topic.dead().len() == bad.len());
    eventually!(topic.left() == 0);
    for (at, (bytes, reason)) in bad.iter().enumerate() {
        let letter = dead(&topic, bytes);
        let (kind, message) = why(&letter);
        assert!(kind == "malformed" && message.contains(reason), "{reason}: {kind}: {message}");
        let envelope = letter.envelope();
        let offset = 2 * at;
        assert_eq!(envelope["source"]["offset"], offset, "{envelope}");
        let record = envelope["record"].as_str().unwrap();
        assert!(record.starts_with(&format!("{}/0/{offset}@", topic.name)), "{record}");
        assert_eq!(letter.key.as_deref(), Some(record.as_bytes()), "a dead letter's key is its record id");
        assert_eq!(letter.header("a"), Some(&b"b"[..]), "headers are copied along");
    }
    // To the command line they are dead letters like others.
    assert_eq!(runner.dead().iter().filter(|job| job.kind() == "malformed").count(), bad.len());
}

#[test]
fn record_without_a_value_is_buried_and_holds_up_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    topic.send([Record::tombstone(), Record::tombstone().key("k"), Record::tombstone().header("job_type", "tell")]);
    topic.send([Record::from(r#"{"job_type":"tell"}"#)]);
    let runner = telling(&topic);
    Told::until(&runner, 1);
    eventually!(topic.left() == 0);
    // A dead letter of no bytes has a value, else it would be a deleted one.
    let letters = topic.dead();
    assert_eq!(letters.len(), 3, "{letters:?}");
    assert!(letters.iter().all(|letter| why(letter).0 == "malformed"), "{letters:?}");
}

#[test]
fn header_of_ours_that_somebody_else_wrote_holds_up_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let job = |id: &str| Record::from(r#"{"job_type":"tell"}"#).header("id", id);
    let deep = "[".repeat(10_000);
    let forged: Vec<&[u8]> = vec![
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b"null",
        deep.as_bytes(),
        br#"{"attempts":-1}"#,
        br#"{"attempts":4294967295,"failures":4294967295,"interruptions":4294967295,"requeues":4294967295}"#,
        br#"{"due_at_ms":9223372036854775807,"enqueued_at_ms":-9223372036854775808}"#,
        br#"{"record":"","id":"","job_type":"","key":{"hex":"zz"}}"#,
        br#"{"job_type":"tell","buried":{"at_ms":0,"failure":{"kind":"error","message":""}}}"#,
    ];
    topic.send(forged.iter().enumerate().map(|(at, header)| job(&at.to_string()).header("sandhog", header)));
    topic.send([job("twice").header("sandhog", "{}").header("sandhog", "x"), job("last")]);
    let runner = telling(&topic);
    eventually!(Told::all(&runner).iter().any(|told| told.id == "last"));
    eventually!(topic.left() == 0);
    assert_eq!(runner.log().iter().filter(|line| line["level"] == "ERROR").count(), 0);
}
