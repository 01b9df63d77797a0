//! A simulated process: its tasks, its writer and, if it is a runner, its dispatcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::guest;
use super::ledger::Seen;
use super::tasks::Tasks;
use super::world::{Mood, Place, World};
use crate::clock::{Clock, UnixMs};
use crate::dispatch::{Dispatcher, Parts, Spawn, given_up};
use crate::queue::sqlite::simulation::{Disk, Process, watched};
use crate::queue::{Keep, KeepLogs, NewJob, Queue};
use crate::registry::Registry;
use crate::report::Reports;

/// A process from its start to its end.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) tasks: Tasks,
    pub(crate) process: Process,
    /// Until when it stands still.
    pub(crate) frozen_until: Duration,
    queue: Arc<dyn Queue>,
    working: Option<Working>,
    done: Arc<AtomicBool>,
}

/// What makes it a runner.
struct Working {
    dispatcher: Arc<Dispatcher>,
    registry: Arc<ArcSwap<Registry>>,
    drain: CancellationToken,
    stop: CancellationToken,
}

// === impl Node ===

impl Node {
    /// Starts a process; a runner, or one that only enqueues.
    pub(crate) fn start(world: &Arc<World>, disk: &mut Disk, name: &'static str, keep: Keep, works: bool) -> Node {
        let slots = 1 + world.random.below(4);
        let process = world.ledger().begins(name, slots);
        let place = Place { world: Arc::clone(world), process, name };
        place.note(|| format!("starts, with {slots} slots"));
        let slots = u32::try_from(slots).unwrap();
        let reports = Reports { job_type: guest::REPORT.to_owned(), body_bytes_max: 100_000 };
        let reports = world.reports.then_some(reports);
        let (process, queue) = Process::start(disk, Arc::new(world.timeline.clone()), slots, keep, reports);
        let queue: Arc<dyn Queue> = watched(queue, Arc::new(place.clone()));
        let mut node = Node {
            place,
            tasks: Tasks::default(),
            process,
            frozen_until: Duration::ZERO,
            queue,
            working: None,
            done: Arc::default(),
        };
        if works {
            node.work(slots);
        }
        node
    }

    /// What `app` does.
    fn work(&mut self, slots: u32) {
        let world = Arc::clone(&self.place.world);
        let clock = Arc::new(world.timeline.clone());
        let registry = Arc::new(ArcSwap::from_pointee(guest::registry(&self.place, world.mood() > Mood::Wild)));
        let for_jitter = Arc::clone(&world);
        let dispatcher = Dispatcher::new(Parts {
            queue: Arc::clone(&self.queue),
            registry: Arc::clone(&registry),
            slots,
            clock: clock.clone(),
            jitter: Box::new(move || for_jitter.random.jitter()),
            guests: Box::new(self.tasks.clone()),
            observers: Vec::new(),
            keep_logs: KeepLogs::default(),
            traces: None,
        });
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let working =
            Working { dispatcher: Arc::clone(&dispatcher), registry, drain: drain.clone(), stop: stop.clone() };
        self.working = Some(working);
        let patience = Duration::from_millis(*world.random.pick(&[0, 1_000, 30_000]));
        let (queue, done, place) = (Arc::clone(&self.queue), Arc::clone(&self.done), self.place.clone());
        self.tasks.spawn(Box::pin(async move {
            if let Err(error) = dispatcher.run(&drain, &stop, patience, false).await {
                place.world.ledger().complain(format!("{} ended: {error}", place.name));
            }
            let (running, in_flight) = dispatcher.booked();
            let unanswered = place.world.ledger().unanswered(place.process);
            // What a sick queue did not take may be given up.
            if running > 0 || in_flight > unanswered {
                let fault = format!("{running} are running, {in_flight} in flight, {unanswered} unanswered at the end");
                place.world.ledger().complain(fault);
            }
            tokio::select! {
                biased;
                () = queue.close() => {}
                () = given_up(&*clock, &stop, patience) => {}
            }
            place.note(|| "is done".to_owned());
            done.store(true, Ordering::Relaxed);
        }));
    }

