//! Who is told how a settlement ended.

use super::{OnSettled, Settled};

/// Is told once. Dropped untold, they hear that the right was lost: a queue that was closed has given up all it held, and the
/// job is somebody else's.
pub(super) struct Told(Option<OnSettled>);

// === impl Told ===

impl Told {
    pub(super) fn by(settled: OnSettled) -> Told {
        Told(Some(settled))
    }

    pub(super) fn tell(mut self, settled: Settled) {
        self.now(settled);
    }

    fn now(&mut self, settled: Settled) {
        if let Some(tell) = self.0.take() {
            tell(settled);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.now(Settled::Fenced);
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}
