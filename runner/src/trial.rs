//! The brake: a new generation is on trial until one of its attempts shows that it can do more than fail. Pure, no I/O.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::outcome::{Kind, Outcome};

/// With this many failures of one kind, and nothing else, a generation on trial is braked.
pub const FAILURES_MAX: u32 = 20;

/// What is known of a generation by its attempts. It only ever rises, in this order, so that whatever runners and people
/// say of a generation at the same time can be put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing yet: if any attempts ended, they failed.
    #[default]
    Untried,
    /// It did something else than fail in one way, and has not completed an attempt.
    Unproven,
    /// It has completed an attempt.
    Proven,
    /// All it did was to fail, where the generation before had completed: its types are paused.
    Braked,
    /// A person lifted the brake.
    Resumed,
}

/// What the attempts of one generation come to. It is asked at every attempt, and then is one load of a number, but while
/// the generation is new.
#[derive(Debug)]
pub struct Trial {
    brake: bool,
    before: bool,
    standing: AtomicU8,
    /// The failures so far, all of one kind.
    failures: Mutex<Option<(Kind, u32)>>,
}

// === impl Standing ===

impl Standing {
    const ALL: [Standing; 5] =
        [Standing::Untried, Standing::Unproven, Standing::Proven, Standing::Braked, Standing::Resumed];

    /// Whether a generation that comes after this one is braked if it only fails: this one completed an attempt, or, where
    /// that is not known of it, what held `before` it still holds.
    pub fn vouches(self, before: bool) -> bool {
        match self {
            Standing::Proven => true,
            Standing::Unproven => false,
            Standing::Untried | Standing::Braked | Standing::Resumed => before,
        }
    }
}

// === impl Trial ===

impl Trial {
    /// The trial of a generation of which this much is known. It can be braked if the one `before` completed an attempt;
    /// without `brake` it never is.
    pub fn new(before: bool, standing: Standing, brake: bool) -> Trial {
        Trial { brake, before, standing: AtomicU8::new(standing as u8), failures: Mutex::default() }
    }

    /// What is known by now.
    pub fn standing(&self) -> Standing {
        Standing::ALL[usize::from(self.standing.load(Ordering::Acquire))]
    }

    /// Whether no further attempt may start.
    pub fn is_braked(&self) -> bool {
        self.brake && self.standing() == Standing::Braked
    }

    /// Takes up what others know. Answers what is known then.
    pub fn raise(&self, standing: Standing) -> Standing {
        self.standing.fetch_max(standing as u8, Ordering::AcqRel);
        self.standing()
    }

    /// Takes down how an attempt ended. Answers what is known now, if this attempt changed that.
    pub fn record(&self, outcome: &Outcome) -> Option<Standing> {
        match (self.standing(), outcome) {
            (Standing::Untried, Outcome::Failed(_)) if !(self.brake && self.before) => return None,
            (Standing::Untried | Standing::Unproven, Outcome::Complete { .. })
            | (Standing::Untried, Outcome::Retry(_) | Outcome::Reject { .. } | Outcome::Failed(_)) => {}
            // What was interrupted says nothing, and what is decided stays.
            _ => return None,
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.standing();
        let after = match outcome {
            Outcome::Complete { .. } => Standing::Proven,
            Outcome::Failed(failure) => failed(&mut failures, &failure.kind),
            _ => Standing::Unproven,
        };
        // Another attempt may have decided meanwhile: no failure makes undone what it showed.
        if before > Standing::Unproven || after <= before || after == Standing::Braked && before != Standing::Untried {
            return None;
        }
        self.raise(after);
        Some(after)
    }
}

/// Counts a failure; what it means for a generation that did nothing but fail.
fn failed(failures: &mut Option<(Kind, u32)>, kind: &Kind) -> Standing {
    let (first, count) = failures.get_or_insert_with(|| (kind.clone(), 0));
    if first != kind {
        return Standing::Unproven;
    }
    *count += 1;
    if *count < FAILURES_MAX { Standing::Untried } else { Standing::Braked }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Failure, RetryRequest};

