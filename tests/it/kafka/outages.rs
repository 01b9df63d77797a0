//! Brokers that die, disks that are full, topics that are deleted: work goes on by itself afterwards.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use super::fleet::{Fleet, pace};
use super::{Broker, Record};
use crate::eventually;
use crate::support::message;

/// A node that was killed may come back when its session is over: by default in nine seconds. The runners' sessions are longer
/// than any machine takes to start it.
const SOON_BACK: &str = "broker.session.timeout.ms=2000
group.consumer.session.timeout.ms=600000
group.consumer.max.session.timeout.ms=600000";

/// The warnings and errors of the runner, for what is to be said once. That a busy machine let it stand still is not of the
/// broker.
fn warnings(fleet: &Fleet, member: usize) -> Vec<String> {
    let log = fleet.members[member].log();
    let is_loud = |line: &&Value| line["level"] == "WARN" || line["level"] == "ERROR";
    let loud = log.iter().filter(|line| line["target"] != "guest").filter(is_loud).map(message);
    loud.filter(|message| !message.contains("stood still")).map(str::to_owned).collect()
}

#[test]
fn only_broker_killed_for_twenty_seconds_loses_no_job_and_is_said_once() {
    let Some(broker) = Broker::own(1, SOON_BACK) else { return };
    let mut fleet = Fleet::new(broker.topic(4), 2, "");
    fleet.start_working();
    fleet.enqueue(3_000, 5);
    broker.kill(1);
    pace(Duration::from_secs(20));
    for member in 0..2 {
        eventually!(!warnings(&fleet, member).is_empty());
        let said = warnings(&fleet, member);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains(broker.address()), "it says which broker: {said:?}");
    }
    broker.up(1);
    fleet.enqueue(500, 5);
    let account = fleet.close();
    account.assert_adds_up();
    // Nobody died, and the group is as it was.
    assert_eq!(account.repeated(), 0, "{account}");
}

#[test]
fn one_broker_of_three_killed_after_the_other_loses_no_job() {
    let Some(broker) = Broker::own(3, SOON_BACK) else { return };
    let mut fleet = Fleet::new(broker.topic(6), 2, "");
    fleet.start_working();
    fleet.enqueue(2_000, 5);
    for node in 1..=3 {
        broker.kill(node);
        fleet.enqueue(500, 5);
        pace(Duration::from_secs(3));
        broker.up(node);
        pace(Duration::from_secs(2));
    }
    let account = fleet.close();
    account.assert_adds_up();
    assert!(account.repeated() <= 1_000, "{account}");
}

#[test]
fn broker_whose_disk_is_full_loses_no_job() {
    let Some(broker) = Broker::own(1, SOON_BACK) else { return };
    let mut fleet = Fleet::new(broker.topic(2), 1, "");
    fleet.start_working();
    fleet.enqueue(2_000, 5);
    let pid = std::fs::read_to_string(broker.folder(1).join("pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // It cannot write a byte any more, and ends: it has no other disk.
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: Some(0), maximum: None }).unwrap();
    eventually!(rustix::process::test_kill_process(pid).is_err());
    broker.up(1);
    fleet.enqueue(500, 5);
    let account = fleet.close();
    account.assert_adds_up();
}

#[test]
fn topic_deleted_under_a_runner_is_said_and_worked_again_when_it_is_there() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(2);
    topic.send((0..10).map(|_| Record::from(r#"{"job_type":"obey","do":"report 0"}"#)));
    let runner = topic.runner("").handler("obey", "obedient").start();
    eventually!(runner.says("begun") == 20);
    eventually!(topic.left() == 0);
    topic.delete("");
    eventually!(runner.says(&format!("topic `{}` is gone", topic.name)) == 1);
    topic.create("", 2, &[]);
    topic.send((0..10).map(|_| Record::from(r#"{"job_type":"obey","do":"report 0"}"#)));
    eventually!(runner.says("begun") == 40);
    eventually!(topic.left() == 0);
}
