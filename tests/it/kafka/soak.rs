//! Everything at once, at random: runners that are killed, stopped, replaced and sleep past their session, a broker that dies,
//! writes that are refused, handlers that are replaced, jobs that fail, are rejected, are for later, or are none. At the end all
//! adds up, and the runner has not grown.
//!
//! Twenty seconds long; `SANDHOG_TEST_SOAK` and `SANDHOG_TEST_SEED` are as for the other queue's soak.

use std::time::{Duration, Instant};

use super::account::Kind;
use super::fleet::{CLASSIC, Fleet, KIP_848, TRANSACTIONS, pace};
use super::{Broker, Record};
use crate::reload::variant;
use crate::soak::figures::Held;
use crate::soak::parse;
use crate::support::guests;

const PROPERTIES: &str = "broker.session.timeout.ms=2000\ngroup.consumer.session.timeout.ms=6000";

const CLASSIC_TRANSACTIONS: &str = "queue.kafka.group_protocol = 'classic'
queue.kafka.client = { 'session.timeout.ms' = '6000' }
queue.kafka.delivery = 'exactly-once-in-kafka'";

/// How often something is done.
const PACE: Duration = Duration::from_millis(250);

/// Longer than a session.
const ASLEEP: Duration = Duration::from_secs(8);

/// How much more a runner may hold after its last third than after its first.
const GROWN_MAX: u64 = 80 << 20;

/// What a step does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Enqueue,
    Schedule,
    Malformed,
    Kill,
    Stop,
    JoinAndLeave,
    Sleep,
    KillBroker,
    RefuseWrites,
    Swap,
}

/// How often each is done.
const ACTS: [(Act, u64); 10] = [
    (Act::Enqueue, 60),
    (Act::Schedule, 4),
    (Act::Malformed, 6),
    (Act::Kill, 6),
    (Act::Stop, 4),
    (Act::JoinAndLeave, 2),
    (Act::Sleep, 2),
    (Act::KillBroker, 1),
    (Act::RefuseWrites, 2),
    (Act::Swap, 4),
];

struct Soak {
    broker: Broker,
    fleet: Fleet,
    malformed: usize,
    /// Those that are not well, and when they are to be.
    away: [Option<Instant>; 3],
    /// When dead letters are taken again.
    refuses_until: Option<Instant>,
    dead_bytes_max: String,
    done: [usize; ACTS.len()],
    held: Vec<Held>,
}

#[test]
fn everything_at_once_loses_no_job_of_a_kafka_queue() {
    let length = std::env::var("SANDHOG_TEST_SOAK").map_or(Duration::from_secs(20), |given| parse(&given));
    let Some(broker) = Broker::own(1, PROPERTIES) else { return };
    let mut soak = Soak::new(broker);
    let began = Instant::now();
    while began.elapsed() < length {
        // In the second half the first one is spared, so that its memory can be watched.
        let spared = began.elapsed() > length / 2;
        soak.mend(false);
        soak.step(spared);
        if spared && soak.away[0].is_none() {
            soak.held.extend(Held::now(soak.fleet.members[0].pid()));
        }
        pace(PACE);
    }
    soak.close();
}

// === impl Soak ===

impl Soak {
    fn new(broker: Broker) -> Soak {
        let topic = broker.topic(6);
        let mut random = crate::support::Random::seeded();
        let configs = [KIP_848, CLASSIC, TRANSACTIONS, CLASSIC_TRANSACTIONS];
        let config = configs[random.below(configs.len() as u64)];
        eprintln!("{config}");
        let mut fleet = Fleet::new(topic, 3, config).of(Kind::Mixed);
        (fleet.commits_soon, fleet.random) = (false, random);
        fleet.start_working();
        let dead_bytes_max = fleet.topic.configuration(".dead").remove("max.message.bytes").expect("each topic has it");
        Soak {
            broker,
            fleet,
            malformed: 0,
            away: [None; 3],
            refuses_until: None,
            dead_bytes_max,
            done: [0; ACTS.len()],
            held: Vec::new(),
        }
    }

