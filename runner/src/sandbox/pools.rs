//! A pool of instances for each thread that guests run on.
//!
//! What the attempts of one engine share (its allocators' locks, counts of references to code) is written several dozen times
//! an attempt. Two threads pass these cache lines to and fro and are together no faster than one. So each thread has an
//! engine, and with it a pool, that nobody else uses as long as there is room in it; a component is compiled once and loaded
//! into each.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use super::granted::Granted;
use super::host::{self, Host, context, failure_hook, handler};
use super::load::{CONTEXT, Exports, FAILURE_HOOK, HANDLER};
use super::refusal::LoadError;
use super::{SandboxError, trap};

/// Where there are more threads than this, some share a pool: each costs address space, and another copy of what the engine
/// knows of a component.
pub(super) const POOLS_MAX: u32 = 8;

/// One engine, and what is linked for it.
pub(super) struct Pool {
    pub(super) engine: Engine,
    linker: Linker<Host>,
    /// How many attempts it has room for, and how many are in it. There is room for as many instances that wait for their
    /// next jobs.
    places: u32,
    taken: AtomicU32,
    waiting: AtomicU32,
}

/// A component in one pool.
pub(super) struct Pooled {
    pub(super) pre: InstancePre<Host>,
    pub(super) handler: handler::GuestIndices,
    pub(super) context: Option<context::GuestIndices>,
    pub(super) failure_hook: Option<failure_hook::GuestIndices>,
    /// What it may do. Each pool has it for itself: threads that count references to one thing wait for each other.
    pub(super) granted: Arc<Granted>,
    pool: Arc<Pool>,
}

/// An instance's place in a pool, until it is dropped.
pub(super) struct Place {
    pool: Arc<Pool>,
    /// Which of the pools this is.
    pub(super) number: usize,
    /// Whether its instance waits for its next job.
    waits: bool,
}

/// How many attempts each of `pools` pools must have room for, so that all `slots` find one, wherever they start: twice its
/// share, since an attempt that waits is not where the next one starts.
pub(super) fn places(slots: u32, pools: u32) -> u32 {
    slots.min(2 * slots.div_ceil(pools))
}

/// Takes a place for an attempt: in this thread's own pool, or where there is room.
pub(super) fn enter(pooled: &[Pooled]) -> Place {
    let home = home(pooled.len());
    let free = (home..pooled.len()).chain(0..home).find(|number| pooled[*number].pool.take_place());
    // Callers keep to the slots, for which there is room. If one does not, the engine says that its pool is exhausted.
    let number = free.unwrap_or_else(|| {
        pooled[home].pool.taken.fetch_add(1, Ordering::Relaxed);
        home
    });
    Place { pool: Arc::clone(&pooled[number].pool), number, waits: false }
}

/// Which of `pools` pools is this thread's own.
pub(super) fn home(pools: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    THREAD.get() % pools
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(engine: Engine, places: u32) -> Result<Arc<Pool>, SandboxError> {
        let mut linker = Linker::new(&engine);
        host::link(&mut linker).map_err(|e| SandboxError::Engine(format!("{e:#}")))?;
        Ok(Arc::new(Pool { engine, linker, places, taken: AtomicU32::new(0), waiting: AtomicU32::new(0) }))
    }

    /// Links a component, and finds out how it is called.
    pub(super) fn prepare(
        self: &Arc<Pool>,
        component: &Component,
        exports: Exports,
        granted: &Granted,
    ) -> Result<Pooled, LoadError> {
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::ImportTypes { reason: format!("{error:#}") })?;
        let handler = handler::GuestIndices::new(&pre).map_err(|error| LoadError::export_types(HANDLER, &error))?;
        let context = exports.context.then(|| context::GuestIndices::new(&pre)).transpose();
        let context = context.map_err(|error| LoadError::export_types(CONTEXT, &error))?;
        let failure_hook = exports.failure_hook.then(|| failure_hook::GuestIndices::new(&pre)).transpose();
        let failure_hook = failure_hook.map_err(|error| LoadError::export_types(FAILURE_HOOK, &error))?;
        // Else the first attempt would do it.
        component.initialize_copy_on_write_image().map_err(|e| LoadError::Start { failure: trap::host_fault(&e) })?;
        let granted = Arc::new(granted.clone());
        Ok(Pooled { pre, handler, context, failure_hook, granted, pool: Arc::clone(self) })
    }

    /// How many attempts are in it, how many instances wait in it, and for how many of both together it has room.
    pub(super) fn occupancy(&self) -> (u32, u32, u32) {
        (self.taken.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed), 2 * self.places)
    }

    fn take_place(&self) -> bool {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.places {
            return true;
        }
        self.leave();
        false
    }

    fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Place ===

impl Place {
    /// Its attempt is over, and its instance is to wait for the next. Answers whether there is room for it.
    pub(super) fn wait(&mut self) -> bool {
        if self.pool.waiting.fetch_add(1, Ordering::Relaxed) < self.pool.places {
            self.pool.leave();
            self.waits = true;
            return true;
        }
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// The next attempt begins. There are no more instances altogether than before, so there is room.
    pub(super) fn work(&mut self) {
        self.pool.taken.fetch_add(1, Ordering::Relaxed);
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waits = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.waits {
            self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.pool.leave();
        }
    }
}
