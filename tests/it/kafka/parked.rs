//! Jobs that nobody serves, very many of them: they cost nothing while they wait, and run soon after their handler came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Broker, Record, TIERS, Topic};
use crate::eventually;
use crate::support::{TestRunner, message};

/// With little to do besides, a runner begins with them well within this time, whatever else the machine does.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn many_parked_jobs_cost_no_writes_and_run_when_their_handler_comes() {
    parked(50_000);
}

#[test]
#[ignore = "long: make test-long"]
fn million_parked_jobs_cost_no_writes_and_run_when_their_handler_comes() {
    parked(1_000_000);
}

fn parked(jobs: usize) {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(4);
    let mut runners: Vec<TestRunner> = (0..3).map(|_| topic.runner("").handler("obey", "obedient")).collect();
    runners[0].restart(&[]);
    let job = |id| Record::from(format!(r#"{{"job_type":"late","job_id":"{id}","do":"work 0"}}"#));
    topic.send((0..jobs).map(job));
    until_all(jobs, || if topic.partitions(".parked") == 0 { 0 } else { topic.length(".parked") });
    eventually!(topic.left() == 0);

    let before = records(&topic);
    for round in 0..2 {
        for runner in &mut runners[1..] {
            runner.restart(&[]);
        }
        // They take part, and have looked at what is parked by then: a job of their own comes through.
        topic.send((0..40).map(|_| Record::from(r#"{"job_type":"obey","do":"complete"}"#)));
        eventually!(topic.left() == 0);
        assert!(runners[1..].iter_mut().all(|runner| runner.stop().success()), "round {round}");
    }
    let mut expected = before.clone();
    *expected.get_mut("").unwrap() += 80;
    assert_eq!(records(&topic), expected, "what waits is not written again");

    let came = Instant::now();
    runners[0].put_guest("late", "obedient");
    let (mut ran, mut first) = (BTreeMap::<String, usize>::new(), None);
    until_all(jobs, || {
        for line in runners[0].take_log().iter().filter(|line| message(line) == "begun") {
            first.get_or_insert_with(|| came.elapsed());
            *ran.entry(line["job.id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        ran.len()
    });
    let first = first.expect("all of them ran");
    eprintln!("{jobs} parked jobs: the first ran after {first:.1?}, the last after {:.1?}", came.elapsed());
    assert!(first < SOON, "{first:?}");
    assert_eq!(ran.values().sum::<usize>(), jobs, "each ran once");
    eventually!(topic.left() == 0);
    assert_eq!((topic.live(".parked").len(), topic.dead().len()), (0, 0));
}

/// Waits until so many are there, as long as they become more.
fn until_all(jobs: usize, mut there: impl FnMut() -> usize) {
    let mut last = there();
    while last < jobs {
        last = eventually!(Some(there()).filter(|&now| now > last));
    }
}

/// How many records each topic has.
fn records(topic: &Topic) -> BTreeMap<&'static str, usize> {
    let all = [""].into_iter().chain(TIERS).chain([".parked", ".dead"]);
    all.map(|suffix| (suffix, topic.length(suffix))).collect()
}
