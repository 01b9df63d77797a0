//! The conformance list: what a handler does that does what its body says, in whatever language it is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Handler, LANGUAGES, handler};
use crate::support::project;

/// A claim: its name in the table, and what shows that it holds. It answers what stands in the table.
type Claim = (&'static str, fn(&Handler) -> Result<String, String>);

const CLAIMS: [Claim; 22] = [
    ("complete, with a result", complete_with_a_result),
    ("complete, without one", complete_without_a_result),
    ("retry at once, or at the backoff", retry_at_the_backoff),
    ("retry after a delay, with a changed body and a reason", retry_with_all),
    ("reject", reject),
    ("an error is a failed attempt with its message", error),
    ("an exception or panic that nobody catches: kind", throw),
    ("… and its message", throw_message),
    ("log lines at every level", log),
    ("plain prints", prints),
    ("every kind of Unicode", unicode),
    ("a body and a result of nearly 1 MiB", megabyte),
    ("all fields of the job", fields),
    ("set-up and tear-down", context),
    ("the failure hook", failure_hook),
    ("follow-up jobs", enqueue),
    ("configuration", config),
    ("state", state),
    ("HTTP", http),
    ("files", files),
    ("more memory than there is: kind", grow),
    ("an endless loop: kind", spin),
];

/// What a language does not do, and why. `docs/languages.md` says what to do instead.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Where the table stands in the document.
const MARKERS: (&str, &str) = ("<!-- conformance: written by the tests -->\n", "<!-- conformance ends -->");

// === the claims ===

fn complete_with_a_result(handler: &Handler) -> Result<String, String> {
    let result = json!({ "a": [1, 2.5, null, true, "ü"], "b": {} });
    let said = handler.invoke(&json!({ "do": "complete", "result": result }));
    holds(said["outcome"] == "complete" && said["result"] == result, &said)
}

fn complete_without_a_result(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "complete" }));
    holds(said["outcome"] == "complete" && said["result"].is_null(), &said)
}

fn retry_at_the_backoff(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "retry" }));
    let at_once = handler.invoke(&json!({ "do": "retry", "after_ms": 0 }));
    holds(said["outcome"] == "retry" && said["after_ms"].is_null() && at_once["after_ms"] == 0, &json!([said, at_once]))
}

fn retry_with_all(handler: &Handler) -> Result<String, String> {
    let job = json!({ "do": "retry", "after_ms": 1500, "body": { "n": 1 }, "reason": "not yet" });
    let said = handler.invoke(&job);
    let body = said["changed_body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
    let holds_all = said["after_ms"] == 1500 && body == Some(json!({ "n": 1 })) && said["reason"] == "not yet";
    holds(said["outcome"] == "retry" && holds_all, &said)
}

fn reject(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "reject", "message": "no such customer" }));
    holds(said["outcome"] == "reject" && said["reason"] == "no such customer", &said)
}

fn error(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "error", "message": "the service is away" }));
    let message = said["message"].as_str().unwrap_or_default();
    holds(said["kind"] == "error" && message.contains("the service is away"), &said)
}

fn throw(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "throw", "message": "nobody caught this" }));
    match said["kind"].as_str() {
        Some(kind @ ("error" | "trap")) if said["outcome"] == "failed" => Ok(kind.to_owned()),
        _ => Err(said.to_string()),
    }
}

/// In the failed attempt, that is in its message or its last words.
fn throw_message(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "throw", "message": "nobody caught this" }));
    holds(
        [&said["message"], &said["last_words"]].iter().any(|text| text.to_string().contains("nobody caught this")),
        &said,
    )
}

fn log(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "log", "text": "grüße" }));
    let has = |level: &&str| lines(&said).any(|line| line["level"] == *level && contains(line, "grüße"));
    holds(["trace", "debug", "info", "warn", "error"].iter().all(has), &said)
}

fn prints(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "log", "text": "grüße" }));
    // Where a language prints by the log, that is as good.
    let plain = lines(&said).filter(|line| contains(line, "grüße")).count();
    holds(plain >= 7, &said)
}

