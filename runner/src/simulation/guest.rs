//! What stands for handlers: attempts that take a time and come to an end by the seed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ledger;
use super::tasks::GuestPanic;
use super::world::{Mood, Place};
use crate::clock::Clock;
use crate::follow_up::FollowUps;
use crate::generation::Generation;
use crate::grants::Grants;
use crate::handler::{Guest, Handler};
use crate::job::Job;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::outcome::{Failure, Kind, Outcome, RetryRequest};
use crate::registry::{OTHERS, Registry};
use crate::retry::{Backoff, Policy};
use crate::sandbox::{Attempt, GuestLog, Level, Source};

/// All types that there are.
pub(crate) const TYPES: [&str; 4] = ["t0", "t1", "t2", "t3"];

/// The type of reports, where dead letters are reported.
pub(crate) const REPORT: &str = "report";

/// All handlers that there may be, in a registry or not.
const HANDLERS: [&str; 3] = ["h0", "h1", "h2"];

/// A handler's guest.
struct Actor {
    place: Place,
    handler: &'static str,
}

struct NoLog;

/// Counts an attempt as running as long as it lives.
struct Running<'a> {
    actor: &'a Actor,
    key: (i64, i64),
    outcome: Option<Outcome>,
}

/// A registry by the seed; `all`, or in a steady world: one that serves every type.
pub(crate) fn registry(place: &Place, all: bool) -> Registry {
    let random = &place.world.random;
    let all = all || place.world.steady;
    let mut claims: Vec<Vec<String>> = vec![Vec::new(); HANDLERS.len()];
    for (at, job_type) in TYPES.iter().enumerate() {
        // Types keep their handler, mostly.
        let handler = if random.one_in(8) { random.below(HANDLERS.len()) } else { at % HANDLERS.len() };
        if all || !random.one_in(4) {
            claims[handler].push((*job_type).to_owned());
        }
    }
    if place.world.reports && (all || !random.one_in(4)) {
        claims[0].push(REPORT.to_owned());
    }
    if random.one_in(3) {
        claims[random.below(HANDLERS.len())].push(OTHERS.to_owned());
    }
    let handlers = HANDLERS.into_iter().zip(claims).filter(|(_, types)| !types.is_empty());
    let handlers: Vec<Arc<Handler>> = handlers.map(|(name, types)| Arc::new(handler(place, name, types))).collect();
    place.note(|| format!("serves {:?}", handlers.iter().map(|h| (&h.name, &h.job_types)).collect::<Vec<_>>()));
    Registry::of(handlers).0
}

fn handler(place: &Place, name: &'static str, job_types: Vec<String>) -> Handler {
    let random = &place.world.random;
    let concurrency = u32::try_from(1 + random.below(3)).unwrap();
    place.world.ledger().serves(place.process, name, concurrency);
    let backoff = Backoff { first: Duration::from_millis(*random.pick(&[10, 1_000, 5_000])), ..Backoff::default() };
    let retry = Policy {
        max_failures: *random.pick(&[1, 1, 2, 3]),
        max_attempts: *random.pick(&[None, None, Some(2), Some(4)]),
        expire_after: Duration::from_secs(*random.pick(&[60, 24 * 60 * 60])),
        backoff,
    };
    let manifest = Manifest {
        job_types,
        concurrency,
        weight: 1,
        limits: Limits::default(),
        reuse: None,
        retry,
        grants: Grants::default(),
    };
    let generation = Generation::named(&format!("g{}", random.below(1_000)));
    Handler::new(name.into(), generation, manifest, Actor { place: place.clone(), handler: name }, Arc::new(NoLog))
}

// === impl Actor ===

impl Guest for Actor {
    fn run<'a>(
        &'a self,
        job: &'a Arc<Job>,
        max_failures: u32,
        _: &'a Limits,
        stop: &'a CancellationToken,
        _: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Attempt> + Send + 'a>> {
        Box::pin(self.act(job, max_failures, stop))
    }
}

