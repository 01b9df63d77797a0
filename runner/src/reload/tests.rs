//! Claims about the handlers' folder, what lies in it, and what was kept of it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::folder::ReadError;
use super::known::{GRACE, SETTLED};
use super::record::Record;
use super::*;
use crate::clock::UnixMs;

const NAME: &str = "resize";

const LOAD: Step = Step::Load(Source::Folder);

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().join("handlers"));
    fs::create_dir(folder.path()).unwrap();
    (dir, folder)
}

fn write(folder: &Folder, name: &str, text: &str) {
    fs::write(folder.path().join(name), text).unwrap();
}

/// What is to be done about the handler's files, `after` so long without a change.
fn step(known: &mut Known, folder: &Folder, after: Duration) -> Step {
    let look = folder.look().unwrap().remove(NAME);
    known.step(look.as_ref(), Instant::now(), false);
    let step = known.step(look.as_ref(), known.since + after, false);
    if let Step::Load(source) = &step {
        known.begin(source);
        known.loading = false;
    }
    step
}

#[test]
fn only_visible_components_are_looked_at() {
    let (_dir, folder) = folder();
    for name in ["a.wasm", "a.toml", ".hidden.wasm", ".wasm", "b.wasm.part", "c.txt", "d.toml"] {
        write(&folder, name, "");
    }
    assert_eq!(folder.look().unwrap().into_keys().map(|name| name.to_string()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn component_is_loaded_once_it_has_settled_and_its_manifest_had_time_to_come() {
    let (_dir, folder) = folder();
    let mut known = Known::new(Instant::now());
    write(&folder, "resize.wasm", "1");
    assert!(matches!(step(&mut known, &folder, SETTLED), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
    assert_eq!(step(&mut known, &folder, GRACE), Step::Nothing);
    write(&folder, "resize.toml", "");
    assert!(matches!(step(&mut known, &folder, Duration::ZERO), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, SETTLED), LOAD);
}

#[test]
fn deleted_component_is_forgotten_after_a_grace() {
    let (_dir, folder) = folder();
    let mut known = Known::new(Instant::now());
    write(&folder, "resize.wasm", "1");
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
    fs::remove_file(folder.path().join("resize.wasm")).unwrap();
    assert!(matches!(step(&mut known, &folder, SETTLED), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, GRACE), Step::Forget);
}

#[test]
fn nothing_else_of_a_handler_is_loaded_while_something_is() {
    let (_dir, folder) = folder();
    let mut known = Known::new(Instant::now());
    write(&folder, "resize.wasm", "1");
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
    known.loading = true;
    write(&folder, "resize.wasm", "22");
    assert_eq!(step(&mut known, &folder, GRACE), Step::Nothing);
    known.loading = false;
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
}

#[test]
fn pinned_generation_goes_before_the_folder_until_it_cannot_be_had() {
    let (_dir, folder) = folder();
    let mut known = Known::new(Instant::now());
    write(&folder, "resize.wasm", "1");
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
    let pinned = Generation::named("abc");
    known.pin(Some(pinned.clone()));
    assert_eq!(step(&mut known, &folder, Duration::ZERO), Step::Load(Source::Pinned(pinned.clone())));
    known.void_pin();
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
    known.pin(Some(pinned));
    assert_eq!(step(&mut known, &folder, GRACE), Step::Nothing, "it is the same pin");
    known.pin(None);
    assert_eq!(step(&mut known, &folder, GRACE), LOAD);
}

#[test]
fn file_that_is_no_plain_file_of_the_folder_is_refused() {
    let (dir, folder) = folder();
    fs::write(dir.path().join("outside.wasm"), "secret").unwrap();
    symlink(dir.path().join("outside.wasm"), folder.path().join("link.wasm")).unwrap();
    symlink("nowhere", folder.path().join("broken.wasm")).unwrap();
    fs::create_dir(folder.path().join("dir.wasm")).unwrap();
    File::create(folder.path().join("huge.wasm")).unwrap().set_len(1 << 30).unwrap();
    write(&folder, "good.wasm", "1");
    symlink("good.wasm", folder.path().join("inside.wasm")).unwrap();
    assert!(matches!(folder.read("link"), Err(ReadError::LeadsOut(_))));
    assert!(matches!(folder.read("broken"), Err(ReadError::Io { .. })));
    assert!(matches!(folder.read("dir"), Err(ReadError::NotAFile(_))));
    assert!(matches!(folder.read("huge"), Err(ReadError::TooLarge { .. })));
    assert_eq!(folder.read("inside").unwrap(), Pair { component: b"1".into(), manifest: None });
    assert_eq!(folder.look().unwrap().len(), 6);
}

/// Has the handler served by a pair from the folder.
fn deploy(history: &History, name: &str, pair: &Pair) -> Record {
    let generation = pair.generation();
    history.keep(name, pair, &generation, |record| record.deployed(&generation, vec![], UnixMs(0))).unwrap()
}

fn pair(text: &str) -> Pair {
    Pair { component: text.into(), manifest: Some(b"#".into()) }
}

#[test]
fn pairs_are_kept_by_digest_and_swept_when_nothing_names_them() {
    let (dir, folder) = folder();
    let history = History::new(dir.path(), folder.path());
    for text in ["1", "2"] {
        deploy(&history, NAME, &pair(text));
    }
    deploy(&history, "other", &pair("2"));
    let record = history.read(NAME).unwrap();
    assert_eq!(record.serving, Some(pair("2").generation()));
    assert_eq!(history.pair(&record.generations[1].generation), Some(pair("1")));
    assert_eq!(history.read("unheard-of").unwrap(), Record::default());
    let kept = || walk(&dir.path().join("generations"));
    assert_eq!(kept(), 4 + 2 + 1, "two pairs, two records, one lock");
    fs::write(history.dir().join("3.wasm.part"), "half").unwrap();
    history.forget(NAME).unwrap();
    history.forget(NAME).unwrap();
    assert_eq!((history.read(NAME).unwrap(), kept()), (Record::default(), 2 + 1 + 1));
    for n in 0..20 {
        deploy(&history, "other", &pair(&format!("n{n}")));
    }
    assert_eq!(kept(), 6 * 2 + 1 + 1, "what is kept has an end");
}

#[test]
fn damaged_pair_is_not_loaded_and_a_damaged_record_begins_anew() {
    let (dir, folder) = folder();
    let history = History::new(dir.path(), folder.path());
    deploy(&history, NAME, &pair("1"));
    let generation = pair("1").generation();
    fs::write(history.dir().join(format!("{generation}.wasm")), "2").unwrap();
    assert_eq!(history.pair(&generation), None);
    deploy(&history, NAME, &pair("1"));
    assert_eq!(history.pair(&generation), Some(pair("1")), "it is written again");
    for damaged in ["", "{", "7", "{\"serving\":\"../../etc/passwd\"}"] {
        fs::write(history.dir().join("resize.json"), damaged).unwrap();
        assert!(matches!(history.read(NAME), Err(HistoryError::Damaged { .. })), "{damaged}");
    }
    assert_eq!(deploy(&history, NAME, &pair("1")).generations.len(), 1);
    assert_eq!(history.read(NAME).unwrap().serving, Some(generation));
}

#[test]
fn whatever_a_record_says_only_pairs_of_the_names_in_it_are_given() {
    let (dir, folder) = folder();
    let history = History::new(dir.path(), folder.path());
    deploy(&history, NAME, &pair("1"));
    let path = history.dir().join("resize.json");
    crate::fuzzing::fuzz("record", vec![fs::read(&path).unwrap()], |bytes| {
        fs::write(&path, bytes).unwrap();
        let Ok(mut record) = history.read(NAME) else { return };
        for name in record.generations.iter().map(|kept| &kept.generation).chain(&record.serving).chain(&record.pinned)
        {
            assert!(history.pair(name).is_none_or(|found| found.generation() == *name));
        }
        record.deployed(&pair("2").generation(), Vec::new(), UnixMs(1));
        assert_eq!(record.present().is_some(), record.serving.is_some() || record.pinned.is_some());
        let read_again: record::Record = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(read_again, record);
    });
}

#[test]
fn changes_by_several_at_a_time_are_all_kept() {
    let (dir, folder) = folder();
    let history = History::new(dir.path(), folder.path());
    std::thread::scope(|threads| {
        for n in 0..4 {
            let history = &history;
            threads.spawn(move || deploy(history, NAME, &pair(&n.to_string())));
        }
    });
    assert_eq!(history.read(NAME).unwrap().generations.len(), 4);
}

/// How many files there are in the folders below `path`.
fn walk(path: &Path) -> usize {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}
