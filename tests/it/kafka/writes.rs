//! Writes of ours that fail: the job is held, nothing is committed past it, it is said, and it goes on when that is mended.

use serde_json::Value;

use super::{Broker, Record, Topic};
use crate::eventually;
use crate::support::{TestRunner, message};

const RETRY: &str = "[retry]\nmax_failures = 3\nbackoff = { first = '20ms', factor = 1, max = '20ms' }\n";
const LOG: &str = "log.level = 'info,sandhog::dispatch=debug'";

/// What `stats` says is held up.
fn blocked(runner: &TestRunner) -> Vec<Value> {
    runner.stats()["blocked"].as_array().cloned().unwrap_or_default()
}

/// Work that stands behind what is held, in the same partition.
fn behind(topic: &Topic) {
    topic.send((0..50).map(|_| Record::from(r#"{"job_type":"obey","do":"report 0"}"#)));
}

/// Waits until it is held, and is said to be; answers the reason.
fn held(topic: &Topic, runner: &TestRunner, offset: i64) -> String {
    let blocked = eventually!(blocked(runner).into_iter().next());
    assert_eq!((blocked["partition"].as_i64(), blocked["offset"].as_i64()), (Some(0), Some(offset)), "{blocked}");
    // What stands behind it runs, and the mark stays before it.
    behind(topic);
    let completed = runner.says("` completed");
    eventually!(runner.says("` completed") >= completed.max(50));
    let mark = topic.committed("").get(&0).map_or(0, |it| it.offset);
    assert_eq!(mark, offset, "nothing is committed past it");
    let reason = blocked["reason"].as_str().unwrap_or_else(|| panic!("{blocked}")).to_owned();
    let of_writing = |line: &Value| line["level"] == "WARN" && message(line).starts_with("cannot write");
    let loud: Vec<Value> = runner.log().into_iter().filter(of_writing).collect();
    assert_eq!(loud.len(), 1, "it is said once: {loud:#?}");
    reason
}

/// Waits until nothing is held any more and all is done.
fn goes_on(topic: &Topic, runner: &TestRunner) {
    eventually!(topic.left() == 0);
    eventually!(blocked(runner).is_empty());
}

#[test]
fn job_whose_retry_topic_is_missing_is_held_until_it_is_there() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let runner = topic.runner(LOG).handler("obey", "obedient").manifest("obey", RETRY).start();
    eventually!(topic.partitions(".retry.1s") == 1);
    topic.delete(".retry.1s");
    let offset = topic.send([r#"{"job_type":"obey","do":"fail-before 2 report 0"}"#])[0].offset;
    let reason = held(&topic, &runner, offset);
    assert!(reason.contains(".retry.1s"), "{reason}");
    topic.create(".retry.1s", 1, &[]);
    goes_on(&topic, &runner);
    assert_eq!(topic.dead().len(), 0);
}

#[test]
fn job_that_is_too_large_for_the_retry_topic_is_held_until_it_takes_it() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let runner = topic.runner(LOG).handler("obey", "obedient").manifest("obey", RETRY).start();
    eventually!(topic.partitions(".retry.1s") == 1);
    let before = topic.configuration(".retry.1s");
    topic.configure(".retry.1s", &[("max.message.bytes", "1000")]);
    let body = format!(r#"{{"job_type":"obey","do":"fail-before 2 report 0","pad":"{}"}}"#, "x".repeat(10_000));
    let offset = topic.send([body])[0].offset;
    let reason = held(&topic, &runner, offset);
    assert!(reason.contains("large") && reason.contains(".retry.1s"), "{reason}");
    topic.configure(".retry.1s", &[("max.message.bytes", &before["max.message.bytes"])]);
    goes_on(&topic, &runner);
}

#[test]
fn job_whose_dead_letter_is_refused_is_held_until_it_is_taken() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let runner = topic.runner(LOG).handler("obey", "obedient").start();
    eventually!(topic.partitions(".dead") == 1);
    let before = topic.configuration(".dead");
    topic.configure(".dead", &[("max.message.bytes", "1000"), ("cleanup.policy", "compact")]);
    let body = format!(r#"{{"job_type":"obey","do":"reject","pad":"{}"}}"#, "x".repeat(10_000));
    let offset = topic.send([body.as_str()])[0].offset;
    let reason = held(&topic, &runner, offset);
    assert!(reason.contains(".dead"), "{reason}");
    topic.configure(".dead", &[("max.message.bytes", &before["max.message.bytes"]), ("cleanup.policy", "compact")]);
    goes_on(&topic, &runner);
    assert_eq!(topic.dead().remove(0).value.as_deref(), Some(body.as_bytes()));
}

#[test]
fn topics_of_ours_that_are_too_small_are_refused_at_the_start() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    topic.create(".retry.1s", 1, &[("max.message.bytes", "1000000")]);
    let mut runner = topic.runner("").handler("obey", "obedient");
    runner.spawn(&[]);
    assert!(!runner.wait().success());
    let (jobs, tier) = (&topic.name, format!("{}.retry.1s", topic.name));
    assert!(runner.says(&tier) > 0 && runner.says(&format!("`{jobs}`")) > 0, "{:?}", runner.log());
}

#[test]
fn hundred_thousand_records_that_are_no_jobs_are_buried_and_hold_up_nothing() {
    const RECORDS: usize = 100_000;
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(4);
    topic.send((0..RECORDS).map(|at| Record::from(format!("not a job {at}"))));
    topic.send((0..8).map(|at| Record::from(r#"{"job_type":"obey","do":"report 0"}"#).partition(at % 4)));
    let began = std::time::Instant::now();
    let runner = topic.runner("").handler("obey", "obedient").start();
    let buried = |topic: &Topic| if topic.partitions(".dead") == 0 { 0 } else { topic.length(".dead") };
    let (mut last, mut rates) = (0, Vec::new());
    while last < RECORDS {
        let now = eventually!(Some(buried(&topic)).filter(|&now| now > last));
        rates.push(now - last);
        last = now;
        super::fleet::pace(std::time::Duration::from_secs(1));
    }
    eprintln!("{RECORDS} malformed records buried in {:?}, in seconds: {rates:?}", began.elapsed());
    eventually!(topic.left() == 0);
    assert_eq!(runner.says("begun"), 16);
    assert_eq!(topic.dead().len(), RECORDS);
}
