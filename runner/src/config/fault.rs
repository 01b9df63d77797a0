//! What is wrong with a configuration or a manifest, and how that is said.

use std::fmt;

use super::settings::Origin;

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The key, if it is one's.
    pub key: Option<String>,
    /// Where it stands.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All that is wrong with a configuration or a manifest: at least one fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults(pub Vec<Fault>);

// === impl Fault ===

impl Fault {
    /// The fault and its hint, in one line.
    pub fn with_hint(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &self.key {
            // A value in front of the message is set off from the key.
            Some(key) if self.message.starts_with('`') => write!(f, "`{key}`: {}", self.message),
            Some(key) => write!(f, "`{key}` {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

// === impl Faults ===

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Fault::with_hint).collect::<Vec<_>>().join("; "))
    }
}

impl std::error::Error for Faults {}
