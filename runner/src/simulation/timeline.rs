//! Time that moves only when it is told to.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock::{Clock, UnixMs};

/// The one clock of a schedule, and its timers.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    start: Instant,
    hands: Arc<Mutex<Hands>>,
}

#[derive(Debug)]
struct Hands {
    elapsed: Duration,
    /// The time of day at the start, and whatever it has jumped by since.
    day_ms: i64,
    timers: BTreeMap<Key, Waker>,
    timers_made: u64,
}

/// When it runs out, and which it is.
type Key = (Duration, u64);

struct Sleep {
    hands: Arc<Mutex<Hands>>,
    key: Key,
}

// === impl Timeline ===

impl Timeline {
    pub(crate) fn new() -> Timeline {
        let day_ms = 1_800_000_000_000;
        let hands = Hands { elapsed: Duration::ZERO, day_ms, timers: BTreeMap::new(), timers_made: 0 };
        Timeline { start: Instant::now(), hands: Arc::new(Mutex::new(hands)) }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.hands.lock().unwrap().elapsed
    }

    /// How far into the schedule `instant` is.
    pub(crate) fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }

    /// When the next timer runs out.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.hands.lock().unwrap().timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves on to `at`, and ends the sleeps that are over by then.
    pub(crate) fn advance_to(&self, at: Duration) {
        let mut over = Vec::new();
        {
            let mut hands = self.hands.lock().unwrap();
            hands.elapsed = hands.elapsed.max(at);
            while let Some(timer) = hands.timers.first_entry()
                && timer.key().0 <= at
            {
                over.push(timer.remove());
            }
        }
        over.into_iter().for_each(Waker::wake);
    }

    /// Has the time of day jump.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.hands.lock().unwrap().day_ms += by_ms;
    }
}

impl Clock for Timeline {
    fn now(&self) -> UnixMs {
        let hands = self.hands.lock().unwrap();
        UnixMs(hands.day_ms).plus(hands.elapsed)
    }

    fn instant(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut hands = self.hands.lock().unwrap();
        hands.timers_made += 1;
        let key = (hands.elapsed + duration, hands.timers_made);
        Box::pin(Sleep { hands: Arc::clone(&self.hands), key })
    }
}

// === impl Sleep ===

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let mut hands = self.hands.lock().unwrap();
        if hands.elapsed >= self.key.0 {
            return Poll::Ready(());
        }
        hands.timers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.hands.lock().unwrap().timers.remove(&self.key);
    }
}
