//! Numbers from a seed, so that a run that failed can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers from a seed, which is printed: `SANDHOG_TEST_SEED` gives the same again.
#[derive(Debug)]
pub(crate) struct Random {
    pub(crate) seed: u64,
    state: u64,
}

// === impl Random ===

impl Random {
    /// From the seed of the environment, or from another one each time.
    pub(crate) fn seeded() -> Random {
        let given = std::env::var("SANDHOG_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
            u64::from(since.subsec_nanos())
        });
        eprintln!("SANDHOG_TEST_SEED={seed}");
        Random { seed, state: seed }
    }

    /// One of the numbers below `end`.
    pub(crate) fn below(&mut self, end: u64) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end).expect("it is small")
    }

    /// One of `all`, each as often as its weight says.
    pub(crate) fn weighted<T>(&mut self, all: &[T], weight: impl Fn(&T) -> u64) -> usize {
        let mut left = self.below(all.iter().map(&weight).sum()) as u64;
        all.iter()
            .position(|one| {
                let here = left < weight(one);
                left = left.saturating_sub(weight(one));
                here
            })
            .expect("the number is below the sum of all weights")
    }
}
