//! What a guest says: cut into lines, within limits, for the log and for the record of a failed attempt.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{GuestLog, KEPT_LINES_BYTES_MAX, Level, Source};
use crate::job::Job;
use crate::limits::Limits;
use crate::outcome::MESSAGE_CHARS_MAX;
use crate::queue::{AttemptLines, LogLine};

/// How many lines of stderr are remembered as last words.
const LAST_LINES_MAX: usize = 20;

/// The most lines of one message. Each is a line of the runner's log, and takes some microseconds that nobody can interrupt:
/// the jobs beside it wait.
const MESSAGE_LINES_MAX: usize = 1_000;

/// The lines of one attempt.
pub(super) struct Lines {
    job: Option<Arc<Job>>,
    log: Arc<dyn GuestLog>,
    /// When the attempt began.
    begun: Instant,
    kept: Kept,
    line_bytes: usize,
    log_bytes: u64,
    left: u64,
    silent: bool,
    stdout: Partial,
    stderr: Partial,
    last_of_stderr: VecDeque<String>,
    last_error: Option<String>,
}

/// The last lines, for the job's record.
#[derive(Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    cut: bool,
}

/// A line whose end has not come yet.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Its length so far, of which `bytes` is the beginning.
    length: usize,
}

// === impl Lines ===

impl Lines {
    /// Of an attempt at `job` that began at `begun`.
    pub(super) fn new(job: Option<Arc<Job>>, log: Arc<dyn GuestLog>, begun: Instant, limits: &Limits) -> Lines {
        Lines {
            job,
            log,
            begun,
            kept: Kept::default(),
            line_bytes: limits.log_line_bytes,
            log_bytes: limits.log_bytes,
            left: limits.log_bytes,
            silent: false,
            stdout: Partial::default(),
            stderr: Partial::default(),
            last_of_stderr: VecDeque::new(),
            last_error: None,
        }
    }

    /// Takes a message of the contract's `log`, which may be of several lines.
    pub(super) fn message(&mut self, level: Level, message: &str) {
        if level == Level::Error {
            // Whole, since a panic's place and its message may stand on two lines.
            let message = message.trim_end();
            self.last_error = Some(head(message, MESSAGE_CHARS_MAX * 4).replace(is_command, "\u{fffd}"));
        }
        if message.is_empty() {
            return self.line(Source::Log, level, "", 0);
        }
        for (number, line) in message.lines().enumerate() {
            // Looked at for each line: a message may be of millions of empty ones, and nobody can interrupt this.
            if self.silent {
                return;
            }
            if number == MESSAGE_LINES_MAX {
                return self.remark(Source::Log, &format!("message cut: over the limit of {MESSAGE_LINES_MAX} lines"));
            }
            self.line(Source::Log, level, head(line, self.line_bytes), line.len());
        }
    }

    /// Takes what was written to stdout or stderr.
    pub(super) fn write(&mut self, source: Source, bytes: &[u8]) {
        // The end of stderr is of interest even after a flood: it may be the guest's last words.
        if self.silent && source == Source::Stdout {
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let line_bytes = self.line_bytes;
            self.partial(source).push(text, line_bytes);
            if ended {
                self.end_line(source);
            }
        }
    }

    /// Ends the lines whose end never came.
    pub(super) fn finish(&mut self) {
        for source in [Source::Stdout, Source::Stderr] {
            if self.partial(source).length > 0 {
                self.end_line(source);
            }
        }
    }

    /// What the guest said last that may explain a failure, at most as long as a failure's message.
    pub(super) fn last_words(&mut self) -> Option<String> {
        let mut words = self.last_error.take().unwrap_or_default();
        for line in self.last_of_stderr.drain(..) {
            if !words.is_empty() {
                words.push('\n');
            }
            words.push_str(&line);
        }
        let words = words.trim();
        (!words.is_empty()).then(|| tail(words, MESSAGE_CHARS_MAX).to_owned())
    }

