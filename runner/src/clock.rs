//! Time, as it is passed in.
//!
//! Whatever decides by the time, or waits in the queue's or the dispatcher's logic, takes a [`Clock`] or a [`UnixMs`], so
//! that a test or a simulation can drive it.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

/// Tells the time, and waits.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time of day. It may jump, as the system's does.
    fn now(&self) -> UnixMs;

    /// The time that never jumps.
    fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits, by the time that never jumps. Runs out on the runtime that it is called on.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

// === impl UnixMs ===

impl UnixMs {
    /// This moment and `duration` more, at most the end of time.
    pub fn plus(self, duration: Duration) -> UnixMs {
        UnixMs(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment and `duration` less, at least the beginning of time.
    pub fn minus(self, duration: Duration) -> UnixMs {
        UnixMs(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was: zero if it is still to come.
    pub fn since(self, earlier: UnixMs) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
