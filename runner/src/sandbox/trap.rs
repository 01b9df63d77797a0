//! What an error that came out of a guest's call means: whose fault it is, and what people are told.

use std::fmt::Write;
use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, ResourceTableError};

use super::host::Exceeded;
use super::limits::{Meter, Refused};
use super::lines;
use crate::limits::Limits;
use crate::outcome::{Failure, Kind, MESSAGE_CHARS_MAX, Outcome};

/// The most frames that are kept of a trap.
const FRAMES_MAX: usize = 20;

/// The outcome, and where the guest was.
pub(super) fn outcome(
    error: &wasmtime::Error,
    meter: &Meter,
    limits: &Limits,
    last_words: Option<&str>,
) -> (Outcome, Vec<String>) {
    if let Some(reason) = host_reason(error) {
        return (Outcome::Interrupted { reason: reason.into() }, Vec::new());
    }
    let frames = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    // Only the clock interrupts, and only for this.
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return (timeout(limits), frames);
    }
    let (kind, message) = match limit(error, meter, limits, !frames.is_empty()) {
        Some(limit) => limit,
        None => (Kind::Trap, what(error)),
    };
    let message = if kind == Kind::Trap { told(message, named(&frames), last_words) } else { message };
    (Outcome::Failed(Failure::new(kind, message)), frames)
}

/// An attempt that took too long.
pub(super) fn timeout(limits: &Limits) -> Outcome {
    Outcome::Failed(Failure::new(Kind::Timeout, time(limits.timeout)))
}

/// An answer that is too long.
pub(super) fn too_much(what: &str, size: usize, limits: &Limits) -> Outcome {
    let message = format!("a {what} of {}, of {}", bytes(size as u64), bytes(limits.result_bytes));
    Outcome::Failed(Failure::new(Kind::Limit("result-bytes".into()), message))
}

/// Something that went wrong on our side while a component was loaded.
pub(super) fn host_fault(error: &wasmtime::Error) -> Failure {
    Failure::new(Kind::Error, format!("{error:#}"))
}

/// Cuts what a guest wrote for people.
pub(super) fn cut(text: String) -> String {
    Failure::new(Kind::Error, text).message
}

/// Why it is not the guest's fault, if it is not.
fn host_reason(error: &wasmtime::Error) -> Option<String> {
    if error.is::<PoolConcurrencyLimitError>() {
        return Some(format!("no free sandbox: {error:#}"));
    }
    error.downcast_ref::<std::io::Error>().map(|error| format!("the system failed: {error}"))
}

/// Which limit it ran into, if it did. `in_guest` tells whether guest code was running: an answer is read after it ended.
fn limit(error: &wasmtime::Error, meter: &Meter, limits: &Limits, in_guest: bool) -> Option<(Kind, String)> {
    if let Some(Exceeded(name)) = error.downcast_ref::<Exceeded>() {
        return Some((Kind::Limit((*name).into()), format!("more than {} calls", limits.host_calls)));
    }
    match meter.refused() {
        Some(Refused::Memory { wanted, limit }) => {
            return Some((Kind::OutOfMemory, format!("asked for {} of {}", bytes(wanted), bytes(limit))));
        }
        Some(Refused::TableElements { wanted, limit }) => {
            let message = format!("asked for {wanted} elements of {limit}");
            return Some((Kind::Limit("table-elements".into()), message));
        }
        None => {}
    }
    // The engine has no types for these.
    let text = error.root_cause().to_string();
    if text.contains("handle limit exceeded") || matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Some((Kind::Limit("handles".into()), format!("more than {} handles", limits.handles)));
    }
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        let name = if in_guest { "host-call-bytes" } else { "result-bytes" };
        let message = format!("more than {} in one call", bytes(limits.host_call_bytes));
        return Some((Kind::Limit(name.into()), message));
    }
    None
}

fn what(error: &wasmtime::Error) -> String {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return format!("exit with code {code}");
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "unreachable".to_owned(),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None if error.is::<std::str::Utf8Error>() => "text that is not UTF-8".to_owned(),
        None => error.root_cause().to_string(),
    }
}

fn told(mut message: String, frame: Option<&String>, last_words: Option<&str>) -> String {
    if let Some(frame) = frame {
        write!(message, " at {frame}").expect("writing to a string cannot fail");
    }
    if let Some(words) = last_words {
        message.push_str(": ");
        // Their end is what matters: an exception's message stands below its stack.
        let room = MESSAGE_CHARS_MAX.saturating_sub(message.chars().count());
        message.push_str(lines::tail(words, room));
    }
    message
}

/// The innermost function that has a name: what stands above it is glue.
fn named(frames: &[String]) -> Option<&String> {
    frames.iter().find(|frame| !frame.starts_with("<wasm function")).or(frames.first())
}

/// The engine's own text has the names demangled and the places in the source, if they are known.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let text = backtrace.to_string();
    let mut frames: Vec<String> = Vec::new();
    for line in text.lines().skip(1) {
        let line = line.trim();
        if let Some(place) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                write!(frame, " ({place})").expect("writing to a string cannot fail");
            }
        } else if frames.len() == FRAMES_MAX {
            break;
        } else if let Some((_, name)) = line.split_once("- ") {
            frames.push(name.trim_start_matches("<unknown>!").to_owned());
        }
    }
    frames
}

fn time(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{} s", duration.as_secs()) } else { format!("{duration:?}") }
}

fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const KIB: u64 = 1 << 10;
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else if bytes >= 10 * MIB {
        format!("{:.1} MiB", bytes as f64 / MIB as f64)
    } else if bytes >= KIB {
        format!("{} KiB", bytes.div_ceil(KIB))
    } else {
        format!("{bytes} bytes")
    }
}
