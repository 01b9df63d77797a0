//! What a handler may do beyond computing, as `[grants]` in its manifest says. What does not stand there is denied.
//!
//! `docs/sandbox.md` says who must be trusted with what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::settings::{self, Origin, Raw, Settings};
use crate::job;

mod address;
mod allow;
mod destination;

pub use address::{is_public, may_lead_to};
pub use allow::Allow;
pub use destination::{Host, HttpGrant, Paths, Scheme, TcpGrant};

/// What one handler may do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grants {
    /// Where it may send HTTP requests.
    pub http: Vec<HttpGrant>,
    /// Where it may open TCP connections.
    pub tcp: Vec<TcpGrant>,
    /// What it reads through `wasi:config`.
    pub config: BTreeMap<String, Secret>,
    /// Its environment.
    pub env: BTreeMap<String, Secret>,
    /// Folders that it may read: what it calls them, and where they are.
    pub read: BTreeMap<String, Folder>,
    /// Folders that it may read and write.
    pub write: BTreeMap<String, Folder>,
    /// Whether it has a small store of its own.
    pub state: bool,
    /// The job types that it may enqueue.
    pub enqueue: Vec<String>,
}

/// A folder, and what the operator says of it. Whether that is enough shows when it is opened: a link may lead elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// In which folders it may be.
    pub allowed: Vec<PathBuf>,
    /// The handler's name.
    pub handler: String,
}

/// A text that nobody is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

// === impl Grants ===

impl Grants {
    /// Reads `[grants]` of the manifest of `handler`, which lies in the folder `beside`; of it the operator allowed `allow`.
    pub(crate) fn read(settings: &mut Settings, handler: &str, beside: &Path, allow: &Allow) -> Grants {
        let http = settings.list("grants.http", HttpGrant::read);
        for grant in http.iter().filter(|grant| !allow.http(handler, grant)) {
            refuse(settings, "grants.http", handler, &format!("http {grant}"), &grant.to_string());
        }
        let tcp = settings.list("grants.tcp", TcpGrant::read);
        for grant in tcp.iter().filter(|grant| !allow.tcp(handler, grant)) {
            refuse(settings, "grants.tcp", handler, &format!("tcp {grant}"), &grant.to_string());
        }
        let folder = |write: bool| {
            let allowed: Vec<PathBuf> = allow.folders(handler, write).map(Path::to_path_buf).collect();
            move |name: &str, raw: &Raw| {
                let path = beside.join(folder(name, raw)?);
                Ok(Folder { path, allowed: allowed.clone(), handler: handler.to_owned() })
            }
        };
        let grants = Grants {
            http,
            tcp,
            config: read_values(settings, "grants.config", handler, allow),
            env: read_values(settings, "grants.env", handler, allow),
            read: settings.entries("grants.read", folder(false)),
            write: settings.entries("grants.write", folder(true)),
            state: settings.truth("grants.state", false),
            enqueue: settings.texts("grants.enqueue", Vec::new()),
        };
        grants.check(settings);
        grants
    }

    /// Whether a server that HTTP is granted to may have an address that is not public; none if it is not granted.
    pub fn may_be_private(&self, scheme: Scheme, host: &Host, port: u16) -> Option<bool> {
        let grants = self.http.iter().filter(|grant| grant.leads_to(scheme, host, port));
        grants.map(|grant| grant.private).max()
    }

    /// What is granted, a line each, for people. Values are not in it.
    pub fn lines(&self) -> Vec<String> {
        let folders = |what: &str, folders: &BTreeMap<String, Folder>| {
            folders
                .iter()
                .map(|(name, folder)| format!("{what} {name} = {}", folder.path.display()))
                .collect::<Vec<_>>()
        };
        let mut lines: Vec<String> = self.http.iter().map(|grant| format!("http {grant}")).collect();
        lines.extend(self.tcp.iter().map(|grant| format!("tcp {grant}")));
        lines.extend(self.config.keys().map(|name| format!("config {name}")));
        lines.extend(self.env.keys().map(|name| format!("env {name}")));
        lines.extend(folders("read", &self.read));
        lines.extend(folders("write", &self.write));
        lines.extend(self.state.then(|| "state".to_owned()));
        lines.extend(self.enqueue.iter().map(|job_type| format!("enqueue {job_type}")));
        lines
    }

    fn check(&self, settings: &mut Settings) {
        for name in self.env.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            let origin = settings.origin(&format!("grants.env.{name}")).cloned();
            settings.fault(Some("grants.env"), origin, format!("{name:?} cannot be a variable's name"), None);
        }
        for job_type in &self.enqueue {
            if let Some(fault) = job::name_fault(job_type) {
                let origin = settings.origin("grants.enqueue").cloned();
                let message = format!("{job_type:?} cannot be a job type: it {fault}");
                settings.fault(Some("grants.enqueue"), origin, message, None);
            }
        }
        for path in self.read.keys().filter(|path| self.write.contains_key(*path)) {
            let origin = settings.origin(&format!("grants.read.{path}")).cloned();
            let message = format!("`{path}` stands in `grants.write` too, which grants both");
            settings.fault(Some("grants.read"), origin, message, None);
        }
    }
}

