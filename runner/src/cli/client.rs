//! How commands speak to runners that run now: over the socket that each has in the state folder, whose permissions say who may.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::fault::Fault;
use crate::config::Config;

/// How long a runner may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A runner, as its socket names it. It may have ended meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Runner {
    /// Its process.
    pub(super) pid: u32,
    socket: PathBuf,
}

/// What a runner said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What it answered; null where that was nothing.
    pub(super) body: Value,
}

/// Does `work`, which waits for runners.
pub(super) fn waiting<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// Those that may run on the state folder of `config`, or of these the one with that process.
pub(super) fn runners(config: &Config, pid: Option<u32>) -> Vec<Runner> {
    let entries = std::fs::read_dir(config.state_dir.join("admin")).into_iter().flatten().flatten();
    let mut runners: Vec<Runner> = entries.filter_map(|entry| Runner::of(&entry.path())).collect();
    runners.retain(|runner| pid.is_none_or(|pid| runner.pid == pid));
    runners.sort_by_key(|runner| runner.pid);
    runners
}

/// Asks them, and answers what those said that still run, at least one.
pub(super) async fn ask_all(
    config: &Config,
    pid: Option<u32>,
    method: Method,
    path: &str,
) -> Result<Vec<(Runner, Answer)>, Fault> {
    let mut answers = Vec::new();
    for runner in runners(config, pid) {
        if let Some(answer) = runner.ask(method.clone(), path).await? {
            answers.push((runner, answer));
        }
    }
    if answers.is_empty() { Err(none_runs(config, pid)) } else { Ok(answers) }
}

fn none_runs(config: &Config, pid: Option<u32>) -> Fault {
    let which = pid.map_or_else(String::new, |pid| format!(" with process id {pid}"));
    Fault::failed(format!("no runner{which} runs on the state folder `{}`", config.state_dir.display()))
        .with_hint("`state_dir` or the queue names the folder: give this command the configuration that the runner has")
}

// === impl Runner ===

impl Runner {
    /// By the name of its socket: something of its own, `-`, and its process.
    fn of(socket: &Path) -> Option<Runner> {
        let (_, pid) = socket.file_name()?.to_str()?.strip_suffix(".sock")?.rsplit_once('-')?;
        Some(Runner { pid: pid.parse().ok()?, socket: socket.to_owned() })
    }

    /// What it answers; nothing if it does not run any more.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Option<Answer>, Fault> {
        let what = format!("the runner with process id {}", self.pid);
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            // Who was killed leaves the file; and another may have taken it away.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => return Ok(None),
            Err(e) => return Err(anyhow::Error::new(e).context(format!("cannot reach {what}")).into()),
        };
        match tokio::time::timeout(PATIENCE, ask(stream, method, path)).await {
            Ok(answer) => Ok(Some(answer.with_context(|| format!("cannot speak to {what}"))?)),
            Err(_) => Err(Fault::failed(format!("{what} did not answer within {PATIENCE:?}"))),
        }
    }
}

async fn ask(stream: UnixStream, method: Method, path: &str) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer. What goes wrong with it, the answer says.
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost").body(String::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|e| anyhow!(e))?.to_bytes();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
    Ok(Answer { status, body })
}

// === impl Answer ===

impl Answer {
    /// Whether it did what it was asked to.
    pub(super) fn is_good(&self) -> bool {
        self.status.is_success()
    }

    /// The same, with what it says against it as an error.
    pub(super) fn good(self) -> Result<Value, Fault> {
        if self.is_good() {
            return Ok(self.body);
        }
        let error = &self.body["error"];
        let message = error["message"].as_str().map_or_else(|| self.status.to_string(), str::to_owned);
        let fault = Fault::failed(message);
        Err(match error["hint"].as_str() {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_names_its_process_and_other_files_are_none() {
        let of = |name: &str| Runner::of(Path::new(name)).map(|runner| runner.pid);
        assert_eq!(of("/state/admin/0a1b2c3d-4711.sock"), Some(4711));
        for name in ["/state/admin/lock", "/state/admin/x.sock", "/state/admin/a-b.sock", "/state/admin/a-1.socket"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
