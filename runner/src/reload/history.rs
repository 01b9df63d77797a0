//! What is kept of all handlers of a folder, in the state folder, so that a restart has it too, and other processes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::folder::{FileLook, Pair};
use super::record::Record;
use crate::generation::{Generation, hex};

/// The records of handlers, `NAME.json`, and beside them the pairs that they name, each under its generation's name, once
/// for all handlers that share it. Runners and commands change them under one lock; who only reads needs none, since files
/// are renamed over.
#[derive(Debug, Clone)]
pub(crate) struct History {
    dir: PathBuf,
}

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error("`{}`: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("`{}` is damaged", .path.display())]
    Damaged { path: PathBuf },
}

// === impl History ===

impl History {
    /// What is kept of the handlers in `folder`, under `state_dir`. Several runners may share a state folder and have
    /// handlers of one name in different folders.
    pub(crate) fn new(state_dir: &Path, folder: &Path) -> History {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let folder = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        History { dir: state_dir.join("generations").join(hex(&folder[..6])) }
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the place for it, which then can be watched.
    pub(crate) fn make(&self) -> Result<(), HistoryError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| HistoryError::Io { path: self.dir.clone(), error })
    }

    /// The handlers of which something is kept.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".json").map(Arc::from)).collect()
    }

    /// What tells two states of a record apart.
    pub(crate) fn look(&self, name: &str) -> Option<FileLook> {
        FileLook::at(&self.record(name))
    }

    /// What is kept of the handler `name`; nothing of one that was never served.
    pub(crate) fn read(&self, name: &str) -> Result<Record, HistoryError> {
        let path = self.record(name);
        match fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes).ok().filter(Record::is_sound);
                record.ok_or(HistoryError::Damaged { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(HistoryError::Io { path, error }),
        }
    }

    /// Changes what is kept of the handler `name`. Answers what `change` did, and what is kept now. What was damaged
    /// begins anew.
    pub(crate) fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Result<(T, Record), HistoryError> {
        let _lock = self.lock()?;
        let before = self.read(name).unwrap_or_default();
        let mut record = before.clone();
        let changed = change(&mut record);
        if record != before {
            self.write_record(name, &record)?;
        }
        Ok((changed, record))
    }

    /// The same, and keeps the pair that is a new generation of it.
    pub(crate) fn keep(
        &self,
        name: &str,
        pair: &Pair,
        generation: &Generation,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, HistoryError> {
        // At most starts it is there already, whole. That is not looked into under the lock, for which others wait.
        let is_kept = self.pair(generation).is_some();
        let _lock = self.lock()?;
        let before = self.read(name).unwrap_or_default();
        let mut record = before.clone();
        change(&mut record);
        // What no record names yet may have been swept since.
        if !is_kept || before.kept(generation).is_none() {
            if let Some(manifest) = &pair.manifest {
                self.write(&format!("{generation}.toml"), manifest)?;
            }
            self.write(&format!("{generation}.wasm"), &pair.component)?;
        }
        if record != before {
            self.write_record(name, &record)?;
            self.sweep();
        }
        Ok(record)
    }

    /// The pair that is this generation, unless what was kept is gone or damaged.
    pub(crate) fn pair(&self, generation: &Generation) -> Option<Pair> {
        let component = fs::read(self.dir.join(format!("{generation}.wasm"))).ok()?;
        let manifest = fs::read(self.dir.join(format!("{generation}.toml"))).ok();
        let pair = Pair { component, manifest };
        (pair.generation() == *generation).then_some(pair)
    }

    /// The manifest of this generation, which may be empty; none if nothing is kept of it. Its digest is not looked at.
    pub(crate) fn manifest(&self, generation: &Generation) -> Option<String> {
        match fs::read_to_string(self.dir.join(format!("{generation}.toml"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.dir.join(format!("{generation}.wasm")).exists().then(String::new)
            }
            manifest => manifest.ok(),
        }
    }

    /// Forgets the handler `name`, whose file was deleted.
    pub(crate) fn forget(&self, name: &str) -> Result<(), HistoryError> {
        let _lock = self.lock()?;
        let path = self.record(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HistoryError::Io { path, error }),
            _ => {
                self.sweep();
                Ok(())
            }
        }
    }

    fn record(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Held while something is changed; the system gives it back should this process die.
    fn lock(&self) -> Result<File, HistoryError> {
        self.make()?;
        let path = self.dir.join("lock");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| HistoryError::Io { path, error })
    }

    fn write_record(&self, name: &str, record: &Record) -> Result<(), HistoryError> {
        let bytes = serde_json::to_vec_pretty(record).expect("a record has no map with keys that are not text");
        self.write(&format!("{name}.json"), &bytes)
    }

    /// Under another name first, so that nobody ever sees half of it, after a failure of power neither.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HistoryError> {
        let (path, part) = (self.dir.join(name), self.dir.join(format!("{name}.part")));
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(|error| HistoryError::Io { path: path.clone(), error })
    }

    /// Removes the pairs that no record names any more, and what was begun and not finished. What cannot be removed, or not
    /// now, is in nobody's way.
    fn sweep(&self) {
        let records: Result<Vec<Record>, HistoryError> = self.names().iter().map(|name| self.read(name)).collect();
        let (Ok(records), Ok(entries)) = (records, fs::read_dir(&self.dir)) else { return };
        let named: Vec<&str> =
            records.iter().flat_map(|record| &record.generations).map(|kept| kept.generation.as_str()).collect();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let goes = match extension {
                "wasm" | "toml" => !named.contains(&stem),
                "part" => true,
                _ => false,
            };
            if goes && let Err(error) = fs::remove_file(&path) {
                tracing::debug!(error = %error, "cannot remove `{}`, which nothing names any more", path.display());
            }
        }
    }
}
