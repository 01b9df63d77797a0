//! Numbers from a seed.

use std::sync::Mutex;

/// The same seed gives the same numbers.
#[derive(Debug)]
pub(crate) struct Random(Mutex<u64>);

// === impl Random ===

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Mutex::new(seed))
    }

    /// The next number (`SplitMix64`).
    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True once in `many` times.
    pub(crate) fn one_in(&self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// From -1 to 1.
    pub(crate) fn jitter(&self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}
