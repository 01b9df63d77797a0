//! Runners that are killed, stopped and replaced under load: every job runs to an end, and only what was in flight runs again.

use std::time::Duration;

use super::Broker;
use super::account::{Account, Kind};
use super::fleet::{CLASSIC, Fleet, KIP_848, SLOTS, TRANSACTIONS, pace};
use crate::eventually;

/// What a death makes run again, at most: what was executing, and what had ended within the time in which it is committed.
/// Jobs work for a millisecond or two here.
const AGAIN_MAX: usize = SLOTS + 400;

// === kill -9 ===

#[test]
fn kills_at_random_lose_no_job_and_repeat_only_what_was_in_flight() {
    kills(Kind::Plain, KIP_848, 10_000, 5, 6);
}

#[test]
fn kills_at_random_lose_no_retry_and_no_dead_letter() {
    kills(Kind::Mixed, KIP_848, 4_000, 3, 6);
}

#[test]
fn kills_at_random_write_each_retry_and_each_dead_letter_once_with_transactions() {
    kills(Kind::Mixed, TRANSACTIONS, 4_000, 3, 6);
}

#[test]
#[ignore = "long: make test-long"]
fn ten_kills_lose_no_job() {
    for (kind, config) in [(Kind::Plain, KIP_848), (Kind::Mixed, CLASSIC), (Kind::Mixed, TRANSACTIONS)] {
        kills(kind, config, 20_000, 10, 20);
    }
}

/// Kills one of three runners every two seconds, so many times, while they work for up to so many milliseconds a job.
fn kills(kind: Kind, config: &str, jobs: usize, kills: usize, ms: usize) {
    let Some(broker) = Broker::shared() else { return };
    let mut fleet = Fleet::new(broker.topic(12).noticing_deaths(), 3, config).of(kind);
    fleet.start_working();
    fleet.enqueue(jobs, ms);
    for _ in 0..kills {
        let member = fleet.random.below(3);
        // Somewhere in two seconds: a schedule of deaths is not in step with anything.
        let before = Duration::from_millis(fleet.random.below(2_000) as u64);
        pace(before);
        fleet.kill(member);
        pace(Duration::from_secs(2).saturating_sub(before));
        fleet.start();
    }
    let account = fleet.close();
    account.assert_adds_up();
    assert!(account.again.executing <= kills * SLOTS, "{account}");
    assert!(account.repeated() - account.again.put_out <= kills * AGAIN_MAX, "{account}");
    assert_eq!(account.again.moved, 0, "what was in flight in a living runner stays there: {account}");
    let written_again = account.again.retried + account.buried_again();
    let most = if config == TRANSACTIONS { 0 } else { kills * AGAIN_MAX };
    assert!(written_again <= most, "{account}");
}

// === rolling restarts ===

#[test]
fn rolling_restart_runs_no_job_twice() {
    let account = rolling_restart(KIP_848, 1);
    assert_eq!(account.repeated(), 0, "{account}");
}

#[test]
fn rolling_restart_with_the_classic_protocol_repeats_only_what_was_not_committed() {
    let account = rolling_restart(CLASSIC, 1);
    assert_eq!(account.again.executing, 0, "who is told to stop lets run what runs: {account}");
    assert!(account.repeated() <= 3 * AGAIN_MAX, "{account}");
}

fn rolling_restart(config: &str, rounds: usize) -> Account {
    let Some(broker) = Broker::shared() else { return Account::default() };
    let mut fleet = Fleet::new(broker.topic(12), 3, config);
    fleet.start_working();
    fleet.enqueue(2_000, 5);
    for member in (0..3).cycle().take(3 * rounds) {
        fleet.stop(member);
        fleet.enqueue(500, 5);
        fleet.start();
        // It has its share again before the next one goes, as in a rolling deploy.
        let begun = fleet.members[member].says("begun");
        eventually!({
            fleet.enqueue(50, 5);
            fleet.members[member].says("begun") > begun
        });
    }
    let account = fleet.close();
    account.assert_adds_up();
    account
}
