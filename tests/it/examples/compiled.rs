//! The examples in Go and C: built as a user builds them, and run by a real runner.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use serde_json::json;

use crate::languages::{copy_over, sandhog};
use crate::support::{TestRunner, project};

/// Builds an example, in a folder beside; none where its language's tools are missing, which is said.
fn built(example: &str, language: &str) -> Option<PathBuf> {
    let folder = project("target/examples").join(example);
    copy_over(&project("examples").join(example), &folder);
    let output = sandhog(&folder).args(["build", "."]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("missing: ") {
        println!("NOT TESTED: {language}: the tools are missing for `examples/{example}`");
        return None;
    }
    // A grant that the operator must allow is not allowed here: it is built all the same.
    let component = folder.join(format!("{example}.wasm"));
    assert!(component.is_file(), "{example}: {said}");
    Some(component)
}

fn put(runner: &TestRunner, component: &PathBuf) {
    let name = component.file_name().unwrap().to_str().unwrap();
    runner.put(name, &std::fs::read(component).unwrap());
}

// === poll-go ===

/// A service that gives one answer after the other, and says where.
fn service(answers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for ((head, body), stream) in answers.iter().zip(listener.incoming().map_while(Result::ok)) {
            answer(&stream, head, body).unwrap();
        }
    });
    format!("http://127.0.0.1:{port}/")
}

fn answer(mut stream: &TcpStream, head: &str, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut asked = String::new();
    while !asked.ends_with("\r\n\r\n") {
        reader.read_line(&mut asked)?;
    }
    write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn poll_in_go_asks_until_the_service_is_done_and_its_faults_are_failures() {
    let Some(component) = built("poll-go", "Go") else { return };
    let at = service(&[
        ("200 OK", r#"{"state":"queued"}"#),
        ("200 OK\r\nRetry-After: 0", r#"{"state":"running"}"#),
        ("503 Busy", "later"),
        ("200 OK", r#"{"state":"finished","result":{"pages":12}}"#),
        ("404 Gone", "what?"),
        ("200 OK", r#"{"state":"failed","error":"no paper"}"#),
    ]);
    let runner = TestRunner::new().config(&format!("[handlers]\nallow = [\"poll-go: http {at}\"]\n")).manifest(
        "poll-go",
        &format!("[grants]\nhttp = ['{at}']\n[retry]\nmax_failures = 10\nbackoff = {{ first = '10ms' }}\n"),
    );
    put(&runner, &component);
    let runner = runner.start();
    let job = json!({ "url": format!("{at}reports/7"), "every_seconds": 0 }).to_string();

    let done = runner.ended(&runner.enqueue("poll-go", &job));
    assert_eq!(done.result, Some(json!({ "polls": 3, "result": { "pages": 12 } })), "{done:?}");
    assert_eq!((done.retries_requested, done.failures), (2, 1), "to ask again is no failure, an answer of 503 is one");
    for why in ["the service does not know it", "it failed: no paper"] {
        let ended = runner.ended(&runner.enqueue("poll-go", &job));
        assert_eq!((ended.kind(), ended.why()), ("rejected", why));
    }
}

// === checksum ===

#[test]
fn checksum_in_c_is_that_of_the_file_and_of_nothing_beside_its_folder() {
    let Some(component) = built("checksum", "C") else { return };
    let runner = TestRunner::new();
    std::fs::create_dir(runner.handler_path("in")).unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    std::fs::write(runner.handler_path("in/data.bin"), &bytes).unwrap();
    let folder = runner.handler_path("in").canonicalize().unwrap();
    let manifest = std::fs::read_to_string(project("examples/checksum/checksum.toml")).unwrap();
    let runner = runner
        .config(&format!("[handlers]\nallow = [\"checksum: read {}\"]\n", folder.display()))
        .manifest("checksum", &manifest);
    put(&runner, &component);
    let runner = runner.start();

    let sum = |body: &str| runner.ended(&runner.enqueue("checksum", body));
    assert_eq!(sum(r#"{"text":"123456789"}"#).result, Some(json!({ "crc32": "cbf43926", "bytes": 9 })));
    let expected = json!({ "crc32": format!("{:08x}", crc32(&bytes)), "bytes": bytes.len() });
    assert_eq!(sum(r#"{"file":"/in/data.bin"}"#).result, Some(expected));
    for file in ["/in/none", "/in/../../sandhog.toml", "/etc/hostname"] {
        let ended = sum(&json!({ "file": file }).to_string());
        assert_eq!((ended.kind(), ended.why()), ("rejected", format!("there is no `{file}`").as_str()));
    }
}

/// Bit by bit, unlike the handler.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