fn unicode(handler: &Handler) -> Result<String, String> {
    let text = "aß\u{0}\u{1f}\u{7f}\u{80}\"\\/\n\t\r€\u{2028}\u{fffd}\u{ffff}\u{feff}e\u{301}😀👩\u{200d}🚀\u{10ffff}";
    let said = handler.invoke(&json!({ "do": "echo", "text": text }));
    holds(said["result"] == text, &said)
}

fn megabyte(handler: &Handler) -> Result<String, String> {
    // A result may have 1 MiB, with its quotes.
    let text = "0123456789abcdeé".repeat(60_000);
    let said = handler.invoke(&json!({ "do": "echo", "text": text }));
    holds(said["result"] == text, &json!([said["outcome"], said["kind"], said["message"]]))
}

fn fields(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "fields" }));
    // Each language writes names in its own way.
    let small = |name: &String| name.replace(['_', '-'], "").to_lowercase();
    let result = said["result"].as_object().cloned().unwrap_or_default();
    let found: BTreeMap<String, &Value> = result.iter().map(|(name, value)| (small(name), value)).collect();
    let is = |name: &str, is_it: &dyn Fn(&Value) -> bool| found.get(name).is_some_and(|value| is_it(value));
    let all = is("id", &|value| *value == said["job_id"])
        && is("jobtype", &|value| value == "conformance")
        && is("body", &|value| value.to_string().contains("fields"))
        && is("attempt", &|value| value == 1)
        && is("failures", &|value| value == 0)
        && is("maxfailures", &|value| value == 3)
        && is("enqueuedatms", &|value| value.as_f64().is_some_and(|ms| ms > 1.7e12))
        && is("timeoutms", &|value| value == 3000)
        && found.contains_key("metadata");
    holds(all, &said)
}

fn context(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "complete" }));
    let at = |text: &str| lines(&said).position(|line| contains(line, text));
    holds(at("set up") < at("torn down") && at("set up").is_some(), &said)
}

fn failure_hook(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "error", "message": "tell me" }));
    holds(lines(&said).any(|line| contains(line, "failed: error") && contains(line, "tell me")), &said)
}

fn enqueue(handler: &Handler) -> Result<String, String> {
    let enqueue =
        |job_type: &str| handler.invoke(&json!({ "do": "enqueue", "job_type": job_type, "body": { "n": 1 } }));
    let (granted, other) = (enqueue("follow"), enqueue("other"));
    let id = granted["result"].as_str().unwrap_or_default();
    let denied = other["follow_ups"] == 0 && other.to_string().contains("not granted");
    holds(granted["follow_ups"] == 1 && id.ends_with("/1/1") && denied, &json!([granted, other]))
}

fn config(handler: &Handler) -> Result<String, String> {
    let (some, none) = (
        handler.invoke(&json!({ "do": "config", "key": "colour" })),
        handler.invoke(&json!({ "do": "config", "key": "size" })),
    );
    holds(some["result"] == "green" && none["outcome"] == "complete" && none["result"].is_null(), &json!([some, none]))
}

fn state(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "state", "key": "jobs" }));
    holds(said["result"] == 1, &said)
}

fn http(handler: &Handler) -> Result<String, String> {
    let port = handler.server.port;
    let said = handler.invoke(&json!({ "do": "http", "url": format!("http://127.0.0.1:{port}/hello") }));
    let other = handler.invoke(&json!({ "do": "http", "url": "http://127.0.0.1:1/" }));
    let answered = said["result"] == json!({ "status": 200, "body": "GET /hello" });
    holds(answered && other["result"]["status"].is_null(), &json!([said, other]))
}

fn files(handler: &Handler) -> Result<String, String> {
    let read = handler.invoke(&json!({ "do": "read", "path": "/data/in.txt" }));
    let other = handler.invoke(&json!({ "do": "read", "path": "/etc/passwd" }));
    let out = handler.data("out.txt");
    std::fs::remove_file(&out).ok();
    let written = handler.invoke(&json!({ "do": "write", "path": "/data/out.txt", "text": "zwölf" }));
    let found = std::fs::read_to_string(&out).unwrap_or_default();
    let denied = !other.to_string().contains("root:");
    holds(read["result"] == "from a file" && denied && found == "zwölf", &json!([read, other, written]))
}

