//! The code base's own rules, as far as a reading of its files can tell. `docs/style.md` has their reasons.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{TestRunner, guests, project};

/// Where the project's own files are.
const FOLDERS: [&str; 12] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "bench",
    "demo",
    "docs",
    "examples",
    "guest-sdk",
    "languages",
    "runner",
    "tests",
];

/// A file of the project: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

// === the rules ===

#[test]
fn big_dependencies_stay_behind_their_walls() {
    let walls: [(&str, &[&str]); 16] = [
        ("wasmtime", &["runner/src/sandbox"]),
        ("wasmtime_wasi", &["runner/src/sandbox"]),
        ("rusqlite", &["runner/src/queue/sqlite"]),
        ("rdkafka", &["runner/src/queue/kafka"]),
        ("notify", &["runner/src/watch.rs", "runner/src/queue/sqlite"]),
        ("notify_debouncer_full", &["runner/src/watch.rs"]),
        ("clap", &["runner/src/cli"]),
        ("axum", &["runner/src/admin"]),
        ("landlock", &["runner/src/hardening"]),
        ("libc", &["runner/src/hardening/seccomp.rs"]),
        ("sd_notify", &["runner/src/supervisor.rs"]),
        ("seccompiler", &["runner/src/hardening"]),
        ("prometheus_client", &["runner/src/metrics"]),
        ("opentelemetry", &["runner/src/traces"]),
        ("opentelemetry_sdk", &["runner/src/traces"]),
        ("opentelemetry_otlp", &["runner/src/traces"]),
    ];
    let mut faults = Vec::new();
    for source in of_runner() {
        for (name, homes) in walls {
            let home = homes.iter().any(|home| source.path.starts_with(home));
            for (number, line) in source.code() {
                if !home && (names_crate(line, name)) {
                    faults.push(format!("{}:{number} names `{name}`, which only {homes:?} may", source.path));
                }
            }
        }
    }
    assert_none(faults);
}

#[test]
fn only_dispatch_settles() {
    let may = ["runner/src/dispatch", "runner/src/queue"];
    let faults = of_runner().flat_map(|source| {
        let home = may.iter().any(|home| source.path.starts_with(home));
        let calls = source.code().filter(|(_, line)| !home && line.contains(".settle("));
        calls.map(|(number, _)| format!("{}:{number} settles", source.path)).collect::<Vec<_>>()
    });
    assert_none(faults);
}

#[test]
fn pure_modules_do_nothing_but_think() {
    let pure = [
        "clock.rs",
        "follow_up.rs",
        "report.rs",
        "generation.rs",
        "job.rs",
        "traces/context.rs",
        "limits.rs",
        "outcome.rs",
        "retry.rs",
        "trial.rs",
        "sandbox/quiet.rs",
    ];
    let reaches_out =
        ["std::fs", "std::net", "std::env", "std::io", "std::process", "std::thread", "tokio", "tracing", "Instant"];
    let mut faults = Vec::new();
    for name in pure {
        let source = Source::read(&format!("runner/src/{name}"));
        let mut forbidden: BTreeSet<&str> = reaches_out.into();
        if name == "clock.rs" {
            forbidden = forbidden.difference(&["Instant", "tokio"].into()).copied().collect();
        } else {
            forbidden.extend(["SystemTime", "SystemClock"]);
        }
        for (number, line) in source.code() {
            faults.extend(
                forbidden
                    .iter()
                    .filter(|word| has_word(line, word))
                    .map(|word| format!("{}:{number} names `{word}`", source.path)),
            );
        }
    }
    assert_none(faults);
}

