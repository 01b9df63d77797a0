//! What the queue counts, asked for at most once a second, and shared by all who want to know it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use crate::queue::{Queue, QueueError, State, Stats};

/// Counting may take a queue some milliseconds, and nobody sees more than one change a second.
const FRESH: Duration = Duration::from_secs(1);

/// Longer than a queue takes that is well: the last count is shown meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a queue for its counts while somebody wants them, and never more often than once a second.
#[derive(Debug)]
pub struct Sampler {
    queue: Arc<dyn Queue>,
    last: ArcSwapOption<Sample>,
    /// Held by who asks the queue; when it failed last, and why.
    asking: Mutex<Option<(Instant, Arc<QueueError>)>>,
    /// Held by who asks whether it can be reached; when it was asked last, and what it said.
    reaching: Mutex<Option<(Instant, Reached)>>,
}

/// Whether it could be reached.
type Reached = Result<(), Arc<QueueError>>;

/// What the queue counted.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The counts.
    pub stats: Arc<Stats>,
    /// When they were made.
    pub taken: Instant,
    /// Why there are none that are newer, if they were asked for in vain.
    pub failed: Option<Arc<QueueError>>,
}

// === impl Sampler ===

impl Sampler {
    /// A sampler of `queue` that has asked for nothing yet.
    pub fn new(queue: Arc<dyn Queue>) -> Sampler {
        Sampler { queue, last: ArcSwapOption::empty(), asking: Mutex::new(None), reaching: Mutex::new(None) }
    }

    /// What the queue counted less than a second ago, or counts now. If it cannot, what it counted last, which says why.
    ///
    /// # Errors
    ///
    /// What the queue says, if it never counted anything.
    pub async fn sample(&self) -> Result<Arc<Sample>, Arc<QueueError>> {
        if let Some(last) = self.last().filter(|last| last.taken.elapsed() < FRESH && last.failed.is_none()) {
            return Ok(last);
        }
        let mut failed = self.asking.lock().await;
        // Somebody else may have asked while this one waited.
        match (self.last(), failed.as_ref()) {
            (Some(last), None) if last.taken.elapsed() < FRESH => return Ok(last),
            (last, Some((when, error))) if when.elapsed() < FRESH => return last.ok_or_else(|| Arc::clone(error)),
            _ => {}
        }
        let counted = tokio::time::timeout(PATIENCE, self.queue.stats()).await.unwrap_or_else(|_| {
            Err(QueueError::transient(format!("the queue did not count its jobs within {PATIENCE:?}")))
        });
        match counted {
            Ok(stats) => {
                let sample = Arc::new(Sample { stats: Arc::new(stats), taken: Instant::now(), failed: None });
                self.last.store(Some(Arc::clone(&sample)));
                *failed = None;
                Ok(sample)
            }
            Err(error) => {
                let error = Arc::new(error);
                *failed = Some((Instant::now(), Arc::clone(&error)));
                let last = self.last().ok_or_else(|| Arc::clone(&error))?;
                let sample = Arc::new(Sample { failed: Some(error), ..(*last).clone() });
                self.last.store(Some(Arc::clone(&sample)));
                Ok(sample)
            }
        }
    }

    /// Whether the queue can be reached, as it said less than a second ago, or says now. Who does not wait for it leaves the
    /// answer to the next.
    ///
    /// # Errors
    ///
    /// What it says.
    pub async fn answers(self: &Arc<Sampler>) -> Reached {
        let sampler = Arc::clone(self);
        let asking = tokio::spawn(async move {
            let mut last = sampler.reaching.lock().await;
            if let Some((_, answer)) = last.as_ref().filter(|(when, _)| when.elapsed() < FRESH) {
                return answer.clone();
            }
            let answer = tokio::time::timeout(PATIENCE, sampler.queue.answers()).await.unwrap_or_else(|_| {
                Err(QueueError::transient(format!("the queue does not answer within {PATIENCE:?}")))
            });
            let answer = answer.map_err(Arc::new);
            *last = Some((Instant::now(), answer.clone()));
            answer
        });
        asking
            .await
            .unwrap_or_else(|error| Err(Arc::new(QueueError::lasting(format!("asking the queue broke down: {error}")))))
    }

    /// What the queue counted last, however long ago. Asks nobody.
    pub fn last(&self) -> Option<Arc<Sample>> {
        self.last.load_full()
    }
}

// === impl Sample ===

impl Sample {
    /// How many jobs are ready.
    pub fn backlog(&self) -> u64 {
        let ready = self.stats.counts.iter().filter(|count| count.state == State::Ready);
        ready.map(|count| count.jobs).sum()
    }
}
