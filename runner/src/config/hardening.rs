//! The settings of what a runner's process gives up at its start: `[hardening]`.

use std::path::PathBuf;

use super::settings::{Origin, Settings};

/// What a runner's process gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardeningConfig {
    /// Files that it has no business with.
    pub landlock: Wanted,
    /// System calls that it has no business with.
    pub seccomp: Wanted,
    /// Files and folders that it may read beyond what follows from the rest of the configuration.
    pub read: Vec<PathBuf>,
    /// The same, to be written.
    pub write: Vec<PathBuf>,
}

/// Whether something is wanted that a kernel may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Where the kernel has it.
    Auto,
    /// Without it the runner does not start.
    Require,
    /// Not at all.
    Off,
}

const WANTED: [(&str, Wanted); 3] = [("auto", Wanted::Auto), ("require", Wanted::Require), ("off", Wanted::Off)];

/// Reads a list of paths; in an environment variable they stand with commas between.
fn read_paths(settings: &mut Settings, key: &'static str) -> Vec<PathBuf> {
    let mut texts = settings.texts(key, Vec::new());
    if let Some(origin @ Origin::Variable(_)) = settings.origin(key).cloned() {
        texts = texts.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect();
        settings.show(key, format!("{texts:?}"), origin);
    }
    texts.into_iter().map(PathBuf::from).collect()
}

// === impl HardeningConfig ===

impl HardeningConfig {
    /// Reads `[hardening]`.
    pub(super) fn read(settings: &mut Settings) -> HardeningConfig {
        HardeningConfig {
            landlock: settings.choice("hardening.landlock", &WANTED),
            seccomp: settings.choice("hardening.seccomp", &WANTED),
            read: read_paths(settings, "hardening.read"),
            write: read_paths(settings, "hardening.write"),
        }
    }
}
