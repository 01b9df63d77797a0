//! One schedule: what happens when, all of it from a seed.

use std::sync::Arc;
use std::time::Duration;

use super::guest::TYPES;
use super::node::Node;
use super::world::{Mood, World};
use crate::clock::Clock;
use crate::queue::sqlite::simulation::Disk;
use crate::queue::{Keep, NewJob};

mod event;

/// The processes that there may be: two runners, and one that only enqueues.
const NAMES: [&str; 3] = ["one", "two", "client"];
const CLIENT: usize = 2;

/// A schedule that takes more steps than this goes in circles.
const STEPS_MAX: usize = 20_000;

/// So long after the last job is due, all must have ended: a lease runs out meanwhile, and its runner is found out.
const PATIENCE: Duration = Duration::from_secs(180);

/// A schedule as it is played.
pub(crate) struct Schedule<'a> {
    disk: &'a mut Disk,
    world: Arc<World>,
    nodes: [Option<Node>; 3],
    keep: Keep,
    /// How many events are still to come, and how often there is one.
    events: usize,
    odds: usize,
    steps: usize,
}

/// How a schedule came out.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) fault: Option<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) steps: usize,
    /// A digest of chance and time at its end: the same seed has the same.
    pub(crate) mark: (u64, Duration),
}

/// Plays the schedule of a seed.
pub(crate) fn play(disk: &mut Disk, seed: u64, traced: bool) -> Played {
    disk.clear();
    let world = World::new(seed, traced);
    world.note("seed", || seed.to_string());
    let random = &world.random;
    let day = Duration::from_secs(24 * 60 * 60);
    let keep = match random.below(4) {
        0 => Keep { age: Duration::ZERO, bytes: 0 },
        1 => Keep { age: day, bytes: 600 },
        _ => Keep { age: day, bytes: 1 << 30 },
    };
    world.ledger().forgets = keep.bytes < 1 << 30;
    world.ledger().reports = world.reports;
    let (events, odds) = (3 + random.below(18), *random.pick(&[3, 6, 12]));
    let nodes = [const { None }; 3];
    let mut schedule = Schedule { disk, world: Arc::clone(&world), nodes, keep, events, odds, steps: 0 };
    let played = schedule.play();
    schedule.clean_up();
    let fault = world.ledger().fault().cloned().or(played.err());
    Played { fault, trace: world.trace(), steps: schedule.steps, mark: (random.next(), world.timeline.elapsed()) }
}

// === impl Schedule ===

