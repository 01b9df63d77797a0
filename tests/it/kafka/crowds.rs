//! Jobs that cannot start now, and what stands behind them.

use super::{Broker, Record};
use crate::eventually;

#[test]
fn jobs_behind_many_that_cannot_start_come_through() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    // One of them runs for as long as it may, and what is in flight has no room for the rest.
    let slow = (0..200).map(|_| Record::from(r#"{"job_type":"slow","do":"spin"}"#));
    topic.send(slow);
    topic.send([Record::from(r#"{"job_type":"quick","do":"report 0"}"#)]);
    let runner = topic
        .runner("queue.kafka.in_flight = 64")
        .handler("slow", "obedient")
        .manifest("slow", "concurrency = 1\ntimeout = '10m'")
        .handler("quick", "obedient")
        .start();
    eventually!(runner.says("begun") == 2);
    let aside = topic.read(".retry.10s");
    assert!(aside.len() >= 100, "{} jobs were set aside", aside.len());
    // Without an attempt, and none of them lost.
    assert_eq!(topic.dead().len(), 0);
    assert_eq!(runner.count("ready") + runner.count("scheduled"), 200);
}
