use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::folder::ReadError;
use super::*;

const NAME: &str = "resize";

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
    known.step(look.as_ref(), known.since + after, false)
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
    let mut known = Known::new();
    write(&folder, "resize.wasm", "1");
    assert!(matches!(step(&mut known, &folder, SETTLED), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, GRACE), Step::Load);
    assert_eq!(step(&mut known, &folder, GRACE), Step::Nothing);
    write(&folder, "resize.toml", "");
    assert!(matches!(step(&mut known, &folder, Duration::ZERO), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, SETTLED), Step::Load);
}

#[test]
fn deleted_component_is_forgotten_after_a_grace() {
    let (_dir, folder) = folder();
    let mut known = Known::new();
    write(&folder, "resize.wasm", "1");
    assert_eq!(step(&mut known, &folder, GRACE), Step::Load);
    fs::remove_file(folder.path().join("resize.wasm")).unwrap();
    assert!(matches!(step(&mut known, &folder, SETTLED), Step::Wait(_)));
    assert_eq!(step(&mut known, &folder, GRACE), Step::Forget);
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

#[test]
fn last_good_pair_is_kept_by_digest_and_swept_when_nothing_names_it() {
    let (dir, folder) = folder();
    let last_good = LastGood::new(dir.path(), folder.path());
    let pair = |text: &str| Pair { component: text.into(), manifest: Some(b"#".into()) };
    for text in ["1", "2"] {
        last_good.keep(NAME, &pair(text).generation(), &pair(text)).unwrap();
    }
    assert_eq!(last_good.get(NAME), Some((pair("2").generation(), pair("2"))));
    assert_eq!(last_good.get("other"), None);
    let kept = || walk(&dir.path().join("last-good"));
    assert_eq!(kept(), 3);
    last_good.forget(NAME).unwrap();
    last_good.forget(NAME).unwrap();
    assert_eq!(last_good.get(NAME), None);
    assert_eq!(kept(), 0);
}

#[test]
fn damaged_last_good_pair_is_not_loaded() {
    let (dir, folder) = folder();
    let last_good = LastGood::new(dir.path(), folder.path());
    let pair = Pair { component: b"1".into(), manifest: None };
    last_good.keep(NAME, &pair.generation(), &pair).unwrap();
    let file = fs::read_dir(dir.path().join("last-good")).unwrap().next().unwrap().unwrap().path();
    fs::write(file.join(format!("{}.wasm", pair.generation())), "2").unwrap();
    assert_eq!(last_good.get(NAME), None);
}

/// How many files there are in the folders below `path`.
fn walk(path: &Path) -> usize {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}
