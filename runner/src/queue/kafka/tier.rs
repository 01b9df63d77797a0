//! Delays out of topics: each tier holds its records for one constant time, so that they come due in their order. Pure, no I/O.

use std::time::Duration;

use crate::clock::UnixMs;

/// The tiers, the shortest first: how long each holds a record, and what stands behind the job topic's name.
pub(crate) const TIERS: [Tier; 6] = [
    Tier { delay: Duration::from_secs(1), suffix: "retry.1s" },
    Tier { delay: Duration::from_secs(10), suffix: "retry.10s" },
    Tier { delay: Duration::from_secs(60), suffix: "retry.1m" },
    Tier { delay: Duration::from_secs(600), suffix: "retry.10m" },
    Tier { delay: Duration::from_secs(3_600), suffix: "retry.1h" },
    Tier { delay: Duration::from_secs(12 * 3_600), suffix: "retry.12h" },
];

/// So much of a delay may be left over when a tier lets a record go: the runner waits for it with the record in hand.
const IN_HAND: Duration = Duration::from_secs(1);

/// A constant delay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    /// How long it holds a record.
    pub delay: Duration,
    /// What stands behind the job topic's name and a dot.
    pub suffix: &'static str,
}

/// What follows for a record that a tier holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Its job is run at that time.
    Run(UnixMs),
    /// It moves to another tier at that time, since more is left of its delay.
    Move(UnixMs),
}

/// The tier for a job that is due at `due`: the longest that is no longer than what is left.
pub(crate) fn for_delay(due: UnixMs, now: UnixMs) -> usize {
    let left = due.since(now);
    TIERS.iter().rposition(|tier| tier.delay <= left).unwrap_or(0)
}

/// What follows for a record that was written into `tier` at `written`, of a job that is due at `due`.
pub(crate) fn then(tier: usize, written: UnixMs, due: UnixMs) -> Then {
    let let_go = written.plus(TIERS[tier].delay);
    if due <= let_go.plus(IN_HAND) { Then::Run(due) } else { Then::Move(let_go) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    #[test]
    fn delay_takes_the_longest_tier_that_is_not_too_long() {
        let tier = |ms| TIERS[for_delay(NOW.plus(Duration::from_millis(ms)), NOW)].suffix;
        assert_eq!([tier(0), tier(999), tier(1_000), tier(9_999)], ["retry.1s"; 4]);
        assert_eq!([tier(10_000), tier(60_000), tier(599_999)], ["retry.10s", "retry.1m", "retry.1m"]);
        assert_eq!([tier(600_000), tier(3_600_000), tier(u64::MAX / 4)], ["retry.10m", "retry.1h", "retry.12h"]);
        assert_eq!(for_delay(NOW.minus(Duration::from_secs(60)), NOW), 0, "what is overdue takes the shortest");
    }

    #[test]
    fn any_delay_is_made_of_hops_and_ends_when_it_is_due() {
        for delay in [0, 1, 400, 1_000, 1_999, 2_000, 2_001, 15_000, 100_000, 4_000_000, 100_000_000, 700_000_001] {
            let due = NOW.plus(Duration::from_millis(delay));
            let (mut now, mut hops) = (NOW, 0);
            loop {
                let tier = for_delay(due, now);
                match then(tier, now, due) {
                    Then::Run(at) => {
                        assert_eq!(at, due);
                        assert!(at.since(now) <= TIERS[tier].delay + IN_HAND);
                        break;
                    }
                    Then::Move(at) => {
                        assert!(at > now && at < due, "{delay}");
                        now = at;
                        hops += 1;
                        assert!(hops < 60, "{delay} takes too many hops");
                    }
                }
            }
        }
    }
}
