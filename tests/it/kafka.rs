//! The Kafka queue, with a real broker: claims through the real binary, jobs by any producer, and an account of every job.

pub(crate) use self::broker::Broker;
pub(crate) use self::record::{Received, Record};
pub(crate) use self::topic::{TIERS, Topic};

mod access;
mod account;
mod admin;
mod broker;
mod contract;
mod crowds;
mod deaths;
mod fleet;
mod follow_ups;
mod looking;
mod mixed;
mod outages;
mod parked;
mod permissions;
mod rebalances;
mod record;
mod records;
mod reports;
mod shares;
mod soak;
mod suspects;
mod told;
mod topic;
mod transactions;
mod writes;

#[test]
fn broker_of_the_tests_keeps_what_it_acknowledged() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(2);
    let records = (0..1_000).map(|at| Record::from(format!("{at}")).key(format!("{}", at % 7)).header("n", "x"));
    let places = topic.send(records);
    let read = topic.read("");
    assert_eq!(read.len(), 1_000);
    for (at, place) in places.iter().enumerate() {
        let found = read.iter().find(|record| record.place == *place).unwrap();
        assert_eq!(found.value.as_deref(), Some(at.to_string().as_bytes()));
        assert_eq!(found.header("n"), Some(&b"x"[..]));
    }
    assert_eq!(topic.left(), 1_000);
    assert_eq!(topic.configuration("")["cleanup.policy"], "delete");
}
