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
use super::host::{self, Host, handler};
use super::refusal::LoadError;
use super::{SandboxError, trap};

/// Where there are more threads than this, some share a pool: each costs address space, and another copy of what the engine
/// knows of a component.
pub(super) const POOLS_MAX: u32 = 8;

/// One engine, and what is linked for it.
pub(super) struct Pool {
    pub(super) engine: Engine,
    linker: Linker<Host>,
    /// How many attempts it has room for, and how many are in it.
    places: u32,
    taken: AtomicU32,
}

/// A component in one pool.
pub(super) struct Pooled {
    pub(super) pre: InstancePre<Host>,
    pub(super) handler: handler::GuestIndices,
    /// What it may do. Each pool has it for itself: threads that count references to one thing wait for each other.
    pub(super) granted: Arc<Granted>,
    pool: Arc<Pool>,
}

/// An attempt's place in a pool, until it is dropped.
pub(super) struct Place<'a>(&'a Pooled);

/// How many attempts each of `pools` pools must have room for, so that all `slots` find one, wherever they start: twice its
/// share, since an attempt that waits is not where the next one starts.
pub(super) fn places(slots: u32, pools: u32) -> u32 {
    slots.min(2 * slots.div_ceil(pools))
}

/// Takes a place for an attempt: in this thread's own pool, or where there is room.
pub(super) fn enter(pooled: &[Pooled]) -> Place<'_> {
    let home = home(pooled.len());
    let (before, behind) = pooled.split_at(home);
    let free = behind.iter().chain(before).find(|pooled| pooled.pool.take_place());
    // Callers keep to the slots, for which there is room. If one does not, the engine says that its pool is exhausted.
    Place(free.unwrap_or_else(|| {
        pooled[home].pool.taken.fetch_add(1, Ordering::Relaxed);
        &pooled[home]
    }))
}

/// Which of `pools` pools is this thread's own.
fn home(pools: usize) -> usize {
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
        Ok(Arc::new(Pool { engine, linker, places, taken: AtomicU32::new(0) }))
    }

    /// Links a component, and finds out how it is called.
    pub(super) fn prepare(self: &Arc<Pool>, component: &Component, granted: &Granted) -> Result<Pooled, LoadError> {
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::ImportTypes { reason: format!("{error:#}") })?;
        let handler = handler::GuestIndices::new(&pre)
            .map_err(|error| LoadError::HandlerTypes { reason: format!("{error:#}") })?;
        // Else the first attempt would do it.
        component.initialize_copy_on_write_image().map_err(|e| LoadError::Start { failure: trap::host_fault(&e) })?;
        Ok(Pooled { pre, handler, granted: Arc::new(granted.clone()), pool: Arc::clone(self) })
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

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.pool.leave();
    }
}

impl std::ops::Deref for Place<'_> {
    type Target = Pooled;

    fn deref(&self) -> &Pooled {
        self.0
    }
}
