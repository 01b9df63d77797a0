//! Why a command did not do what it was asked to, and how that is said.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::terminal::{self, plain};
use crate::config::ConfigErrors;
use crate::queue::QueueError;
use crate::sandbox::LoadError;

/// Why a command ended before it was done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The command line makes no sense.
    Usage {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The configuration makes none.
    Config(ConfigErrors),
    /// It failed.
    Failed {
        /// Why.
        error: anyhow::Error,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It failed, and the output says why already.
    Said,
    /// Whoever read the output has gone away, which is no failure: `sandhog jobs | head`.
    Closed,
}

// === impl Fault ===

impl Fault {
    /// A command line that makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Fault {
        Fault::Usage { message: message.into(), hint: None }
    }

    /// A failure with nothing behind it.
    pub(super) fn failed(message: impl fmt::Display) -> Fault {
        Fault::Failed { error: anyhow::anyhow!("{message}"), hint: None }
    }

    /// The same with what to do about it.
    pub(super) fn with_hint(self, advice: impl Into<String>) -> Fault {
        let hint = Some(advice.into());
        match self {
            Fault::Usage { message, .. } => Fault::Usage { message, hint },
            Fault::Failed { error, .. } => Fault::Failed { error, hint },
            other => other,
        }
    }

    /// Says on stderr what is wrong, and answers the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Fault::Usage { message, hint } => {
                say("error", &message);
                say_hint(hint.as_deref());
                ExitCode::from(2)
            }
            Fault::Config(faults) => {
                for fault in &faults.0 {
                    say("error", &fault.to_string());
                    say_hint(fault.hint.as_deref());
                }
                ExitCode::from(2)
            }
            Fault::Failed { error, hint } => {
                say("error", &error.to_string());
                for cause in error.chain().skip(1) {
                    say("caused by", &cause.to_string());
                }
                say_hint(hint.as_deref());
                ExitCode::FAILURE
            }
            Fault::Said => ExitCode::FAILURE,
            Fault::Closed => ExitCode::SUCCESS,
        }
    }
}

fn say(label: &str, text: &str) {
    terminal::note(format_args!("{label}: {}", plain(text)));
}

fn say_hint(hint: Option<&str>) {
    if let Some(hint) = hint {
        say("hint", hint);
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        let of_queue = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<QueueError>()?.hint.clone();
        let of_file = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<LoadError>()?.hint();
        let hint = error.chain().find_map(|cause| of_queue(cause).or_else(|| of_file(cause)));
        Fault::Failed { error, hint }
    }
}

impl From<QueueError> for Fault {
    fn from(error: QueueError) -> Fault {
        anyhow::Error::new(error).into()
    }
}

impl From<ConfigErrors> for Fault {
    fn from(errors: ConfigErrors) -> Fault {
        Fault::Config(errors)
    }
}

/// Only what is written to stdout fails without a context.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::Closed,
            _ => anyhow::Error::new(error).context("cannot write to stdout").into(),
        }
    }
}
