//! The contract of queues, held by this one.

use std::sync::{Arc, Mutex};

use sandhog::queue::Queue;
use sandhog::queue::kafka::{Guarantee, KafkaQueue, Options};
use sandhog::report::Reports;
use tempfile::TempDir;

use super::{Broker, Topic};
use crate::queue_contract::{exercise, follow_ups, reports, state};

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_contract_of_queues() {
    keep_the_contract(Guarantee::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_with_transactions_keeps_the_contract_of_queues() {
    keep_the_contract(Guarantee::ExactlyOnceInKafka).await;
}

async fn keep_the_contract(guarantee: Guarantee) {
    let Some(broker) = Broker::shared() else { return };
    let dirs = Mutex::new(Vec::new());
    let make_with = async |reports| {
        let dir = TempDir::new().unwrap();
        let queue = tokio::task::block_in_place(|| open(&broker.unmade_topic(), &dir, guarantee, reports));
        dirs.lock().unwrap().push(dir);
        queue
    };
    let make = || make_with(None);
    exercise(make).await;
    follow_ups::exercise(make).await;
    state::exercise(make).await;
    reports::exercise(|| make_with(reports::wanted())).await;
}

/// A queue on the topic, which it makes if it is not there.
fn open(topic: &Topic, dir: &TempDir, guarantee: Guarantee, reports: Option<Reports>) -> Arc<dyn Queue> {
    let options = Options::new(topic.address.clone(), topic.name.clone(), dir.path());
    KafkaQueue::open(Options { group: topic.group.clone(), guarantee, reports, ..options }).unwrap()
}
