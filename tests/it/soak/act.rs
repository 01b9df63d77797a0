//! What is done in a soak: to jobs, to runners, and to handlers.

use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;

use super::Soak;
use super::member::State;
use super::told::{self, ALL, End, LATE, OBEY, PATIENT};
use crate::eventually;
use crate::support::{Enqueued, Seen};

/// With more jobs than this ready, no more are enqueued until there are less.
const READY_MAX: u64 = 1_500;

/// So many jobs of each hostile kind warm a runner.
const WARMING: usize = 12;

/// With more dead letters than this, the next that are deleted are all.
const DEAD_MAX: usize = 400;

/// From this length on a runner is left standing until another takes its jobs: a lease is long.
const LONG: Duration = Duration::from_secs(180);

/// What a step does; to which runner, and with what, is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Enqueue,
    EnqueueKilled,
    Kill,
    Stop,
    StopAtOnce,
    Pause,
    Stand,
    FillDisk,
    Swap,
    Break,
    Delete,
    Requeue,
    DeleteDead,
}

/// How often each is done.
pub(super) const ACTS: [(Act, u64); 13] = [
    (Act::Enqueue, 60),
    (Act::EnqueueKilled, 2),
    (Act::Kill, 8),
    (Act::Stop, 2),
    (Act::StopAtOnce, 2),
    (Act::Pause, 1),
    (Act::Stand, 1),
    (Act::FillDisk, 2),
    (Act::Swap, 5),
    (Act::Break, 3),
    (Act::Delete, 3),
    (Act::Requeue, 4),
    (Act::DeleteDead, 3),
];

// === impl Soak ===

impl Soak {
    // --- jobs ---

    /// Some jobs, perhaps for later, perhaps with ids that are there already.
    pub(super) fn enqueue(&mut self, how_many: Range<u64>) {
        if self.ready > READY_MAX {
            return;
        }
        let mut arguments = vec!["--bury-bad"];
        if self.random.below(6) == 0 {
            arguments.extend(["--after", ["500ms", "1s", "3s"][self.random.below(3)]]);
        }
        if self.random.below(4) == 0 {
            arguments.extend(["--header", "colour=blue"]);
        }
        let given = self.random.below(3) == 0;
        let (mut lines, mut jobs) = (String::new(), Vec::new());
        for _ in 0..how_many.start + self.random.below(how_many.end - how_many.start) as u64 {
            let told = told::any(&mut self.random);
            // One of the latest, or the next.
            let id = given.then(|| match self.random.below(5) {
                0 => self.ids.saturating_sub(self.random.below(100)),
                _ => {
                    self.ids += 1;
                    self.ids
                }
            });
            let id = id.map(|id| format!("job-{id}"));
            lines.push_str(&ALL[told].line(id.as_deref()));
            jobs.push((told, id));
        }
        let Some(answers) = self.enqueue_file(&lines, &arguments) else { return };
        assert_eq!(answers.len(), jobs.len(), "an answer for each line");
        for (Enqueued { id, duplicate }, (told, given)) in answers.into_iter().zip(jobs) {
            let is_job = told != told::MALFORMED;
            let again = given.as_ref().is_some_and(|given| is_job && self.ledger.knows(given));
            if again != duplicate || given.is_some_and(|given| is_job && given != id) {
                self.ledger.fault(format!("`{id}`: duplicate {duplicate}, where it is {again}"));
            }
            self.ledger.accept(&id, told, duplicate);
        }
    }

    /// All kinds of hostile jobs, so many that each slot has had them.
    pub(super) fn warm(&mut self) {
        let hostile = (0..ALL.len()).filter(|&told| ALL[told].end != End::Completed);
        let jobs: Vec<usize> = hostile.flat_map(|told| std::iter::repeat_n(told, WARMING)).collect();
        let lines: String = jobs.iter().map(|&told| ALL[told].line(None)).collect();
        let answers = eventually!(self.enqueue_file(&lines, &["--bury-bad"]));
        answers.iter().zip(jobs).for_each(|(answer, told)| self.ledger.accept(&answer.id, told, false));
    }

