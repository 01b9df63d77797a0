//! Everything at once, at random: good jobs and hostile ones, kills, stops, full disks, swapped, bad and deleted handlers. At
//! the end all adds up, and nothing has grown.
//!
//! A minute long; `SANDHOG_TEST_SOAK` makes it longer, in seconds or like `10m`, and `SANDHOG_TEST_SEED` does the same
//! again, as far as the machine's timing lets it. `make soak` runs it alone.

use std::time::{Duration, Instant};

use serde_json::Value;

use self::act::{ACTS, Act};
use self::figures::{Held, Stored};
use self::ledger::Ledger;
use self::member::Member;
use self::told::HANDLERS;
use crate::eventually;
use crate::reload::variant;
use crate::support::{Random, TestRunner, guests};

mod account;
mod act;
pub(crate) mod figures;
mod ledger;
mod member;
mod told;

/// How many attempts a runner executes at a time; the configuration says the same.
const SLOTS: usize = 8;

/// How often something is done.
const PACE: Duration = Duration::from_millis(150);

/// How often the queue is asked what became of jobs; completed ones are kept for longer than this by far.
const HARVEST: Duration = Duration::from_secs(2);

/// A step that takes longer is worth a line: something waited for a lock, or the machine is busy.
const SLOW: Duration = Duration::from_secs(3);

/// How often it says how far it is.
const SAY: Duration = Duration::from_secs(10);

const CONFIG: &str = "slots = 8\ndrain_timeout = '300ms'\nqueue.keep_completed = { age = '2m', bytes = '8MiB' }\n";

struct Soak {
    random: Random,
    length: Duration,
    began: Instant,
    members: Vec<Member>,
    /// Whether all members have the first one's folder of handlers.
    shared: bool,
    /// Builds of the obedient guest, of which any is a good handler.
    builds: [Vec<u8>; 2],
    ledger: Ledger,
    step: u64,
    act: Act,
    ids: usize,
    ready: u64,
    refused: usize,
    swaps: usize,
    harvested: Instant,
    /// Steps at which a bad handler is mended, and a deleted one put back.
    mend_at: Option<u64>,
    put_back_at: Option<u64>,
    /// When hostile guests had the spared runner hold all that it will.
    warmed: Option<Instant>,
    /// Figures of the first runner since, and of the disk in the three thirds.
    held: Vec<Held>,
    stored: [Stored; 3],
    state_files: Vec<String>,
}

#[test]
fn everything_at_once_loses_no_job_and_nothing_grows() {
    let length = std::env::var("SANDHOG_TEST_SOAK").map_or(Duration::from_secs(60), |given| parse(&given));
    let mut soak = Soak::new(length);
    let (mut said, mut next) = (soak.began, soak.began);
    while soak.began.elapsed() < length {
        let begun = Instant::now();
        soak.step();
        if begun.elapsed() > SLOW {
            eprintln!("step {}, {:?}, took {:?}", soak.step, soak.act, begun.elapsed());
        }
        // What is wrong already is looked at as it stands.
        soak.ledger.assert_adds_up();
        if length > Duration::from_secs(60) && said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("{}", soak.progress());
        }
        // The pace, and nothing that is hoped for. What a slow step left out is not made up for in a rush.
        next = (next + PACE).max(begun);
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    soak.run_out();
    let again = soak.close();
    eprintln!("{}", soak.table(&again));
    soak.ledger.assert_adds_up();
}