impl Schedule<'_> {
    fn play(&mut self) -> Result<(), String> {
        self.start(0);
        if self.world.random.one_in(2) {
            self.start(1);
        }
        self.start(CLIENT);
        self.enqueue(CLIENT);
        while self.events > 0 {
            let random = &self.world.random;
            if random.one_in(self.odds) {
                self.events -= 1;
                self.event();
            } else if random.one_in(16) {
                let by = Duration::from_micros(random.next() % 20_000);
                self.advance(self.world.timeline.elapsed() + by);
            } else if !self.go_on()? && !self.pass_time() {
                self.event();
            }
            self.look()?;
        }
        self.run_out()?;
        self.world.set_mood(Mood::Still);
        if self.world.random.one_in(4) {
            self.rest()?;
        }
        self.probe()?;
        self.end()
    }

    /// Everything is well again: all jobs must end.
    fn run_out(&mut self) -> Result<(), String> {
        self.world.note("all", || "is well again".to_owned());
        self.world.set_mood(Mood::Calm);
        self.set_trouble(None);
        for node in self.nodes.iter_mut().flatten() {
            node.frozen_until = Duration::ZERO;
            node.reload();
        }
        let (begun, mut finished) = (self.world.timeline.elapsed(), self.world.timeline.elapsed());
        loop {
            if !self.nodes.iter().flatten().any(Node::serves)
                && let Some(empty) = self.nodes[..CLIENT].iter().position(Option::is_none)
            {
                self.start(empty);
            }
            if self.nodes[CLIENT].is_none() {
                self.start(CLIENT);
            }
            let waited = self.world.timeline.elapsed() - begun;
            let unfinished = self.world.ledger().unfinished();
            // Attempts at jobs that are somebody else's by now, too.
            let executing = self.world.ledger().still_executing();
            let serves = self.nodes.iter().flatten().any(Node::serves);
            let drains = self.nodes[..CLIENT].iter().flatten().any(|node| !node.serves());
            let sick = self.nodes.iter().flatten().any(|node| node.process.is_sick());
            if unfinished + executing == 0 && serves && !drains && !sick && !self.is_busy() {
                return Ok(());
            }
            let late = self.world.timeline.now().since(self.world.ledger().last_due());
            if unfinished > 0 && waited > PATIENCE && late > PATIENCE {
                return Err(format!("{unfinished} jobs do not end"));
            }
            if unfinished + executing > 0 {
                finished = self.world.timeline.elapsed();
            } else if self.world.timeline.elapsed() - finished > PATIENCE {
                return Err("there is no rest when all jobs have ended".to_owned());
            }
            if !self.go_on()? && !self.pass_time() {
                return Err("nothing happens any more".to_owned());
            }
            self.look()?;
        }
    }

    /// Where there is nothing to do, little is done.
    fn rest(&mut self) -> Result<(), String> {
        let steps = self.steps;
        let rested = self.world.timeline.elapsed() + Duration::from_secs(12);
        while self.world.timeline.elapsed() < rested {
            if !self.go_on()? {
                self.pass_time();
            }
            self.look()?;
        }
        match self.steps - steps {
            0..100 => Ok(()),
            many => Err(format!("{many} steps in 12 s in which there is nothing to do")),
        }
    }

    /// A calm queue starts what is enqueued without delay.
    fn probe(&mut self) -> Result<(), String> {
        while self.go_on()? {
            self.look()?;
        }
        for job_type in TYPES {
            let number = self.world.ledger().asked();
            let job = NewJob::Job {
                job_type: job_type.to_owned(),
                body: number.to_string(),
                id: None,
                run_at: None,
                metadata: Vec::new(),
                keep: None,
            };
            self.nodes[CLIENT].as_ref().expect("it was just started").enqueue(vec![(number, job)]);
        }
        while self.go_on()? {
            self.look()?;
        }
        match self.world.ledger().unfinished() {
            0 => Ok(()),
            left => Err(format!("{left} jobs wait, though everything is idle")),
        }
    }

    /// All are told to stop; nothing stays behind.
    fn end(&mut self) -> Result<(), String> {
        for node in self.nodes.iter().flatten() {
            node.end(false);
        }
        let begun = self.world.timeline.elapsed();
        while self.nodes.iter().any(Option::is_some) {
            if !self.go_on()? && !self.pass_time() || self.world.timeline.elapsed() - begun > PATIENCE {
                return Err("a process does not end".to_owned());
            }
            self.look()?;
        }
        // One that died as it entered left files that the next one of its number takes over.
        let left: Vec<i64> = self.disk.common.left().into_iter().filter(|id| self.world.ledger().knows(*id)).collect();
        if !self.disk.runners().is_empty() || !left.is_empty() {
            return Err(format!("runners left something behind: {:?}, {left:?}", self.disk.runners()));
        }
        self.world.ledger().check_end();
        self.look()
    }

    /// Has one task or one writer that can go on do so, whichever; false: none can.
    fn go_on(&mut self) -> Result<bool, String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err("it goes in circles".to_owned());
        }
        let now = self.world.timeline.elapsed();
        let ready = |node: &Node| {
            if node.frozen_until > now {
                return (0, 0);
            }
            (node.tasks.ready(), usize::from(node.due().is_some_and(|due| due <= now)))
        };
        let counts = self.nodes.each_ref().map(|node| node.as_ref().map_or((0, 0), ready));
        let all = counts.iter().map(|(tasks, writer)| tasks + writer).sum();
        if all == 0 {
            return Ok(false);
        }
        let mut nth = self.world.random.below(all);
        for (at, (tasks, writer)) in counts.into_iter().enumerate() {
            let Some(node) = &mut self.nodes[at] else { continue };
            if nth < tasks {
                node.tasks.run(nth)?;
            } else if nth < tasks + writer {
                node.step(self.disk);
            } else {
                nth -= tasks + writer;
                continue;
            }
            if node.is_done() {
                self.reap(at)?;
            }
            break;
        }
        Ok(true)
    }

    /// Moves on to when something is due; false: nothing is.
    fn pass_time(&mut self) -> bool {
        let now = self.world.timeline.elapsed();
        let wakes = |node: &Node| match node.frozen_until > now {
            true => Some(node.frozen_until),
            false => node.due(),
        };
        let next = self.nodes.iter().flatten().filter_map(wakes).chain(self.world.timeline.next_timer()).min();
        // What became due for one that stands still is no reason to wait.
        let Some(next) = next.filter(|next| *next > now).or_else(|| self.thaw()) else { return false };
        self.advance(next);
        true
    }

    /// When the next one that stands still goes on.
    fn thaw(&self) -> Option<Duration> {
        let now = self.world.timeline.elapsed();
        self.nodes.iter().flatten().map(|node| node.frozen_until).filter(|until| *until > now).min()
    }

    fn advance(&self, to: Duration) {
        self.world.timeline.advance_to(to);
    }

    /// Whether something can go on now.
    fn is_busy(&self) -> bool {
        let now = self.world.timeline.elapsed();
        self.nodes.iter().flatten().any(|node| node.tasks.ready() > 0 || node.due().is_some_and(|due| due <= now))
    }

    fn look(&self) -> Result<(), String> {
        self.world.ledger().fault().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// A process has come to its end.
    fn reap(&mut self, at: usize) -> Result<(), String> {
        let node = self.nodes[at].take().expect("it is done");
        let unanswered = self.world.ledger().unanswered(node.place.process);
        if node.process.has_ended() && unanswered as usize > node.tasks.ready() {
            return Err(format!("{unanswered} settlements were never answered"));
        }
        node.kill(self.disk);
        Ok(())
    }

    fn clean_up(&mut self) {
        for at in 0..self.nodes.len() {
            self.kill(at);
        }
    }

    fn kill(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.kill(self.disk);
        }
    }

    fn start(&mut self, at: usize) {
        self.nodes[at] = Some(Node::start(&self.world, self.disk, NAMES[at], self.keep, at != CLIENT));
    }
}
