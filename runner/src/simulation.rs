//! A simulation of the queue and the dispatcher: without time, without threads, without WebAssembly.
//!
//! A schedule is made from a seed. In it the real dispatcher, the real writer of the SQLite queue and its real statements run
//! as one or two runners and a client on a database in memory, under a clock that moves when it is told to. The seed says
//! which task or which writer goes on next, what handlers do, and what befalls the processes: deaths at any point between
//! two steps, standing still until the lease is lost, files that are locked, full or read-only, reloads, drains, jumps of
//! the clock. A ledger keeps books beside it (`ledger.rs`): every change of a row must follow from what was done, and at the
//! end, when all is well again, every job must have ended, once.
//!
//! `tests/README.md` says how a seed is replayed.

use std::time::{Duration, Instant};

use self::schedule::{Played, play};
use crate::queue::sqlite::simulation::Disk;

mod guest;
mod ledger;
mod node;
mod random;
mod schedule;
mod tasks;
mod timeline;
mod world;

/// Schedules that found a fault: room that nobody asked for after a panic; a writer that span while a job was due that there
/// was no room for; a handler above its concurrency after a reload; files of a runner that was taken for dead and died then.
const FOUND_BEFORE: [u64; 4] = [1795323994519964, 1795323899923027, 1795323911221357, 1795323557221932];

/// Says which seeds to play: one to replay, with its steps.
const SEED: &str = "SANDHOG_TEST_SEED";

/// For how many seconds to go on from a random seed.
const SECONDS: &str = "SANDHOG_TEST_SECONDS";

#[test]
fn no_schedule_breaks_the_queues_word() {
    let mut disk = Disk::new(0);
    if let Some(seed) = number(SEED) {
        let played = play(&mut disk, seed, true);
        println!("{}", played.trace.join("\n"));
        return assert_holds(&mut disk, seed, &played);
    }
    let begun = Instant::now();
    let first = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let for_s = Duration::from_secs(number(SECONDS).unwrap_or(3));
    let (mut schedules, mut steps) = (0_u64, 0);
    let seeds = FOUND_BEFORE.into_iter().chain((first..).take_while(|_| begun.elapsed() < for_s));
    for seed in seeds {
        let played = play(&mut disk, seed, false);
        assert_holds(&mut disk, seed, &played);
        schedules += 1;
        steps += played.steps;
    }
    println!("{schedules} schedules with {steps} steps in {:?}", begun.elapsed());
}

#[test]
fn same_seed_is_the_same_schedule() {
    let mut disk = Disk::new(1);
    for seed in 0..20 {
        let (one, other) = (play(&mut disk, seed, true), play(&mut disk, seed, true));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        let untraced = play(&mut disk, seed, false);
        assert_eq!((one.mark, one.steps), (untraced.mark, untraced.steps), "seed {seed}");
    }
}

/// Fails with the last steps of the schedule and the command that replays it.
fn assert_holds(disk: &mut Disk, seed: u64, played: &Played) {
    if let Some(fault) = &played.fault {
        let trace = play(disk, seed, true).trace;
        let last = trace[trace.len().saturating_sub(40)..].join("\n");
        panic!("{last}\n\n{fault}\n\nreplay it with:\n{SEED}={seed} {REPLAY}");
    }
}

const REPLAY: &str = "cargo test --release --workspace --lib -- --nocapture no_schedule_breaks";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("it is a number"))
}