    /// Says something of ours among the guest's lines.
    pub(super) fn remark(&mut self, source: Source, remark: &str) {
        self.put(source, Level::Warn, remark);
    }

    /// Hands over the last lines; none if there were none.
    pub(super) fn take_kept(&mut self, attempt: u32) -> Option<Box<AttemptLines>> {
        let Kept { lines, cut, .. } = std::mem::take(&mut self.kept);
        (!lines.is_empty()).then(|| Box::new(AttemptLines { attempt, lines: lines.into(), cut }))
    }

    fn put(&mut self, source: Source, level: Level, line: &str) {
        self.log.line(self.job.as_deref(), source, level, line);
        if self.job.is_some() {
            let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.kept.push(LogLine { at_ms, level, source, line: line.to_owned() });
        }
    }

    fn end_line(&mut self, source: Source) {
        let Partial { mut bytes, length } = std::mem::take(self.partial(source));
        if bytes.last() == Some(&b'\r') && bytes.len() == length {
            bytes.pop();
        }
        let level = if source == Source::Stderr { Level::Warn } else { Level::Info };
        // Bytes that are no character, and the half of one that a cut left, become replacement characters.
        self.line(source, level, &String::from_utf8_lossy(&bytes), length);
        // The buffer is kept for the next line.
        bytes.clear();
        self.partial(source).bytes = bytes;
    }

    /// `head` is the beginning of the line, `length` how long all of it is.
    fn line(&mut self, source: Source, level: Level, head: &str, length: usize) {
        let mut line = printable(head);
        if length > self.line_bytes {
            line = Cow::Owned(format!("{line}… (cut: {length} bytes)"));
        }
        if source == Source::Stderr {
            self.remember(&line);
        }
        if self.silent {
            return;
        }
        // An empty line costs something too, or a flood of them would never end.
        let cost = line.len() as u64 + 1;
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                self.put(source, level, &line);
            }
            None => {
                self.silent = true;
                let marker = format!("log cut: over the limit of {} bytes an attempt", self.log_bytes);
                self.remark(source, &marker);
            }
        }
    }

    fn remember(&mut self, line: &str) {
        if self.last_of_stderr.len() == LAST_LINES_MAX {
            self.last_of_stderr.pop_front();
        }
        self.last_of_stderr.push_back(line.to_owned());
    }

    fn partial(&mut self, source: Source) -> &mut Partial {
        if source == Source::Stderr { &mut self.stderr } else { &mut self.stdout }
    }
}

// === impl Kept ===

impl Kept {
    fn push(&mut self, line: LogLine) {
        self.bytes += size(&line);
        self.lines.push_back(line);
        while self.bytes > KEPT_LINES_BYTES_MAX
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes -= size(&first);
            self.cut = true;
        }
    }
}

// === impl Partial ===

impl Partial {
    fn push(&mut self, text: &[u8], line_bytes: usize) {
        let room = line_bytes.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&text[..text.len().min(room)]);
        self.length = self.length.saturating_add(text.len());
    }
}

/// What a line takes where it is kept, more or less: many short ones take more than they say.
fn size(line: &LogLine) -> usize {
    line.line.len() + 32
}

/// The end of a text, at most so many characters.
pub(super) fn tail(text: &str, chars: usize) -> &str {
    match text.char_indices().rev().nth(chars.saturating_sub(1)) {
        Some((at, _)) if chars > 0 => &text[at..],
        Some(_) => "",
        None => text,
    }
}

/// The beginning of a text, at most so many bytes, whole characters.
fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn printable(line: &str) -> Cow<'_, str> {
    if line.contains(is_command) { Cow::Owned(line.replace(is_command, "\u{fffd}")) } else { Cow::Borrowed(line) }
}

/// A terminal obeys control characters, and a guest is not to give it orders.
fn is_command(c: char) -> bool {
    c.is_control() && c != '\t' && c != '\n'
}
