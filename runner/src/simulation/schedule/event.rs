//! What befalls the processes.

use std::time::Duration;

use super::super::guest::TYPES;
use super::{NAMES, Schedule};
use crate::clock::Clock;
use crate::queue::NewJob;
use crate::queue::sqlite::simulation::Trouble;

impl Schedule<'_> {
    pub(super) fn event(&mut self) {
        let random = &self.world.random;
        let at = random.below(NAMES.len());
        if self.nodes[at].is_none() {
            return self.start(at);
        }
        match random.below(24) {
            0..7 => self.enqueue(at),
            7 => self.kill(at),
            8 => self.kill_in_step(at),
            9..11 => self.freeze(at),
            11..15 => self.trouble(),
            15..17 => self.nodes[at].as_ref().expect("it is there").reload(),
            17..19 => self.nodes[at].as_ref().expect("it is there").interrupt_receive(),
            19 => self.nodes[at].as_ref().expect("it is there").end(random.one_in(3)),
            20 => self.jump(),
            21..23 => self.touch_dead(at),
            _ => self.wait(),
        }
    }

    pub(super) fn enqueue(&mut self, at: usize) {
        let random = &self.world.random;
        let now = self.world.timeline.now();
        let first = self.world.ledger().asked();
        let jobs = (first..=first + random.below(4)).map(|number| {
            let body = format!("{number} {}", "x".repeat(*random.pick(&[0, 0, 0, 1_500])));
            let id = random.one_in(4).then(|| format!("id-{}", random.below(5)));
            let run_at = random.one_in(4).then(|| now.plus(Duration::from_millis(random.next() % 10_000)));
            let job_type = (*random.pick(&TYPES)).to_owned();
            (number, NewJob::Job { job_type, body, id, run_at, metadata: Vec::new(), keep: None })
        });
        let jobs = jobs.collect();
        self.nodes[at].as_ref().expect("it is there").enqueue(jobs);
    }

    /// A death between a commit and all that follows from it.
    fn kill_in_step(&mut self, at: usize) {
        let node = self.nodes[at].as_mut().expect("it is there");
        node.process.fall_silent();
        node.step(self.disk);
        self.kill(at);
    }

    fn freeze(&mut self, at: usize) {
        let for_s = *self.world.random.pick(&[1, 35, 50, 100]);
        let node = self.nodes[at].as_mut().expect("it is there");
        node.place.note(|| format!("stands still for {for_s} s"));
        node.frozen_until = self.world.timeline.elapsed() + Duration::from_secs(for_s);
    }

    fn trouble(&mut self) {
        // The last costs the most time.
        let (locked, read, full) = (Trouble::Locked, Trouble::Read, Trouble::Full);
        let troubles = [locked, locked, read, read, full, full, Trouble::ReadOnly];
        let trouble = self.disk.trouble().is_none().then(|| *self.world.random.pick(&troubles));
        self.set_trouble(trouble);
    }

    pub(super) fn set_trouble(&mut self, trouble: Option<Trouble>) {
        self.world.note("file", || trouble.map_or("is well".to_owned(), |trouble| format!("is {trouble:?}")));
        if trouble.is_none() {
            self.disk.set_trouble(None);
        }
        for node in self.nodes.iter_mut().flatten() {
            node.process.set_trouble(trouble);
        }
        self.disk.set_trouble(trouble);
    }

    fn jump(&mut self) {
        let by_s = *self.world.random.pick(&[-60, -5, 5, 60, 3_600]);
        self.world.note("clock", || format!("jumps by {by_s} s"));
        self.world.timeline.jump(by_s * 1_000);
    }

    fn touch_dead(&mut self, at: usize) {
        let dead = self.world.ledger().dead();
        if !dead.is_empty() {
            let (record, delete) = (*self.world.random.pick(&dead), self.world.random.one_in(3));
            self.world.ledger().touched.insert(record);
            let node = self.nodes[at].as_ref().expect("it is there");
            node.place.note(|| format!("{} {record}", if delete { "deletes" } else { "requeues" }));
            node.process.change_dead(vec![record], delete);
        }
    }

    /// Nothing, for a while.
    fn wait(&mut self) {
        let to = self.world.timeline.elapsed() + Duration::from_secs(*self.world.random.pick(&[1, 15, 60]));
        self.world.note("time", || "passes".to_owned());
        self.advance(to);
    }
}
