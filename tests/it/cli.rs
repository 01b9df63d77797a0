//! The command line: the real binary, in an empty folder of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::guests;

/// A folder with a queue and handlers of its own, and the command in it.
struct Sandhog {
    dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Sandhog {
    fn new() -> Sandhog {
        Sandhog { dir: TempDir::new().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("the folder is writable");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandhog"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SANDHOG_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.dir.path()).env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        self.run_with_stdin(args, b"")
    }

    fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("the binary is there");
        let mut pipe = child.stdin.take().expect("piped");
        let stdin = stdin.to_vec();
        // A command that does not read it closes it early, which is its right.
        let writer = std::thread::spawn(move || pipe.write_all(&stdin).ok());
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("the writer does not panic");
        let stderr = String::from_utf8(output.stderr).expect("stderr is text");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        Done { code: output.status.code().expect("no signal"), stdout: output.stdout, stderr }
    }

    /// Runs what must succeed, and answers its output.
    fn output(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        String::from_utf8(done.stdout).expect("stdout is text")
    }

    /// The same with `--json`: a value a line.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.output(&[args, &["--json"]].concat());
        output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
    }
}

/// A failure: its exit code and its whole message.
#[track_caller]
fn check_failure(sandhog: &Sandhog, args: &[&str], code: i32, message: &str) {
    let done = sandhog.run(args);
    assert_eq!((done.code, done.stderr.as_str()), (code, message), "{args:?}");
}

#[test]
fn help_of_every_command() {
    let sandhog = Sandhog::new();
    let commands: [&[&str]; 30] = [
        &[],
        &["run"],
        &["enqueue"],
        &["invoke"],
        &["check"],
        &["handlers"],
        &["handlers", "list"],
        &["handlers", "rollback"],
        &["handlers", "pin"],
        &["handlers", "unpin"],
        &["handlers", "pause"],
        &["handlers", "resume"],
        &["jobs"],
        &["jobs", "list"],
        &["jobs", "show"],
        &["jobs", "cancel"],
        &["jobs", "wait"],
        &["dead"],
        &["dead", "list"],
        &["dead", "show"],
        &["dead", "requeue"],
        &["dead", "delete"],
        &["stats"],
        &["health"],
        &["drain"],
        &["config"],
        &["new"],
        &["build"],
        &["test"],
        &["bench"],
    ];
    let mut all = String::new();
    for command in commands {
        let args = [command, &["--help"]].concat();
        all.push_str(&format!("$ sandhog {}\n{}\n", args.join(" "), sandhog.output(&args)));
    }
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("help", all);
    });
}

