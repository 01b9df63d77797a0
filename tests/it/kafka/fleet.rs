//! Several runners in one consumer group, what is done to them, and the account of it.

use std::time::{Duration, Instant};

use super::Topic;
use super::account::{Account, Kind};
use crate::eventually;
use crate::support::{Random, TestRunner, now_ms, patience, pause};

/// How many attempts a runner executes at a time here.
pub(super) const SLOTS: usize = 4;

/// With the partitions that come and go.
const LOG: &str =
    "info,sandhog::queue::kafka::consumer=debug,sandhog::queue::kafka::group=debug,sandhog::queue::kafka::commit=debug";

const RETRY: &str = "[retry]\nmax_failures = 3\nbackoff = { first = '20ms', factor = 1, max = '20ms' }\n";

/// So many millions a guest counts in a millisecond, on a machine that is neither new nor old.
const COUNTED_IN_A_MS: usize = 3;

/// What both protocols need to notice a death as soon as the tests' broker lets them.
pub(super) const CLASSIC: &str =
    "queue.kafka.group_protocol = 'classic'\nqueue.kafka.client = { 'session.timeout.ms' = '6000' }";
pub(super) const KIP_848: &str = "queue.kafka.group_protocol = 'consumer'";
/// The newer protocol, with transactions.
pub(super) const TRANSACTIONS: &str =
    "queue.kafka.group_protocol = 'consumer'\nqueue.kafka.delivery = 'exactly-once-in-kafka'";

/// Runners on one topic, each in a folder of its own.
pub(super) struct Fleet {
    pub(super) topic: Topic,
    kind: Kind,
    pub(super) members: Vec<TestRunner>,
    /// When each was killed or stopped, in their order.
    ends: Vec<Vec<i64>>,
    /// How many jobs were acknowledged.
    pub(super) accepted: usize,
    /// Whether a job's end is committed soon: not where brokers die as well.
    pub(super) commits_soon: bool,
    pub(super) random: Random,
}

// === impl Fleet ===

impl Fleet {
    /// So many runners, none of which is started. `config` is more of their configuration, in which `MEMBER` is their number.
    pub(super) fn new(topic: Topic, members: usize, config: &str) -> Fleet {
        let config = format!("slots = {SLOTS}\nlog.level = '{LOG}'\n{config}");
        let config = |member: usize| config.replace("MEMBER", &format!("member-{member}"));
        let member = |member| topic.runner(&config(member)).handler("obey", "obedient").manifest("obey", RETRY);
        let members: Vec<TestRunner> = (0..members).map(member).collect();
        let ends = vec![Vec::new(); members.len()];
        Fleet { topic, kind: Kind::Plain, members, ends, accepted: 0, commits_soon: true, random: Random::seeded() }
    }

    /// The same, for jobs of that kind.
    pub(super) fn of(mut self, kind: Kind) -> Fleet {
        self.kind = kind;
        self
    }

    /// Adds jobs, which work for up to so many milliseconds each, more or less.
    pub(super) fn enqueue(&mut self, jobs: usize, ms: usize) {
        let (kind, most) = (self.kind, ms * COUNTED_IN_A_MS);
        let records = (self.accepted..self.accepted + jobs).map(|id| kind.job(id, (id * 7) % (most + 1)));
        self.accepted += self.topic.send(records).len();
    }

    /// Adds jobs for later, with the runner's own command.
    pub(super) fn schedule(&mut self, jobs: usize, after: &str) {
        let line =
            |id| String::from_utf8(self.kind.job(id, 0).value().expect("it has one").to_vec()).expect("it is text");
        let lines: Vec<String> = (self.accepted..self.accepted + jobs).map(line).collect();
        self.accepted += self.members[0].enqueue_lines(lines.join("\n"), &["--after", after]).len();
    }

    /// Starts all that do not run.
    pub(super) fn start(&mut self) {
        for member in &mut self.members {
            if !member.is_started() {
                member.restart(&[]);
            }
        }
    }

    /// Starts all, and adds jobs until all of them work.
    pub(super) fn start_working(&mut self) {
        self.start();
        eventually!({
            self.enqueue(100, 2);
            self.members.iter().all(|member| member.says("begun") > 0)
        });
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, member: usize) {
        self.members[member].kill();
        self.ends[member].push(now_ms());
    }

    /// SIGKILL of one that was stopped, and has done nothing since.
    pub(super) fn kill_stopped(&mut self, member: usize, since: i64) {
        self.members[member].kill();
        self.ends[member].push(since);
    }

    /// SIGTERM, and waits until it has ended.
    pub(super) fn stop(&mut self, member: usize) {
        assert!(self.members[member].stop().success());
        self.ends[member].push(now_ms());
    }

    /// Starts it, and ends it so soon afterwards that it may not be ready yet.
    pub(super) fn join_and_leave(&mut self, member: usize, within: Duration) {
        self.members[member].spawn(&[]);
        pace(within);
        self.members[member].terminate();
        self.members[member].wait();
        self.ends[member].push(now_ms());
    }

    /// How often guests said that they begin or end.
    pub(super) fn said(&self) -> usize {
        self.members.iter().map(|member| member.says("begun")).sum()
    }

    /// Waits until all is done and committed, as long as something happens.
    pub(super) fn run_out(&self) {
        while self.topic.left() > 0 {
            // To count what is left of many costs more than to wait for some of it.
            let (said, began) = (self.said(), Instant::now());
            while self.said() <= said + 500 && self.topic.left() > 0 {
                // A request that was lost with its broker is made again only after a minute.
                assert!(began.elapsed() < 3 * patience(), "{} of {} jobs are left", self.topic.left(), self.accepted);
                pause();
            }
        }
    }

    /// Waits until all is done, stops all that run, and answers the account.
    pub(super) fn close(&mut self) -> Account {
        self.run_out();
        for member in 0..self.members.len() {
            if self.members[member].is_started() {
                assert!(self.members[member].stop().success());
            }
        }
        let members: Vec<(&TestRunner, &[i64])> =
            self.members.iter().zip(&self.ends).map(|(member, ends)| (member, ends.as_slice())).collect();
        let account = Account::of(&self.topic, self.kind, self.accepted, self.commits_soon, &members);
        eprintln!("{account}");
        account
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (number, member) in self.members.iter().enumerate() {
                eprintln!("member {number}, killed or stopped at {:?}, but for its jobs:", self.ends[number]);
                let log = member.log();
                let jobs = ["guest", "sandhog::dispatch"];
                let own: Vec<_> =
                    log.iter().filter(|line| !jobs.contains(&line["target"].as_str().unwrap_or(""))).collect();
                own[own.len().saturating_sub(200)..].iter().for_each(|line| eprintln!("  {line}"));
            }
        }
    }
}

/// The pace at which something is done, and nothing that is hoped for.
pub(super) fn pace(length: Duration) {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
