//! A figure: what was measured, its limit, and whether the one is near enough to the other.

use serde::Serialize;

/// Something measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What people call it.
    pub(crate) name: String,
    /// What was measured.
    pub(crate) value: f64,
    /// Of the value and of the limit.
    pub(crate) unit: &'static str,
    /// What a bare program reached that does only the thing itself, or where there is none, what was promised.
    pub(crate) limit: f64,
    /// The value over the limit.
    pub(crate) ratio: f64,
    /// The bound on the ratio; none where nothing was promised.
    pub(crate) target: Option<f64>,
    /// Whether the ratio is within it.
    pub(crate) met: Option<bool>,
    /// Which way the bound goes.
    #[serde(skip)]
    pub(crate) bound: Target,
}

/// What was promised of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// Nothing.
    None,
    /// Of what should be small.
    AtMost(f64),
    /// Of what should be large.
    AtLeast(f64),
}

// === impl Figure ===

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str, limit: f64, bound: Target) -> Figure {
        let ratio = value / limit;
        let (target, met) = match bound {
            Target::None => (None, None),
            Target::AtMost(most) => (Some(most), Some(ratio <= most)),
            Target::AtLeast(least) => (Some(least), Some(ratio >= least)),
        };
        let (value, limit, ratio) = (rounded(value), rounded(limit), rounded(ratio));
        Figure { name: name.into(), value, unit, limit, ratio, target, met, bound }
    }
}

/// Three decimals are more than any of these is exact to.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_goes_the_way_it_was_said_to() {
        let met = |value, bound| Figure::new("x", value, "µs", 10.0, bound).met;
        assert_eq!(met(12.5, Target::AtMost(1.25)), Some(true));
        assert_eq!(met(12.6, Target::AtMost(1.25)), Some(false));
        assert_eq!(met(6.5, Target::AtLeast(0.65)), Some(true));
        assert_eq!(met(6.4, Target::AtLeast(0.65)), Some(false));
        assert_eq!(met(1.0, Target::None), None);
    }
}