    /// What becomes of a generation whose attempts end like this: `c`omplete, `r`etry, re`j`ect, `e`rror, `t`rap,
    /// `i`nterrupted, cancelled with `x`.
    fn after(trial: &Trial, ends: &str) -> Standing {
        for end in ends.chars() {
            let failed = |kind| Outcome::Failed(Failure::new(kind, "it went wrong"));
            trial.record(&match end {
                'c' => Outcome::Complete { result: None },
                'r' => Outcome::Retry(RetryRequest::default()),
                'j' => Outcome::Reject { reason: "never".into() },
                'e' => failed(Kind::Error),
                't' => failed(Kind::Trap),
                'i' => Outcome::Interrupted { reason: "drain".into() },
                'x' => Outcome::Cancelled,
                other => panic!("`{other}` is no outcome"),
            });
        }
        trial.standing()
    }

    #[test]
    fn generation_is_braked_by_twenty_failures_of_one_kind_and_nothing_else() {
        let (e19, e20, t20) = ("e".repeat(19), "e".repeat(20), "t".repeat(20));
        for (ends, expected) in [
            (String::new(), Standing::Untried),
            (e19.clone(), Standing::Untried),
            (e20.clone(), Standing::Braked),
            (t20.clone(), Standing::Braked),
            (format!("{e19}ixi"), Standing::Untried),
            (format!("{e19}ixie"), Standing::Braked),
            (format!("{e19}t{e20}{t20}"), Standing::Unproven),
            (format!("{e19}r{e20}"), Standing::Unproven),
            (format!("j{e20}"), Standing::Unproven),
            (format!("r{e20}c"), Standing::Proven),
            (format!("c{e20}"), Standing::Proven),
            (format!("{e19}c{e20}"), Standing::Proven),
            // What ran already when the brake came on changes nothing any more.
            (format!("{e20}ctr"), Standing::Braked),
        ] {
            let trial = Trial::new(true, Standing::Untried, true);
            assert_eq!(after(&trial, &ends), expected, "{ends}");
            assert_eq!(trial.is_braked(), expected == Standing::Braked, "{ends}");
        }
    }

    #[test]
    fn only_a_new_generation_after_one_that_completed_is_on_trial() {
        let e20 = "e".repeat(20);
        for (before, standing, brake, expected) in [
            (false, Standing::Untried, true, Standing::Untried),
            (true, Standing::Untried, false, Standing::Untried),
            (true, Standing::Unproven, true, Standing::Unproven),
            (true, Standing::Proven, true, Standing::Proven),
            (true, Standing::Resumed, true, Standing::Resumed),
        ] {
            let trial = Trial::new(before, standing, brake);
            assert_eq!(after(&trial, &e20), expected, "{before} {standing:?} {brake}");
            assert!(!trial.is_braked());
        }
        assert!(Trial::new(true, Standing::Braked, true).is_braked());
        assert!(!Trial::new(true, Standing::Braked, false).is_braked(), "one line turns it off");
    }

    #[test]
    fn what_others_say_lifts_and_sets_the_brake() {
        let trial = Trial::new(true, Standing::Untried, true);
        assert_eq!(trial.raise(Standing::Braked), Standing::Braked);
        assert!(trial.is_braked());
        assert_eq!(trial.raise(Standing::Proven), Standing::Braked);
        assert_eq!(trial.raise(Standing::Resumed), Standing::Resumed);
        assert!(!trial.is_braked());
        assert_eq!(after(&trial, &"e".repeat(40)), Standing::Resumed);
    }

    #[test]
    fn generation_vouches_for_the_next_if_it_completed_or_nothing_speaks_against_what_was_before() {
        for (standing, with, without) in [
            (Standing::Untried, true, false),
            (Standing::Unproven, false, false),
            (Standing::Proven, true, true),
            (Standing::Braked, true, false),
            (Standing::Resumed, true, false),
        ] {
            assert_eq!((standing.vouches(true), standing.vouches(false)), (with, without), "{standing:?}");
        }
    }
}