impl Actor {
    async fn act(&self, job: &Arc<Job>, max_failures: u32, stop: &CancellationToken) -> Attempt {
        let Place { world, process, .. } = &self.place;
        let number = ledger::number(&job.body);
        let key = world.ledger().runs(*process, self.handler, max_failures, number, job);
        self.place
            .note(|| format!("runs job {number} ({}/{}) in {}, attempt {}", key.0, key.1, self.handler, job.attempt));
        let mut running = Running { actor: self, key, outcome: None };
        let begun = world.timeline.elapsed();
        let follow_ups = self.follow_ups(job, key);
        let pause = self.pause();
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Outcome::Interrupted { reason: "stopped".into() },
            () = pause => self.outcome(job),
        };
        running.outcome = Some(outcome.clone());
        self.place.note(|| format!("ran job {number}: {outcome:?}"));
        let follow_ups = if outcome.is_answer() { follow_ups } else { FollowUps::default() };
        let duration = world.timeline.elapsed() - begun;
        Attempt {
            outcome,
            duration,
            memory_peak_bytes: 0,
            frames: Vec::new(),
            last_words: None,
            lines: None,
            follow_ups,
            state: None,
            denied: 0,
        }
    }

    /// What the attempt enqueues: nothing where all is to come to an end.
    fn follow_ups(&self, job: &Job, key: (i64, i64)) -> FollowUps {
        let Place { world, process, .. } = &self.place;
        let random = &world.random;
        let mut follow_ups = FollowUps::default();
        if world.mood() > Mood::Wild || !random.one_in(4) {
            return follow_ups;
        }
        for _ in 0..=random.below(3) {
            let id = random.one_in(4).then(|| format!("id-{}", random.below(5)));
            let number = world.ledger().asks(*process, key, id.is_some());
            let body = format!(r#"{{"n":{number},"job_type":"{}"}}"#, random.pick(&TYPES));
            let mut options = Vec::new();
            options.extend(id.filter(|id| *id != job.id).map(|id| ("id".to_owned(), id)));
            options.extend(random.one_in(4).then(|| ("after-ms".to_owned(), random.below(10_000).to_string())));
            follow_ups.ask(job, body, options, |_| true, &Limits::default()).expect("it may enqueue all");
            self.place.note(|| format!("enqueues job {number}"));
        }
        follow_ups
    }

    /// How long the attempt takes.
    async fn pause(&self) {
        let world = &self.place.world;
        let (random, timeline) = (&world.random, &world.timeline);
        let ms = if world.mood() > Mood::Wild { 0 } else { *random.pick(&[0, 0, 1, 3, 20, 300, 5_000, 60_000]) };
        if ms > 0 {
            timeline.sleep(Duration::from_millis(ms)).await;
        }
    }

    fn outcome(&self, job: &Job) -> Outcome {
        let random = &self.place.world.random;
        let what = match self.place.world.mood() {
            Mood::Wild => random.below(20),
            Mood::Calm => *random.pick(&[0, 0, 0, 0, 0, 0, 13, 14]),
            Mood::Still => 0,
        };
        match what {
            0..10 => Outcome::Complete { result: random.one_in(2).then(|| "1".to_owned()) },
            10..12 => Outcome::Retry(RetryRequest {
                after: random.one_in(2).then(|| Duration::from_millis(random.next() % 20_000)),
                body: random.one_in(2).then(|| format!("{} again", job.body)),
                reason: None,
            }),
            12 => Outcome::Reject { reason: "no".to_owned() },
            13 => Outcome::Interrupted { reason: "a fault of the host".into() },
            14 => {
                self.place.note(|| "panics".to_owned());
                std::panic::resume_unwind(Box::new(GuestPanic))
            }
            _ => Outcome::Failed(Failure::new(random.pick(&[Kind::Error, Kind::Trap, Kind::Timeout]).clone(), "")),
        }
    }
}

// === impl Running ===

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Place { world, process, .. } = &self.actor.place;
        world.ledger().ran(*process, self.actor.handler, self.key, self.outcome.as_ref());
    }
}

// === impl NoLog ===

impl GuestLog for NoLog {
    fn line(&self, _: Option<&Job>, _: Source, _: Level, _: &str) {}
}
