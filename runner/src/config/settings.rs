//! Settings as they were written, before they mean anything: read key by key, each with where it came from.
//!
//! The configuration and the manifests are both read through [`Settings`]. A fault ends nothing: it is noted, the default
//! stands in, and reading goes on, so that all faults are known at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::quantity;
use super::raw::{UNCLOSED, absent, not_empty, quoted, raw};

pub use super::fault::{Fault, Faults};
pub use super::raw::{Raw, expand, scalar, string};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file, as it was named.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A flag, by name.
    Flag(&'static str),
}

/// A setting that has a value, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The key's whole path, with dots.
    pub key: &'static str,
    /// The value, written as the file would.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// What was written, and what of it has been read.
#[derive(Debug, Default)]
pub struct Settings {
    given: BTreeMap<String, (Raw, Origin)>,
    variables: BTreeMap<String, String>,
    effective: Vec<Effective>,
    /// Keys below which every name is allowed.
    maps: Vec<&'static str>,
    faults: Vec<Fault>,
}

// === impl Settings ===

impl Settings {
    /// Settings in which `${NAME}` in a file's strings stands for one of `variables`.
    pub fn new(variables: BTreeMap<String, String>) -> Settings {
        Settings { variables, ..Settings::default() }
    }

    /// Adds what a TOML file says. Nothing of it, if it is no TOML.
    pub fn add_file(&mut self, path: &str, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        for error in &errors {
            let origin = error.span().map(|span| Origin::File { path: path.to_owned(), line: line(span.start) });
            self.fault(None, origin, format!("not TOML: {}", error.message().trim().replace('\n', ", ")), None);
        }
        if errors.is_empty() {
            self.flatten("", table.get_ref(), &|at| Origin::File { path: path.to_owned(), line: line(at) });
        }
    }

    /// Adds one value, over an earlier one of the same key.
    pub fn add(&mut self, key: &str, value: String, origin: Origin) {
        self.given.insert(key.to_owned(), (Raw::Text(value), origin));
    }

