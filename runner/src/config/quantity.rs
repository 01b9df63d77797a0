//! Durations and sizes as people write them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::clock::UnixMs;

/// The longest duration: a thousand years of 365 days. Beyond some seven million days nothing could read it again.
const DURATION_MAX: Duration = Duration::from_secs(365_000 * 86_400);

/// Reads `30s`, `10m`, `1h 30m`, `7d`: a duration of at least nothing. A day is 24 hours. A bare `0` needs no unit.
///
/// # Errors
///
/// Says why the text is no duration, as a fragment that fits behind the value.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("has no unit: write `{text}s` for seconds"));
    }
    let fault = || "is no duration: write one like `500ms`, `30s`, `10m`, `1h 30m` or `7d`".to_owned();
    let span: Span = text.parse().map_err(|_| fault())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| fault())?;
    let duration = Duration::try_from(duration).map_err(|_| "is negative".to_owned())?;
    if duration > DURATION_MAX {
        return Err(format!("is longer than {}", format_duration(DURATION_MAX)));
    }
    Ok(duration)
}

/// Writes a duration so that [`parse_duration`] reads the same: `1h 30m`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let units: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut parts = Vec::new();
    for (unit, nanos) in units {
        if rest >= nanos {
            parts.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads `128MiB`, `64 KiB`, `1GB` or a bare number of bytes.
///
/// # Errors
///
/// Says why the text is no size, as a fragment that fits behind the value.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match text.trim().parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("is no size: write one like `512KiB`, `128MiB` or `1GiB`".to_owned()),
    }
}

/// Writes a size so that [`parse_size`] reads the same: `128MiB`, or bytes where no unit divides it.
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// Reads a moment: a date and time (`2026-03-01T12:00:00Z`), or a duration before `now`.
///
/// # Errors
///
/// Says why the text is no moment, as a fragment that fits behind the value.
pub fn parse_moment(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    if let Ok(moment) = text.trim().parse::<Timestamp>() {
        return Ok(UnixMs(moment.as_millisecond()));
    }
    parse_duration(text.trim_end().trim_end_matches(" ago")).map(|ago| now.minus(ago)).map_err(|_| {
        "is no moment: write how long ago, like `30m`, or a time with its zone, like `2026-03-01T12:00:00Z`".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (text, millis, written) in [
            ("30s", 30_000, "30s"),
            ("0", 0, "0s"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("7d", 604_800_000, "7d"),
            ("1 week", 604_800_000, "7d"),
            ("1.5s", 1_500, "1s 500ms"),
            ("24h", 86_400_000, "1d"),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), written);
            assert_eq!(parse_duration(written), Ok(duration));
        }
        for text in ["", "30", "-5s", "1y", "1mo", "soon", "5x", "365001d", "184467441h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for (text, bytes, written) in
            [("128MiB", 128 << 20, "128MiB"), ("1 kB", 1_000, "1000B"), ("4096", 4096, "4KiB"), ("0", 0, "0B")]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(format_size(bytes), written);
            assert_eq!(parse_size(written), Ok(bytes));
        }
        for text in ["", "-1", "many", "5 XiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_times_or_ago() {
        let now = UnixMs(10_000_000);
        assert_eq!(parse_moment("10s", now), Ok(UnixMs(9_990_000)));
        assert_eq!(parse_moment("10s ago", now), Ok(UnixMs(9_990_000)));
        assert_eq!(parse_moment("1970-01-01T00:00:01Z", now), Ok(UnixMs(1_000)));
        assert!(parse_moment("yesterday", now).is_err());
    }
}
