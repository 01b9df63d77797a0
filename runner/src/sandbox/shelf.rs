//! Instances that have ended a job well, and wait for their next one, which is of the same type.
//!
//! They wait beside the thread that ran them, since their engine is that thread's own; but one that waits anywhere is used
//! before another is made. So there are never more than attempts run at a time: one, where `concurrency` is 1.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::instance::{Bounds, Instance};
use super::load::Prepared;
use super::pools;
use crate::limits::Reuse;

/// The instances of one component that wait.
pub(super) struct Shelf {
    prepared: Arc<Prepared>,
    reuse: Reuse,
    waiting: Mutex<Waiting>,
    /// What ends those that waited for too long.
    sweep: Mutex<Option<AbortHandle>>,
}

/// The tear-downs that are under way without a job.
#[derive(Default)]
pub(super) struct Endings {
    pub(super) under_way: TaskTracker,
    /// They are to be broken off.
    pub(super) stop: CancellationToken,
}

struct Waiting {
    /// By their pools. In each the one that was used last is on top.
    by_pool: Vec<Vec<Instance>>,
    count: u32,
}

// === impl Shelf ===

impl Shelf {
    /// An empty one.
    pub(super) fn new(prepared: &Arc<Prepared>, reuse: Reuse) -> Arc<Shelf> {
        let waiting = Waiting { by_pool: prepared.pooled.iter().map(|_| Vec::new()).collect(), count: 0 };
        let prepared = Arc::clone(prepared);
        let shelf = Arc::new(Shelf { prepared, reuse, waiting: Mutex::new(waiting), sweep: Mutex::new(None) });
        let sweep = shelf.prepared.timers.spawn(sweep(Arc::downgrade(&shelf), shelf.reuse.idle));
        *lock(&shelf.sweep) = Some(sweep.abort_handle());
        shelf
    }

    /// An instance for a job of this type, if one waits: this thread's own first.
    pub(super) fn take(&self, job_type: &str) -> Option<Instance> {
        let mut waiting = lock(&self.waiting);
        if waiting.count == 0 {
            return None;
        }
        let home = pools::home(waiting.by_pool.len());
        let (before, behind) = waiting.by_pool.split_at_mut(home);
        let last = |instances: &mut Vec<Instance>| {
            let at = instances.iter().rposition(|instance| instance.is_for(job_type))?;
            Some(instances.remove(at))
        };
        let mut instance = behind.iter_mut().chain(before).find_map(last)?;
        waiting.count -= 1;
        drop(waiting);
        instance.place.work();
        Some(instance)
    }

    /// Takes back an instance that has ended a job well. Answers one that is to end: this one, which has worked as many jobs
    /// as it may, or another in whose stead it is kept.
    pub(super) fn put(&self, mut instance: Instance, now: Instant) -> Option<Instance> {
        if instance.jobs >= self.reuse.jobs {
            return Some(instance);
        }
        instance.waits_since = now;
        let mut waiting = lock(&self.waiting);
        let mut ends = None;
        if waiting.count >= self.reuse.instances {
            // Of another type, mostly: of one type there are no more than attempts at a time.
            ends = waiting.longest();
        }
        if !instance.place.wait() {
            return Some(instance);
        }
        waiting.count += 1;
        waiting.by_pool[instance.place.number].push(instance);
        ends
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> u32 {
        lock(&self.waiting).count
    }

    /// Takes out what has waited for too long. Answers when to look again.
    fn expired(&self, now: Instant) -> (Vec<Instance>, Instant) {
        let idle = self.reuse.idle;
        let mut waiting = lock(&self.waiting);
        let mut expired = Vec::new();
        for instances in &mut waiting.by_pool {
            // Those below have waited for longer than those above.
            let fresh = instances.iter().position(|instance| now.duration_since(instance.waits_since) < idle);
            expired.extend(instances.drain(..fresh.unwrap_or(instances.len())));
        }
        waiting.count -= u32::try_from(expired.len()).expect("there are no more than attempts at a time");
        let oldest = waiting.by_pool.iter().filter_map(|instances| instances.first()).map(|first| first.waits_since);
        // What is put here later has all its time before it.
        (expired, oldest.min().unwrap_or(now) + idle)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Takes out the instance that has waited for the longest.
    fn longest(&mut self) -> Option<Instance> {
        let waiting = self.by_pool.iter_mut().filter(|instances| !instances.is_empty());
        let instances = waiting.min_by_key(|instances| instances[0].waits_since)?;
        self.count -= 1;
        Some(instances.remove(0))
    }
}

impl Drop for Shelf {
    /// Its component is not served any more.
    fn drop(&mut self) {
        for instance in lock(&self.waiting).by_pool.drain(..).flatten() {
            end(&self.prepared, instance);
        }
        if let Some(sweep) = lock(&self.sweep).take() {
            sweep.abort();
        }
    }
}

/// Ends what waits for too long, as long as there is a shelf.
async fn sweep(shelf: Weak<Shelf>, idle: Duration) {
    let mut look_again = Instant::now() + idle;
    loop {
        tokio::time::sleep_until(look_again.into()).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let expired;
        (expired, look_again) = shelf.expired(Instant::now());
        for instance in expired {
            end(&shelf.prepared, instance);
        }
    }
}

/// Ends an instance beside the jobs.
fn end(prepared: &Arc<Prepared>, mut instance: Instance) {
    if !prepared.exports.context {
        return;
    }
    let (of, limits) = (Arc::clone(prepared), instance.host().limits.clone());
    let ended = async move { instance.end(&Bounds::new(&of, &limits, &of.endings.stop)).await };
    prepared.guests.spawn(prepared.endings.under_way.track_future(ended));
}

/// Nobody panics while he holds the lock.
fn lock<T>(locked: &Mutex<T>) -> MutexGuard<'_, T> {
    locked.lock().unwrap_or_else(PoisonError::into_inner)
}
