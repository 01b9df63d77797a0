//! What each runner has of the jobs, what each topic has of a runner, and what a runner finds again that is back soon.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::{CLASSIC, Fleet, KIP_848};
use super::{Broker, Record};
use crate::eventually;
use crate::support::TestRunner;

/// The older of the classic assignors.
const RANGE: &str = "queue.kafka.group_protocol = 'classic'
queue.kafka.client = { 'session.timeout.ms' = '6000', 'partition.assignment.strategy' = 'range' }";

/// A job that says that it runs, and nothing else of itself: its id says where it stands.
const JOB: &str = r#"{"job_type":"obey","do":"report 0"}"#;

// === between runners ===

#[test]
fn runners_share_the_jobs_evenly() {
    share_evenly(KIP_848);
}

#[test]
fn runners_share_the_jobs_evenly_with_the_classic_protocol() {
    share_evenly(CLASSIC);
}

#[test]
fn runners_share_the_jobs_evenly_with_the_older_assignors() {
    share_evenly(RANGE);
}

fn share_evenly(config: &str) {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = Fleet::new(broker.topic(12), 3, config);
    fleet.start();
    eventually!(shares(&fleet).iter().all(|share| share.len() == 4));
    // Nobody comes or goes, and so it stays.
    assert_eq!(shares(&fleet).map(|share| share.len()), [4, 4, 4]);
}

/// Which partitions each of three runners works now: where it runs a job of each.
fn shares(fleet: &Fleet) -> [BTreeSet<i32>; 3] {
    let places = fleet.topic.send((0..12).map(|partition| Record::from(JOB).partition(partition)));
    let name = &fleet.topic.name;
    let ids: BTreeMap<String, i32> =
        places.iter().map(|at| (format!("{name}/{}/{}", at.partition, at.offset), at.partition)).collect();
    let of = |member: &TestRunner| worked(member).iter().filter_map(|id| ids.get(id).copied()).collect();
    let shares = || [0, 1, 2].map(|member| of(&fleet.members[member]));
    eventually!(shares().iter().map(BTreeSet::len).sum::<usize>() >= 12);
    shares()
}

/// The ids of all jobs that a runner has begun, in that order.
fn worked(member: &TestRunner) -> Vec<String> {
    let log = member.log();
    let mut seen = BTreeSet::new();
    let begun = log.iter().filter(|line| line["target"] == "guest").filter_map(|line| line["job.id"].as_str());
    begun.filter(|id| seen.insert(*id)).map(str::to_owned).collect()
}

// === between topics ===

#[test]
fn flood_in_one_topic_does_not_starve_another() {
    let Some(broker) = Broker::shared() else { return };
    let (flooded, other) = (broker.topic(4), broker.topic(4));
    let topics = format!("queue.kafka.topics = ['{}', '{}']", flooded.name, other.name);
    let config = format!(
        "queue.url = 'kafka://{}'\nqueue.kafka.consumer_group = '{}'\nqueue.kafka.in_flight = 256\nslots = 2\n{topics}",
        flooded.address, flooded.group
    );
    // All of one type, and so of one handler: what they share is what the runner takes of each topic.
    flooded.send((0..20_000).map(|_| r#"{"job_type":"obey","do":"work 10"}"#));
    let runner = TestRunner::new().config(&config).handler("obey", "obedient").start();
    eventually!(flooded.committed("").values().any(|it| it.offset > 0));
    other.send((0..40).map(|_| JOB));
    let of_other = |id: &&String| id.starts_with(&other.name);
    eventually!(worked(&runner).iter().filter(of_other).count() == 40);
    let order = worked(&runner);
    let last = order.iter().rposition(|id| id.starts_with(&other.name)).expect("they are there");
    assert!(last < 10_000, "the flood was not over when the last of the others began: {last}");
}

// === static members ===

#[test]
fn static_member_that_is_back_soon_finds_its_partitions_as_they_were() {
    let Some(broker) = Broker::shared() else { return };
    come_back(
        broker,
        "queue.kafka.group_protocol = 'consumer'\nqueue.kafka.client = { 'group.instance.id' = 'MEMBER' }",
    );
}

#[test]
fn static_member_that_is_back_soon_finds_its_partitions_as_they_were_with_the_classic_protocol() {
    let Some(broker) = Broker::shared() else { return };
    come_back(
        broker,
        "queue.kafka.group_protocol = 'classic'
queue.kafka.client = { 'group.instance.id' = 'MEMBER', 'session.timeout.ms' = '40000' }",
    );
}

fn come_back(broker: &Broker, config: &str) {
    let mut fleet = Fleet::new(broker.topic(12), 3, config);
    fleet.start();
    eventually!(shares(&fleet).iter().all(|share| share.len() == 4));
    let before = shares(&fleet);
    let taken_on = |fleet: &Fleet, member: usize| fleet.members[member].says("partition taken on");
    let others = [taken_on(&fleet, 0), taken_on(&fleet, 2)];
    // There is work for it while it is away, and while it stops.
    fleet.enqueue(300, 5);
    fleet.stop(1);
    fleet.enqueue(300, 5);
    fleet.start();
    fleet.enqueue(300, 5);
    assert_eq!(shares(&fleet), before);
    assert_eq!([taken_on(&fleet, 0), taken_on(&fleet, 2)], others, "nobody else was disturbed");
    fleet.run_out();
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for member in &fleet.members {
        let log = member.log();
        for line in log.iter().filter(|line| line["target"] == "guest") {
            *runs.entry(line["job.id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    // Each begins and ends with a word.
    let odd: Vec<_> = runs.iter().filter(|(_, words)| **words != 2).collect();
    assert!(odd.is_empty(), "each ran once: {odd:?}");
    assert!((0..900).all(|id| runs.contains_key(&format!("j{id}"))), "each ran");
}

#[test]
fn static_member_that_was_killed_waits_for_its_session_and_says_so_once() {
    let Some(broker) = Broker::shared() else { return };
    let config = format!("{KIP_848}\nqueue.kafka.client = {{ 'group.instance.id' = 'MEMBER' }}");
    let mut fleet = Fleet::new(broker.topic(2).noticing_deaths(), 1, &config);
    fleet.start_working();
    fleet.kill(0);
    fleet.enqueue(100, 0);
    fleet.start();
    let account = fleet.close();
    // Nothing was an error.
    account.assert_adds_up();
    assert!(fleet.members[0].says("still has a member") <= 1, "none, where its session was over by then");
    assert_eq!(fleet.members[0].says("put this runner out"), 0);
}
