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

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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

/// How many schedules to play, the same each time, where nobody asks for more.
const SCHEDULES: usize = 2_000;

/// For how many seconds to go on from a random seed instead.
const SECONDS: &str = "SANDHOG_TEST_SECONDS";

#[test]
fn no_schedule_breaks_the_queues_word() {
    if let Some(seed) = number(SEED) {
        let mut disk = Disk::new();
        let played = play(&mut disk, seed, true);
        println!("{}", played.trace.join("\n"));
        return assert_holds(&mut disk, seed, &played);
    }
    let begun = Instant::now();
    let for_s = number(SECONDS).map(Duration::from_secs);
    let first = match for_s {
        Some(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64,
        None => 0,
    };
    let is_over = |at: usize| match for_s {
        Some(for_s) => begun.elapsed() >= for_s,
        None => at >= FOUND_BEFORE.len() + SCHEDULES,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, steps) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                let mut disk = Disk::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let found_before = FOUND_BEFORE.get(at).copied();
                    if found_before.is_none() && is_over(at) {
                        return;
                    }
                    let seed = found_before.unwrap_or(first + at as u64);
                    let played = play(&mut disk, seed, false);
                    assert_holds(&mut disk, seed, &played);
                    steps.fetch_add(played.steps as u64, Ordering::Relaxed);
                }
            });
        }
    });
    let schedules = next.into_inner() - cores;
    println!("{schedules} schedules with {} steps in {:?} on {cores} cores", steps.into_inner(), begun.elapsed());
}

#[test]
fn same_seed_is_the_same_schedule() {
    let mut disk = Disk::new();
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
