//! Bytes that are no jobs: each is a clear error, or a dead letter with its exact bytes, and the runner goes on.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::support::TestRunner;

/// Bytes that are no job, and what is said of them; with that, what is said of them as the body of a job of type `obey`, if
/// that is an error too.
pub(crate) fn bad() -> Vec<(Vec<u8>, &'static str, Option<&'static str>)> {
    let long = format!(r#"{{"job_type":"{}"}}"#, "x".repeat(10_000));
    let open = "[".repeat(100_000);
    let nested = format!("{open}{}", "]".repeat(100_000));
    let deep_type = format!(r#"{{"job_type":{nested}}}"#);
    let alike = |bytes: &[u8], why| (bytes.to_vec(), why, Some(why));
    vec![
        alike(b"null", "not a JSON object"),
        alike(b"[]", "not a JSON object"),
        alike(b"5", "not a JSON object"),
        alike(nested.as_bytes(), "not a JSON object"),
        alike(open.as_bytes(), "not JSON"),
        alike(br#"{"job_type":5}"#, "`job_type` is not a string"),
        alike(deep_type.as_bytes(), "`job_type` is not a string"),
        alike(long.as_bytes(), "`job_type` is longer than 256 bytes"),
        alike(br#"{"job_type":"o\u001b[2Jbey"}"#, "`job_type` has a control character"),
        alike(br#"{"job_type":"obey","job_type":"obey"}"#, "`job_type` stands there twice"),
        alike(br#"{"job_type":"obey","job_id":"a","job_id":"b"}"#, "`job_id` stands there twice"),
        alike(b"{\"job_type\":\"obey\",\"x\":\"\x00\"}", "not JSON"),
        alike(b"\x00", "not JSON"),
        alike(b"{\"job_type\":\"obey\",\"x\":\"\xed\xa0\x80\"}", "not UTF-8"),
        alike(br#"{"job_type":"\ud800"}"#, "not JSON"),
        alike(br#"{"job_type":"obey","job_id":"\udc00"}"#, "not JSON"),
        (b"{}".to_vec(), "no `job_type`", None),
    ]
}

/// Objects that only look odd, which are jobs of type `obey` and are done.
pub(crate) fn odd() -> Vec<String> {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    vec![
        format!(r#"{{"job_type":"obey","do":"complete","x":{nested}}}"#),
        r#"{"job_type":"obey","do":"complete","do":"trap"}"#.to_owned(),
        r#"{"do":"complete","x":"\u0000","job_type":"\u006fbey"}"#.to_owned(),
    ]
}

/// Answers the exit code and stderr of `sandhog enqueue obey -`.
fn refusal(runner: &TestRunner, body: &[u8]) -> (Option<i32>, String) {
    let mut command = runner.command();
    command.args(["enqueue", "obey", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built");
    // It stops reading what is too long.
    child.stdin.take().expect("it is piped").write_all(body).ok();
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("stderr is text"))
}

#[test]
fn each_kind_of_bad_bytes_is_a_clear_error() {
    let runner = TestRunner::new();
    for (bytes, of_line, of_body) in bad() {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        if let Some(why) = of_body {
            let (code, stderr) = refusal(&runner, &bytes);
            assert!(
                code == Some(1) && stderr.contains("the body is no job") && stderr.contains(why),
                "{start}: {stderr}"
            );
            assert!(stderr.len() < 500, "{start}: {} bytes of explanation", stderr.len());
        }
        std::fs::write(runner.path("bad.ndjson"), &bytes).expect("the folder is ours");
        let output = runner.sandhog(&["enqueue", "--file", "bad.ndjson"]);
        let stderr = String::from_utf8(output.stderr).expect("stderr is text");
        assert_eq!(output.status.code(), Some(1), "{start}: {stderr}");
        assert!(stderr.starts_with("line 1: ") && stderr.contains(of_line), "{start}: {stderr}");
        assert!(stderr.contains("nothing was added") && stderr.len() < 500, "{start}: {stderr}");
    }
    assert!(!runner.path("sandhog.db").exists(), "nothing was opened");
}

#[test]
fn each_kind_of_bad_bytes_can_be_a_dead_letter_and_the_jobs_beside_it_are_done() {
    let runner = TestRunner::obeying();
    let (bad, odd) = (bad(), odd());
    let lines: Vec<&[u8]> =
        bad.iter().map(|(bytes, ..)| bytes.as_slice()).chain(odd.iter().map(String::as_bytes)).collect();
    let enqueued = runner.enqueue_lines(lines.join(&b'\n'), &["--bury-bad"]);
    assert_eq!(enqueued.len(), lines.len());
    for (enqueued, (bytes, why, _)) in enqueued.iter().zip(&bad) {
        let letter = runner.job(&enqueued.id);
        assert_eq!((letter.state.as_str(), letter.kind(), &letter.job_type), ("dead", "malformed", &None), "{why}");
        assert!(letter.why().contains(why), "{why}: {}", letter.why());
        assert!(runner.stdout(&["dead", "show", "--body", &enqueued.id]) == *bytes, "{why}: not the bytes that came");
    }
    for (enqueued, body) in enqueued[bad.len()..].iter().zip(&odd) {
        assert_eq!(runner.ended(&enqueued.id).state, "completed");
        assert!(runner.body(&enqueued.id) == body.as_bytes(), "not the bytes that came");
    }
    assert_eq!(runner.ended(&runner.ask("complete")).state, "completed");
}

#[test]
fn body_over_the_limit_is_refused_or_kept_if_asked_but_no_line_over_64_mib_is() {
    let runner = TestRunner::obeying();
    let object = |bytes: usize| {
        let (before, after) = (r#"{"job_type":"obey","x":""#, r#""}"#);
        format!("{before}{}{after}", "x".repeat(bytes - before.len() - after.len()))
    };
    let (code, stderr) = refusal(&runner, object(64 << 20).as_bytes());
    assert!(code == Some(1) && stderr.contains("over the limit") && stderr.contains("`limits.body`"), "{stderr}");

    // A hole in the file, so that the disk has nothing to do: other tests are waiting for it.
    let good = r#"{"job_type":"obey","do":"complete"}"#;
    let file = File::create(runner.path("over.ndjson")).expect("the folder is ours");
    file.write_all_at(format!("\n{good}\n").as_bytes(), (64 << 20) + 1).expect("there is room");
    let output = runner.sandhog(&["enqueue", "--file", "over.ndjson", "--bury-bad"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("cannot be kept: nothing was added"), "{stderr}");
    assert!(runner.jobs(&[]).is_empty());
    let output = runner.sandhog(&["enqueue", "--file", "over.ndjson", "--skip-bad"]);
    assert!(output.status.success(), "{output:?}");
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(runner.ended(&id).state, "completed");

    let longer = object((8 << 20) + 1);
    let enqueued = runner.enqueue_lines(format!("{longer}\n{good}\n"), &["--bury-bad"]);
    assert_eq!(runner.ended(&enqueued[1].id).state, "completed");
    let listed = runner.dead();
    assert_eq!((listed.len(), listed[0].kind()), (1, "malformed"));
    assert!(listed[0].why().contains("over the limit"), "{}", listed[0].why());
    let kept = runner.stdout(&["dead", "show", "--body", &enqueued[0].id]);
    assert!(kept == longer.as_bytes(), "not the bytes that came: {}", kept.len());
}
