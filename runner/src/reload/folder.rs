//! What lies in the handlers' folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

/// The largest component that is read. `CPython` with its library has some 20 MB.
const COMPONENT_BYTES_MAX: u64 = 256 << 20;

/// The largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// The handlers' folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// What tells two states of a pair of files apart without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    component: FileLook,
    manifest: Option<FileLook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileLook {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The bytes of a component and of its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) component: Vec<u8>,
    pub(crate) manifest: Option<Vec<u8>>,
}

/// Why a pair cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("`{0}` leads out of the handlers' folder")]
    LeadsOut(String),
    #[error("`{0}` is not a file")]
    NotAFile(String),
    #[error("`{name}` has {size} bytes, which is over the limit of {limit}")]
    TooLarge { name: String, size: u64, limit: u64 },
    #[error("cannot read `{name}`: {error}")]
    Io { name: String, error: io::Error },
}

// === impl Folder ===

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Folder {
        Folder { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The stems of the components in the folder. Hidden and temporary files are none, nor is what lies in folders below.
    pub(crate) fn look(&self) -> io::Result<BTreeMap<Arc<str>, Look>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".wasm")) else { continue };
            if stem.is_empty() || stem.starts_with('.') {
                continue;
            }
            // A file that vanished since it was listed is not there.
            let Some(component) = self.look_at(&format!("{stem}.wasm")) else { continue };
            let manifest = self.look_at(&format!("{stem}.toml"));
            found.insert(Arc::from(stem), Look { component, manifest });
        }
        Ok(found)
    }

    /// Reads the component and the manifest of `stem`.
    pub(crate) fn read(&self, stem: &str) -> Result<Pair, ReadError> {
        let component = self.read_file(&format!("{stem}.wasm"), COMPONENT_BYTES_MAX)?;
        let manifest = match self.read_file(&format!("{stem}.toml"), MANIFEST_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Pair { component, manifest })
    }

    fn look_at(&self, name: &str) -> Option<FileLook> {
        FileLook::at(&self.path.join(name))
    }

    fn read_file(&self, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let io = |error| ReadError::Io { name: name.to_owned(), error };
        let path = self.path.join(name);
        let folder = self.path.canonicalize().map_err(io)?;
        // Links inside the folder are how some systems swap files; one that leads out would read what only we may read.
        if !path.canonicalize().map_err(io)?.starts_with(&folder) {
            return Err(ReadError::LeadsOut(name.to_owned()));
        }
        // A pipe would block the open for ever.
        if !fs::metadata(&path).map_err(io)?.is_file() {
            return Err(ReadError::NotAFile(name.to_owned()));
        }
        // Should a pipe have come in its place since, this does not block either.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open fits");
        let file = File::options().read(true).custom_flags(flags).open(&path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let too_large = |size| ReadError::TooLarge { name: name.to_owned(), size, limit };
        if size > limit {
            return Err(too_large(size));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > limit {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes)
    }
}

// === impl Look ===

impl Look {
    /// Whether there is a manifest.
    pub(crate) fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }
}

// === impl FileLook ===

impl FileLook {
    /// How the file looks, if it is there.
    pub(crate) fn at(path: &Path) -> Option<FileLook> {
        // A link that leads nowhere is there, and is an error to report.
        let metadata = fs::metadata(path).or_else(|_| fs::symlink_metadata(path)).ok()?;
        Some(FileLook {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
