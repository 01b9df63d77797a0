//! Claims about whose turn it is, and how much is asked for.

use super::*;
use crate::job::Job;
use crate::queue::{Receipt, Release};

#[derive(Debug)]
struct NoQueue;

impl Release for NoQueue {
    fn release(&self, _: Receipt) {}

    fn executing(&self, _: Receipt, _: bool) -> u32 {
        0
    }

    fn executed(&self, _: u32) {}
}

/// A backlog in which `a` may run two at a time and `b` one, with jobs pushed in this order: `a` and `b`, an upper case
/// letter for one that must run alone.
fn backlog(jobs: &str) -> Backlog {
    let mut backlog = Backlog::default();
    for (record, letter) in (1..).zip(jobs.chars()) {
        let name = letter.to_lowercase().to_string();
        let job = Job {
            id: format!("{letter}{record}"),
            job_type: name.clone(),
            body: "{}".into(),
            attempt: 1,
            ..Job::default()
        };
        let delivery = Delivery::new(job, letter.is_uppercase(), Receipt { record, fence: 1 }, Arc::new(NoQueue));
        let share = Share { concurrency: if name == "a" { 2 } else { 1 }, weight: 1 };
        backlog.push(delivery, &name.into(), share);
    }
    backlog
}

/// Hands out what may run, and answers the ids.
fn start(backlog: &mut Backlog, turns: &mut Vec<Turn>) -> String {
    let mut ids = Vec::new();
    while let Some((delivery, turn)) = backlog.next() {
        ids.push(delivery.job.id.clone());
        turns.push(turn);
    }
    ids.join(" ")
}

#[test]
fn lanes_take_turns_within_their_concurrency() {
    let (mut backlog, mut turns) = (backlog("aaaabb"), Vec::new());
    assert_eq!(start(&mut backlog, &mut turns), "a1 b5 a2");
    assert!(!backlog.has_next());
    backlog.ran(&turns[0], None);
    assert_eq!(start(&mut backlog, &mut turns), "a3");
    backlog.ran(&turns[1], None);
    backlog.ran(&turns[2], None);
    assert_eq!(start(&mut backlog, &mut turns), "b6 a4");
}

/// Works two types that both always have a backlog on some slots, for so many milliseconds. Each letter has a weight, how
/// many may run at a time, and how many milliseconds an attempt takes. Answers for how many milliseconds each had slots.
fn used(slots: usize, lanes: [(u32, u32, u64); 2], ms: u64) -> [u64; 2] {
    let mut backlog = Backlog::default();
    let (mut record, mut used) = (0, [0, 0]);
    let mut running: Vec<(u64, usize, Turn)> = Vec::new();
    for now in 0..ms {
        for (end, letter, turn) in running.extract_if(.., |(end, ..)| *end <= now) {
            let length = lanes[letter].2;
            used[letter] += length;
            assert_eq!(end, now);
            backlog.ran(&turn, Some(Duration::from_millis(length)));
            backlog.settled(&turn);
        }
        while running.len() < slots {
            for (letter, (weight, concurrency, _)) in lanes.iter().enumerate() {
                record += 1;
                let job = Job { id: letter.to_string(), ..Job::default() };
                let delivery = Delivery::new(job, false, Receipt { record, fence: 1 }, Arc::new(NoQueue));
                let share = Share { concurrency: *concurrency, weight: *weight };
                backlog.push(delivery, &letter.to_string().into(), share);
            }
            let Some((delivery, turn)) = backlog.next() else { break };
            let letter: usize = delivery.job.id.parse().unwrap();
            running.push((now + lanes[letter].2, letter, turn));
        }
    }
    used
}

#[test]
fn lanes_with_a_backlog_share_the_time_of_slots_by_weight() {
    for (slots, lanes, share) in [
        // Alike: half each, on one slot as on eight.
        (1, [(1, 100, 5), (1, 100, 5)], 0.5),
        (8, [(1, 100, 5), (1, 100, 5)], 0.5),
        // By weight.
        (1, [(3, 100, 5), (1, 100, 5)], 0.75),
        (8, [(3, 100, 5), (1, 100, 5)], 0.75),
        // Long jobs have no more of the time than short ones.
        (1, [(1, 100, 1_000), (1, 100, 1)], 0.5),
        (8, [(1, 100, 1_000), (1, 100, 1)], 0.5),
        (4, [(1, 100, 500), (3, 100, 10)], 0.25),
        // What one may not have, the other gets.
        (8, [(9, 2, 5), (1, 100, 5)], 0.25),
    ] {
        let [one, other] = used(slots, lanes, 40_000);
        let got = one as f64 / (one + other) as f64;
        assert!((got - share).abs() < 0.04, "{slots} {lanes:?}: {got}");
    }
}

#[test]
fn lane_that_comes_late_or_was_bounded_has_no_claim_to_catch_up() {
    let (mut backlog, mut turns) = (backlog("aa"), Vec::new());
    start(&mut backlog, &mut turns);
    for turn in &turns {
        backlog.ran(turn, Some(Duration::from_secs(1_000)));
    }
    // One has had its 1,000 seconds, the other comes now: they take turns.
    let share = Share { concurrency: 100, weight: 1 };
    for record in 1..=6 {
        for name in ["a", "c"] {
            let job = Job { id: name.to_owned(), ..Job::default() };
            let delivery = Delivery::new(job, false, Receipt { record, fence: 1 }, Arc::new(NoQueue));
            backlog.push(delivery, &name.into(), share);
        }
    }
    let order = start(&mut backlog, &mut Vec::new());
    assert!(order.starts_with("c ") && order.matches('a').count() == 6, "{order}");
}

#[test]
fn suspect_job_runs_alone() {
    let (mut backlog, mut turns) = (backlog("aAa"), Vec::new());
    assert_eq!(start(&mut backlog, &mut turns), "a1");
    backlog.ran(&turns[0], None);
    assert_eq!(start(&mut backlog, &mut turns), "A2");
    backlog.ran(&turns[1], None);
    assert_eq!(start(&mut backlog, &mut turns), "a3");
}

#[test]
fn room_grows_with_the_shortness_of_jobs_and_shrinks_with_what_is_in_flight() {
    let (mut backlog, mut turns) = (backlog("aa"), Vec::new());
    let name = Arc::from("a");
    assert_eq!(backlog.room(&name, 2, 1), 0);
    start(&mut backlog, &mut turns);
    for turn in &turns {
        backlog.ran(turn, Some(Duration::from_secs(10)));
        backlog.settled(turn);
    }
    assert_eq!(backlog.room(&name, 2, 1), 2);
    assert_eq!(backlog.room(&name, 8, 4), 2);
    let mut backlog = self::backlog("a");
    let (_, turn) = backlog.next().unwrap();
    backlog.ran(&turn, Some(Duration::from_millis(1)));
    backlog.settled(&turn);
    assert_eq!(backlog.room(&name, 2, 1), 102);
    assert_eq!(backlog.room(&"new".into(), 2, 1), 2);
}

#[test]
fn closed_backlog_hands_out_nothing_and_gives_back_what_waited() {
    let (mut backlog, mut turns) = (backlog("aaab"), Vec::new());
    let first = backlog.next().unwrap();
    assert_eq!(backlog.close().len(), 3);
    assert_eq!(start(&mut backlog, &mut turns), "");
    assert_eq!(backlog.in_flight(), 1);
    backlog.ran(&first.1, None);
    backlog.settled(&first.1);
    assert_eq!(backlog.in_flight(), 0);
}
