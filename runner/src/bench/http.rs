//! An HTTP call of a guest to a server on loopback, beside the same call from the host over the same client.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tokio_util::sync::CancellationToken;

use super::attempt::{attempt, handler, timed};
use super::{Figure, Session, Subject, Target, median};
use crate::config::{Config, Environment, Flags};
use crate::job::Job;
use crate::manifest::Manifest;
use crate::sandbox::HostCalls;

/// What was promised.
const CALL: Target = Target::AtMost(1.5);

pub(super) fn name(handler: &str) -> String {
    format!("http/{handler}")
}

pub(super) async fn measure(session: &mut Session<'_>, subject: &Subject) -> Result<()> {
    let name = name(&subject.name);
    if !session.wants(&name) {
        return Ok(());
    }
    session.say(&name);
    let server = serve().context("cannot serve on loopback")?;
    let url = format!("http://{server}");
    let config = allowing(session, subject, &url)?;
    // The instance is made once: what one takes by itself is another figure.
    let manifest = format!("instances = {{ reuse = 1000 }}\ngrants.http = [\"{url}\"]");
    let grants = Manifest::parse(&manifest, &subject.name, std::path::Path::new(""), &config)?.grants;
    let handler = Arc::new(handler(session, &config, subject, true, &manifest)?);
    let host = Arc::new(HostCalls::new(&grants, &format!("{url}/")).map_err(|error| anyhow!(error))?);
    let job = Job { body: format!(r#"{{"from":"{server}"}}"#), ..subject.job() };
    let (mut times, mut host_times) = (Vec::new(), Vec::new());
    for _ in 0..session.bench.runs(15, 5) {
        let (handler, host, job) = (Arc::clone(&handler), Arc::clone(&host), job.clone());
        let timed = tokio::task::spawn_blocking(move || -> Result<(f64, f64)> {
            let never = CancellationToken::new();
            let guest = timed(1, &job, &async |job: &Arc<Job>| attempt(&handler, job, &never).await)?;
            let host = timed(1, &job, &async |_: &Arc<Job>| host.call().await.map_err(|error| anyhow!(error)))?;
            Ok((guest, host))
        });
        let (time, host_time) = timed.await.context("the threads that calls are made on broke down")??;
        times.push(time);
        host_times.push(host_time);
    }
    session.report(Figure::new(&name, median(&times), "µs", median(&host_times), CALL));
    Ok(())
}

/// The defaults, and the operator's leave for this URL.
fn allowing(session: &Session<'_>, subject: &Subject, url: &str) -> Result<Config> {
    let allow = ("SANDHOG_HANDLERS__ALLOW".to_owned(), format!("{}: http {url}", subject.name));
    let environment = Environment { variables: [allow].into(), cores: session.bench.cores };
    Ok(Config::resolve(&Flags::default(), &environment, None)?)
}

/// Answers every request, until the process ends; says where.
fn serve() -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Who hangs up has no more questions.
            std::thread::spawn(move || drop(answer(&stream)));
        }
    };
    std::thread::Builder::new().name("bench-server".to_owned()).spawn(accept)?;
    Ok(address)
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer, mut line) = (BufReader::new(stream), stream, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line == b"\r\n" {
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, guest!")?;
        }
        line.clear();
    }
    Ok(())
}
