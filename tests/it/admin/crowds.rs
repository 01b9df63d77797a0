//! Very many clients, slow ones, and what is no HTTP: others are answered, and jobs go on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ask, obeying};
use crate::eventually;
use crate::support::Api;

/// How long a health check may take, on a machine that runs other tests beside it; what was promised is 100 ms.
const HEALTHY: Duration = Duration::from_secs(2);

/// Lets this process open many connections.
fn many_files() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
}

/// The longest of some health checks, each by a connection of its own.
#[track_caller]
fn assert_healthy(api: &Api) {
    let longest = (0..20).map(|_| {
        let begun = Instant::now();
        assert_eq!(api.get("/healthz").status, 200);
        begun.elapsed()
    });
    let longest = longest.max().unwrap();
    eprintln!("the longest health check took {longest:?}");
    assert!(longest < HEALTHY, "{longest:?}");
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    many_files();
    let (_runner, api) = obeying();
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        idle.push(TcpStream::connect(api.address).expect("it may open as many"));
    }
    assert_healthy(&api);
    let id = api.enqueue(&ask("complete"));
    assert_eq!(api.ended(&id)["state"], "completed");
    // Those that had to go were told so.
    let mut first = &idle[0];
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn clients_that_send_their_heads_byte_by_byte_keep_nobody_out() {
    crowd_that_sends([&b"GET /v1/jobs HTTP/1.1\r\n"[..], b"host: loc", b"alhost\r\nx: "]);
}

#[test]
fn clients_that_send_their_bodies_byte_by_byte_keep_nobody_out() {
    let head =
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    crowd_that_sends([head.as_bytes(), b"\"job", b"_type"]);
}

/// Hundreds of clients that send so much of a request, a piece at a time, and never its end: others are answered and served.
fn crowd_that_sends(pieces: [&[u8]; 3]) {
    let (_runner, api) = obeying();
    let mut slow: Vec<TcpStream> = (0..600).map(|_| TcpStream::connect(api.address).unwrap()).collect();
    for bytes in pieces {
        for stream in &mut slow {
            // It may have been cut off.
            stream.write_all(bytes).ok();
        }
        assert_healthy(&api);
    }
    let id = api.enqueue(&ask("complete"));
    assert_eq!(api.ended(&id)["state"], "completed");
}

#[test]
fn half_closed_connection_gets_its_answer() {
    let (_runner, api) = obeying();
    let mut connection = api.connect();
    connection.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    connection.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.answer().unwrap().status, 200);
    let mut rest = connection.stream();
    assert_eq!(rest.read(&mut [0]).unwrap_or(0), 0, "and then it is closed");
}

#[test]
fn body_of_a_gibibyte_is_refused_before_it_comes() {
    let (_runner, api) = obeying();
    let mut connection = api.connect();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        1 << 30
    );
    connection.write(head.as_bytes()).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.code()), (413, "body-too-large".to_owned()));
    // One that does not say so is cut off where it is over the limit.
    let mut connection = api.connect();
    connection.write(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let piece = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let sent = (0..1024).take_while(|_| connection.write(piece.as_bytes()).is_ok()).count();
    assert!(sent < 100, "{sent} MiB were taken");
    assert_healthy(&api);
}

#[test]
fn what_is_no_http_is_refused_and_hurts_nobody() {
    let (_runner, api) = obeying();
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost localhost\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT evil.example:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://evil.example/v1/jobs HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut connection = api.connect();
        connection.write(bytes).unwrap();
        connection.stream().shutdown(Shutdown::Write).unwrap();
        // No answer is one too.
        let status = connection.answer().map_or(400, |answer| answer.status);
        assert!((400..600).contains(&status), "{}: {status}", String::from_utf8_lossy(bytes));
    }
    for (headers, length) in [(200, 10), (10, 10_000)] {
        let mut connection = api.connect();
        let lines: String = (0..headers).map(|n| format!("x-{n}: {}\r\n", "x".repeat(length))).collect();
        connection.write(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n").as_bytes()).unwrap();
        let status = connection.answer().map_or(431, |answer| answer.status);
        assert_eq!(status, 431);
    }
    assert_healthy(&api);
    eventually!(api.get("/readyz").status == 200);
}
