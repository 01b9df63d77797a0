//! The examples in JavaScript and Python: built as a user builds them, and run by a real runner.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::languages::{copy_over, lacks_tools, sandhog};
use crate::support::{TestRunner, project};

/// The SDK that an example carries, as a user's project does.
const SDKS: [(&str, &str, &[&str]); 3] = [
    ("webhook", "languages/javascript/sdk", &["sandhog.js", "sandhog.d.ts"]),
    ("etl", "languages/python/sdk", &["sandhog.py"]),
    ("counter-python", "languages/python/sdk", &["sandhog.py"]),
];

/// Builds an example, in a folder beside; none where its language's tools are missing.
fn built(example: &str, language: &str) -> Option<PathBuf> {
    let folder = project("target/examples").join(example);
    copy_over(&project("examples").join(example), &folder);
    // What `npm install` would bring.
    let packages = project("target/languages/node_modules");
    if language != "python" && packages.is_dir() && !folder.join("node_modules").exists() {
        std::os::unix::fs::symlink(packages, folder.join("node_modules")).unwrap();
    }
    let output = sandhog(&folder).args(["build", "."]).output().unwrap();
    if lacks_tools(language, &output) {
        return None;
    }
    // A grant that the operator must allow is not allowed here: it is built all the same.
    let component = folder.join(format!("{example}.wasm"));
    assert!(component.is_file(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    Some(component)
}

fn put(runner: &TestRunner, component: &Path) {
    let name = component.file_name().unwrap().to_str().unwrap();
    runner.put(name, &std::fs::read(component).unwrap());
}

// === webhook ===

/// A server that answers what it is told to, request by request, and hands over what it was asked.
struct Receiving {
    port: u16,
    asked: Receiver<Asked>,
}

struct Asked {
    head: String,
    body: String,
}

impl Receiving {
    fn answering(answers: &'static [&'static str]) -> Receiving {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for (answer, stream) in answers.iter().zip(listener.incoming().map_while(Result::ok)) {
                answer_one(&stream, answer, &sender).unwrap();
            }
        });
        Receiving { port, asked }
    }
}

fn answer_one(mut stream: &TcpStream, answer: &str, asked: &Sender<Asked>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head)?;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    asked.send(Asked { head, body: String::from_utf8(body).unwrap() }).unwrap();
    write!(stream, "HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
}

