//! Groups that are never at rest, and a member that sleeps through the loss of its partitions.

use std::time::{Duration, Instant};

use super::Broker;
use super::fleet::{CLASSIC, Fleet, KIP_848, pace};
use crate::eventually;

// === storms ===

#[test]
fn rebalance_storm_loses_no_job_and_repeats_none() {
    let repeated = storm(KIP_848, Duration::from_secs(20));
    assert_eq!(repeated, 0);
}

#[test]
fn rebalance_storm_with_the_classic_protocol_loses_no_job() {
    storm(CLASSIC, Duration::from_secs(20));
}

#[test]
#[ignore = "long: make test-long"]
fn rebalance_storm_of_two_minutes_loses_no_job() {
    storm(KIP_848, Duration::from_secs(120));
    storm(CLASSIC, Duration::from_secs(120));
}

/// Members join and leave every second, and some leave while they join. Answers how many jobs ran again.
fn storm(config: &str, length: Duration) -> usize {
    let Some(broker) = Broker::shared() else { return 0 };
    let mut fleet = Fleet::new(broker.topic(12), 4, config);
    fleet.enqueue(2_000, 5);
    fleet.members[0].restart(&[]);
    let began = Instant::now();
    while began.elapsed() < length {
        let member = 1 + fleet.random.below(3);
        match (fleet.members[member].is_started(), fleet.random.below(3)) {
            (true, _) => fleet.stop(member),
            (false, 0) => {
                // It closes while it joins, which is where the classic protocol stalls.
                let within = Duration::from_millis(fleet.random.below(800) as u64);
                fleet.join_and_leave(member, within);
            }
            (false, _) => fleet.members[member].restart(&[]),
        }
        fleet.enqueue(100, 5);
        pace(Duration::from_secs(1));
    }
    let account = fleet.close();
    account.assert_adds_up();
    account.repeated()
}

// === a runner that stands still ===

#[test]
fn runner_that_stood_still_past_its_session_fences_itself() {
    stands_still(KIP_848);
}

#[test]
fn runner_that_stood_still_past_its_session_fences_itself_with_the_classic_protocol() {
    stands_still(CLASSIC);
}

fn stands_still(config: &str) {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = Fleet::new(broker.topic(4).noticing_deaths(), 2, config);
    fleet.start_working();
    fleet.enqueue(1_000, 5);
    fleet.members[0].pause();
    // The other one gets all partitions, and does all there is.
    eventually!(fleet.topic.left() == 0);
    let before = fleet.topic.committed("");
    // There is work in the partitions that it had when it wakes and settles what it did.
    fleet.enqueue(500, 20);
    let begun = fleet.members[0].says("begun");
    fleet.members[0].go_on();
    // It takes part again.
    eventually!({
        fleet.enqueue(50, 5);
        fleet.members[0].says("begun") > begun + 50
    });
    let account = fleet.close();
    account.assert_adds_up();
    let after = fleet.topic.committed("");
    assert!(before.iter().all(|(partition, it)| after[partition].offset >= it.offset), "{before:?} {after:?}");
    // What it executed when it was stopped, and what it had done and could not commit any more.
    assert!(account.repeated() <= 500, "{account}");
}
