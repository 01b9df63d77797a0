//! The runner's log: what it says of itself, and what guests say.

//!
//! Logs go to stderr, as text on a terminal and as JSON elsewhere. Bodies of jobs, values from the environment and secrets
//! are never logged.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

// replaced at merge
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
        subscriber.with_ansi(io::stderr().is_terminal()).try_init().ok();
    }
    Ok(())
}
