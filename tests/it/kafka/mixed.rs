//! Workers of the older design in the same group: they know the job topic, the classic protocol and its first assignors, and
//! commit what they have done, record by record.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;

use super::{Broker, Topic};
use crate::eventually;
use crate::support::patience;

/// What the documents say that a mixed fleet needs.
const MIXED: &str = "queue.kafka.group_protocol = 'classic'
queue.kafka.client = { 'partition.assignment.strategy' = 'range,roundrobin', 'session.timeout.ms' = '6000' }";

#[test]
fn jobs_are_shared_with_workers_of_the_older_design() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(4);
    let runner = topic.runner(MIXED).handler("obey", "obedient").start();
    let (worked, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| work(&topic, &worked, &stop));
        let mut sent = 0;
        eventually!({
            sent += topic.send((0..40).map(|_| r#"{"job_type":"obey","do":"report 0"}"#)).len();
            worked.load(Ordering::Relaxed) > 0 && runner.says("begun") > 0
        });
        eventually!(topic.left() == 0);
        stop.store(true, Ordering::Relaxed);
        // Each begins and ends with a word of its guest.
        eventually!(worked.load(Ordering::Relaxed) + runner.says("begun") / 2 >= sent);
        assert_eq!(topic.dead().len(), 0);
    });
}

/// What such a worker does, until it is told to stop.
fn work(topic: &Topic, worked: &AtomicUsize, stop: &AtomicBool) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &topic.address)
        .set("group.id", &topic.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("partition.assignment.strategy", "range,roundrobin")
        .set("session.timeout.ms", "6000");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&topic.name]).unwrap();
    let began = std::time::Instant::now();
    while !stop.load(Ordering::Relaxed) && began.elapsed() < patience() {
        let Some(Ok(record)) = consumer.poll(std::time::Duration::from_millis(100)) else { continue };
        assert!(record.payload().is_some());
        worked.fetch_add(1, Ordering::Relaxed);
        // In the middle of a rebalance it is refused, and the record comes again to somebody.
        consumer.commit_message(&record, CommitMode::Sync).ok();
    }
}
