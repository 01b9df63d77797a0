//! Reaches for whatever it is told to. It takes the raw WASI interfaces, since a language's library would refuse some of it
//! before the host sees it.
//!
//! `{"steps": [{"get": "http://…"}, {"read": "/assets/a"}]}` answers a text for each step, `ok: …` or `err: …`.
#![cfg(target_arch = "wasm32")]

use sandhog_guest::prelude::*;
use serde::Deserialize;

mod files;
mod http;
mod sockets;

#[derive(Deserialize)]
struct Body {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    /// Its environment.
    Env,
    /// The folders that it has.
    Folders,
    /// Reads a file: the folder's name, and the path in it.
    Read(String, String),
    /// Writes a file: the folder, the path, the text.
    Write(String, String, String),
    /// Empties a file that it opens for reading.
    Truncate(String, String),
    /// Makes a hard link: from a folder and a path to a folder and a path.
    Link(String, String, String, String),
    /// Makes a symbolic link in a folder: what it says, and its path.
    Symlink(String, String, String),
    /// Moves a file: from a folder and a path to a folder and a path.
    Rename(String, String, String, String),
    /// Sends a GET: scheme, authority, path.
    Get(String, String, String),
    /// The same so many times, and answers the last.
    GetTimes(u32, String, String, String),
    /// Sends a POST with so many bytes: authority, bytes.
    Post(String, u64),
    /// The addresses of a name.
    Resolve(String),
    /// Connects to an address and a port, sends a line, and answers what comes.
    Connect(String, u16),
    /// Resolves a name, and connects to its first address.
    ConnectTo(String, u16),
    /// Listens on a port.
    Listen(u16),
    /// Makes a socket for UDP.
    Udp,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let body: Body = job.parse()?;
    let said = body.steps.into_iter().map(|step| match step.done() {
        Ok(text) => format!("ok: {text}"),
        Err(text) => format!("err: {text}"),
    });
    Outcome::complete(&said.collect::<Vec<_>>())
}

sandhog_guest::handler!(handle);

// === impl Step ===

impl Step {
    fn done(self) -> Result<String, String> {
        match self {
            Step::Env => Ok(format!("{:?}", wasip2::cli::environment::get_environment())),
            Step::Folders => Ok(files::names().join(" ")),
            Step::Read(folder, path) => files::read(&folder, &path),
            Step::Write(folder, path, text) => files::write(&folder, &path, &text),
            Step::Truncate(folder, path) => files::truncate(&folder, &path),
            Step::Link(folder, path, to, new) => files::link(&folder, &path, &to, &new),
            Step::Symlink(folder, says, path) => files::symlink(&folder, &says, &path),
            Step::Rename(folder, path, to, new) => files::rename(&folder, &path, &to, &new),
            Step::Get(scheme, authority, path) => http::get(&scheme, &authority, &path),
            Step::GetTimes(times, scheme, authority, path) => {
                (1..times).for_each(|_| drop(http::get(&scheme, &authority, &path)));
                http::get(&scheme, &authority, &path)
            }
            Step::Post(authority, bytes) => http::post(&authority, bytes),
            Step::Resolve(name) => Ok(format!("{:?}", sockets::resolve(&name)?)),
            Step::Connect(address, port) => sockets::connect(sockets::parse(&address)?, port),
            Step::ConnectTo(name, port) => {
                let address = *sockets::resolve(&name)?.first().ok_or("no address")?;
                sockets::connect(address, port)
            }
            Step::Listen(port) => sockets::listen(port),
            Step::Udp => sockets::udp(),
        }
    }
}