#[test]
fn version_is_printed() {
    assert_eq!(Sandhog::new().output(&["--version"]), format!("sandhog {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_errors_exit_with_2() {
    let sandhog = Sandhog::new();
    let wrong: [&[&str]; 14] = [
        &[],
        &["nonsense"],
        &["enqueue"],
        &["enqueue", "t", "--file", "f"],
        &["enqueue", "t", "--skip-bad"],
        &["enqueue", "t", "--after", "soon"],
        &["enqueue", "t", "--id", ""],
        &["enqueue", "t", "--header", "x"],
        &["enqueue", ""],
        &["dead", "requeue"],
        &["dead", "requeue", "--kind", "malformed"],
        &["dead", "delete", "--dry-run"],
        &["dead", "--kind", "sadness"],
        &["jobs", "--limit", "5", "list"],
    ];
    for args in wrong {
        let done = sandhog.run(args);
        assert_eq!(done.code, 2, "{args:?}: {done:?}");
        assert!(done.stdout.is_empty(), "{args:?}: {done:?}");
    }
    check_failure(
        &sandhog,
        &["dead", "requeue"],
        2,
        "error: which dead letters is not said\nhint: name ids, or `--type`, `--kind`, `--since`, or `--all`\n",
    );
}

#[test]
fn every_fault_of_the_configuration_is_reported() {
    let sandhog = Sandhog::new();
    sandhog.write("sandhog.toml", "slots = 0\n[limits]\ntimout = '5s'\n");
    let done = sandhog.run(&["--queue", "kafka:broker", "jobs"]);
    assert_eq!(done.code, 2);
    assert_eq!(
        done.stderr,
        "error: sandhog.toml:1: `slots` 0 is not from 1 to 4096\n\
         error: sandhog.toml:3: `limits.timout` is unknown\n\
         hint: did you mean `limits.timeout`?\n\
         error: flag --queue: `queue.url` is no Kafka URL: write `kafka://HOST:PORT/TOPIC`\n",
    );
    check_failure(
        &sandhog,
        &["--config", "none.toml", "jobs"],
        2,
        "error: cannot read configuration `none.toml`: No such file or directory (os error 2)\n",
    );
}

#[test]
fn config_shows_every_value_and_where_it_came_from() {
    let sandhog = Sandhog::new();
    sandhog.write("other.toml", "\nslots = 3\n");
    let mut command = sandhog.command(&["config", "--json", "--queue", "sqlite:flag.db"]);
    command.env("SANDHOG_CONFIG", "other.toml").env("SANDHOG_HANDLERS", "from-env");
    let output = command.output().expect("it runs");
    let lines = String::from_utf8(output.stdout).expect("text");
    let found = |key: &str| {
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let value = values.into_iter().find(|value| value["key"] == key).expect("every key is there");
        format!("{} from {}", value["value"].as_str().expect("text"), value["origin"].as_str().expect("text"))
    };
    assert_eq!(found("slots"), "3 from other.toml:2");
    assert_eq!(found("queue.url"), "sqlite:flag.db from flag --queue");
    assert_eq!(found("handlers.dir"), "from-env from environment SANDHOG_HANDLERS");
    assert_eq!(found("state_dir"), "flag.db.state from default");
    assert!(sandhog.output(&["config"]).contains("drain_timeout "), "for people it is a table");
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    let sandhog = Sandhog::new();
    let mut child = sandhog.command(&["config"]).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn queue_that_is_only_looked_at_is_not_made() {
    let sandhog = Sandhog::new();
    for args in [&["jobs"][..], &["dead"], &["stats"], &["jobs", "show", "x"], &["dead", "delete", "--all"]] {
        check_failure(
            &sandhog,
            args,
            1,
            "error: there is no queue at `sandhog.db`\n\
             hint: name it by `--queue sqlite:FILE`; `sandhog enqueue` and `sandhog run` make one\n",
        );
    }
    assert!(!sandhog.path("sandhog.db").exists());
}

#[test]
fn body_that_is_no_job_is_refused() {
    let sandhog = Sandhog::new();
    for (body, reason) in [
        ("[]", "not a JSON object"),
        ("", "empty"),
        ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
        (r#"{"job_type":"b"}"#, "`job_type` is `b`, and the job was said to be of type `a`"),
    ] {
        let hint = "hint: a body is a JSON object, like '{\"n\": 1}'\n";
        let message = format!("error: the body is no job: {reason}\n{hint}");
        check_failure(&sandhog, &["enqueue", "a", body], 1, &message);
    }
    let done = sandhog.run_with_stdin(&["enqueue", "a", "-"], b"\xff\xfe");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("not UTF-8: byte 0"), "{done:?}");
    assert!(!sandhog.path("sandhog.db").exists(), "nothing was opened");
}

#[test]
fn job_is_kept_byte_for_byte() {
    let sandhog = Sandhog::new();
    let body = "{ \"n\":1.00,\t\"text\": \"\u{9b}ü\" }";
    let id = sandhog.output(&["enqueue", "resize", body]);
    let id = id.trim();
    let [listed] = sandhog.json(&["jobs"]).try_into().expect("one job");
    assert_eq!((listed["id"].as_str(), listed["job_type"].as_str()), (Some(id), Some("resize")));
    assert_eq!(sandhog.run(&["jobs", "show", id, "--body"]).stdout, body.as_bytes());
    let [shown] = sandhog.json(&["jobs", "show", id]).try_into().expect("one object");
    assert_eq!(shown.get("body"), None, "a body is shown on request only");
    let [shown] = sandhog.json(&["jobs", "show", id, "--body"]).try_into().expect("one object");
    assert_eq!(shown["body"], body);
    let done = sandhog.run_with_stdin(&["enqueue", "resize", "-", "--json"], b"{\"from\":\"stdin\"}\n");
    let enqueued: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let from_stdin = enqueued["id"].as_str().expect("an id");
    assert_eq!(sandhog.run(&["jobs", "show", from_stdin, "--body"]).stdout, b"{\"from\":\"stdin\"}\n");
    assert!(sandhog.output(&["jobs", "show", id]).starts_with("id "), "for people it is a list of pairs");
}

#[test]
fn id_twice_is_one_job_and_said_so() {
    let sandhog = Sandhog::new();
    assert_eq!(sandhog.output(&["enqueue", "t", "--id", "a"]), "a\n");
    let again = sandhog.run(&["enqueue", "t", "--id", "a"]);
    assert_eq!((again.code, again.stdout.as_slice()), (0, &b"a\n"[..]));
    assert_eq!(again.stderr, "note: there is a job `a` already: nothing was added\n");
    assert_eq!(sandhog.output(&["enqueue", "t", r#"{"job_id":"b"}"#]), "b\n", "a `job_id` is the id");
    let [again] = sandhog.json(&["enqueue", "t", r#"{"job_id":"b"}"#]).try_into().expect("one object");
    assert_eq!(again, serde_json::json!({ "id": "b", "duplicate": true }));
    assert_eq!(sandhog.json(&["jobs"]).len(), 2);
}

#[test]
fn job_can_wait_and_carry_headers() {
    let sandhog = Sandhog::new();
    sandhog.output(&["enqueue", "t", "--id", "a", "--after", "1h", "--header", "trace=x=y", "--header", "n=2"]);
    let [shown] = sandhog.json(&["jobs", "show", "a"]).try_into().expect("one object");
    assert_eq!(shown["state"], "scheduled");
    let metadata = shown["metadata"].to_string();
    assert!(metadata.contains(r#"["header.trace","x=y"]"#) && metadata.contains(r#"["header.n","2"]"#), "{metadata}");
    assert_eq!(sandhog.json(&["jobs", "--state", "scheduled"]).len(), 1);
    assert_eq!(sandhog.json(&["jobs", "list", "--state", "dead"]).len(), 0);
}

#[test]
fn file_of_jobs_is_enqueued_whole() {
    let sandhog = Sandhog::new();
    let jobs: String = (0..2_500).map(|n| format!("{{\"job_type\":\"t{}\",\"n\":{n}}}\n", n % 2)).collect();
    sandhog.write("jobs.ndjson", &jobs);
    let done = sandhog.run(&["enqueue", "--file", "jobs.ndjson"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, "added 2500 jobs\n"));
    assert_eq!(done.stdout.iter().filter(|byte| **byte == b'\n').count(), 2_500, "an id a job");
    let done = sandhog.run_with_stdin(&["enqueue", "--file", "-", "--quiet"], jobs.as_bytes());
    assert_eq!((done.code, done.stderr.as_str(), done.stdout.len()), (0, "added 2500 jobs\n", 0));
    let [stats] = sandhog.json(&["stats"]).try_into().expect("one object");
    let counts = stats["counts"].as_array().expect("a list");
    let of = |job_type: &str| -> u64 {
        counts.iter().filter(|count| count["job_type"] == job_type).filter_map(|count| count["jobs"].as_u64()).sum()
    };
    assert_eq!((of("t0"), of("t1")), (2_500, 2_500));
    assert_eq!(sandhog.json(&["jobs", "--type", "t1", "--limit", "7"]).len(), 7);
    assert!(sandhog.output(&["stats"]).starts_with("TYPE "), "for people it is a table");
}

#[test]
fn file_is_enqueued_whole_though_nobody_reads_the_ids() {
    let sandhog = Sandhog::new();
    sandhog.write("jobs.ndjson", "{\"job_type\":\"t\"}\n".repeat(5_000));
    let mut child = sandhog.command(&["enqueue", "--file", "jobs.ndjson"]).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sandhog.json(&["jobs", "--limit", "10000"]).len(), 5_000);
}

#[test]
fn bad_line_is_named_and_nothing_of_its_file_is_enqueued() {
    let sandhog = Sandhog::new();
    sandhog.write("jobs.ndjson", "{\"job_type\":\"t\"}\n\nnot JSON\n{\"n\":1}\n{\"job_type\":\"t\"}");
    check_failure(
        &sandhog,
        &["enqueue", "--file", "jobs.ndjson"],
        1,
        "line 3: not JSON: expected ident at line 1 column 2\n\
         line 4: no `job_type`\n\
         error: 2 bad lines in `jobs.ndjson`: nothing was added\n\
         hint: `--skip-bad` leaves bad lines out, `--bury-bad` keeps them as dead letters\n",
    );
    assert!(!sandhog.path("sandhog.db").exists(), "nothing was opened");
    sandhog.write("jobs.ndjson", "x\n".repeat(31));
    let stderr = sandhog.run(&["enqueue", "--file", "jobs.ndjson"]).stderr;
    assert_eq!(stderr.lines().filter(|line| line.starts_with("line ")).count(), 20);
    assert!(stderr.contains("\nand 11 more\n"), "{stderr}");
}

#[test]
fn bad_line_is_left_out_if_asked() {
    let sandhog = Sandhog::new();
    sandhog.write("jobs.ndjson", "{\"job_type\":\"t\"}\nbad\n{\"job_type\":\"t\"}\n");
    let done = sandhog.run(&["enqueue", "--file", "jobs.ndjson", "--skip-bad"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.ends_with("added 2 jobs, 1 left out as bad\n"), "{done:?}");
    assert!(done.stderr.starts_with("line 2: not JSON"), "{done:?}");
    assert_eq!(sandhog.json(&["jobs"]).len(), 2);
}

#[test]
fn bad_line_is_kept_byte_for_byte_as_a_dead_letter_if_asked() {
    let sandhog = Sandhog::new();
    sandhog.write("jobs.ndjson", b"{\"job_type\":\"t\"}\nb\xffd \x1b[2J\n");
    let done = sandhog.run(&["enqueue", "--file", "jobs.ndjson", "--bury-bad"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.ends_with("added 1 job, 1 kept as malformed dead letters\n"), "{done:?}");
    let [letter] = sandhog.json(&["dead", "--kind", "malformed"]).try_into().expect("one dead letter");
    assert_eq!((&letter["state"], &letter["failure"]["kind"]), (&"dead".into(), &"malformed".into()));
    let id = letter["id"].as_str().expect("an id");
    assert_eq!(sandhog.run(&["dead", "show", id, "--body"]).stdout, b"b\xffd \x1b[2J");
    let [shown] = sandhog.json(&["dead", "show", id, "--body"]).try_into().expect("one object");
    assert_eq!(shown["body_base64"], "Yv9kIBtbMko=");
}

#[test]
fn dead_letters_are_changed_by_filter_and_only_for_real_if_asked() {
    let sandhog = Sandhog::new();
    sandhog.write("jobs.ndjson", "bad\nworse\n");
    sandhog.output(&["enqueue", "--file", "jobs.ndjson", "--bury-bad"]);
    let done = sandhog.run(&["dead", "delete", "--all", "--dry-run"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, "would delete 2 dead letters\n"));
    let letters = sandhog.json(&["dead"]);
    assert_eq!(letters.len(), 2, "a dry run changes nothing");
    let first = letters[0]["id"].as_str().expect("an id");
    assert_eq!(sandhog.json(&["dead", "delete", first]).len(), 1);
    assert_eq!(sandhog.json(&["dead"]).len(), 1);
    let done = sandhog.run(&["dead", "requeue", "nobody"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.ends_with("error: no dead letter has the id `nobody`\n"), "{done:?}");
    assert_eq!(sandhog.json(&["dead", "delete", "--kind", "trap"]).len(), 0);
    assert_eq!(sandhog.json(&["dead", "delete", "--since", "1h"]).len(), 1);
    assert_eq!(sandhog.json(&["dead"]).len(), 0);
    check_failure(
        &sandhog,
        &["jobs", "show", first],
        1,
        &format!(
            "error: there is no job `{first}`\n\
             hint: completed jobs are forgotten after a while (`queue.keep_completed`), on Kafka at once\n"
        ),
    );
}

#[test]
fn check_says_what_would_load_and_why_not() {
    let sandhog = Sandhog::new();
    sandhog.write("good.wasm", guests::guest("obedient"));
    sandhog.write("good.toml", "job_types = ['a', 'b']\ntimeout = '1s'");
    sandhog.write("bad.wasm", "no component");
    sandhog.write("bad.toml", "timout = '1s'");
    let done = sandhog.run(&["check", "good.wasm", "bad.wasm", "none.wasm", "--json"]);
    assert_eq!(done.code, 1, "{done:?}");
    let lines: Vec<Value> = String::from_utf8(done.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.iter().map(|line| &line["loads"]).collect::<Vec<_>>(), [true, false, false], "{lines:?}");
    assert_eq!(lines[0]["manifest"]["job_types"], serde_json::json!(["a", "b"]));
    assert_eq!(lines[0]["manifest"]["timeout_ms"], 1_000);
    assert!(lines[0]["facts"]["exports"].to_string().contains("sandhog:jobs/handler@1.0.0"), "{lines:?}");
    let reasons = lines[1]["reasons"].as_array().expect("a list");
    assert_eq!(reasons[0], "bad.toml:1: `timout` is unknown (did you mean `timeout`?)");
    assert_eq!(reasons.len(), 2, "the file is at fault too: {reasons:?}");
    assert!(lines[2]["reasons"].to_string().contains("cannot read handler `none.wasm`"), "{lines:?}");
    assert!(sandhog.output(&["check", "good.wasm"]).starts_with("good.wasm: would load\n"));
}

#[test]
fn invoke_runs_one_job_and_says_how_it_ended() {
    let sandhog = Sandhog::new();
    sandhog.write("obedient.wasm", guests::guest("obedient"));
    let invoke = |order: &str| {
        let done = sandhog.run(&["invoke", "obedient.wasm", order, "--type", "t", "--json"]);
        let found: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{order}: {e}: {done:?}"));
        (done.code, found)
    };
    let (code, done) = invoke("complete");
    assert_eq!((code, &done["outcome"]), (0, &"complete".into()), "{done}");
    assert_eq!(done["job_type"], "t");
    assert!(done["duration_us"].as_u64() > Some(0) && done["memory_peak_bytes"].as_u64() > Some(0), "{done}");
    let (code, done) = invoke("result {\"n\":1}");
    assert_eq!((code, &done["result"]), (0, &serde_json::json!({ "n": 1 })), "{done}");
    let (code, done) = invoke("retry");
    assert_eq!((code, &done["outcome"], &done["after_ms"]), (0, &"retry".into(), &1_500.into()), "{done}");
    let (code, done) = invoke("log 2");
    assert_eq!((code, done["log"].as_array().map(Vec::len)), (0, Some(2)), "{done}");
    let (code, done) = invoke("trap");
    assert_eq!((code, &done["outcome"], &done["kind"]), (1, &"failed".into(), &"trap".into()), "{done}");
    assert!(!done["frames"].as_array().expect("a list").is_empty(), "{done}");
    let done = sandhog.run(&["invoke", "obedient.wasm", "{}"]);
    assert_eq!(done.code, 1, "a body that is no order traps: {done:?}");
    assert!(String::from_utf8(done.stdout).expect("text").starts_with("outcome "), "for people it is a list of pairs");
    assert!(!sandhog.path("sandhog.db").exists(), "there is no queue");
}
