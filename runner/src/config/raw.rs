//! A value as it was written, before it means anything.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A string. From the environment and from flags all values are.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A list.
    List(Vec<Raw>),
    /// An empty table.
    Table,
    /// A table in a list.
    Fields(BTreeMap<String, Raw>),
    /// What no setting is, by its TOML name.
    Other(&'static str),
}

/// What is said of a `${` that is not closed.
pub(super) const UNCLOSED: &str = "has a `${` without its `}`";

/// Puts values for `${NAME}` into a text. `$${` stands for `${`.
///
/// # Errors
///
/// What `variable` says, or that the text has no end. Nothing of the text is in it.
pub fn expand(text: &str, mut variable: impl FnMut(&str) -> Result<String, String>) -> Result<String, String> {
    let (mut rest, mut expanded) = (text, String::new());
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or(UNCLOSED)?;
        expanded.push_str(before);
        expanded.push_str(&variable(name)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// What is said of a variable that is not there.
pub(super) fn absent(name: &str) -> String {
    format!("the environment has no variable `{name}` for `${{{name}}}` (a literal `${{` is written `$${{`)")
}

pub(super) fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other("number out of range"), Raw::Integer)
        }
        DeValue::Float(number) => number.as_str().parse().map_or(Raw::Other("number out of range"), Raw::Float),
        DeValue::Boolean(truth) => Raw::Bool(*truth),
        DeValue::Datetime(_) => Raw::Other("date"),
        DeValue::Array(items) => Raw::List(items.iter().map(raw).collect()),
        DeValue::Table(table) if table.is_empty() => Raw::Table,
        DeValue::Table(table) => {
            Raw::Fields(table.iter().map(|(name, value)| (name.get_ref().to_string(), raw(value))).collect())
        }
    }
}

/// A single value as text: numbers and truth values may be written as strings, since `${NAME}` can only stand in one.
pub fn scalar(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text.clone()),
        Raw::Integer(number) => Ok(number.to_string()),
        Raw::Float(number) => Ok(number.to_string()),
        Raw::Bool(truth) => Ok(truth.to_string()),
        Raw::List(_) => Err("is a list, where one value is wanted".to_owned()),
        Raw::Table | Raw::Fields(_) => Err("is a table, where one value is wanted".to_owned()),
        Raw::Other(kind) => Err(format!("is a {kind}, which no setting is")),
    }
}

/// A string, and nothing else.
///
/// # Errors
///
/// A fragment that fits behind the key.
pub fn string(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text.clone()),
        raw => scalar(raw).and_then(|text| Err(format!("`{text}` is no string: put it in quotes"))),
    }
}

pub(super) fn not_empty(text: String) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text) }
}

/// Parses `text`, and puts it in front of what is wrong with it.
pub(super) fn quoted<T>(raw: &Raw, text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    if *raw == Raw::Text(String::new()) {
        return Err("is empty".to_owned());
    }
    parse(text).map_err(|message| format!("`{text}` {message}"))
}
