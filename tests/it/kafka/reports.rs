//! The runner-wide failure hook: never missing, and with transactions never twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Broker, Topic};
use crate::eventually;
use crate::support::Random;

const REPORTS: &str = "failures.job_type = 'report'";

const TRANSACTIONS: &str = "queue.kafka.delivery = 'exactly-once-in-kafka'";

/// The dead letters in all reports, by the reports' ids.
fn reports(topic: &Topic) -> BTreeMap<String, Vec<Value>> {
    let mut reports: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in topic.read("").iter().filter(|record| record.header("sandhog-report-of").is_some()) {
        let id = String::from_utf8(record.header("id").expect("it has an id").to_vec()).unwrap();
        let body: Value = serde_json::from_slice(record.value.as_deref().expect("it has a body")).unwrap();
        reports.entry(id).or_default().push(body["dead_letter"].clone());
    }
    reports
}

#[test]
fn every_burial_is_reported_whoever_buries() {
    let Some(broker) = Broker::shared() else { return };
    for delivery in ["", TRANSACTIONS] {
        let topic = broker.topic(1);
        let config = format!("{REPORTS}\n{delivery}");
        let mut runner = topic.runner(&config).handler("obey", "obedient").start();
        let [rejected, malformed, unserved] = topic
            .send([r#"{"job_type":"obey","do":"reject"}"#, "nonsense", r#"{"job_type":"late"}"#])
            .try_into()
            .expect("there are three");
        let by_command = runner.enqueue_lines(b"\xff", &["--bury-bad"]).remove(0).id;
        eventually!(reports(&topic).len() == 3 && topic.left() == 0);
        assert!(runner.stop().success());
        // Whoever looks at what is parked, at its start, finds what was there for too long.
        let again = topic.runner(&format!("{config}\nqueue.park_for = '1ms'")).handler("obey", "obedient").start();
        eventually!(reports(&topic).len() == 4);
        drop(again);
        let reports = reports(&topic);
        let of = |place: &super::record::Place| format!("{}/{}/{}", topic.name, place.partition, place.offset);
        let ends = [(of(&rejected), "rejected"), (of(&malformed), "malformed"), (of(&unserved), "expired")];
        for (id, kind) in ends.into_iter().chain([(by_command, "malformed")]) {
            let [letter] = reports[&format!("{id}/report/1")].as_slice() else { panic!("{id}: {reports:?}") };
            assert_eq!((&letter["failure"]["kind"], &letter["id"]), (&json!(kind), &json!(id)));
        }
        let source = json!({ "queue": topic.name, "partition": rejected.partition, "offset": rejected.offset });
        assert_eq!(reports[&format!("{}/report/1", of(&rejected))][0]["source"], source);
        // Reports that nobody serves are expired by then too, and told to nobody.
        let dead = topic.dead();
        assert_eq!(dead.iter().filter(|letter| letter.header("sandhog-report-of").is_none()).count(), 4);
    }
}

#[test]
fn report_that_its_topic_does_not_take_is_shorter() {
    let Some(broker) = Broker::shared() else { return };
    for delivery in ["", TRANSACTIONS] {
        let topic = broker.unmade_topic();
        topic.create("", 1, &[("max.message.bytes", "3000")]);
        let body = format!(r#"{{"job_type":"obey","do":"reject","x":"{}"}}"#, "x".repeat(2_500));
        topic.send([body.as_str()]);
        let runner = topic.runner(&format!("{REPORTS}\n{delivery}")).handler("obey", "obedient").start();
        let reports = eventually!(Some(reports(&topic)).filter(|reports| !reports.is_empty()));
        let letter = &reports.values().next().unwrap()[0];
        assert_eq!((&letter["body_omitted"], &letter["body_bytes"]), (&json!(true), &json!(body.len())));
        eventually!(topic.left() == 0);
        assert_eq!(topic.dead().len(), 1);
        drop(runner);
    }
}

#[test]
fn handler_whose_follow_ups_are_too_large_is_told_once() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.unmade_topic();
    topic.create("", 1, &[("max.message.bytes", "4000")]);
    let runner = topic.runner(REPORTS).handler("obey", "obedient").manifest("obey", "grants.enqueue = 'obey'").start();
    topic.send([format!(r#"{{"job_type":"obey","do":"chain","x":"{}"}}"#, "x".repeat(3_800))]);
    eventually!(topic.dead().len() == 1 && topic.left() == 0);
    let reports = reports(&topic);
    let letter = &reports.values().next().expect("there is one")[0];
    assert_eq!((reports.len(), &letter["failure"]["kind"]), (1, &json!("malformed")));
    let metadata = letter["metadata"].as_array().unwrap();
    assert!(metadata.iter().any(|pair| pair[0] == "parent"), "what it descends from is known still: {letter}");
    drop(runner);
}

#[test]
fn kills_lose_no_report() {
    kills("");
}

#[test]
fn kills_bring_each_report_once_with_transactions() {
    kills(TRANSACTIONS);
}

fn kills(delivery: &str) {
    const KILLS: usize = 10;
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(2);
    let mut random = Random::seeded();
    let jobs = topic.send((0..100 * KILLS).map(|_| r#"{"job_type":"obey","do":"reject"}"#));
    // With this protocol a runner that was killed has its partitions again as soon as it is back.
    let config =
        "queue.kafka.group_protocol = 'classic'\nqueue.kafka.client = { 'group.instance.id' = 'one' }\nslots = 4";
    let mut runner = topic.runner(&format!("{config}\n{REPORTS}\n{delivery}")).handler("obey", "obedient");
    for _ in 0..KILLS {
        let buried = runner.says("buried") + 20 + random.below(60);
        runner.spawn(&[]);
        eventually!(runner.says("buried") >= buried);
        runner.kill();
    }
    runner.restart(&[]);
    eventually!(topic.left() == 0);
    let reports = reports(&topic);
    for job in &jobs {
        let id = format!("{}/{}/{}/report/1", topic.name, job.partition, job.offset);
        assert!(reports.contains_key(&id), "{id} is missing");
    }
    assert_eq!((topic.dead().len(), reports.len()), (jobs.len(), jobs.len()));
    if delivery == TRANSACTIONS {
        assert!(reports.values().all(|times| times.len() == 1), "{reports:?}");
    }
}
