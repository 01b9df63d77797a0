//! Jobs that enqueue jobs: never missing, and with transactions never twice; and to which topic they go.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broker, Received, Topic};
use crate::eventually;
use crate::support::{Random, TestRunner};

/// With this protocol a runner that was killed has its partitions again as soon as it is back.
const BACK_AT_ONCE: &str =
    "queue.kafka.group_protocol = 'classic'\nqueue.kafka.client = { 'group.instance.id' = 'one' }\nslots = 4";

const TRANSACTIONS: &str = "queue.kafka.delivery = 'exactly-once-in-kafka'";

const PARENT: &str = r#"{"job_type":"obey","do":"follow 2 report 5"}"#;

/// Gives the runner a handler `obey` that may enqueue what its handler `follow` serves.
fn with_handlers(runner: TestRunner) -> TestRunner {
    let runner = runner.handler("obey", "obedient").manifest("obey", "grants.enqueue = 'follow'");
    runner.handler("follow", "obedient")
}

fn text(record: &Received, header: &str) -> Option<String> {
    record.header(header).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// How often each id of a follow-up stands in the topic.
fn follow_ups(topic: &Topic) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for record in topic.read("").iter().filter(|record| record.header("sandhog-parent").is_some()) {
        *ids.entry(text(record, "id").expect("it has an id")).or_default() += 1;
    }
    ids
}

#[test]
fn kills_lose_no_follow_up() {
    kills("", 10);
}

#[test]
fn kills_bring_each_follow_up_once_with_transactions() {
    kills(TRANSACTIONS, 10);
}

#[test]
#[ignore = "long: make test-long"]
fn two_hundred_kills_lose_no_follow_up() {
    kills("", 200);
    kills(TRANSACTIONS, 200);
}

fn kills(config: &str, kills: usize) {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(2);
    let mut random = Random::seeded();
    let parents = topic.send((0..100 * kills).map(|_| PARENT));
    let mut runner = with_handlers(topic.runner(&format!("{BACK_AT_ONCE}\n{config}")));
    for _ in 0..kills {
        let begun = runner.says("begun") + 20 + random.below(60);
        runner.spawn(&[]);
        eventually!(runner.says("begun") >= begun);
        runner.kill();
    }
    runner.restart(&[]);
    eventually!(topic.left() == 0);
    // Of many kills, three may meet one job.
    let dead = topic.dead();
    assert!(dead.iter().all(|letter| letter.envelope()["buried"]["failure"]["kind"] == "suspect"), "{dead:?}");
    let buried: BTreeSet<String> =
        dead.iter().map(|letter| letter.envelope()["id"].as_str().expect("it has an id").to_owned()).collect();
    let ids = follow_ups(&topic);
    let ids_of_parents = parents.iter().map(|at| format!("{}/{}/{}", topic.name, at.partition, at.offset));
    for id in ids_of_parents.filter(|id| !buried.contains(id)) {
        let both = |attempt: u32| [1, 2].map(|n| ids.get(&format!("{id}/{attempt}/{n}")).copied().unwrap_or(0));
        let attempts: Vec<[usize; 2]> = (1..9).map(both).collect();
        assert!(attempts.iter().any(|[one, two]| *one > 0 && *two > 0), "{id}: {attempts:?}");
    }
    if config == TRANSACTIONS {
        assert!(ids.values().all(|times| *times == 1), "{ids:?}");
        assert_eq!(ids.len(), 2 * (parents.len() - buried.len()));
    }
}

#[test]
fn follow_up_goes_to_the_topic_of_its_type_or_of_its_parent() {
    let Some(broker) = Broker::shared() else { return };
    let jobs = broker.topic(1);
    let [more, text_only] = [(); 2].map(|()| Topic { group: jobs.group.clone(), ..broker.topic(1) });
    let topics = format!("queue.kafka.topics = ['{}', '{}']", jobs.name, more.name);
    let config = format!("queue.url = 'kafka://{}'\nqueue.kafka.consumer_group = '{}'\n", jobs.address, jobs.group);
    more.send([r#"{"job_type":"obey","do":"follow 1 complete"}"#]);
    let mut runner = with_handlers(TestRunner::new().config(&format!("{config}{topics}"))).start();
    eventually!(follow_ups(&more).len() == 1 && more.left() == 0);
    assert_eq!(follow_ups(&jobs).len(), 0);
    assert!(runner.stop().success());
    // A topic of its type alone takes it from all.
    let table = format!("[queue.kafka.topic.'{}']\njob_type = 'follow'\n", text_only.name);
    let topics = format!("queue.kafka.topics = ['{}', '{}', '{}']", jobs.name, more.name, text_only.name);
    let runner = with_handlers(TestRunner::new().config(&format!("{config}{topics}\n{table}"))).start();
    more.send([r#"{"job_type":"obey","do":"follow 1 complete"}"#]);
    eventually!(follow_ups(&text_only).len() == 1 && text_only.left() == 0);
    assert_eq!(follow_ups(&more).len(), 1);
    drop(runner);
}

#[test]
fn follow_up_that_its_topic_does_not_take_is_a_dead_letter() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.unmade_topic();
    topic.create("", 1, &[("max.message.bytes", "2000")]);
    for config in ["", TRANSACTIONS] {
        let runner = topic.runner(config).handler("obey", "obedient");
        let runner = runner.manifest("obey", "grants.enqueue = 'obey'").start();
        // It is compressed by nobody, but a record of the test's own is smaller than what is made of it.
        let body = format!(r#"{{"job_type":"obey","do":"chain","x":"{}"}}"#, "x".repeat(1_800));
        let before = topic.dead().len();
        topic.send([body.as_str()]);
        let dead = eventually!(topic.dead().into_iter().nth(before));
        assert_eq!(dead.value.as_deref(), Some(body.as_bytes()));
        assert!(
            dead.envelope()["buried"]["failure"]["message"].as_str().unwrap().contains("larger than its topic takes")
        );
        eventually!(topic.left() == 0);
        drop(runner);
    }
}
