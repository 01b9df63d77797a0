//! What the configuration is made of beside the file: flags and the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::settings::{Origin, Settings};

/// What was given on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--queue`
    pub queue: Option<String>,
    /// `--handlers`
    pub handlers: Option<String>,
    /// `--drain-timeout`
    pub drain_timeout: Option<String>,
}

/// What the configuration depends on beside the file and the flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The environment's variables.
    pub variables: BTreeMap<String, String>,
    /// Cores of the machine that this process may use.
    pub cores: u32,
}

/// The variable that sets a key: `queue.keep_completed.age` is `SANDHOG_QUEUE__KEEP_COMPLETED__AGE`.
pub fn variable_name(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

const VARIABLE_PREFIX: &str = "SANDHOG_";

/// Short names for what is set most.
const SHORT_VARIABLES: [(&str, &str); 2] = [("SANDHOG_QUEUE", "queue.url"), ("SANDHOG_HANDLERS", "handlers.dir")];

/// A container platform sets variables named after its services, in our name if one is called `sandhog`.
const FOREIGN_VARIABLES: [&str; 2] = ["SANDHOG_SERVICE_", "SANDHOG_PORT"];

// === impl Flags ===

impl Flags {
    pub(super) fn add_to(&self, settings: &mut Settings) {
        let mut add = |key, value: &Option<String>, flag| {
            if let Some(value) = value {
                settings.add(key, value.clone(), Origin::Flag(flag));
            }
        };
        add("queue.url", &self.queue, "--queue");
        add("handlers.dir", &self.handlers, "--handlers");
        add("drain_timeout", &self.drain_timeout, "--drain-timeout");
    }
}

// === impl Environment ===

impl Environment {
    /// This process's own. A variable that is not UTF-8 is as good as absent.
    pub fn of_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        Environment { variables: std::env::vars_os().filter_map(text).collect(), cores }
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn add_to(&self, settings: &mut Settings) {
        for name in self.variables.keys().filter(|name| name.starts_with(VARIABLE_PREFIX)) {
            let Some(value) = self.get(name) else { continue };
            let foreign = FOREIGN_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
            if name == "SANDHOG_CONFIG" || foreign {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            let short = SHORT_VARIABLES.iter().find(|(short, _)| short == name);
            let key = match short {
                Some((_, key)) => (*key).to_owned(),
                None => name[VARIABLE_PREFIX.len()..].to_lowercase().replace("__", "."),
            };
            if matches!(settings.origin(&key), Some(Origin::Variable(_))) {
                let message = "is set by two variables, its short and its long name".to_owned();
                settings.fault(Some(&key), Some(origin), message, Some(format!("unset `{}`", variable_name(&key))));
            } else {
                settings.add(&key, value.to_owned(), origin);
            }
        }
        super::traces::add_standard(&self.variables, settings);
    }
}
