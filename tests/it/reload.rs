//! New generations take over while jobs run; bad files harm nobody and are said once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

use crate::eventually;
use crate::support::{Seen, TestRunner, guests};

/// The generation that ran a job which completed.
fn generation(job: &Seen) -> String {
    assert_eq!(job.state, "completed", "{job:?}");
    job.generation.clone().expect("it had a handler")
}

/// The generation that works jobs of that type now.
pub(crate) fn serving(runner: &TestRunner, job_type: &str) -> String {
    generation(&runner.ended(&runner.enqueue(job_type, r#"{"do":"complete"}"#)))
}

/// A component that differs from `component` and does the same.
pub(crate) fn variant(component: &[u8], name: &str) -> Vec<u8> {
    let name_length = u8::try_from(name.len()).expect("a short name");
    // A section that means nothing: its kind, its size, its name.
    [component, &[0, name_length + 1, name_length], name.as_bytes()].concat()
}

/// Waits until the runner has looked at all that was put into the folder before.
pub(crate) fn until_looked_at(runner: &TestRunner, marker: &str) {
    runner.put_guest(marker, "idle");
    eventually!(runner.says(&format!("handler `{marker}` loaded")) == 1);
}

// === generations ===

#[test]
fn new_generation_takes_over_under_load_and_no_job_notices() {
    let runner = TestRunner::obeying();
    let first = serving(&runner, "obey");
    let more = |jobs: u32| {
        runner.enqueue_lines("{\"job_type\":\"obey\",\"do\":\"work 1\"}\n".repeat(jobs as usize), &[]).len()
    };
    let mut enqueued = 1 + more(500);
    runner.put("obey.wasm", &variant(&guests::guest("obedient"), "second"));
    // Work comes in until the second generation is seen to work.
    let by_generation = || {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for job in runner.jobs(&["--state", "completed"]) {
            assert_eq!(job.attempt, 1, "{job:?}");
            *counts.entry(generation(&job)).or_default() += 1;
        }
        counts
    };
    eventually!({
        enqueued += more(100);
        by_generation().len() == 2
    });
    eventually!(runner.count("completed") == enqueued as u64);
    let counts = by_generation();
    assert!(counts.len() == 2 && counts[&first] > 0, "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), enqueued);
    assert!(runner.dead().is_empty());
}

#[test]
fn attempt_in_flight_ends_on_the_generation_that_it_began_with() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '4s'").start();
    let old = serving(&runner, "obey");
    let long = runner.ask("begin-spin");
    eventually!(runner.says("begun") == 1);
    runner.put("obey.wasm", &variant(&guests::guest("obedient"), "second"));
    eventually!(runner.says("handler `obey` loaded") == 2);
    let new = serving(&runner, "obey");
    assert_ne!(old, new);
    let long = runner.ended(&long);
    assert_eq!((long.kind(), long.failed_attempts[0].generation.as_str()), ("timeout", old.as_str()));
}

#[test]
fn change_of_the_manifest_alone_is_a_new_generation() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '5s'").start();
    let timeout = || runner.ended(&runner.ask("job")).result.expect("the guest answered")["timeout-ms"].clone();
    assert_eq!(timeout(), 5_000);
    let first = serving(&runner, "obey");
    runner.put("obey.toml", b"timeout = '6s'");
    eventually!(timeout() == 6_000);
    assert_ne!(serving(&runner, "obey"), first);
    runner.remove("obey.toml");
    eventually!(timeout() == 30_000);
    runner.put("obey.toml", b"timeout = '5s'");
    eventually!(timeout() == 5_000);
    assert_eq!(serving(&runner, "obey"), first, "the same pair has the same name");
}

#[test]
fn file_of_the_same_bytes_is_the_same_generation() {
    let runner = TestRunner::obeying();
    let before = serving(&runner, "obey");
    runner.put_guest("obey", "obedient");
    until_looked_at(&runner, "marker");
    assert_eq!(serving(&runner, "obey"), before);
    assert_eq!(runner.says("handler `obey` loaded"), 1);
}

#[test]
fn deleted_handler_parks_its_jobs_until_it_is_back() {
    let runner = TestRunner::obeying();
    let before = serving(&runner, "obey");
    runner.remove("obey.wasm");
    eventually!(runner.says("handler `obey` was deleted") == 1);
    let id = runner.ask("complete");
    assert_eq!(runner.until(&id, "parked").attempt, 0);
    runner.put_guest("obey", "obedient");
    assert_eq!(generation(&runner.ended(&id)), before);
}

#[test]
fn manifest_may_come_before_its_component() {
    let runner = TestRunner::new().start();
    runner.put("obey.toml", b"job_types = ['later']\ntimeout = '9s'");
    let id = runner.enqueue("later", r#"{"do":"job"}"#);
    runner.put_guest("obey", "obedient");
    assert_eq!(runner.ended(&id).result.expect("the guest answered")["timeout-ms"], 9_000);
}

// === two that claim one type ===

#[test]
fn first_by_file_name_keeps_a_type_that_two_claim() {
    let runner = TestRunner::new()
        .handler("beta", "obedient")
        .manifest("beta", "job_types = ['shared', 'only-beta']\ntimeout = '2s'")
        .handler("alpha", "obedient")
        .manifest("alpha", "job_types = 'shared'\ntimeout = '1s'")
        .start();
    let timeout = |job_type: &str| {
        let job = runner.ended(&runner.enqueue(job_type, r#"{"do":"job"}"#));
        job.result.expect("the guest answered")["timeout-ms"].clone()
    };
    assert_eq!(timeout("shared"), 1_000);
    let said = runner.said_once("handler `beta` is not served");
    assert!(said.contains("`shared`") && said.contains("`alpha`"), "{said}");
    let waiting = runner.enqueue("only-beta", r#"{"do":"complete"}"#);
    assert!(runner.is(&waiting, "parked"), "the second is refused whole");
    // Later alike.
    runner.put("aardvark.toml", b"job_types = 'shared'\ntimeout = '3s'");
    runner.put_guest("aardvark", "obedient");
    eventually!(timeout("shared") == 3_000);
    runner.said_once("handler `alpha` is not served");
    // And who was refused has its turn when the first is gone.
    for name in ["aardvark", "alpha"] {
        runner.remove(&format!("{name}.wasm"));
        runner.remove(&format!("{name}.toml"));
    }
    eventually!(timeout("shared") == 2_000);
    assert_eq!(runner.ended(&waiting).state, "completed");
}

// === bad files ===

#[test]
fn bad_file_keeps_the_old_generation_and_is_said_once() {
    let runner = TestRunner::obeying();
    let before = serving(&runner, "obey");
    for round in 0..2 {
        runner.put("obey.wasm", b"this is no component");
        until_looked_at(&runner, &format!("marker-{round}"));
        assert_eq!(serving(&runner, "obey"), before);
    }
    let said = runner.said_once("cannot load handler `obey`");
    assert!(said.contains(&format!("generation {before} stays")), "{said}");
    runner.put("obey.wasm", &variant(&guests::guest("obedient"), "mended"));
    eventually!(serving(&runner, "obey") != before);
}

#[test]
fn broken_manifest_keeps_the_old_generation_and_never_means_defaults() {
    let runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "retry.max_failures = 7").start();
    let max_failures = || runner.ended(&runner.ask("job")).result.expect("the guest answered")["max-failures"].clone();
    assert_eq!(max_failures(), 7);
    for (broken, why) in [
        ("retry.max_failures = ", "obey.toml"),
        ("max_failures = 7", "`max_failures`"),
        ("timeout = '-1s'", "`timeout`"),
        ("job_types = []", "`job_types`"),
        ("memory = '100TiB'", "`memory`"),
    ] {
        let said = runner.says("cannot load handler `obey`");
        runner.put("obey.toml", broken.as_bytes());
        eventually!(runner.says("cannot load handler `obey`") == said + 1);
        let log = runner.log();
        let last = log.iter().rev().map(crate::support::message).find(|m| m.contains("cannot load handler `obey`"));
        assert!(last.is_some_and(|last| last.contains(why)), "{broken}: {last:?}");
        assert_eq!(max_failures(), 7, "{broken}");
    }
}

#[test]
fn new_handler_with_a_broken_manifest_is_not_served_until_that_is_mended() {
    let runner = TestRunner::new().manifest("obey", "nonsense = 1").handler("obey", "obedient").start();
    runner.said_once("cannot load handler `obey`");
    let id = runner.ask("complete");
    assert!(runner.is(&id, "parked"));
    runner.put("obey.toml", b"");
    assert_eq!(runner.ended(&id).state, "completed");
}

#[test]
fn restart_with_a_bad_file_serves_the_last_good_pair() {
    let mut runner = TestRunner::new().handler("obey", "obedient").manifest("obey", "timeout = '5s'").start();
    let before = serving(&runner, "obey");
    runner.stop();
    runner.put("obey.wasm", b"this is no component");
    for _ in 0..2 {
        runner.restart(&[]);
        assert_eq!(serving(&runner, "obey"), before);
        assert_eq!(runner.ended(&runner.ask("job")).result.expect("the guest answered")["timeout-ms"], 5_000);
        runner.kill();
    }
    // A broken manifest alike.
    runner.put_guest("obey", "obedient");
    runner.put("obey.toml", b"timeout = 'never'");
    runner.restart(&[]);
    assert_eq!(serving(&runner, "obey"), before);
    assert_eq!(runner.says("served by its last good generation"), 3);
}

#[test]
fn every_kind_of_bad_file_is_one_clear_warning_and_the_others_go_on() {
    let component = guests::guest("obedient");
    let contract = guests::contract();
    let module = guests::module(&guests::text("idle"), &contract, "job-handler");
    let other_version = contract.replace("package sandhog:jobs@1.0.0", "package sandhog:jobs@2.0.0");
    let of_version_2 = guests::text("idle").replace("@1.0.0", "@2.0.0");
    let of_version_2 = guests::encoded(&guests::module(&of_version_2, &other_version, "job-handler"));
    let bad: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "empty"),
        ("text", b"#!/bin/sh\necho hello\n".to_vec(), "not a component"),
        ("zeros", vec![0; 4_096], "not a component"),
        ("cut", component[..component.len() / 2].to_vec(), "cut short"),
        ("elf", [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 512]].concat(), "native program"),
        ("module", wat::parse_str("(module (func (export \"run\")))").expect("it is sound"), "does not carry"),
        ("mangled", [&component[..component.len() - 200], &[0xff; 200]].concat(), "not valid"),
        ("version-2", of_version_2, "made for `sandhog:jobs@2"),
    ];
    let runner = TestRunner::obeying();
    for (name, bytes, _) in &bad {
        runner.put(&format!("{name}.wasm"), bytes);
    }
    let sparse = File::create(runner.handler_path("sparse.wasm")).expect("the folder is ours");
    sparse.set_len(1 << 30).expect("a sparse file needs no room");
    fs::create_dir(runner.handler_path("folder.wasm")).expect("the folder is ours");
    symlink("nowhere", runner.handler_path("dangling.wasm")).expect("the folder is ours");
    // A core module that carries its type is no bad file.
    runner.put("bare.wasm", &module);
    until_looked_at(&runner, "marker");

    let rest = [("sparse", "over the limit"), ("folder", "not a file"), ("dangling", "No such file")];
    let expected = bad.iter().map(|(name, _, why)| (*name, *why)).chain(rest);
    for (name, why) in expected {
        eventually!(runner.says(&format!("cannot load handler `{name}`")) > 0);
        let said = runner.said_once(&format!("cannot load handler `{name}`"));
        assert!(said.contains(why), "{name}: {said}");
        assert!(runner.is(&runner.enqueue(name, "{}"), "parked"));
    }
    assert_eq!(runner.says("cannot load handler"), bad.len() + rest.len());
    serving(&runner, "obey");
    serving(&runner, "bare");
}

#[test]
fn link_that_leads_out_of_the_folder_is_refused() {
    let runner = TestRunner::obeying();
    fs::write(runner.path("outside.wasm"), guests::guest("idle")).expect("the folder is ours");
    symlink("../outside.wasm", runner.handler_path("out.wasm")).expect("the folder is ours");
    symlink("obey.wasm", runner.handler_path("in.wasm")).expect("the folder is ours");
    eventually!(runner.says("cannot load handler `out`") == 1);
    let said = runner.said_once("cannot load handler `out`");
    assert!(said.contains("leads out"), "{said}");
    serving(&runner, "in");
    assert!(runner.is(&runner.enqueue("out", "{}"), "parked"));
}

#[test]
fn temporary_and_hidden_files_are_not_looked_at() {
    let runner = TestRunner::obeying();
    let below = runner.handler_path("below");
    fs::create_dir(&below).expect("the folder is ours");
    for name in
        [".hidden.wasm", "x.wasm.tmp", "x.wasm~", ".#x.wasm", "x.wasm.part", "notes.txt", "below/deep.wasm", ".wasm"]
    {
        fs::write(runner.handler_path(name), b"not yet a component").expect("the folder is ours");
    }
    until_looked_at(&runner, "marker");
    assert_eq!(runner.says("cannot load"), 0);
    let warnings: Vec<_> = runner.log().into_iter().filter(|line| line["level"] == "WARN").collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn component_that_is_copied_slowly_is_loaded_when_it_is_whole() {
    let runner = TestRunner::new().start();
    let component = guests::guest("obedient");
    let id = runner.ask("complete");
    for end in [component.len() / 4, component.len() / 2, component.len()] {
        fs::write(runner.handler_path("obey.wasm"), &component[..end]).expect("the folder is ours");
        // Something is served in between, so that the runner may look at the half of it.
        until_looked_at(&runner, &format!("marker-{end}"));
    }
    assert_eq!(runner.ended(&id).state, "completed");
}

#[test]
fn handler_whose_start_function_spins_holds_up_no_other() {
    let mut runner = TestRunner::new().manifest("stuck", "timeout = '60s'").handler("stuck", "start");
    // One that is there at the start, behind it by name, and one that comes later.
    runner.put_guest("zoe", "obedient");
    runner.spawn(&[]);
    let id = runner.enqueue("zoe", r#"{"do":"complete"}"#);
    assert_eq!(runner.ended(&id).state, "completed");
    runner.put_guest("amy", "obedient");
    serving(&runner, "amy");
    assert_eq!((runner.says("cannot load handler `stuck`"), runner.says("ready: ")), (0, 0), "it still spins");
}

#[test]
fn handler_of_all_others_waits_at_the_start_until_the_others_are_there() {
    let mut runner = TestRunner::new()
        .manifest("all", "job_types = '*'")
        .handler("all", "obedient")
        .manifest("stuck", "timeout = '3s'")
        .handler("stuck", "start")
        .handler("zoe", "idle");
    let named = runner.enqueue("zoe", "{}");
    let other = runner.enqueue("other", r#"{"do":"complete"}"#);
    runner.spawn(&[]);
    assert_eq!(runner.ended(&named).state, "completed");
    let other = runner.ended(&other);
    assert_ne!(runner.job(&named).generation, other.generation);
    eventually!(runner.says("ready: ") == 1);
}
