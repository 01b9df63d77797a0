//! Streams of jobs: each line is answered, and what is answered is there.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{ask, obeying};
use crate::eventually;
use crate::support::{Api, TestRunner};

const STREAM: (&str, &str) = ("content-type", "application/x-ndjson");

#[test]
fn each_line_is_answered_and_a_bad_one_holds_up_no_other() {
    let (runner, api) = obeying();
    let lines = [ask("complete"), "oops".to_owned(), String::new(), ask("reject"), r#"{"job_type":7}"#.to_owned()];
    let answer = api.send("POST", "/v1/jobs", &[STREAM], &lines.join("\n"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let answers = answer.lines();
    let of: Vec<(u64, bool)> =
        answers.iter().map(|line| (line["line"].as_u64().unwrap(), line.get("id").is_some())).collect();
    assert_eq!(of, [(1, true), (2, false), (4, true), (5, false)]);
    assert_eq!(answers[1]["error"]["code"], "job-refused");
    assert_eq!(runner.jobs(&[]).len(), 2);
}

#[test]
fn long_stream_is_added_whole_and_quiet_one_says_only_how_many() {
    let runner = TestRunner::new().start();
    let api = Api::of(&runner);
    let job = |n: u32| json!({"job_type": "later", "job_id": n.to_string(), "fill": "x".repeat(500)}).to_string();
    let lines: Vec<String> = (0..20_000).map(job).collect();
    let answer = api.send("POST", "/v1/jobs?quiet=true", &[STREAM], &lines.join("\n"));
    assert_eq!(answer.json(), json!({"enqueued": 20_000, "duplicates": 0, "refused": 0}));
    let again = api.send("POST", "/v1/jobs?quiet=true", &[STREAM], &format!("{}\nno\n", lines[..10].join("\n")));
    let again = again.lines();
    assert_eq!(again[0]["line"], 11);
    assert_eq!(again[1], json!({"enqueued": 0, "duplicates": 10, "refused": 1}));
}

/// A stream that is read while it is written.
struct Uploading {
    connection: crate::support::Connection,
    bytes: Vec<u8>,
}

impl Uploading {
    fn begin(api: &Api) -> Uploading {
        let mut connection = api.connect();
        let head = "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.write(head.as_bytes()).unwrap();
        Uploading { connection, bytes: Vec::new() }
    }

    fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.connection.write(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }

    /// What is acknowledged next, or nothing when it broke off.
    fn acknowledged(&mut self) -> Option<Vec<String>> {
        let piece = self.connection.piece().ok().flatten()?;
        self.bytes.extend(piece);
        let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.bytes.drain(..end).collect();
        let lines = std::str::from_utf8(&whole).unwrap().lines();
        Some(
            lines
                .filter_map(|line| Some(serde_json::from_str::<Value>(line).unwrap()["id"].as_str()?.to_owned()))
                .collect(),
        )
    }
}

fn line(n: u32) -> String {
    format!("{}\n", json!({"job_type": "later", "n": n}))
}

/// How often each job is there, by its number.
fn counted(runner: &TestRunner) -> HashMap<String, u32> {
    let mut counted = HashMap::new();
    for job in runner.jobs(&[]) {
        *counted.entry(job.id).or_default() += 1;
    }
    counted
}

#[test]
fn what_was_answered_to_a_client_that_is_killed_is_there_once_and_half_a_line_is_not() {
    let runner = TestRunner::new().start();
    let api = Api::of(&runner);
    let mut upload = Uploading::begin(&api);
    for n in 0..100 {
        upload.send(&line(n)).unwrap();
    }
    // The 101st is whole to look at, and its end did not come.
    upload.send(line(100).trim_end()).unwrap();
    assert_eq!(upload.connection.head().unwrap().0, 200);
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 100 {
        acknowledged.extend(upload.acknowledged().expect("the runner goes on"));
    }
    drop(upload);
    // Another request comes later than all of that.
    eventually!(api.get("/v1/jobs?limit=1000").json()["jobs"].as_array().unwrap().len() == 100);
    let counted = counted(&runner);
    assert!(acknowledged.iter().all(|id| counted[id] == 1), "{counted:?}");
    assert_eq!(counted.len(), 100);
}

#[test]
fn what_was_answered_before_the_runner_is_killed_is_there_once() {
    let mut runner = TestRunner::new().start();
    let api = Api::of(&runner);
    let mut upload = Uploading::begin(&api);
    let mut writer = upload.connection.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // Until the runner is gone.
        for n in 0..u32::MAX {
            let text = line(n);
            if std::io::Write::write_all(&mut writer, format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).is_err() {
                return n;
            }
        }
        u32::MAX
    });
    assert_eq!(upload.connection.head().unwrap().0, 200);
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 5_000 {
        acknowledged.extend(upload.acknowledged().expect("the runner goes on"));
    }
    runner.kill();
    while let Some(more) = upload.acknowledged() {
        acknowledged.extend(more);
    }
    let written = writing.join().unwrap();
    runner.restart(&[]);
    let counted = counted(&runner);
    let missing: Vec<&String> = acknowledged.iter().filter(|id| counted.get(*id) != Some(&1)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(acknowledged.len() <= counted.len() && counted.len() <= written as usize + 1);
}
