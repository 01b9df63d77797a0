//! What the operator lets manifests ask for: `allow` of `[handlers]` in the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::settings::{Origin, Settings};
use crate::grants::{HttpGrant, Secret, TcpGrant};

/// What the operator allows. Whoever can write the handlers' folder must not thereby have what the runner has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allow {
    lines: Vec<Line>,
    /// Those variables of the runner's environment that a line names, as far as they are set.
    variables: BTreeMap<String, Secret>,
}

/// One line: `HANDLER: WHAT`.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// The handler's name; none for all handlers.
    handler: Option<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Http(HttpGrant),
    Tcp(TcpGrant),
    Read(PathBuf),
    Write(PathBuf),
    Variable(String),
}

// === impl Allow ===

impl Allow {
    /// Reads the lines; in an environment variable they stand with commas between. `variables` is the runner's environment.
    pub(crate) fn read(settings: &mut Settings, variables: &BTreeMap<String, String>) -> Allow {
        const KEY: &str = "handlers.allow";
        let texts = settings.texts(KEY, Vec::new());
        let origin = settings.origin(KEY).cloned();
        let texts: Vec<String> = match origin {
            Some(Origin::File { .. }) => texts,
            _ => texts.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect(),
        };
        let mut allow = Allow::default();
        for text in texts {
            match Line::parse(&text) {
                Ok(line) => allow.lines.push(line),
                Err(fault) => settings.fault(Some(KEY), origin.clone(), fault, None),
            }
        }
        let named = |name: &&String| allow.lines.iter().any(|line| line.what == What::Variable((*name).clone()));
        let found: Vec<&String> = variables.keys().filter(named).collect();
        allow.variables = found.into_iter().map(|name| (name.clone(), Secret::new(variables[name].clone()))).collect();
        allow
    }

    /// Whether a handler may be granted this.
    pub fn http(&self, handler: &str, grant: &HttpGrant) -> bool {
        self.of(handler).any(|what| matches!(what, What::Http(line) if line.includes(grant)))
    }

    /// Whether a handler may be granted this.
    pub fn tcp(&self, handler: &str, grant: &TcpGrant) -> bool {
        self.of(handler).any(|what| matches!(what, What::Tcp(line) if line.includes(grant)))
    }

    /// A variable of the runner's environment, if a handler may have it: its value, if it is set.
    pub fn variable(&self, handler: &str, name: &str) -> Option<Option<&Secret>> {
        let allowed = self.of(handler).any(|what| matches!(what, What::Variable(line) if line == name));
        allowed.then(|| self.variables.get(name))
    }

    /// The folders that a handler may read, or write; what may be written may be read. Those below are meant too.
    pub fn folders(&self, handler: &str, write: bool) -> impl Iterator<Item = &Path> {
        self.of(handler).filter_map(move |what| match what {
            What::Write(path) => Some(path.as_path()),
            What::Read(path) if !write => Some(path.as_path()),
            _ => None,
        })
    }

    /// All folders that handlers may read, and those that they may write.
    pub fn all_folders(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for line in &self.lines {
            match &line.what {
                What::Read(path) => read.push(path.clone()),
                What::Write(path) => write.push(path.clone()),
                What::Http(_) | What::Tcp(_) | What::Variable(_) => {}
            }
        }
        (read, write)
    }

    fn of(&self, handler: &str) -> impl Iterator<Item = &What> {
        let is_of = move |line: &&Line| line.handler.as_deref().is_none_or(|of| of == handler);
        self.lines.iter().filter(is_of).map(|line| &line.what)
    }
}

// === impl Line ===

