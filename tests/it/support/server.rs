//! A server on loopback: a little HTTP, and an echo for whoever does not speak it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Serves until the test's process ends.
pub(crate) struct Server {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    seen: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU32,
    requests: AtomicU32,
}

// === impl Server ===

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Counts> = Arc::default();
        let counts = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let counts = Arc::clone(&counts);
                // Whoever hangs up, hangs up.
                std::thread::spawn(move || drop(serve(&stream, &counts)));
            }
        });
        Server { port, seen }
    }

    pub(crate) fn connections(&self) -> u32 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> u32 {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, counts: &Counts) -> std::io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let Some((method, path)) = head.strip_suffix(" HTTP/1.1\r\n").and_then(|head| head.split_once(' ')) else {
            return if head.starts_with("hello") { writer.write_all(head.as_bytes()) } else { Ok(()) };
        };
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let body = body(&mut reader)?;
        let text = if body > 0 { format!("{method} {path} {body}") } else { format!("{method} {path}") };
        let (name, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        match name {
            "silent" => return wait(&mut reader),
            "drip" => return drip(writer),
            "garbage" => return writer.write_all(b"what is it?\r\n\r\n"),
            "cut" => return writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            "redirect" => write!(writer, "HTTP/1.1 302 Found\r\nLocation: {argument}\r\nContent-Length: 0\r\n\r\n")?,
            "big" => answer(writer, &"x".repeat(argument.parse().unwrap_or(0)))?,
            _ => answer(writer, &text)?,
        }
    }
}

/// Reads the rest of a request, and answers how long its body is.
fn body(reader: &mut impl BufRead) -> std::io::Result<usize> {
    let (mut is_chunked, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        is_chunked |= line == "transfer-encoding: chunked";
        length = line.strip_prefix("content-length: ").and_then(|length| length.parse().ok()).unwrap_or(length);
        if line.is_empty() {
            break;
        }
    }
    if !is_chunked {
        std::io::copy(&mut reader.take(length as u64), &mut std::io::sink())?;
        return Ok(length);
    }
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        std::io::copy(&mut reader.take(length + 2), &mut std::io::sink())?;
        total += usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(total);
        }
    }
}

fn answer(mut writer: &TcpStream, text: &str) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// Says nothing until the other side hangs up.
fn wait(reader: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(reader, &mut std::io::sink()).map(drop)
}

/// A byte a second, for as long as somebody listens.
fn drip(mut writer: &TcpStream) -> std::io::Result<()> {
    let (_clock, tick): (_, Receiver<()>) = channel();
    writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
    loop {
        writer.write_all(b"x")?;
        // Nothing ever comes: it is the time that matters.
        assert!(tick.recv_timeout(Duration::from_secs(1)).is_err());
    }
}
