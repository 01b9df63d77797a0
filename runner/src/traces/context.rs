//! Which trace a job belongs to, as its metadata says it (`traceparent`, of W3C's Trace Context), and whether its attempts
//! have spans. Pure.

use std::fmt;

use crate::config::{Sampler, TracesConfig};

/// The metadata, and the header of HTTP, that say where a job stands in which trace.
pub const TRACEPARENT: &str = "traceparent";

/// The metadata, and the header, with what others keep beside it.
pub const TRACESTATE: &str = "tracestate";

/// A place in a trace: a span, ours or somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace. Never 0.
    pub trace: u128,
    /// The span. Never 0.
    pub span: u64,
    /// Whether somebody collects it.
    pub sampled: bool,
}

/// Which attempts have spans that are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampling {
    /// What the enqueuer said counts first.
    by_parent: bool,
    /// The part of those that nobody decided on.
    ratio: f64,
}

// === impl Context ===

impl Context {
    /// The one that a job's metadata name, if it is one.
    pub fn of(metadata: &[(String, String)]) -> Option<Context> {
        let (_, text) = metadata.iter().find(|(name, _)| name == TRACEPARENT)?;
        Context::parse(text)
    }

    /// Reads a `traceparent`.
    pub fn parse(text: &str) -> Option<Context> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may have more behind it.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        hex(version, 2)?;
        let trace = hex(trace, 32).filter(|trace| *trace != 0)?;
        let span = hex(span, 16).and_then(|span| u64::try_from(span).ok()).filter(|span| *span != 0)?;
        Some(Context { trace, span, sampled: hex(flags, 2)? & 1 == 1 })
    }

    /// The trace, as it is written.
    pub fn trace_id(self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{:032x}", self.trace))
    }

    /// The span, as it is written.
    pub fn span_id(self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{:016x}", self.span))
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// A number of exactly so many digits, which are lower-case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

// === impl Sampling ===

impl Sampling {
    pub(super) fn new(config: &TracesConfig) -> Sampling {
        let (by_parent, ratio) = match config.sampler {
            Sampler::ParentOrRatio => (true, config.sample_ratio),
            Sampler::ParentOrAll => (true, 1.0),
            Sampler::ParentOrNone => (true, 0.0),
            Sampler::Ratio => (false, config.sample_ratio),
            Sampler::All => (false, 1.0),
            Sampler::None => (false, 0.0),
        };
        Sampling { by_parent, ratio }
    }

    /// Whether a span of this trace is sent.
    pub(super) fn takes(self, parent: Option<Context>, trace: u128) -> bool {
        match parent {
            Some(parent) if self.by_parent => parent.sampled,
            // By the trace, so that all of its spans are, or none, whoever decides; as others do it.
            _ => (trace as u64 >> 1) < (self.ratio * (1_u64 << 63) as f64) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_is_read_as_it_is_written_and_nothing_else_is_one() {
        let context = Context::parse(TEXT).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), TEXT);
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(!Context::parse(&TEXT.replace("-01", "-00")).unwrap().sampled);
        assert!(Context::parse(&format!("{}-more", TEXT.replace("00-0", "01-0"))).is_some(), "a later version");
        for bad in [
            "",
            "00-1",
            &TEXT.replace("00-0", "ff-0"),
            &TEXT.to_uppercase(),
            &format!("{TEXT}-more"),
            &TEXT[1..],
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn enqueuer_decides_before_the_ratio_where_it_is_asked() {
        let parent = |sampled| Some(Context { trace: 7, span: 7, sampled });
        let none = Sampling { by_parent: true, ratio: 0.0 };
        assert!(none.takes(parent(true), 7) && !none.takes(parent(false), 7) && !none.takes(None, 7));
        let all = Sampling { by_parent: false, ratio: 1.0 };
        assert!(all.takes(parent(false), u128::MAX) && all.takes(None, u128::MAX));
        let half = Sampling { by_parent: true, ratio: 0.5 };
        assert!(half.takes(None, 1) && !half.takes(None, u128::MAX));
    }
}
