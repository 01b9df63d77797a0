//! How long attempts took, in buckets that grow by a fifth.

use std::sync::atomic::{AtomicU32, Ordering};

/// Buckets for each doubling.
const PER_DOUBLING: u32 = 4;

/// From a microsecond to over an hour; what takes longer is in the last.
const BUCKETS: usize = 33 * PER_DOUBLING as usize;

/// Counts, by how long it took.
#[derive(Debug)]
pub(super) struct Durations<T> {
    buckets: Box<[T; BUCKETS]>,
}

// === impl Durations ===

impl<T> Durations<T> {
    pub(super) fn of(buckets: [T; BUCKETS]) -> Durations<T> {
        Durations { buckets: Box::new(buckets) }
    }

    fn map<U>(&self, map: impl Fn(&T) -> U) -> Durations<U> {
        Durations::of(std::array::from_fn(|at| map(&self.buckets[at])))
    }
}

impl Durations<AtomicU32> {
    pub(super) fn count(&self, duration_us: u64) {
        self.buckets[bucket(duration_us)].fetch_add(1, Ordering::Relaxed);
    }

    /// As they are.
    pub(super) fn look(&self) -> Durations<u32> {
        self.map(|count| count.load(Ordering::Relaxed))
    }

    /// As they are; they begin anew.
    pub(super) fn take(&self) -> Durations<u32> {
        self.map(|count| count.swap(0, Ordering::Relaxed))
    }
}

impl Durations<u32> {
    pub(super) fn add(&mut self, more: &Durations<u32>) {
        self.buckets.iter_mut().zip(more.buckets.iter()).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    /// How long `percent` of 100 took at most, within an eighth, in microseconds; none where nothing was counted.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.buckets.iter().copied().map(u64::from).sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        Some(middle_us(at))
    }
}

/// The bucket of a duration: which doubling it is in, and which quarter of that.
fn bucket(duration_us: u64) -> usize {
    let duration_us = duration_us.max(1);
    let doubling = duration_us.ilog2();
    // The two bits behind the first one: quarters of equal width, the widest of which is 25 % of where it begins.
    let quarter = if doubling >= 2 { (duration_us >> (doubling - 2)) & 3 } else { (duration_us << (2 - doubling)) & 3 };
    let at = usize::try_from(doubling * PER_DOUBLING).expect("there are 64 doublings")
        + usize::try_from(quarter).expect("there are four");
    at.min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle_us(bucket: usize) -> u64 {
    let (doubling, quarter) = (bucket / PER_DOUBLING as usize, bucket % PER_DOUBLING as usize);
    let begins = |quarter: usize| ((4 + quarter as u64) << doubling) / 4;
    u64::midpoint(begins(quarter), begins(quarter + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_an_eighth() {
        for exact in [1, 7, 100, 999, 12_345, 1_000_000, 59_999_999] {
            let durations = Durations::of(std::array::from_fn(|_| AtomicU32::new(0)));
            (0..98).for_each(|_| durations.count(exact));
            (0..2).for_each(|_| durations.count(exact * 50));
            let durations = durations.take();
            for (percent, exact) in [(50, exact), (99, exact * 50)] {
                let found = durations.percentile(percent).expect("there are a hundred");
                assert!(found.abs_diff(exact) * 8 <= exact, "{percent} %: {found} for {exact}");
            }
        }
    }

    #[test]
    fn no_duration_is_beyond_the_buckets() {
        for duration_us in [0, 1, 2, 3, 4, u64::from(u32::MAX), u64::MAX] {
            assert!(bucket(duration_us) < BUCKETS);
        }
    }

    #[test]
    fn longer_is_never_in_an_earlier_bucket() {
        assert!((0..100_000).map(bucket).is_sorted());
    }
}
