//! The runner's log: what it says of itself, and what guests say.
//!
//! Logs go to stderr, as text on a terminal and as JSON elsewhere. Bodies of jobs, values from the environment and secrets
//! are never logged.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::generation::Generation;
use crate::job::Job;
use crate::sandbox::{GuestLog, Level, Source};
use crate::traces::Context;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `filter` is a level, or a list of `target=level`.
///
/// # Errors
///
/// Says what is wrong with `filter`.
pub fn init(format: Format, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let json = match format {
        Format::Auto => !io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    // A second call, which only a test can make, leaves the first one's log.
    if json {
        subscriber.json().flatten_event(true).with_current_span(false).try_init().ok();
    } else {
        let fields = debug_fn(write_field).delimited(" ");
        subscriber.with_ansi(io::stderr().is_terminal()).fmt_fields(fields).try_init().ok();
    }
    Ok(())
}

/// A character as a terminal or a line of text may have it. Names of files, messages of guests and what enqueuers wrote are
/// not to give a terminal orders, nor to look like a line of ours.
pub(crate) fn visible(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        // Characters that turn the direction of writing can make text look like another.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Writes a field as the library does, but for what a value could do to a terminal or to the lines of a text.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    struct Visible<'a, 'b>(&'a mut Writer<'b>);
    impl Write for Visible<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            text.chars().try_for_each(|c| self.0.write_char(visible(c)))
        }
    }
    match field.name() {
        "message" => {}
        // Where another library's line came from, which the line says already.
        name if name.starts_with("log.") => return Ok(()),
        name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(writer, "{name}=")?,
    }
    write!(Visible(writer), "{value:?}")
}

/// Writes a guest's lines to the log, under target `guest`, with the job beside them.
#[derive(Debug)]
pub struct HandlerLog {
    generation: Generation,
}

// === impl HandlerLog ===

impl HandlerLog {
    /// For the guests of one generation.
    pub fn new(generation: Generation) -> HandlerLog {
        HandlerLog { generation }
    }
}

impl GuestLog for HandlerLog {
    fn line(&self, job: Option<&Job>, source: Source, level: Level, line: &str) {
        let span = job.and_then(|job| Context::of(&job.metadata));
        // The level of an event is part of its call site, hence one for each.
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "guest",
                    tracing::Level::$level,
                    job.id = job.map(|job| display(&job.id)), job.type = job.map(|job| display(&job.job_type)),
                    attempt = job.map(|job| job.attempt),
                    trace_id = span.map(|span| display(span.trace_id())), span_id = span.map(|span| display(span.span_id())),
                    handler.generation = %self.generation, source = source.as_str(),
                    "{line}"
                )
            };
        }
        match level {
            Level::Trace => event!(TRACE),
            Level::Debug => event!(DEBUG),
            Level::Info => event!(INFO),
            Level::Warn => event!(WARN),
            Level::Error => event!(ERROR),
        }
    }
}
