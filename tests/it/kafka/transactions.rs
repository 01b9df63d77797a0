//! Transactions that are fenced, time out, are aborted, or are cut off by a death: who reads what is committed sees each retry
//! and each dead letter once, and nothing is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::account::{Account, Kind};
use super::fleet::{Fleet, SLOTS, TRANSACTIONS, pace};
use super::{Broker, Record, Topic};
use crate::eventually;
use crate::support::{now_ms, patience};

/// Where the jobs of [`Kind::Mixed`] are written to.
const WRITTEN: [&str; 2] = [".retry.1s", ".dead"];

/// Runners with transactions, at work on jobs of which some fail and some are rejected.
fn fleet(broker: &Broker, members: usize) -> Fleet {
    let mut fleet = Fleet::new(broker.topic(2).noticing_deaths(), members, TRANSACTIONS).of(Kind::Mixed);
    fleet.start_working();
    fleet
}

/// Who reads what is committed has seen each once.
fn assert_each_once(topic: &Topic) {
    for suffix in WRITTEN {
        let mut times = BTreeMap::<String, usize>::new();
        for record in topic.read(suffix) {
            let envelope = record.envelope();
            *times.entry(format!("{} after attempt {}", envelope["id"], envelope["attempts"])).or_default() += 1;
        }
        let more: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(!times.is_empty() && more.is_empty(), "`{}{suffix}`: {more:?}", topic.name);
    }
}

/// How many more records somebody sees who reads what is not committed.
fn undone(topic: &Topic) -> usize {
    WRITTEN.iter().map(|suffix| topic.read_uncommitted(suffix).len() - topic.read(suffix).len()).sum()
}

fn close(mut fleet: Fleet) -> Account {
    let account = fleet.close();
    account.assert_adds_up();
    assert_each_once(&fleet.topic);
    account
}

/// The ids with which the group's runners make transactions, as the broker's own topic has them.
fn ids(topic: &Topic) -> Vec<String> {
    let state = Topic { name: "__transaction_state".to_owned(), ..topic.clone() };
    let keys = state.read("").into_iter().filter_map(|record| record.key);
    // Behind its version and its length.
    let ids = keys.filter_map(|key| String::from_utf8(key.get(4..)?.to_vec()).ok());
    let mut ids: Vec<String> = ids.filter(|id| id.starts_with(&format!("{}.", topic.group))).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Begins as each of the group's producers.
fn fence(topic: &Topic) {
    for id in ids(topic) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &topic.address).set("transactional.id", id);
        let other: BaseProducer = config.create().unwrap();
        other.init_transactions(patience()).unwrap();
    }
}

#[test]
fn producer_that_is_fenced_again_and_again_loses_nothing_and_writes_nothing_twice() {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = fleet(broker, 1);
    for _ in 0..5 {
        let said = fleet.members[0].says("cannot commit");
        eventually!({
            // The runner may just be at it itself, and fence us.
            fence(&fleet.topic);
            fleet.enqueue(40, 2);
            fleet.members[0].says("cannot commit") > said
        });
    }
    let account = close(fleet);
    assert_eq!(account.repeated(), 0, "nobody died: {account}");
}

/// Stops a member when it has written in a transaction, and not ended it. Answers when.
fn stop_in_a_transaction(fleet: &mut Fleet, member: usize) -> i64 {
    let is_open = |fleet: &Fleet| WRITTEN.iter().any(|suffix| fleet.topic.is_being_written(suffix));
    eventually!({
        // Enough that one transaction follows the other for as long as it is waited.
        fleet.enqueue(1_000, 1);
        let moment = Duration::from_millis(fleet.random.below(100) as u64);
        pace(moment);
        fleet.members[member].pause();
        let at = now_ms();
        // What it had asked for in that moment is done soon.
        let stopped = is_open(fleet) && {
            pace(Duration::from_millis(300));
            is_open(fleet)
        };
        if !stopped {
            fleet.members[member].go_on();
        }
        stopped.then_some(at)
    })
}

#[test]
#[ignore = "long: make test-long"]
fn runner_that_stood_still_past_the_end_of_its_transaction_writes_nothing_twice() {
    let Some(broker) = Broker::shared() else { return };
    // Its group does not take it for dead meanwhile.
    let mut fleet = Fleet::new(broker.topic(2), 1, TRANSACTIONS).of(Kind::Mixed);
    fleet.start_working();
    stop_in_a_transaction(&mut fleet, 0);
    // The broker ends it, so that nobody waits for ever who reads what is committed.
    eventually!(!WRITTEN.iter().any(|suffix| fleet.topic.is_being_written(suffix)));
    assert!(undone(&fleet.topic) > 0, "it was undone");
    let said = fleet.members[0].says("cannot commit");
    fleet.members[0].go_on();
    fleet.enqueue(200, 1);
    eventually!(fleet.members[0].says("cannot commit") > said);
    let account = close(fleet);
    assert_eq!(account.again.overlapping, 0, "{account}");
    assert_eq!(account.repeated(), account.again.put_out, "nobody died: {account}");
}

#[test]
#[ignore = "long: make test-long"]
fn runner_that_dies_in_its_transaction_writes_nothing_twice() {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = fleet(broker, 2);
    let stopped = stop_in_a_transaction(&mut fleet, 0);
    fleet.kill_stopped(0, stopped);
    fleet.start();
    let topic = fleet.topic.clone();
    let account = close(fleet);
    assert!(undone(&topic) > 0, "what the dead had written is there, and undone");
    assert!(account.again.executing <= SLOTS, "{account}");
    assert_eq!((account.again.retried, account.buried_again()), (0, 0), "{account}");
}

#[test]
fn transaction_that_is_aborted_for_one_record_writes_the_others_once() {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = fleet(broker, 1);
    let before = fleet.topic.configuration(".dead");
    fleet.topic.configure(".dead", &[("max.message.bytes", "300000"), ("cleanup.policy", "compact")]);
    let large = format!(r#"{{"job_type":"obey","job_id":"large","do":"reject","pad":"{}"}}"#, "x".repeat(400_000));
    fleet.topic.send([Record::from(large)]);
    eventually!({
        fleet.enqueue(40, 1);
        fleet.members[0].says("cannot write") > 0
    });
    // The others go on, and it is tried again among them.
    let ended = fleet.topic.read(".dead").len();
    eventually!({
        fleet.enqueue(40, 1);
        fleet.topic.read(".dead").len() > ended + 50
    });
    assert!(undone(&fleet.topic) > 0, "records beside it were undone");
    assert!(fleet.topic.left() > 0, "it is held");
    fleet
        .topic
        .configure(".dead", &[("max.message.bytes", &before["max.message.bytes"]), ("cleanup.policy", "compact")]);
    fleet.run_out();
    assert_each_once(&fleet.topic);
    let buried = fleet.topic.dead().iter().filter(|letter| letter.envelope()["id"] == "large").count();
    assert_eq!(buried, 1);
}
