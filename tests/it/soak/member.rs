//! One of the runners of a soak, and what is done to it.

use super::figures::Held;
use super::ledger::Ledger;
use crate::eventually;
use crate::support::TestRunner;

/// A runner, through all of its processes.
pub(super) struct Member {
    pub(super) runner: TestRunner,
    name: String,
    pub(super) state: State,
    /// The step at which it is well again.
    pub(super) until: u64,
    /// The number of its process in the ledger.
    process: usize,
    pub(super) kills: usize,
    pub(super) stops: usize,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Down,
    /// Stopped by a signal, for a moment.
    Paused,
    /// Stopped until another runner takes its jobs.
    Stuck,
    /// It can write nothing.
    Full,
}

// === impl Member ===

impl Member {
    /// A runner that is not started yet.
    pub(super) fn new(name: &str, runner: TestRunner) -> Member {
        Member { runner, name: name.to_owned(), state: State::Down, until: 0, process: 0, kills: 0, stops: 0 }
    }

    /// Starts it, and waits until it is ready.
    pub(super) fn start(&mut self, ledger: &mut Ledger) {
        self.process = ledger.process(format!("{} {}", self.name, self.kills + self.stops + 1));
        self.runner.restart(&[]);
        self.state = State::Up;
    }

    /// Kills it, whatever it does.
    pub(super) fn kill(&mut self, ledger: &mut Ledger) {
        self.runner.kill();
        self.kills += 1;
        self.is_down(ledger);
    }

    /// Has it drain; at once, with a second signal.
    pub(super) fn stop(&mut self, ledger: &mut Ledger, at_once: bool) {
        self.runner.terminate();
        if at_once {
            eventually!(self.runner.says("signal received") > 0);
            self.runner.terminate();
        }
        let status = self.runner.wait();
        if !status.success() {
            ledger.fault(format!("{} ended with {status}", self.name));
        }
        self.stops += 1;
        self.is_down(ledger);
    }

    fn is_down(&mut self, ledger: &mut Ledger) {
        self.read(ledger);
        ledger.ended(self.process);
        self.state = State::Down;
    }

    pub(super) fn fill_disk(&mut self, ledger: &mut Ledger) {
        self.runner.fill_disk(true);
        ledger.unsure(self.process);
        self.state = State::Full;
    }

    pub(super) fn pause(&mut self, state: State) {
        self.runner.pause();
        self.state = state;
    }

    /// Makes it well again.
    pub(super) fn mend(&mut self, ledger: &mut Ledger) {
        match self.state {
            State::Up => {}
            State::Down => self.start(ledger),
            State::Paused | State::Stuck => self.runner.go_on(),
            State::Full => self.runner.fill_disk(false),
        }
        self.state = State::Up;
    }

    /// Reads what its process has said since, into the ledger. Whether it said that it took over from one that is stuck.
    pub(super) fn read(&mut self, ledger: &mut Ledger) -> bool {
        let lines = self.runner.take_log();
        lines.iter().for_each(|line| ledger.read(self.process, line));
        lines.iter().any(|line| crate::support::message(line).contains("does nothing any more"))
    }

    /// What its process holds.
    pub(super) fn held(&self) -> Option<Held> {
        Held::now(self.runner.pid())
    }
}