/// Notes that the operator did not allow a grant, with the line that would.
fn refuse(settings: &mut Settings, key: &'static str, handler: &str, line: &str, what: &str) {
    let origin = settings.origin(key).cloned().unwrap_or(Origin::Default);
    settings.fault(
        Some(key),
        Some(origin),
        format!("`{what}` is not allowed by the operator"),
        Some(hint(handler, line)),
    );
}

/// What the operator would have to write.
pub(crate) fn hint(handler: &str, line: &str) -> String {
    format!("to allow it, put {:?} into `allow` of `[handlers]` in the configuration", format!("{handler}: {line}"))
}

/// Reads texts in which `${NAME}` stands for a variable of the runner's environment that the operator allowed.
fn read_values(settings: &mut Settings, key: &'static str, handler: &str, allow: &Allow) -> BTreeMap<String, Secret> {
    let mut refused = Vec::new();
    let values = settings.entries(key, |name, raw| {
        let text = settings::scalar(raw)?;
        let expanded = settings::expand(&text, |variable| match allow.variable(handler, variable) {
            Some(Some(value)) => Ok(value.expose().to_owned()),
            Some(None) => Err(format!("needs the variable `{variable}`, which the runner's environment does not have")),
            None => {
                refused.push((name.to_owned(), variable.to_owned()));
                Ok(String::new())
            }
        });
        expanded.and_then(|value| match value.contains('\0') {
            false => Ok(Secret(value)),
            true => Err("has a NUL in it".to_owned()),
        })
    });
    for (name, variable) in refused {
        let key = format!("{key}.{name}");
        let origin = settings.origin(&key).cloned();
        let message = format!("may not take in `${{{variable}}}`: it is not allowed by the operator");
        settings.fault(Some(&key), origin, message, Some(hint(handler, &format!("variable {variable}"))));
    }
    values
}

/// A folder, by the path that the guest calls it.
fn folder(name: &str, raw: &Raw) -> Result<PathBuf, String> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let inner = name.strip_prefix('/').ok_or_else(|| format!("{name:?} is no absolute path, as `/assets` is one"))?;
    if name.contains('\0') || !(inner.is_empty() || inner.split('/').all(is_plain)) {
        return Err(format!("{name:?} has parts that are empty, `.` or `..`"));
    }
    let path = settings::string(raw)?;
    if path.is_empty() || path.contains('\0') { Err("names no folder".to_owned()) } else { Ok(path.into()) }
}

// === impl Secret ===

impl Secret {
    /// A text that nobody is shown.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text itself: for the guest, and for nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment, Flags};
    use crate::manifest::Manifest;

    fn parse(manifest: &str, allow: &str) -> Result<Grants, String> {
        let variables = [("TOKEN".to_owned(), "xyzzy".to_owned())].into();
        let text = format!("[handlers]\nallow = [{allow}]");
        let environment = Environment { variables, cores: 2 };
        let file = (Path::new("sandhog.toml"), text.as_str());
        let config = Config::resolve(&Flags::default(), &environment, Some(file)).unwrap();
        Manifest::parse(manifest, "resize", Path::new("/h"), &config)
            .map(|manifest| manifest.grants)
            .map_err(|faults| faults.to_string())
    }

    #[track_caller]
    fn check(manifest: &str, allow: &str, fault: &str) {
        assert_eq!(parse(manifest, allow).expect_err(manifest), fault);
    }

    #[test]
    fn values_take_in_what_the_operator_allowed_and_are_shown_nowhere() {
        let grants = parse(r#"grants.env = { A = "x-${TOKEN}", B = "$${TOKEN}", C = 7 }"#, "'resize: variable TOKEN'");
        let grants = grants.unwrap();
        let values: Vec<_> = grants.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(values, [("A", "x-xyzzy"), ("B", "${TOKEN}"), ("C", "7")]);
        assert!(!format!("{grants:?}{:?}", grants.lines()).contains("xyzzy"));
        check(
            "grants.env = { A = '${TOKEN}' }",
            "'crop: variable TOKEN'",
            "resize.toml:1: `grants.env.A` may not take in `${TOKEN}`: it is not allowed by the operator \
             (to allow it, put \"resize: variable TOKEN\" into `allow` of `[handlers]` in the configuration)",
        );
        check(
            "grants.env.A = '${GONE}'",
            "'resize: variable GONE'",
            "resize.toml:1: `grants.env.A` needs the variable `GONE`, which the runner's environment does not have",
        );
        let fault = parse("grants.env.A = 'hunter2${'", "").unwrap_err();
        assert_eq!(fault, "resize.toml:1: `grants.env.A` has a `${` without its `}`");
    }

    #[test]
    fn unknown_grant_is_refused_with_the_nearest_name() {
        let fault = "resize.toml:2: `grants.htp` is unknown (did you mean `grants.http`?)";
        check("[grants]\nhtp = ['https://a.b']", "", fault);
    }
}