fn grow(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "grow" }));
    match said["kind"].as_str() {
        Some(kind) if said["outcome"] == "failed" && kind != "timeout" => Ok(kind.to_owned()),
        _ => Err(said.to_string()),
    }
}

fn spin(handler: &Handler) -> Result<String, String> {
    let said = handler.invoke(&json!({ "do": "spin" }));
    if said["kind"] == "timeout" { Ok("timeout".to_owned()) } else { Err(said.to_string()) }
}

fn holds(is_so: bool, said: &Value) -> Result<String, String> {
    if is_so { Ok("yes".to_owned()) } else { Err(said.to_string()) }
}

fn lines(said: &Value) -> impl Iterator<Item = &Value> {
    said["log"].as_array().into_iter().flatten()
}

fn contains(line: &Value, text: &str) -> bool {
    line["line"].as_str().is_some_and(|line| line.contains(text))
}

// === the languages ===

/// What stands in the column of a language, claim by claim; none where it is not tested. What fails is said in a panic.
fn column(language: &'static str) -> Option<&'static Vec<String>> {
    let handler = handler(language)?;
    Some(handler.column.get_or_init(|| ask(handler)))
}

fn ask(handler: &Handler) -> Vec<String> {
    let language = handler.language;
    let mut faults = String::new();
    let mut cells = Vec::new();
    for (claim, check) in CLAIMS {
        let excused = EXCEPTIONS.iter().find(|(of, what, _)| *of == language && *what == claim);
        match (check(handler), excused) {
            (Ok(_), Some(_)) => writeln!(faults, "{claim}: holds, and stands among the exceptions").unwrap(),
            (Err(_), Some((_, _, why))) => cells.push(format!("no: {why}")),
            (Ok(cell), None) => cells.push(cell),
            (Err(said), None) => writeln!(faults, "{claim}: {said}").unwrap(),
        }
    }
    assert!(faults.is_empty(), "{language}:\n{faults}");
    cells
}

/// A test for each language, so that they go side by side.
macro_rules! each {
    ($($test:ident: $language:literal,)+) => {
        $(#[test]
        fn $test() {
            column($language);
        })+
    };
}

each! {
    rust_does_what_the_list_says: "rust",
    javascript_does_what_the_list_says: "javascript",
    typescript_does_what_the_list_says: "typescript",
    python_does_what_the_list_says: "python",
    go_does_what_the_list_says: "go",
    c_does_what_the_list_says: "c",
    cpp_does_what_the_list_says: "cpp",
    zig_does_what_the_list_says: "zig",
}

#[test]
fn table_of_the_document_is_what_the_languages_do() {
    let path = project("docs/languages.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(MARKERS.0).expect("the document has a place for the table");
    let (found, after) = rest.split_once(MARKERS.1).expect("the table has an end");
    // What is not tested here stays as it stands.
    let known = cells_of(found);
    let columns: Vec<(&str, Vec<String>)> = LANGUAGES
        .iter()
        .map(|(language, title)| {
            let kept = || CLAIMS.map(|(claim, _)| known.get(&(claim, *title)).cloned().unwrap_or_default()).to_vec();
            (*title, column(language).cloned().unwrap_or_else(kept))
        })
        .collect();
    let made = table(&columns);
    if std::env::var_os("SANDHOG_BLESS").is_some() {
        return std::fs::write(&path, format!("{before}{}{made}{}{after}", MARKERS.0, MARKERS.1)).unwrap();
    }
    assert!(found == made, "the table in `docs/languages.md` is stale: run this test with `SANDHOG_BLESS=1`\n{made}");
}

fn table(columns: &[(&str, Vec<String>)]) -> String {
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let mut table = format!("\n| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for (at, (claim, _)) in CLAIMS.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|(_, cells)| cells[at].as_str()).collect();
        writeln!(table, "| {claim} | {} |", cells.join(" | ")).unwrap();
    }
    table.push('\n');
    table
}

/// The cells of a table, by row and column.
fn cells_of(table: &str) -> BTreeMap<(&str, &str), String> {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut cells = BTreeMap::new();
    if let Some((titles, rows)) = rows.split_first() {
        for row in rows {
            for (title, cell) in titles.iter().zip(row).skip(1) {
                cells.insert((row[0], *title), (*cell).to_owned());
            }
        }
    }
    cells
}
