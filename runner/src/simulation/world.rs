//! What all simulated processes of a schedule share.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::ledger::Ledger;
use super::random::Random;
use super::timeline::Timeline;
use crate::queue::sqlite::simulation::Witness;
use crate::queue::{Delivery, Demand, Receipt, Settled, Settlement};

/// One schedule's time, chance and books.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) timeline: Timeline,
    /// All types are served everywhere all the time: no reload hides what was forgotten.
    pub(crate) steady: bool,
    /// Dead letters are reported. It follows from the seed without a draw, so that older seeds are what they were.
    pub(crate) reports: bool,
    /// What guests do: see [`Mood`].
    mood: AtomicU8,
    ledger: Mutex<Ledger>,
    /// What happened, for people; none where nobody reads it.
    trace: Option<Mutex<Vec<String>>>,
}

/// What guests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mood {
    /// Whatever they can.
    Wild,
    /// They end at once; few panic or are interrupted, and their jobs come again.
    Calm,
    /// They complete at once.
    Still,
}

/// A process's own way to the ledger and the trace.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
    pub(crate) name: &'static str,
}

// === impl World ===

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Arc<World> {
        let random = Random::new(seed);
        let reports = matches!(seed % 5, 1 | 3);
        Arc::new(World {
            steady: random.one_in(3),
            reports,
            random,
            timeline: Timeline::new(),
            mood: AtomicU8::new(0),
            ledger: Mutex::default(),
            trace: traced.then(Mutex::default),
        })
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }

    pub(crate) fn mood(&self) -> Mood {
        [Mood::Wild, Mood::Calm, Mood::Still][usize::from(self.mood.load(Ordering::Relaxed))]
    }

    /// Writes down what `who` does or meets.
    pub(crate) fn note(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let line = format!("{:>11.3} {who:<6} {}", self.timeline.elapsed().as_secs_f64(), what());
            trace.lock().unwrap().push(line);
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(|trace| trace.lock().unwrap().clone()).unwrap_or_default()
    }
}

// === impl Place ===

impl Place {
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(self.name, what);
    }
}

impl Witness for Place {
    fn received(&self, asked: &Demand, deliveries: Option<&[Delivery]>) {
        self.world.ledger().received(self.process, asked, deliveries);
        if let Some(deliveries) = deliveries {
            self.note(|| format!("receives {} jobs", deliveries.len()));
        }
    }

    fn handed_out(&self, receipt: Receipt, alone: bool) {
        self.world.ledger().handed_out(self.process, receipt, alone);
    }

    fn executing(&self, receipt: Receipt) {
        self.world.ledger().executing(self.process, receipt);
    }

    fn executed(&self, receipt: Receipt) {
        self.world.ledger().executed(self.process, receipt);
    }

    fn dropped(&self, receipt: Receipt) {
        self.world.ledger().dropped(self.process, receipt);
    }

    fn settling(&self, receipt: Receipt, settlement: &Settlement) {
        self.world.ledger().settling(self.process, receipt, settlement);
        self.note(|| format!("settles {}/{}: {:?}", receipt.record, receipt.fence, settlement.disposition));
    }

    fn settled(&self, receipt: Receipt, answer: Settled) {
        self.note(|| format!("is told of {}/{}: {answer:?}", receipt.record, receipt.fence));
        self.world.ledger().settled(self.process, receipt, answer);
    }
}
