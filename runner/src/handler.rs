//! A handler: a component bound to job types, with its limits and its retry policy.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::generation::Generation;
use crate::job::Job;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::retry::Policy;
use crate::sandbox::{Attempt, Component, GuestLog};

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
    /// What follows its attempts.
    pub retry: Policy,
    limits: Limits,
    component: Component,
    log: Arc<dyn GuestLog>,
}

// === impl Handler ===

impl Handler {
    /// The handler `name`, of a component and its manifest, whose guest's lines go to `log`.
    pub fn new(
        name: Arc<str>,
        generation: Generation,
        manifest: Manifest,
        component: Component,
        log: Arc<dyn GuestLog>,
    ) -> Handler {
        let Manifest { job_types, concurrency, limits, retry, .. } = manifest;
        let job_types = job_types.into_iter().map(Arc::from).collect();
        Handler { name, generation, job_types, concurrency, retry, limits, component, log }
    }

    /// Runs one attempt at `job`, in a sandbox of its own. Whatever the guest does comes back as an outcome; when `stop` is
    /// cancelled, that is *interrupted*.
    pub async fn run(&self, job: &Arc<Job>, stop: &CancellationToken) -> Attempt {
        self.component.run(job, self.retry.max_failures, &self.limits, stop, &self.log).await
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
