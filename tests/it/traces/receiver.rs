//! A receiver of spans in a process of its own, and what it got.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use crate::support::project;

/// The OpenTelemetry Collector's receiver. It ends with this value.
pub(crate) struct Receiver {
    pub(crate) endpoint: String,
    pub(crate) port: u16,
    child: Child,
    got: Arc<Mutex<Vec<Value>>>,
}

/// A span that came.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) json: Value,
}

// === impl Receiver ===

impl Receiver {
    /// None where it cannot be had, which is said.
    pub(crate) fn start() -> Option<Receiver> {
        // Nobody else is given it before long.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Receiver::at(port)
    }

    /// The same on this port.
    pub(crate) fn at(port: u16) -> Option<Receiver> {
        let program = built()?;
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(program);
        child.arg(&address).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().expect("it was built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        let got: Arc<Mutex<Vec<Value>>> = Arc::default();
        let to = Arc::clone(&got);
        std::thread::spawn(move || {
            for line in lines {
                to.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Receiver { endpoint: format!("http://{address}"), port, child, got })
    }

    /// All that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|export| export["resourceSpans"].as_array().into_iter().flatten());
        let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten());
        scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()).map(Span::of).collect()
    }

    /// What the sender of the first calls itself.
    pub(crate) fn service(&self) -> String {
        let got = self.got.lock().unwrap();
        attribute(&got[0]["resourceSpans"][0]["resource"], "service.name")["stringValue"].as_str().unwrap().to_owned()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program, which is built if it is not there.
fn built() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let output = Command::new(project("tools/otel/receiver")).output().expect("the script is there");
        if output.status.success() {
            return Some(String::from_utf8(output.stdout).unwrap().trim().into());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        // Not by a macro, whose output the test runner would keep to itself.
        writeln!(std::io::stderr(), "NOT TESTED: traces ({})", why.trim()).expect("there is a standard error");
        None
    };
    BUILT.get_or_init(build).as_ref()
}

// === impl Span ===

impl Span {
    fn of(json: &Value) -> Span {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        Span {
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            kind: json["kind"].as_u64().unwrap_or_default(),
            json: json.clone(),
        }
    }

    /// An attribute that is a text.
    pub(crate) fn text(&self, name: &str) -> &str {
        attribute(&self.json, name)["stringValue"].as_str().unwrap_or_default()
    }

    /// An attribute that is a number.
    pub(crate) fn number(&self, name: &str) -> i64 {
        attribute(&self.json, name)["intValue"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// 0: nothing is said; 1: good; 2: an error.
    pub(crate) fn status(&self) -> u64 {
        self.json["status"]["code"].as_u64().unwrap_or(0)
    }
}

fn attribute<'a>(of: &'a Value, name: &str) -> &'a Value {
    let attributes = of["attributes"].as_array().into_iter().flatten();
    attributes
        .map(|pair| (pair["key"].as_str(), &pair["value"]))
        .find(|(key, _)| *key == Some(name))
        .map_or(&Value::Null, |(_, value)| value)
}