#[test]
fn file_is_a_noun_of_at_most_500_lines_that_says_what_it_is() {
    let vague = ["util", "utils", "common", "helper", "helpers", "misc", "types", "errors"];
    let mut faults = Vec::new();
    for source in rust().filter(|source| !source.is_generated()) {
        let lines = source.text.lines().count();
        if lines > 500 {
            faults.push(format!("{} has {lines} lines", source.path));
        }
        if !source.text.starts_with("//!") {
            faults.push(format!("{} does not say what it is, in a first line with `//!`", source.path));
        }
        let stem = Path::new(&source.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if vague.contains(&stem) || stem == "mod" {
            faults.push(format!("{} is named after nothing", source.path));
        }
    }
    assert_none(faults);
}

#[test]
fn nothing_is_left_half_done() {
    // Written so that this file does not hold them itself.
    let unfinished =
        [["to", "do!"], ["unimple", "mented!"], ["db", "g!"], ["TO", "DO"], ["FIX", "ME"], ["replaced at", " merge"]];
    let mut faults = Vec::new();
    for source in all() {
        for (number, line) in (1..).zip(source.text.lines()) {
            faults.extend(
                unfinished
                    .map(|word| word.concat())
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{}:{number} has `{word}`", source.path)),
            );
        }
    }
    assert_none(faults);
}

#[test]
fn lint_is_expected_with_a_reason_and_never_allowed() {
    let mut faults = Vec::new();
    for source in rust().filter(|source| !source.is_generated()) {
        for (number, line) in source.code() {
            if line.contains(&["#[", "allow("].concat()) || line.contains(&["#![", "allow("].concat()) {
                faults.push(format!("{}:{number} allows a lint", source.path));
            }
        }
        let expects = source.text.matches(&["#[", "expect("].concat()).count();
        let reasons = source.text.matches("reason = ").count();
        if expects > reasons {
            faults.push(format!("{} expects a lint without a reason", source.path));
        }
    }
    assert_none(faults);
}

#[test]
fn only_the_patience_of_tests_sleeps() {
    let faults = rust().filter(|source| !["tests/it/support.rs", "tests/it/tidy.rs"].contains(&source.path.as_str()));
    let faults = faults.flat_map(|source| {
        // A person watches the demo, and it looks after a process as a person does.
        let may = source.path.starts_with("demo/");
        let sleeps = source.code().filter(|(_, line)| !may && line.contains("thread::sleep"));
        sleeps.map(|(number, _)| format!("{}:{number} sleeps", source.path)).collect::<Vec<_>>()
    });
    assert_none(faults);
}

#[test]
fn only_two_functions_are_unsafe_and_say_why() {
    /// Loads compiled code; hands a token to a client of the admin API.
    const HOMES: [&str; 2] = ["runner/src/sandbox/compiled.rs", "runner/src/queue/kafka/client/token.rs"];
    let mut faults = Vec::new();
    for source in of_runner() {
        let home = HOMES.contains(&source.path.as_str());
        for (number, line) in source.code().filter(|(_, line)| has_word(line, "unsafe")) {
            if !home && !line.contains("unsafe_code") {
                faults.push(format!("{}:{number} is unsafe", source.path));
            }
        }
    }
    for home in HOMES.map(Source::read) {
        let blocks = home.code().filter(|(_, line)| line.contains("unsafe {")).count();
        assert_eq!((blocks, home.text.matches("// SAFETY: ").count()), (1, 1), "{}", home.path);
    }
    assert_none(faults);
}

#[test]
fn no_file_names_an_issue_by_its_number() {
    let mut faults = Vec::new();
    for source in all() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let issue = line.to_lowercase().match_indices("issue ").any(|(at, word)| {
                line.get(at + word.len()..).is_some_and(|rest| starts_with_digit(rest.trim_start_matches('#')))
            });
            // `project#1234` is somebody else's and can be found; a bare number is ours and cannot.
            let bare = line.match_indices('#').any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| c == ' ' || c == '(') && starts_with_digit(&line[at + 1..])
            });
            if issue || bare {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(faults);
}

// === documents ===

#[test]
fn documents_that_readers_expect_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "docs/README.md",
        "tests/README.md",
    ] {
        assert!(project(name).is_file(), "`{name}` is missing");
    }
}