/// `90`, `90s`, `10m` or `1h`.
pub(crate) fn parse(length: &str) -> Duration {
    let (number, unit) = length.split_at(length.find(|c: char| !c.is_ascii_digit()).unwrap_or(length.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        unit => panic!("`SANDHOG_TEST_SOAK` is like 90s, 10m or 1h, and not {unit:?}"),
    };
    Duration::from_secs(number.parse::<u64>().expect("`SANDHOG_TEST_SOAK` begins with a number") * seconds)
}

// === impl Soak ===

impl Soak {
    fn new(length: Duration) -> Soak {
        let mut random = Random::seeded();
        let (two, shared) = [(false, true), (true, true), (true, false)][random.below(3)];
        let first = TestRunner::new().config(CONFIG);
        let second = two.then(|| if shared { first.twin() } else { first.beside("handlers-2") });
        let members: Vec<Member> = [Some(("first", first)), second.map(|runner| ("second", runner))]
            .into_iter()
            .flatten()
            .map(|(name, runner)| Member::new(name, runner))
            .collect();
        eprintln!("{} runners, {} folder of handlers", members.len(), if shared { "one" } else { "each its own" });
        let obedient = guests::guest("obedient");
        let mut soak = Soak {
            random,
            length,
            began: Instant::now(),
            members,
            shared,
            builds: ["one", "two"].map(|name| variant(&obedient, name)),
            ledger: Ledger::default(),
            step: 0,
            act: Act::Enqueue,
            ids: 0,
            ready: 0,
            refused: 0,
            swaps: 0,
            harvested: Instant::now(),
            mend_at: None,
            put_back_at: None,
            warmed: None,
            held: Vec::new(),
            stored: Default::default(),
            state_files: Vec::new(),
        };
        for (name, manifest) in HANDLERS {
            soak.put(&format!("{name}.toml"), manifest.as_bytes());
            let build = soak.builds[0].clone();
            soak.put(&format!("{name}.wasm"), &build);
        }
        for member in &mut soak.members {
            member.start(&mut soak.ledger);
        }
        soak.began = Instant::now();
        soak
    }

    /// Puts a file into all folders of handlers.
    fn put(&self, name: &str, bytes: &[u8]) {
        let folders = if self.shared { &self.members[..1] } else { &self.members };
        folders.iter().for_each(|member| member.runner.put(name, bytes));
    }

    /// Any runner: asking the queue is the same of each.
    fn any(&self) -> &TestRunner {
        &self.members[0].runner
    }

    /// In the second half the first runner is spared, so that its memory can be watched.
    fn spares_first(&self) -> bool {
        self.began.elapsed() > self.length / 2
    }

    fn step(&mut self) {
        self.step += 1;
        self.mend(false);
        self.read();
        if self.harvested.elapsed() >= HARVEST {
            self.harvest(false);
            self.measure();
        }
        if self.spares_first() && self.warmed.is_none() {
            self.warmed = Some(Instant::now());
            self.warm();
        }
        self.act = ACTS[self.random.weighted(&ACTS, |(_, weight)| *weight)].0;
        let member = self.random.below(self.members.len() as u64);
        let until = self.step + 1 + self.random.below(10) as u64;
        match self.act {
            Act::Enqueue => self.enqueue(10..60),
            Act::EnqueueKilled => self.enqueue_killed(),
            Act::Kill | Act::Stop | Act::StopAtOnce | Act::Pause | Act::Stand | Act::FillDisk => {
                self.harm(member, until);
            }
            Act::Swap => self.swap(),
            Act::Break => self.break_handler(until),
            Act::Delete => self.delete_handler(until),
            Act::Requeue => self.requeue(),
            Act::DeleteDead => self.delete_dead(),
        }
    }

    /// Lets everything end that can.
    fn run_out(&mut self) {
        self.mend(true);
        let waits = |counts: &Value| {
            let counts = counts["counts"].as_array().expect("stats have counts").iter();
            let waiting = counts.filter(|count| count["state"] != "dead" && count["state"] != "completed");
            waiting.filter_map(|count| count["jobs"].as_u64()).sum::<u64>()
        };
        eventually!({
            self.read();
            self.harvest(false);
            waits(&self.any().stats()) == 0
        });
        self.read();
        self.harvest(true);
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Soak { random, step, act, began, .. } = &*self;
            let stats = self.any().sandhog(&["stats"]).stdout;
            eprintln!("{}", String::from_utf8_lossy(&stats));
            eprintln!("SANDHOG_TEST_SEED={} failed in step {step}, {act:?}, after {:?}", random.seed, began.elapsed());
        }
    }
}
