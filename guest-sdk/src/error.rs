//! Why an attempt failed, for people.

use std::fmt;

/// A failed attempt, with a message for people.
///
/// `?` makes one of any [`std::error::Error`], with the errors that caused it: `cannot parse the body: EOF while parsing`.
/// Where there is no error to begin with, [`Error::msg`] and [`bail!`](crate::bail) make one of a text.
///
/// The message stands in the job's dead letter. It is cut at 1,000 characters there.
pub struct Error {
    message: String,
}

/// Leaves the handler with an [`Error`]: `bail!("no such customer: {id}")`.
#[macro_export]
macro_rules! bail {
    ($($text:tt)+) => {
        return ::core::result::Result::Err($crate::Error::msg(::core::format_args!($($text)+)))
    };
}

// === impl Error ===

impl Error {
    /// An error of a text.
    pub fn msg(message: impl fmt::Display) -> Error {
        Error { message: message.to_string() }
    }

    /// The same with what was tried in front: `what: message`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Error {
        Error { message: format!("{what}: {}", self.message) }
    }

    /// The whole message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole message, for the runner.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_message(self) -> String {
        self.message
    }
}

/// Of any error and its causes. (That is why this type cannot be a [`std::error::Error`] itself.)
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let text = next.to_string();
            // Some errors have their cause in their own text already.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = next.source();
        }
        Error { message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The message as it is, so that an `unwrap` in a test is readable.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
