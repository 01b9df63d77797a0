//! What integration tests share: a real runner in a folder of its own, and patience.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod api;
pub(crate) mod guests;
mod random;
mod runner;
mod seen;
mod server;

pub(crate) use api::{Answer, Api, Connection};
pub(crate) use random::Random;
pub(crate) use runner::{TestRunner, message, project};
pub(crate) use seen::{Enqueued, Seen};
pub(crate) use server::Server;

/// How long a test waits for what must come, however busy the machine is. Nothing waits this long that passes.
/// `SANDHOG_TEST_PATIENCE` sets it, in seconds.
pub(crate) fn patience() -> Duration {
    let seconds = std::env::var("SANDHOG_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// What an [`eventually!`] waits for: `true`, or something.
pub(crate) trait Came {
    /// What it is when it has come.
    type Value;
    /// What has come, if it has.
    fn came(self) -> Option<Self::Value>;
}

impl Came for bool {
    type Value = ();
    fn came(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Came for Option<T> {
    type Value = T;
    fn came(self) -> Option<T> {
        self
    }
}

/// Asks again until the condition is true, or the option is something, which it then answers.
///
/// For what happens in another process, which cannot be awaited. A test that can wait for something to end waits for that
/// instead.
///
/// Never to be used for what must *not* happen: let something happen that would come later, and look then.
#[macro_export]
macro_rules! eventually {
    ($condition:expr) => {{
        let patience = $crate::support::patience();
        let started = ::std::time::Instant::now();
        loop {
            if let Some(value) = $crate::support::Came::came($condition) {
                break value;
            }
            assert!(started.elapsed() < patience, "not after {patience:?}: {}", stringify!($condition));
            $crate::support::pause();
        }
    }};
}

/// The pause between two looks of an [`eventually!`]: short for a person, long beside what a look costs.
#[expect(clippy::disallowed_methods, reason = "what another process does cannot be awaited")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(25));
}

/// The time of day in milliseconds, as the times of a [`Seen`] are.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    i64::try_from(since.as_millis()).expect("it is not the end of time")
}
