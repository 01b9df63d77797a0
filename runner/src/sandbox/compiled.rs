//! Keeps compiled code, so that a file is compiled once and not at every start.
//!
//! Compiled code is trusted: loading it runs it outside any sandbox. So it lies in a directory that only we can write,
//! never in the one that handlers are dropped into, and is checked against its digest before it is loaded.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::load::Quiet;
use super::quiet;
use crate::generation::hex;

/// What all compiled code together may take up; beyond it, what was not used for longest goes.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// A directory of compiled code.
#[derive(Debug)]
pub(super) struct Compiled {
    dir: PathBuf,
    /// What else the code depends on: the engine's settings and ours.
    suffix: String,
}

/// Compiled code that is trusted: made in this process, or kept in the directory and what was written there.
pub(super) struct Code {
    bytes: Vec<u8>,
    /// Where it is kept.
    path: Option<PathBuf>,
}

/// What is noted beside compiled code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    /// The digest of the compiled code.
    sha256: String,
    pub(super) quiet: Quiet,
    /// How long compiling took.
    pub(super) compile_time: Duration,
}

// === impl Compiled ===

impl Compiled {
    /// Uses a directory if it is safe to, and says so in the log if not.
    pub(super) fn open(dir: &Path, engine: &Engine, spare_pages: u32) -> Option<Compiled> {
        if let Err(error) = ours(dir) {
            tracing::warn!(
                path = %dir.display(),
                error = %error,
                "compiled code is not kept, every start compiles again"
            );
            return None;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        spare_pages.hash(&mut hasher);
        let suffix = format!("{}-{:016x}", quiet::VERSION, hasher.finish());
        Some(Compiled { dir: dir.to_owned(), suffix })
    }

    /// What was made of a file with this digest, for each engine, if it is there and whole, and its size in bytes.
    pub(super) fn load<'a>(
        &self,
        engines: impl Iterator<Item = &'a Engine>,
        file: &str,
    ) -> Option<(Vec<Component>, Note, usize)> {
        let (code_path, note_path) = self.paths(file);
        let note = fs::read(&note_path).ok()?;
        let bytes = fs::read(&code_path).ok()?;
        let loaded = serde_json::from_slice::<Note>(&note).map_err(|e| e.to_string()).and_then(|note| {
            if note.sha256 != hex(&Sha256::digest(&bytes)) {
                return Err("it is not what was written".to_owned());
            }
            let code = Code { bytes, path: Some(code_path.clone()) };
            let components = engines.map(|engine| code.load(engine)).collect::<Result<_, _>>();
            Ok((components.map_err(|e| format!("{e:#}"))?, note, code.len()))
        });
        match loaded {
            Ok(loaded) => {
                // Marks it as used. Should that fail, it only goes sooner.
                drop(File::open(&code_path).and_then(|file| file.set_modified(SystemTime::now())));
                Some(loaded)
            }
            Err(error) => {
                tracing::warn!(path = %code_path.display(), error, "compiled code is damaged, compiling again");
                None
            }
        }
    }

    /// Keeps what was made of a file. A failure costs nothing but compiling again.
    pub(super) fn store(&self, file: &str, code: &mut Code, quiet: &Quiet, compile_time: Duration) {
        let note = Note { sha256: hex(&Sha256::digest(&code.bytes)), quiet: quiet.clone(), compile_time };
        let note = serde_json::to_vec(&note).expect("a note has no map with keys that are not text");
        let (code_path, note_path) = self.paths(file);
        // The note last: code without a note is never loaded, and a note with older code does not fit it.
        let stored = write(&code_path, &code.bytes).and_then(|()| write(&note_path, &note));
        if stored.is_ok() {
            code.path = Some(code_path);
        }
        if let Err(error) = stored.and_then(|()| self.shrink(CACHE_BYTES_MAX)) {
            tracing::warn!(path = %self.dir.display(), error = %error, "cannot keep compiled code");
        }
    }

    /// Removes what was not used for longest until the rest fits.
    pub(super) fn shrink(&self, bytes_max: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What another load wrote under another name first, or removed, is gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, path) in files {
            if bytes <= bytes_max {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= size,
            }
        }
        Ok(())
    }

    fn paths(&self, file: &str) -> (PathBuf, PathBuf) {
        let name = format!("{file}-{}", self.suffix);
        (self.dir.join(format!("{name}.cwasm")), self.dir.join(format!("{name}.json")))
    }
}

// === impl Code ===

impl Code {
    /// That of a component that was compiled in this process.
    pub(super) fn of(component: &Component) -> wasmtime::Result<Code> {
        Ok(Code { bytes: component.serialize()?, path: None })
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes a component of it. From the file where there is one: it is in memory once then, for all engines and runners.
    #[expect(unsafe_code, reason = "there is no other way to load compiled code; see SAFETY")]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must be what `Component::serialize` gave, and those of a mapped file must not change. `of` took
        // them from it just now; or `store` wrote them so, under a name that is only ever replaced whole, into a directory
        // that nobody but our own user can write (`ours`), and `Compiled::load` has just compared them with the digest that
        // was taken of them then. Code of another version of the engine, or for other settings, is refused by the engine.
        unsafe {
            let mapped = self.path.as_ref().and_then(|path| Component::deserialize_file(engine, path).ok());
            // The file may be gone again, to make room, or lie where nothing may be executed.
            mapped.map_or_else(|| Component::deserialize(engine, &self.bytes), Ok)
        }
    }
}

/// Makes the directory if it is not there, and refuses one that others could write to.
fn ours(dir: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| e.to_string())?;
    let metadata = fs::symlink_metadata(dir).map_err(|e| e.to_string())?;
    if !metadata.is_dir() {
        return Err("it is no directory".to_owned());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("its mode is {:o}, where only 700 is safe", metadata.mode() & 0o777));
    }
    Ok(())
}

/// Under another name first, so that nobody ever sees half of it.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    // Two handlers of the same bytes may be loaded at the same time.
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{write}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}
