//! A handler: a component bound to job types, with its limits and its retry policy.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Share;
use crate::generation::Generation;
use crate::job::Job;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::outcome::Outcome;
use crate::readiness::{NotReady, Readiness};
use crate::registry::OTHERS;
use crate::retry::Policy;
use crate::sandbox::{Attempt, Component, GuestLog};
use crate::trial::{Standing, Trial};

/// One generation of a handler.
pub struct Handler {
    /// The file's stem: the same for all its generations.
    pub name: Arc<str>,
    /// Which generation this is.
    pub generation: Generation,
    /// The job types that it claims; `*` is every type that nobody else claims.
    pub job_types: Vec<Arc<str>>,
    /// How many of its attempts may run at a time.
    pub concurrency: u32,
    /// How much of the slots' time is its own while others want some too, beside theirs.
    pub weight: u32,
    /// What follows its attempts.
    pub retry: Policy,
    limits: Limits,
    guest: Box<dyn Guest>,
    log: Arc<dyn GuestLog>,
    trial: Trial,
    /// A person paused it.
    paused: AtomicBool,
    readiness: Readiness,
    decided: Arc<Notify>,
}

/// What runs a handler's attempts: a component in its sandbox; in a simulation, what stands for one.
pub trait Guest: Send + Sync {
    /// Runs one attempt at `job`. Whatever happens in it comes back as an outcome.
    fn run<'a>(
        &'a self,
        job: &'a Arc<Job>,
        max_failures: u32,
        limits: &'a Limits,
        stop: &'a CancellationToken,
        log: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Attempt> + Send + 'a>>;

    /// Whether it is set up before its first job, for more than one.
    fn is_set_up_once(&self) -> bool {
        false
    }

    /// Sets it up without a job, or says why that cannot be done now.
    fn set_up<'a>(
        &'a self,
        _: &'a Limits,
        _: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

// === impl Handler ===

impl Handler {
    /// The handler `name`, of a component and its manifest, whose guest's lines go to `log`. Nothing brakes it.
    pub fn new(
        name: Arc<str>,
        generation: Generation,
        manifest: Manifest,
        guest: impl Guest + 'static,
        log: Arc<dyn GuestLog>,
    ) -> Handler {
        let Manifest { job_types, concurrency, weight, limits, retry, .. } = manifest;
        let job_types = job_types.into_iter().map(Arc::from).collect();
        let trial = Trial::new(false, Standing::default(), false);
        let (guest, readiness, decided) = (Box::new(guest), Readiness::default(), Arc::default());
        Handler {
            name,
            generation,
            job_types,
            concurrency,
            weight,
            retry,
            limits,
            guest,
            log,
            trial,
            paused: AtomicBool::new(false),
            readiness,
            decided,
        }
    }

    /// The same on trial; `decided` is told when something is known of the generation that was not known before.
    pub fn on_trial(self, trial: Trial, decided: Arc<Notify>) -> Handler {
        Handler { trial, decided, ..self }
    }

    /// Whether it takes every type that nobody else claims.
    pub fn serves_others(&self) -> bool {
        self.job_types.iter().any(|job_type| **job_type == *OTHERS)
    }

    /// What it may have of the slots.
    pub(crate) fn share(&self) -> Share {
        Share { concurrency: self.concurrency, weight: self.weight }
    }

    /// What is known of its generation by its attempts.
    pub fn trial(&self) -> &Trial {
        &self.trial
    }

    /// Whether its types are paused: no attempt starts, its jobs wait.
    pub fn is_paused(&self) -> bool {
        self.trial.is_braked() || self.paused.load(Ordering::Relaxed) || !self.readiness.is_ready()
    }

    /// Says whether a person has it paused.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Why its instances cannot be set up now, if they cannot.
    pub fn not_ready(&self) -> Option<NotReady> {
        self.readiness.not_ready()
    }

    /// Whether an instance is to be set up before the handler is served, so that what is wrong shows before a job comes.
    pub fn is_set_up_once(&self) -> bool {
        self.guest.is_set_up_once()
    }

    /// Sets up an instance without a job. Whether that worked says whether the handler is ready.
    pub async fn set_up(&self) {
        let set_up = self.guest.set_up(&self.limits, &self.log).await;
        self.readiness.record(set_up, Instant::now());
    }

    /// Takes down how an attempt ended. Answers what is known of the generation now, if this attempt changed that.
    pub fn attempted(&self, outcome: &Outcome) -> Option<Standing> {
        if let Outcome::NotReady { reason } = outcome {
            self.readiness.record(Err(reason.clone()), Instant::now());
            self.decided.notify_one();
        }
        let standing = self.trial.record(outcome)?;
        self.decided.notify_one();
        Some(standing)
    }

    /// Runs one attempt at `job`, in a sandbox of its own. Whatever the guest does comes back as an outcome; when `stop` is
    /// cancelled, that is *interrupted*.
    pub async fn run(&self, job: &Arc<Job>, stop: &CancellationToken) -> Attempt {
        self.guest.run(job, self.retry.max_failures, &self.limits, stop, &self.log).await
    }
}

// === impl Guest ===

impl Guest for Component {
    fn run<'a>(
        &'a self,
        job: &'a Arc<Job>,
        max_failures: u32,
        limits: &'a Limits,
        stop: &'a CancellationToken,
        log: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Attempt> + Send + 'a>> {
        Box::pin(Component::run(self, job, max_failures, limits, stop, log))
    }

    fn is_set_up_once(&self) -> bool {
        Component::is_set_up_once(self)
    }

    fn set_up<'a>(
        &'a self,
        limits: &'a Limits,
        log: &'a Arc<dyn GuestLog>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(Component::set_up(self, limits, log))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