    fn step(&mut self, spares_first: bool) {
        let act = self.fleet.random.weighted(&ACTS, |(_, weight)| *weight);
        self.done[act] += 1;
        let member = self.fleet.random.below(3);
        let harms = matches!(ACTS[act].0, Act::Kill | Act::Stop | Act::JoinAndLeave | Act::Sleep);
        // One is always well, or there is nobody to go on.
        let away = self.away.iter().filter(|away| away.is_some()).count();
        if harms && (self.away[member].is_some() || away == 2 || (member == 0 && spares_first)) {
            return;
        }
        let soon = Instant::now() + Duration::from_millis(self.fleet.random.below(4_000) as u64);
        match ACTS[act].0 {
            Act::Enqueue => {
                let jobs = 1 + self.fleet.random.below(60);
                self.fleet.enqueue(jobs, 6);
            }
            Act::Schedule => self.fleet.schedule(5, "1500ms"),
            Act::Malformed => {
                self.malformed += self.fleet.topic.send((0..5).map(|at| Record::from(format!("no job {at}")))).len();
            }
            Act::Kill => {
                self.fleet.kill(member);
                self.away[member] = Some(soon);
            }
            Act::Stop => {
                self.fleet.stop(member);
                self.away[member] = Some(soon);
            }
            Act::JoinAndLeave => {
                self.fleet.stop(member);
                let within = Duration::from_millis(self.fleet.random.below(800) as u64);
                self.fleet.join_and_leave(member, within);
                self.away[member] = Some(soon);
            }
            Act::Sleep => {
                self.fleet.members[member].pause();
                self.away[member] = Some(Instant::now() + ASLEEP);
            }
            Act::KillBroker => {
                self.broker.kill(1);
                let length = Duration::from_millis(self.fleet.random.below(5_000) as u64);
                pace(length);
                self.broker.up(1);
            }
            Act::RefuseWrites => {
                self.refuse(true);
                self.refuses_until = Some(soon);
            }
            Act::Swap => {
                let build = ["one", "two"][self.fleet.random.below(2)];
                let build = variant(&guests::guest("obedient"), build);
                self.fleet.members.iter().for_each(|member| member.put("obey.wasm", &build));
            }
        }
    }

    /// Wants more replicas of dead letters than there are.
    fn refuse(&self, refuses: bool) {
        let replicas = if refuses { "2" } else { "1" };
        let config = [
            ("cleanup.policy", "compact"),
            ("max.message.bytes", &self.dead_bytes_max),
            ("min.insync.replicas", replicas),
        ];
        self.fleet.topic.configure(".dead", &config);
    }

    /// Makes well what is due, or all.
    fn mend(&mut self, all: bool) {
        let is_due = |at: &Instant| all || *at <= Instant::now();
        for member in 0..3 {
            if self.away[member].take_if(|at| is_due(at)).is_some() {
                if self.fleet.members[member].is_started() {
                    self.fleet.members[member].go_on();
                } else {
                    self.fleet.members[member].restart(&[]);
                }
            }
        }
        if self.refuses_until.take_if(|at| is_due(at)).is_some() {
            self.refuse(false);
        }
    }

    fn close(mut self) {
        self.mend(true);
        let acts: Vec<_> = ACTS.iter().zip(self.done).map(|((act, _), times)| format!("{act:?} {times}")).collect();
        let account = self.fleet.close();
        eprintln!("{}; {} malformed", acts.join(", "), self.malformed);
        account.assert_adds_up();
        assert_eq!(account.malformed.len(), self.malformed, "each that is no job is one dead letter");
        let third = self.held.len() / 3;
        if third > 0 {
            let (before, after) = (Held::median(&self.held[..third]), Held::median(&self.held[2 * third..]));
            eprintln!("the spared runner, from {before:?} to {after:?}");
            let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
            assert!(grown <= GROWN_MAX && after.files <= before.files + 8, "it grows: {before:?}, {after:?}");
            assert!(after.threads <= before.threads + 16, "it grows: {before:?}, {after:?}");
        }
    }
}