    /// Jobs with ids, from a process that is killed while it enqueues them. Run again, it adds those that are not there.
    pub(super) fn enqueue_killed(&mut self) {
        if self.ready > READY_MAX {
            return;
        }
        let (mut lines, mut jobs) = (String::new(), Vec::new());
        for _ in 0..1_200 {
            self.ids += 1;
            let (told, id) = (1, format!("job-{}", self.ids));
            lines.push_str(&ALL[told].line(Some(&id)));
            jobs.push((told, id));
        }
        let path = self.any().path("killed.ndjson");
        std::fs::write(&path, &lines).expect("the folder is ours");
        let mut command = self.any().command();
        command.args(["enqueue", "--quiet", "--file", "killed.ndjson"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary was built");
        // It takes some 20 ms: any moment of them is as good.
        std::thread::park_timeout(Duration::from_micros(self.random.below(40_000) as u64));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        let answers = eventually!(self.enqueue_file(&lines, &[]));
        for (answer, (told, id)) in answers.into_iter().zip(jobs) {
            assert_eq!(answer.id, id, "answers come in the order of lines");
            self.ledger.accept(&id, told, false);
        }
    }

    /// Enqueues a file. None: a runner that stands still holds the lock, and nothing was added.
    fn enqueue_file(&mut self, lines: &str, arguments: &[&str]) -> Option<Vec<Enqueued>> {
        let path = self.any().path("jobs.ndjson");
        std::fs::write(&path, lines).expect("the folder is ours");
        self.try_write(&[&["enqueue", "--json", "--file", "jobs.ndjson"], arguments].concat())
    }

    /// What a command that writes answers, unless it finds the file locked for long.
    fn try_write<T: serde::de::DeserializeOwned>(&mut self, arguments: &[&str]) -> Option<Vec<T>> {
        let output = self.any().sandhog(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            let answers = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
            return Some(answers.map(|answer| answer.expect("it answers in JSON")).collect());
        }
        assert!(said.contains("another process holds the file's write lock"), "{arguments:?}: {said}");
        self.refused += 1;
        // It is one that we stopped; it goes on.
        for member in self.members.iter_mut().filter(|member| matches!(member.state, State::Stuck | State::Paused)) {
            member.mend(&mut self.ledger);
        }
        None
    }

    pub(super) fn requeue(&mut self) {
        let dead = self.ledger.dead_letters(false);
        if dead.is_empty() {
            return;
        }
        let ids: Vec<&str> = (0..20).map(|_| dead[self.random.below(dead.len() as u64)].as_str()).collect::<Vec<_>>();
        let arguments = [&["dead", "requeue", "--force", "--json"], &ids[..]].concat();
        let requeued: Vec<Seen> = self.try_write(&arguments).unwrap_or_default();
        requeued.iter().for_each(|job| self.ledger.requeued(&job.id));
    }

    pub(super) fn delete_dead(&mut self) {
        let mut dead = self.ledger.dead_letters(true);
        if dead.is_empty() {
            return;
        }
        if dead.len() < DEAD_MAX {
            let kept = self.random.below(dead.len() as u64);
            dead.drain(..kept);
        }
        let ids: Vec<&str> = dead.iter().map(String::as_str).collect();
        let arguments = [&["dead", "delete", "--json"], &ids[..]].concat();
        let deleted: Vec<Seen> = self.try_write(&arguments).unwrap_or_default();
        deleted.iter().for_each(|job| self.ledger.deleted(&job.id));
    }

    // --- runners ---

    /// Does something bad to a runner that is well.
    pub(super) fn harm(&mut self, at: usize, until: u64) {
        let stuck = self.members.iter().any(|member| member.state == State::Stuck);
        let spared = at == 0 && self.spares_first() && !matches!(self.act, Act::Pause | Act::FillDisk);
        let two = self.members.iter().filter(|member| member.state == State::Up).count() == 2;
        // It may be killed, though, while it can write nothing, and while it stands still.
        let kills = self.act == Act::Kill && self.members[at].state != State::Down;
        if stuck || spared || !(self.members[at].state == State::Up || kills) {
            return;
        }
        if matches!(self.act, Act::Kill | Act::Stop | Act::StopAtOnce) {
            // So that something runs, and any moment of it is as good.
            self.enqueue(100..250);
            std::thread::park_timeout(Duration::from_micros(self.random.below(50_000) as u64));
        }
        let member = &mut self.members[at];
        member.until = until;
        match self.act {
            Act::Kill => member.kill(&mut self.ledger),
            Act::Stop => member.stop(&mut self.ledger, false),
            Act::StopAtOnce => member.stop(&mut self.ledger, true),
            Act::Pause => member.pause(State::Paused),
            Act::FillDisk => member.fill_disk(&mut self.ledger),
            Act::Stand if two && self.length >= LONG => {
                member.until = u64::MAX;
                member.pause(State::Stuck);
            }
            _ => {}
        }
    }

    /// Makes well what is due, or all.
    pub(super) fn mend(&mut self, all: bool) {
        for member in &mut self.members {
            if member.state != State::Up && (all || member.until <= self.step) {
                member.mend(&mut self.ledger);
            }
        }
        if self.mend_at.is_some_and(|at| all || at <= self.step) {
            self.mend_at = None;
            self.put(&format!("{OBEY}.toml"), PATIENT.as_bytes());
            self.swap();
        }
        if self.put_back_at.is_some_and(|at| all || at <= self.step) {
            self.put_back_at = None;
            self.put(&format!("{LATE}.wasm"), &self.builds[0]);
        }
    }

    /// Reads the logs; where a runner took over from one that stands still, that one goes on.
    pub(super) fn read(&mut self) {
        let mut taken_over = false;
        for member in &mut self.members {
            taken_over |= member.read(&mut self.ledger);
        }
        if taken_over {
            for member in self.members.iter_mut().filter(|member| member.state == State::Stuck) {
                member.mend(&mut self.ledger);
            }
            // What it was about to settle when it was stopped has ended then, and is seen now.
            self.harvest(true);
        }
    }

    // --- handlers ---

    pub(super) fn swap(&mut self) {
        let build = self.random.below(self.builds.len() as u64);
        self.put(&format!("{OBEY}.wasm"), &self.builds[build]);
        self.swaps += 1;
    }

    pub(super) fn break_handler(&mut self, until: u64) {
        let whole = &self.builds[0];
        match self.random.below(3) {
            0 => self.put(&format!("{OBEY}.wasm"), b"no component"),
            1 => self.put(&format!("{OBEY}.wasm"), &whole[..whole.len() / 2]),
            _ => self.put(&format!("{OBEY}.toml"), b"timeout = 'for ever'"),
        }
        self.mend_at = Some(until);
    }

    pub(super) fn delete_handler(&mut self, until: u64) {
        if self.put_back_at.is_none() {
            let folders = if self.shared { &self.members[..1] } else { &self.members };
            folders.iter().for_each(|member| member.runner.remove(&format!("{LATE}.wasm")));
            // Gone for a second, or nobody believes it.
            self.put_back_at = Some(until + 10);
        }
    }
}