    /// Where the key's value came from, if it has one.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.given.get(key).map(|(_, origin)| origin)
    }

    /// Notes a fault.
    pub fn fault(&mut self, key: Option<&str>, origin: Option<Origin>, message: String, hint: Option<String>) {
        self.faults.push(Fault { key: key.map(str::to_owned), origin, message, hint });
    }

    /// Notes a fault of a key whose value was read, unless `holds`.
    pub fn require(&mut self, key: &'static str, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            // A value that could not even be read has its fault already; its default is not to blame.
            if self.faults.iter().any(|fault| fault.key.as_deref() == Some(key)) {
                return;
            }
            let origin = self.origin(key).cloned().unwrap_or(Origin::Default);
            self.fault(Some(key), Some(origin), message(), None);
        }
    }

    /// Refuses a key, and all below it, that has a meaning but not in this version.
    pub fn refuse(&mut self, key: &str, message: &str) {
        let below = format!("{key}.");
        let found = self.given.iter().find(|(name, _)| *name == key || name.starts_with(&below));
        if let Some((_, (_, origin))) = found {
            let origin = origin.clone();
            self.given.retain(|name, _| name != key && !name.starts_with(&below));
            self.fault(Some(key), Some(origin), message.to_owned(), None);
        }
    }

    /// Reads a key by `parse`, whose error is a fragment that fits behind the key.
    pub fn read<T: Clone>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let (found, origin) = match self.given.get(key) {
            None => (Ok(default.clone()), Origin::Default),
            Some((raw, origin)) => (self.expand(raw, origin).and_then(|raw| parse(&raw)), origin.clone()),
        };
        let value = found.unwrap_or_else(|message| {
            self.fault(Some(key), Some(origin.clone()), message, None);
            default
        });
        self.effective.push(Effective { key, value: show(&value), origin });
        value
    }

    /// Reads a duration.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let parse = |raw: &Raw| quoted(raw, &scalar(raw)?, quantity::parse_duration);
        self.read(key, default, parse, |value| quantity::format_duration(*value))
    }

    /// Reads a size in bytes.
    pub fn size(&mut self, key: &'static str, default: u64) -> u64 {
        let parse = |raw: &Raw| quoted(raw, &scalar(raw)?, quantity::parse_size);
        self.read(key, default, parse, |value| quantity::format_size(*value))
    }

    /// Reads a whole number that is not negative.
    pub fn whole(&mut self, key: &'static str, default: u32) -> u32 {
        let parse = |raw: &Raw| {
            quoted(raw, &scalar(raw)?, |text| {
                text.trim().parse().map_err(|_| format!("is no whole number from 0 to {}", u32::MAX))
            })
        };
        self.read(key, default, parse, u32::to_string)
    }

    /// Reads a number.
    pub fn number(&mut self, key: &'static str, default: f64) -> f64 {
        let parse = |raw: &Raw| {
            quoted(raw, &scalar(raw)?, |text| match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err("is no number".to_owned()),
            })
        };
        self.read(key, default, parse, f64::to_string)
    }

    /// Reads a truth value.
    pub fn truth(&mut self, key: &'static str, default: bool) -> bool {
        let parse = |raw: &Raw| {
            quoted(raw, &scalar(raw)?, |text| match text.trim() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err("is neither `true` nor `false`".to_owned()),
            })
        };
        self.read(key, default, parse, bool::to_string)
    }

    /// Reads a string that is not empty.
    pub fn text(&mut self, key: &'static str, default: String) -> String {
        self.read(key, default, |raw| not_empty(string(raw)?), String::clone)
    }

    /// Reads a string that may be left out.
    pub fn text_if_any(&mut self, key: &'static str) -> Option<String> {
        let parse = |raw: &Raw| Ok(Some(not_empty(string(raw)?)?));
        self.read(key, None, parse, |value| value.clone().unwrap_or_default())
    }

    /// Reads one of some words, of which the first is the default.
    pub fn choice<T: Copy + PartialEq>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> T {
        let parse = |raw: &Raw| {
            let chosen = choices.iter().find(|(word, _)| matches!(raw, Raw::Text(text) if text == word));
            chosen.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
                let (last, others) = words.split_last().expect("there is a default");
                format!("is none of {} and {last}", others.join(", "))
            })
        };
        let show = |value: &T| {
            let (word, _) = choices.iter().find(|(_, choice)| choice == value).expect("it is one of them");
            (*word).to_owned()
        };
        self.read(key, choices[0].1, parse, show)
    }

    /// Reads a list of strings. One string is a list of one.
    pub fn texts(&mut self, key: &'static str, default: Vec<String>) -> Vec<String> {
        let parse = |raw: &Raw| match raw {
            Raw::List(items) => items.iter().map(string).collect(),
            raw => Ok(vec![string(raw)?]),
        };
        self.read(key, default, parse, |value| format!("{value:?}"))
    }

    /// Reads a table of names and values that are somebody else's. In the environment: `NAME=VALUE`, with commas between.
    /// Values whose name `is_shown` does not take are secret.
    pub fn map(&mut self, key: &'static str, is_shown: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        self.maps.push(key);
        let below = format!("{key}.");
        let names: Vec<String> =
            self.given.keys().filter_map(|name| name.strip_prefix(&below)).map(str::to_owned).collect();
        let mut map = BTreeMap::new();
        let mut origin = self.origin(key).cloned();
        for name in names {
            let (raw, from) = &self.given[&format!("{below}{name}")];
            let (from, value) = (from.clone(), self.expand(raw, from).and_then(|raw| scalar(&raw)));
            match value {
                Ok(value) => drop(map.insert(name, value)),
                Err(message) => self.fault(Some(&format!("{below}{name}")), Some(from.clone()), message, None),
            }
            origin = origin.or(Some(from));
        }
        if let Some((Raw::Text(text), from)) = self.given.get(key) {
            let from = from.clone();
            match text.split(',').map(|pair| pair.trim().split_once('=')).collect::<Option<Vec<_>>>() {
                Some(pairs) => map = pairs.into_iter().map(|(n, v)| (n.trim().into(), v.trim().into())).collect(),
                None => {
                    self.fault(Some(key), Some(from), "is no list of `NAME=VALUE` with commas between".into(), None)
                }
            }
        }
        let show = |(name, value): (&String, &String)| match is_shown(name) {
            true => format!("{name}={value}"),
            false => format!("{name}=***"),
        };
        let value = map.iter().map(show).collect::<Vec<_>>().join(",");
        self.effective.push(Effective { key, value, origin: origin.unwrap_or(Origin::Default) });
        map
    }

    /// Reads a list by `parse`, whose error is a fragment that fits behind the key. One value is a list of one.
    pub fn list<T>(&mut self, key: &'static str, parse: impl Fn(&Raw) -> Result<T, String>) -> Vec<T> {
        let (raw, origin) = self.given.get(key).cloned().unwrap_or((Raw::List(Vec::new()), Origin::Default));
        let items = if let Raw::List(items) = raw { items } else { vec![raw] };
        self.effective.push(Effective { key, value: format!("{} of them", items.len()), origin: origin.clone() });
        let mut list = Vec::new();
        for item in items {
            match parse(&item) {
                Ok(item) => list.push(item),
                Err(message) => self.fault(Some(key), Some(origin.clone()), message, None),
            }
        }
        list
    }

    /// Reads a table of names that are somebody else's by `parse`, whose error is a fragment that fits behind the name's key.
    /// The values are not shown.
    pub fn entries<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&str, &Raw) -> Result<T, String>,
    ) -> BTreeMap<String, T> {
        self.maps.push(key);
        let below = format!("{key}.");
        let given: Vec<_> = self.given.iter().filter(|(name, _)| name.starts_with(&below)).collect();
        let given: Vec<_> =
            given.into_iter().map(|(name, (raw, from))| (name.clone(), raw.clone(), from.clone())).collect();
        let origin = given.first().map_or(Origin::Default, |(_, _, origin)| origin.clone());
        let mut entries = BTreeMap::new();
        for (name, raw, origin) in given {
            match parse(&name[below.len()..], &raw) {
                Ok(entry) => drop(entries.insert(name[below.len()..].to_owned(), entry)),
                Err(message) => self.fault(Some(&name), Some(origin), message, None),
            }
        }
        self.effective.push(Effective { key, value: format!("{} of them", entries.len()), origin });
        entries
    }

    /// Reads `KEY.NAME.PART` for all names, as tables in a table are written; answers each with where it came from. What else
    /// stands below `key` is a fault.
    pub fn parts_of_tables(&mut self, key: &'static str, part: &'static str) -> BTreeMap<String, (String, Origin)> {
        self.maps.push(key);
        let (below, behind) = (format!("{key}."), format!(".{part}"));
        let mut parts = BTreeMap::new();
        for (name, (raw, origin)) in self.given.clone() {
            let Some(rest) = name.strip_prefix(&below) else { continue };
            let Some(table) = rest.strip_suffix(&behind) else {
                let message = format!("is unknown: in a table of `{key}` stands `{part}`");
                self.fault(Some(&name), Some(origin), message, None);
                continue;
            };
            match self.expand(&raw, &origin).and_then(|raw| not_empty(string(&raw)?)) {
                Ok(value) => drop(parts.insert(table.to_owned(), (value, origin))),
                Err(message) => self.fault(Some(&name), Some(origin), message, None),
            }
        }
        parts
    }

    /// Says what is in effect for a key that was read, where more than its own value decides.
    pub fn show(&mut self, key: &'static str, value: String, origin: Origin) {
        let read = self.effective.iter_mut().find(|effective| effective.key == key);
        *read.expect("it was read") = Effective { key, value, origin };
    }

    /// Ends reading: everything that was set must have been read.
    ///
    /// # Errors
    ///
    /// All faults that were noted, in the order of the file.
    pub fn finish(mut self) -> Result<Vec<Effective>, Faults> {
        self.note_unknown();
        self.faults.sort_by(|a, b| a.origin.cmp(&b.origin));
        if self.faults.is_empty() { Ok(self.effective) } else { Err(Faults(self.faults)) }
    }

    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => self.flatten(&format!("{key}."), inner, origin),
                _ => drop(self.given.insert(key, (raw(value), origin(name.span().start)))),
            }
        }
    }

    /// Puts the environment's values for `${NAME}` into what a file says. `$${` stands for `${`.
    fn expand(&self, raw: &Raw, origin: &Origin) -> Result<Raw, String> {
        match raw {
            Raw::Text(text) if matches!(origin, Origin::File { .. }) => self.expand_text(text).map(Raw::Text),
            Raw::List(items) => {
                items.iter().map(|item| self.expand(item, origin)).collect::<Result<_, _>>().map(Raw::List)
            }
            raw => Ok(raw.clone()),
        }
    }

    fn expand_text(&self, text: &str) -> Result<String, String> {
        let variable = |name: &str| self.variables.get(name).cloned().ok_or_else(|| absent(name));
        expand(text, variable).map_err(|fault| if fault == UNCLOSED { format!("`{text}` {fault}") } else { fault })
    }

    fn note_unknown(&mut self) {
        let known: Vec<&'static str> = self.effective.iter().map(|effective| effective.key).collect();
        for (key, (raw, origin)) in &self.given {
            if known.contains(&key.as_str()) || self.maps.iter().any(|map| is_below(key, map)) {
                continue;
            }
            let is_table = known.iter().any(|known| is_below(known, key));
            let value = known.iter().find(|known| is_below(key, known));
            let (message, hint) = match value {
                _ if is_table && *raw == Raw::Table => continue,
                _ if is_table => ("is a table of settings and has no value of its own".to_owned(), None),
                Some(value) => (format!("is unknown: `{value}` is a value and no table"), None),
                None => ("is unknown".to_owned(), nearest(key, &known).map(|name| format!("did you mean `{name}`?"))),
            };
            self.faults.push(Fault { key: Some(key.clone()), origin: Some(origin.clone()), message, hint });
        }
    }
}

/// Whether `key` is of the table `table`, or of one in it.
fn is_below(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Whoever forgets the table, or takes the wrong one, still has the last part right.
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let closeness = |candidate: &&str| {
        let whole = strsim::jaro_winkler(name, candidate);
        if last(name) == last(candidate) { whole.max(0.9) } else { whole }
    };
    // Of equals the first: `limits` stands before `ceilings`.
    let best = known.iter().rev().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))?;
    (closeness(best) > 0.8).then_some(*best)
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
