//! How things look: tables, times, sizes, JSON. What comes from guests and enqueuers has no power over the terminal.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::clock::UnixMs;
use crate::telemetry::visible;

/// Text without control characters, in one line: each becomes `�`, and what breaks or indents a line a space.
pub(super) fn plain(text: &str) -> String {
    let text = text.trim_end();
    // An id is nearly always such, and a file can have millions.
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    text.chars().map(visible).collect()
}

/// The same, with its lines kept.
pub(super) fn plain_lines(text: &str) -> String {
    text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// The same, cut to a cell.
pub(super) fn plain_cut(text: &str, chars_max: usize) -> String {
    let mut text = plain(text);
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Says something on stderr. Nobody is left to be told if that fails.
pub(super) fn note(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Writes a value as a line of JSON. Control characters are escaped, those too that JSON allows.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = String::new();
    for c in serde_json::to_string(value)?.chars() {
        if c.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    writeln!(out, "{line}")
}

/// Writes a table without lines.
pub(super) fn write_table(out: &mut dyn Write, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header.iter().map(Cell::new));
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes pairs of a name and a value.
pub(super) fn write_pairs(out: &mut dyn Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, value) in pairs {
        let indented = value.replace('\n', &format!("\n{}", " ".repeat(width)));
        writeln!(out, "{name:width$}{indented}")?;
    }
    Ok(())
}

/// A moment, seen from `now`: `12s ago`, `in 5m`.
pub(super) fn relative(moment: UnixMs, now: UnixMs) -> String {
    match (now.since(moment), moment.since(now)) {
        (Duration::ZERO, to_come) if !to_come.is_zero() => format!("in {}", rough(to_come)),
        (ago, _) => format!("{} ago", rough(ago)),
    }
}

/// A moment in full, in local time, and seen from `now`.
pub(super) fn moment(moment: UnixMs, now: UnixMs) -> String {
    match Timestamp::from_millisecond(moment.0) {
        Ok(timestamp) => {
            let local = timestamp.to_zoned(TimeZone::system());
            format!("{} ({})", local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"), relative(moment, now))
        }
        // No time that a clock can show.
        Err(_) => format!("{} ms", moment.0),
    }
}

/// The two largest units of a duration: `3h 12m`, `45s`.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| match b {
        0 => format!("{a}{unit_a}"),
        b => format!("{a}{unit_a} {b}{unit_b}"),
    };
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "m")
    } else if minutes > 0 {
        two(minutes, "m", seconds % 60, "s")
    } else {
        format!("{seconds}s")
    }
}

/// How long something took: `45 µs`, `12.3 ms`, `1.20 s`, `3m 5s`.
pub(super) fn took(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.2} s", duration.as_secs_f64()),
        _ => rough(duration),
    }
}

/// A size: `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_has_no_power_over_the_terminal() {
        assert_eq!(plain("a\x1b[31m\u{9b}b\u{202e}c\nd\t\r\n"), "a�[31m�b�c d");
        assert_eq!(plain_lines("a\x07\nb\n"), "a�\nb");
        assert_eq!(plain_cut("abcd", 3), "abc…");
        let mut line = Vec::new();
        write_json(&mut line, &"a\x1b\u{9b}\x7f").expect("writes to memory");
        assert_eq!(String::from_utf8(line).expect("text"), "\"a\\u001b\\u009b\\u007f\"\n");
    }

    #[test]
    fn times_are_relative_and_rough() {
        let now = UnixMs(1_000_000_000);
        assert_eq!(relative(UnixMs(now.0 - 12_000), now), "12s ago");
        assert_eq!(relative(UnixMs(now.0 + 3_600_000 * 3), now), "in 3h");
        assert_eq!(took(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(took(Duration::from_secs(185)), "3m 5s");
    }
}