#[test]
fn documents_name_files_that_are_there() {
    let paths: Vec<String> = all().map(|source| source.path).collect();
    let mut faults = Vec::new();
    for document in documents() {
        let folder = Path::new(&document.path).parent().expect("a file is in a folder");
        for link in document.links() {
            if !project(folder.join(link)).exists() {
                faults.push(format!("{} links to `{link}`", document.path));
            }
        }
        for name in document.quoted().filter(|name| name.ends_with(".rs") && !name.contains(['*', ' ', '<', '{'])) {
            let is_there = paths.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
            if !is_there {
                faults.push(format!("{} names `{name}`", document.path));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn commands_of_the_documents_are_understood() {
    let makefile = fs::read_to_string(project("Makefile")).expect("there is a Makefile");
    let runner = TestRunner::new();
    let mut faults = Vec::new();
    for document in documents() {
        for line in document.blocks("sh").iter().flat_map(|block| block.lines()) {
            let words = words(line);
            let program = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
            let known = match (program, words.get(1)) {
                ("make", Some(target)) => makefile.contains(&format!("\n{target}:")),
                // The flags of a command are checked before anything is done; `--help` keeps it from being done.
                ("sandhog", Some(_)) => {
                    let arguments: Vec<&str> =
                        words[1..].iter().map(String::as_str).take_while(|word| !is_shell(word)).collect();
                    let output = runner.sandhog(&[arguments.as_slice(), &["--help"]].concat());
                    let help = String::from_utf8_lossy(&output.stdout).into_owned();
                    let flags = arguments.iter().filter_map(|word| word.strip_prefix("--"));
                    output.status.success()
                        && flags
                            .map(|flag| flag.split('=').next().unwrap_or(flag))
                            .all(|flag| help.contains(&format!("--{flag}")))
                }
                _ if words.first().is_some_and(|word| word.starts_with("tools/")) => project(&words[0]).is_file(),
                _ => true,
            };
            if !known {
                faults.push(format!("{}: {line}", document.path));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn samples_of_the_documents_are_a_configuration_or_a_manifest() {
    let mut faults = Vec::new();
    let component = guests::guest("idle");
    for document in documents() {
        for sample in document.blocks("toml").iter().filter(|sample| !is_cargo_s(sample)) {
            let runner = TestRunner::new().config(sample);
            // A sample may name variables of an environment, which is not here.
            let config = runner
                .command()
                .arg("config")
                .env("NAME", "x")
                .env("OTLP_TOKEN", "x")
                .output()
                .expect("the binary was built");
            allow_what_samples_grant(&runner);
            fs::write(runner.path("sample.wasm"), &component).expect("the folder is ours");
            fs::write(runner.path("sample.toml"), sample).expect("the folder is ours");
            let checked = runner.command().args(["check", "sample.wasm"]).env("THUMBNAIL_TOKEN", "x").output();
            let manifest = checked.expect("the binary was built");
            if !config.status.success() && !manifest.status.success() {
                let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
                let (config, manifest) = (said(&config), String::from_utf8_lossy(&manifest.stdout).into_owned());
                faults
                    .push(format!("{}:\n{sample}\nas configuration: {config}\nas manifest: {manifest}", document.path));
            }
        }
    }
    assert_none(faults);
}

/// Makes the operator allow what the documents' manifests grant, and the folders that they name.
fn allow_what_samples_grant(runner: &TestRunner) {
    for folder in ["assets", "thumbs"] {
        fs::create_dir_all(runner.path(folder)).expect("the folder is ours");
    }
    let lines = [
        "*: http https://api.example.com",
        "*: http http://127.0.0.1:9000/v1/*",
        "*: tcp 203.0.113.7:5432",
        "*: tcp db.internal:5432 private",
        "*: variable THUMBNAIL_TOKEN",
        &format!("*: write {}", runner.path("").display()),
    ];
    fs::write(runner.path("sandhog.toml"), format!("handlers.allow = {lines:?}")).expect("the folder is ours");
}

/// Whether a sample is for cargo's files.
fn is_cargo_s(sample: &str) -> bool {
    ["[package]", "[lib]", "[dependencies]", "[target."].iter().any(|table| sample.contains(table))
}

#[test]
fn handler_of_the_readme_is_the_example() {
    let readme = Source::read("README.md");
    let example = Source::read("examples/greet/src/lib.rs");
    let mut lines = example.text.lines().map(str::trim);
    for line in
        readme.blocks("rust").iter().flat_map(|block| block.lines()).map(str::trim).filter(|line| !line.is_empty())
    {
        assert!(lines.any(|found| found == line), "`{line}` does not stand, in this order, in `{}`", example.path);
    }
}

// === reading ===

fn assert_none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// All the project's texts.
fn all() -> impl Iterator<Item = Source> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        list(folder, &mut paths);
    }
    assert!(paths.len() > 50, "the project is not where it was: {paths:?}");
    paths.into_iter().map(|path| Source::read(&path))
}

fn list(path: &str, paths: &mut Vec<String>) {
    let full = project(path);
    if full.is_dir() {
        for entry in fs::read_dir(full).expect("a folder can be read") {
            let name = entry.expect("a folder can be read").file_name().into_string().expect("names are text");
            if name != "target" && !name.starts_with('.') {
                list(&format!("{path}/{name}"), paths);
            }
        }
    } else if [".rs", ".md", ".toml", ".wat", ".wit"].iter().any(|end| path.ends_with(end)) && full.is_file() {
        paths.push(path.to_owned());
    }
}

fn rust() -> impl Iterator<Item = Source> {
    all().filter(|source| source.path.ends_with(".rs"))
}

fn of_runner() -> impl Iterator<Item = Source> {
    rust().filter(|source| source.path.starts_with("runner/src/"))
}

fn documents() -> impl Iterator<Item = Source> {
    all().filter(|source| source.path.ends_with(".md"))
}

// === impl Source ===

impl Source {
    fn read(path: &str) -> Source {
        let text = fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"));
        Source { path: path.to_owned(), text }
    }

    /// Its lines that are no comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_generated(&self) -> bool {
        let generated =
            ["bindings.rs", "bindings_full.rs", "config/bindings.rs", "http/bindings.rs", "state/bindings.rs"];
        generated.iter().any(|name| self.path == format!("guest-sdk/src/{name}"))
    }

    /// The fenced blocks of a language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut fences = self.text.split("\n```");
        fences.next();
        // Every second piece is inside.
        while let (Some(inside), _) = (fences.next(), fences.next()) {
            if let Some((tag, block)) = inside.split_once('\n')
                && tag.trim() == language
            {
                blocks.push(block.to_owned());
            }
        }
        blocks
    }

    /// Where its links lead, in this project.
    fn links(&self) -> impl Iterator<Item = &str> {
        let targets = self.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let inside =
            targets.filter(|target| !target.contains("://") && !target.starts_with('#') && !target.contains(' '));
        inside.filter_map(|target| target.split('#').next())
    }

    /// What stands between backticks, outside of blocks.
    fn quoted(&self) -> impl Iterator<Item = &str> {
        let outside = self.text.split("\n```").step_by(2);
        outside.flat_map(|text| text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)))
    }
}

/// The words of a command, quotes taken off; what stands behind `#` is none.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.trim().trim_start_matches("$ ").chars() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn is_shell(word: &str) -> bool {
    ["|", ">", "<", "&", "&&", ";", "\\"].contains(&word)
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| !line[..at].ends_with(is_word))
        || line.trim() == format!("use {name};")
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}