    /// Whether it takes jobs, and goes on to.
    pub(crate) fn serves(&self) -> bool {
        self.working.as_ref().is_some_and(|working| !working.drain.is_cancelled() && !working.stop.is_cancelled())
    }

    /// Whether the process would have ended by itself.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// When its writer has something to do.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.process.due().map(|due| self.place.world.timeline.at(due))
    }

    /// Has its writer do a piece of work, and has the ledger look at it.
    pub(crate) fn step(&mut self, disk: &mut Disk) {
        let changed = self.process.step(disk);
        self.place.note(|| {
            let said = if changed { "writes" } else { "looks" };
            let sick = if self.process.is_sick() { ", and is sick" } else { "" };
            format!("{said}{sick}")
        });
        let world = &self.place.world;
        if self.process.has_ended() {
            world.ledger().closes(self.place.process);
        }
        if let Some(rows) = disk.rows().filter(|_| changed) {
            world.ledger().check(Seen {
                process: self.place.process,
                rows,
                runners: disk.runners(),
                runner: self.process.runner(),
                closed: self.process.has_ended(),
                now: world.timeline.now(),
                elapsed: world.timeline.elapsed(),
            });
        }
        world.ledger().review();
    }

    /// Adds jobs, and has the ledger hear of the answer.
    pub(crate) fn enqueue(&self, jobs: Vec<(usize, NewJob)>) {
        let place = self.place.clone();
        let mut numbers = Vec::new();
        for (number, job) in &jobs {
            let run_at = if let NewJob::Job { run_at, .. } = job { *run_at } else { None::<UnixMs> };
            place.world.ledger().enqueues(place.process, *number, run_at);
            numbers.push(*number);
        }
        let queue = Arc::clone(&self.queue);
        place.note(|| format!("enqueues {numbers:?}"));
        self.tasks.spawn(Box::pin(async move {
            let answer = queue.enqueue(jobs.into_iter().map(|(_, job)| job).collect()).await;
            place.note(|| {
                let said = answer.as_ref().map(|answers| answers.iter().map(|answer| answer.duplicate));
                format!("is told of {numbers:?}: duplicate {:?}", said.map(Iterator::collect::<Vec<_>>))
            });
            place.world.ledger().enqueued(&numbers, &answer);
        }));
    }

    /// Swaps its registry, where registries are swapped at all.
    pub(crate) fn reload(&self) {
        if let Some(working) = self.working.as_ref().filter(|_| !self.place.world.steady) {
            working.registry.store(Arc::new(guest::registry(&self.place, self.place.world.mood() > Mood::Wild)));
            working.dispatcher.registry_changed();
        }
    }

    /// Breaks off what `receive` waits for, which begins anew.
    pub(crate) fn interrupt_receive(&self) {
        if let Some(working) = &self.working {
            self.place.note(|| "receives anew".to_owned());
            working.dispatcher.registry_changed();
        }
    }

    /// Tells it to end: to drain, or at once.
    pub(crate) fn end(&self, at_once: bool) {
        self.place.note(|| format!("is told to stop{}", if at_once { " at once" } else { "" }));
        match &self.working {
            Some(working) => {
                working.drain.cancel();
                if at_once {
                    working.stop.cancel();
                }
            }
            None => {
                let (queue, done) = (Arc::clone(&self.queue), Arc::clone(&self.done));
                self.tasks.spawn(Box::pin(async move {
                    queue.close().await;
                    done.store(true, Ordering::Relaxed);
                }));
            }
        }
    }

    /// Ends it as it stands.
    pub(crate) fn kill(self, disk: &mut Disk) {
        self.place.note(|| "is no more".to_owned());
        self.place.world.ledger().dies(self.place.process);
        self.process.fall_silent();
        self.tasks.kill();
        let Node { process, queue, working, .. } = self;
        drop((working, queue));
        process.kill(disk);
    }
}