impl Line {
    fn parse(text: &str) -> Result<Line, String> {
        let form = || "is not `HANDLER: WHAT VALUE`, where WHAT is `http`, `tcp`, `read`, `write` or `variable`";
        let split = text.split_once(": ").and_then(|(handler, rest)| {
            let (what, value) = rest.trim().split_once(' ')?;
            Some((handler.trim(), what, value.trim()))
                .filter(|(handler, _, value)| !handler.is_empty() && !value.is_empty())
        });
        let (handler, what, value) = split.ok_or_else(|| format!("{} {}", shown(text), form()))?;
        let (destination, private) = value.strip_suffix(" private").map_or((value, false), |rest| (rest.trim(), true));
        let what = match what {
            "http" => HttpGrant::parse(destination).map(|grant| What::Http(HttpGrant { private, ..grant })),
            "tcp" => TcpGrant::parse(destination).map(|grant| What::Tcp(TcpGrant { private, ..grant })),
            "read" => Ok(What::Read(value.into())),
            "write" => Ok(What::Write(value.into())),
            "variable" => Ok(What::Variable(value.to_owned())),
            _ => Err(form().to_owned()),
        };
        let handler = (handler != "*").then(|| handler.to_owned());
        what.map(|what| Line { handler, what }).map_err(|fault| format!("{} {fault}", shown(text)))
    }
}

/// A line as it may be shown: what stands before an `@` might be a password.
fn shown(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| format!("`{text}`"), |(_, rest)| format!("`…@{rest}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, Flags};

    fn allow(lines: &str, variables: &[(&str, &str)]) -> Result<Allow, Vec<String>> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment { variables, cores: 2 };
        let text = format!("[handlers]\nallow = [{lines}]");
        match Config::resolve(&Flags::default(), &environment, Some((Path::new("sandhog.toml"), &text))) {
            Ok(config) => Ok(config.handlers.allow),
            Err(faults) => Err(faults.0.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn line_allows_its_handler_what_it_names_and_what_is_within() {
        let allow =
            allow("'resize: http https://a.b/v1/*', '*: tcp db.internal:5432 private', 'resize: write /srv'", &[]);
        let allow = allow.unwrap();
        let http = |url| HttpGrant::parse(url).unwrap();
        assert!(allow.http("resize", &http("https://a.b/v1/x")));
        assert!(!allow.http("resize", &http("https://a.b")) && !allow.http("crop", &http("https://a.b/v1/x")));
        let tcp = TcpGrant::parse("db.internal:5432").unwrap();
        assert!(allow.tcp("crop", &tcp) && allow.tcp("crop", &TcpGrant { private: true, ..tcp }));
        assert!(!allow.tcp("crop", &TcpGrant::parse("db.internal:5433").unwrap()));
        assert_eq!(allow.folders("resize", false).collect::<Vec<_>>(), [Path::new("/srv")]);
        assert_eq!(allow.folders("crop", false).count(), 0);
    }

    #[test]
    fn variable_is_had_by_whom_a_line_names_and_by_nobody_else() {
        let allow =
            allow("'resize: variable TOKEN', 'resize: variable GONE'", &[("TOKEN", "xyzzy"), ("HOME", "/root")]);
        let allow = allow.unwrap();
        assert_eq!(allow.variable("resize", "TOKEN"), Some(Some(&Secret::new("xyzzy".to_owned()))));
        assert_eq!(allow.variable("resize", "GONE"), Some(None));
        assert_eq!(allow.variable("resize", "HOME"), None);
        assert_eq!(allow.variable("crop", "TOKEN"), None);
        let shown = format!("{allow:?}");
        assert!(!shown.contains("xyzzy") && !shown.contains("/root"), "{shown}");
    }

    #[test]
    fn lines_in_a_variable_have_commas_between() {
        let lines = "resize: variable TOKEN, crop: read /srv";
        let allow = allow("", &[("SANDHOG_HANDLERS__ALLOW", lines), ("TOKEN", "xyzzy")]).unwrap();
        assert!(allow.variable("resize", "TOKEN").is_some() && allow.folders("crop", false).count() == 1);
    }

    #[test]
    fn line_that_means_nothing_is_refused() {
        let form = "is not `HANDLER: WHAT VALUE`, where WHAT is `http`, `tcp`, `read`, `write` or `variable`";
        for line in ["resize", "resize: http", "resize http https://a.b", ": read /srv", "resize: env A"] {
            let fault = format!("sandhog.toml:2: `handlers.allow`: `{line}` {form}");
            assert_eq!(allow(&format!("'{line}'"), &[]), Err(vec![fault]));
        }
        let faults = allow("'resize: http https://me:secret@a.b'", &[]).unwrap_err();
        assert_eq!(faults, ["sandhog.toml:2: `handlers.allow`: `…@a.b` has user information in it"]);
    }
}