#[test]
fn webhook_signs_waits_as_long_as_it_is_told_and_gives_up_where_it_is_not_wanted() {
    let Some(component) = built("webhook", "typescript") else { return };
    let server = Receiving::answering(&["503 Busy\r\nRetry-After: 1", "200 OK", "404 Gone"]);
    let at = format!("http://127.0.0.1:{}/", server.port);
    let runner = TestRunner::new()
        .config(&format!("[handlers]\nallow = [\"webhook: http {at}\"]\n"))
        .manifest("webhook", &format!("[grants]\nhttp = ['{at}']\nconfig = {{ secret = 's3cret' }}\n"));
    put(&runner, &component);
    let runner = runner.start();
    let job = json!({ "url": format!("{at}orders"), "payload": { "order": 7 } }).to_string();

    let id = runner.enqueue("webhook", &job);
    let job_seen = runner.ended(&id);
    assert_eq!(job_seen.result, Some(json!({ "status": 200, "attempts": 2 })), "{job_seen:?}");
    assert_eq!((job_seen.retries_requested, job_seen.failures), (1, 0), "to be put off is no failure");
    for _ in 0..2 {
        let Asked { head, body } = server.asked.recv().unwrap();
        assert_eq!(body, r#"{"order":7}"#);
        assert!(head.starts_with("POST /orders HTTP/1.1\r\n"), "{head}");
        let signature = "c589114ccabef4aa495c00c73cf4624a74dd62c0eaa8b42559bd16c26c391fd6";
        for line in [format!("x-signature: sha256={signature}\r\n"), format!("x-delivery: {id}\r\n")] {
            assert!(head.contains(&line), "no `{line}` in: {head}");
        }
    }
    let unwanted = runner.ended(&runner.enqueue("webhook", &job));
    assert_eq!((unwanted.kind(), unwanted.why()), ("rejected", "answered 404: no"));
}

// === etl ===

/// Some megabytes of sales, every hundredth of them wrong, and what they come to.
fn sales(rows: usize) -> (String, BTreeMap<String, usize>, usize) {
    let mut text = "date,shop,product,quantity,price\n".to_owned();
    let (mut cents, mut wrong) = (BTreeMap::new(), 0);
    for row in 0..rows {
        let (month, shop, quantity, price) = (1 + row % 3, ["north", "south"][row % 2], 1 + row % 5, row % 977);
        if row % 100 == 99 {
            wrong += 1;
            let bad =
                ["soon,north,tea,1,1.00", "2026-01-01,north,tea,0,1.00", "2026-01-01,,tea,1,1.00", "2026-01-01,north"];
            writeln!(text, "{}", bad[row / 100 % 4]).unwrap();
            continue;
        }
        *cents.entry(format!("2026-{month:02} {shop}")).or_default() += quantity * price;
        let product = ["tea", "coffee", "\"cocoa, dark\""][row % 7 % 3];
        let day = 1 + row % 28;
        writeln!(text, "2026-{month:02}-{day:02},{shop},{product},{quantity},{}.{:02}", price / 100, price % 100)
            .unwrap();
    }
    (text, cents, wrong)
}

#[test]
fn etl_sums_up_megabytes_and_hands_on_every_row_that_makes_no_sense() {
    let Some(component) = built("etl", "python") else { return };
    let (text, cents, wrong) = sales(80_000);
    assert!(text.len() > 2_500_000);
    let runner = TestRunner::new();
    std::fs::create_dir(runner.handler_path("in")).unwrap();
    std::fs::write(runner.handler_path("in/sales.csv"), text).unwrap();
    let folder = runner.handler_path("in").canonicalize().unwrap();
    let manifest = std::fs::read_to_string(project("examples/etl/etl.toml")).unwrap();
    let runner = runner
        .config(&format!("[handlers]\nallow = [\"etl: read {}\"]\n", folder.display()))
        .manifest("etl", &manifest);
    put(&runner, &component);
    let runner = runner.start();

    let job = runner.ended(&runner.enqueue("etl", r#"{"file": "/in/sales.csv"}"#));
    let result = job.result.clone().unwrap_or_else(|| panic!("{job:?}"));
    let revenue: BTreeMap<String, String> =
        cents.iter().map(|(key, cents)| (key.clone(), format!("{}.{:02}", cents / 100, cents % 100))).collect();
    assert_eq!((&result["rows"], &result["rejected"]), (&json!(80_000), &json!(wrong)));
    assert_eq!(result["revenue"], json!(revenue));
    assert_eq!(result["best_sellers"].as_array().map(Vec::len), Some(3));
    // Nobody serves them: they wait.
    let follow_ups = runner.jobs(&["--type", "rejected-rows"]);
    let lines: Vec<Value> = follow_ups
        .iter()
        .map(|job| serde_json::from_slice::<Value>(&runner.body(&job.id)).unwrap())
        .flat_map(|body| body["rows"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!((follow_ups.len(), lines.len()), (wrong.div_ceil(500), wrong));
    assert!(lines.iter().all(|line| line["why"].as_str().is_some_and(|why| !why.is_empty())));
    let missing = runner.ended(&runner.enqueue("etl", r#"{"file": "/in/none.csv"}"#));
    assert_eq!((missing.kind(), missing.why()), ("rejected", "there is no `/in/none.csv`"));
}

// === counter-python ===

#[test]
fn counter_in_python_counts_from_job_to_job_and_says_at_the_end_how_many_they_were() {
    let Some(component) = built("counter-python", "python") else { return };
    let manifest = std::fs::read_to_string(project("examples/counter-python/counter-python.toml")).unwrap();
    let runner = TestRunner::new().manifest("counter-python", &manifest);
    put(&runner, &component);
    let mut runner = runner.start();
    for count in 1..=3 {
        assert_eq!(runner.ended(&runner.enqueue("counter-python", "{}")).result, Some(json!(count)));
    }
    let failed = runner.enqueueing("counter-python", r#"{"fail":true}"#).named("the-fourth").id();
    let failed = runner.ended(&failed);
    assert_eq!((failed.kind(), failed.why()), ("error", "RuntimeError: told to fail"));
    assert_eq!(runner.says("job the-fourth failed as number 4: RuntimeError: told to fail"), 1);
    assert_eq!(runner.ended(&runner.enqueue("counter-python", "{}")).result, Some(json!(5)));
    assert!(runner.stop().success());
    assert_eq!((runner.says("counting from 0"), runner.says("jobs worked: 5")), (1, 1));
}

// === the sources ===

#[test]
fn sdk_of_an_example_is_the_one_that_new_writes() {
    for (example, sdk, files) in SDKS {
        for file in files {
            let own = std::fs::read_to_string(project("examples").join(example).join(file)).unwrap();
            let written = std::fs::read_to_string(project(sdk).join(file)).unwrap();
            assert!(own == written, "`examples/{example}/{file}` is not `{sdk}/{file}`");
        }
    }
}
