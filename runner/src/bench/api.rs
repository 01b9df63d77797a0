//! Jobs that come in over HTTP, one a request by many clients, and as a stream, beside the least that does the same.

use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::enqueue::lines;
use super::folder::Folder;
use super::runner::Runner;
use super::{Figure, Session, Target, median};
use crate::admin::bare;
use crate::queue::sqlite::bare::BareQueue;

pub(super) const NAMES: [&str; 2] = ["enqueue/http", "enqueue/ndjson"];

/// What was promised.
const HTTP: Target = Target::AtLeast(0.6);
const STREAM: Target = Target::AtLeast(0.6);

/// Connections that each send one job after the other.
const CLIENTS: u64 = 32;

/// How long the runner may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [http, stream] = NAMES;
    if session.wants(http) {
        session.say(http);
        measure_one_by_one(session, http).await?;
    }
    if session.wants(stream) {
        session.say(stream);
        measure_stream(session, stream).await?;
    }
    Ok(())
}

/// A job a request, each answered when it is durable.
async fn measure_one_by_one(session: &mut Session<'_>, name: &str) -> Result<()> {
    let subject = session.bench.built_in().clone();
    let (runs, jobs) = (session.bench.runs(3, 1), session.bench.sized(100_000, 20_000));
    let (mut rates, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let folder = session.folder.inside()?;
        let (runner, address) = start(&folder).await?;
        rates.push(clients(address, "/v1/jobs", &subject.body, jobs).await?);
        runner.stop().await?;
        let queue = BareQueue::new(&folder.path().join("bare.db"))?;
        let bare = bare::serve(queue, subject.name.clone()).context("cannot serve on loopback")?;
        limits.push(clients(bare, "/", &subject.body, jobs).await?);
    }
    session.report(Figure::new(name, median(&rates), "jobs/s", median(&limits), HTTP));
    Ok(())
}

/// A file of jobs, as one request, beside the same file enqueued by a command.
async fn measure_stream(session: &mut Session<'_>, name: &str) -> Result<()> {
    let subject = session.bench.built_in().clone();
    let (runs, jobs) = (session.bench.runs(3, 1), session.bench.sized(200_000, 50_000));
    let text = lines(&subject, jobs);
    let (mut rates, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let folder = session.folder.inside()?;
        let (runner, address) = start(&folder).await?;
        rates.push(stream(address, &text, jobs).await?);
        runner.stop().await?;
        limits.push(super::enqueue::bulk(session, &text, jobs).await?);
    }
    session.report(Figure::new(name, median(&rates), "jobs/s", median(&limits), STREAM));
    Ok(())
}

/// A runner without handlers, and where it listens.
async fn start(folder: &Folder) -> Result<(Runner, SocketAddr)> {
    folder.write("sandhog.toml", b"[admin]\nlisten = \"127.0.0.1:0\"\n")?;
    std::fs::create_dir_all(folder.path().join("handlers")).context("cannot make the handlers' folder")?;
    let (said, saying) = sync_channel(1);
    let hear = move |_: Instant, line: &str| {
        let address = line.split_once("the HTTP API listens on http://").and_then(|(_, rest)| rest.split('"').next());
        if let Some(address) = address {
            // Only the first is waited for.
            said.try_send(address.to_owned()).ok();
        }
    };
    let mut runner = Runner::start_heard(folder.path(), &[], Box::new(hear))?;
    runner.ready().await?;
    let address = saying.recv_timeout(PATIENCE).context("the runner does not say where it listens")?;
    Ok((runner, address.parse().context("the runner listens on no address")?))
}

/// The rate of jobs that many connections send, each waiting for every answer.
async fn clients(address: SocketAddr, path: &str, body: &str, jobs: u64) -> Result<f64> {
    let head = "host: localhost\r\ncontent-type: application/json\r\n";
    let request = format!("POST {path} HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
    let request: std::sync::Arc<[u8]> = request.into_bytes().into();
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let request = std::sync::Arc::clone(&request);
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = Vec::with_capacity(4 << 10);
            for _ in 0..jobs / CLIENTS {
                stream.write_all(&request).await?;
                answer(&mut stream, &mut buffer).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client.context("a client broke down")??;
    }
    Ok((jobs / CLIENTS * CLIENTS) as f64 / begun.elapsed().as_secs_f64())
}

/// Reads one answer, which must be that the job is durable.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the server hung up");
        let Some(head) = buffer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        if !text.starts_with("http/1.1 201") {
            bail!("the server answered {text}");
        }
        let length = text.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        if buffer.len() >= head + 4 + length.unwrap_or(0) {
            return Ok(());
        }
    }
}

/// The rate of jobs that are sent as one stream, whose answers are read meanwhile.
async fn stream(address: SocketAddr, text: &[u8], jobs: u64) -> Result<f64> {
    let stream = TcpStream::connect(address).await?;
    let (mut reader, mut writer) = stream.into_split();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n",
        text.len()
    );
    let begun = Instant::now();
    let write = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(text).await
    };
    let read = async {
        let (mut buffer, mut answered) = (vec![0; 256 << 10], 0);
        loop {
            match reader.read(&mut buffer).await? {
                0 => return std::io::Result::Ok(answered),
                // No other braces are in the answers.
                read => answered += buffer[..read].iter().filter(|byte| **byte == b'}').count() as u64,
            }
        }
    };
    let ((), answered) = tokio::try_join!(write, read)?;
    ensure!(answered == jobs, "{answered} of {jobs} jobs were answered");
    Ok(jobs as f64 / begun.elapsed().as_secs_f64())
}
