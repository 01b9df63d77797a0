//! A fresh folder for the work, removed at the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A folder that is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

// === impl Folder ===

impl Folder {
    /// Makes one in `dir`, which must be there.
    pub(super) fn new(dir: &Path) -> Result<Folder> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("sandhog-bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Children have another working directory.
        let dir = std::path::absolute(dir).context("cannot tell the working directory")?;
        let path = dir.join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
        Ok(Folder { path })
    }

    /// One inside of this.
    pub(super) fn inside(&self) -> Result<Folder> {
        Folder::new(&self.path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, with the folders that it is in.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let parent = path.parent().expect("it is in this folder");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, bytes))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), error = %error, "cannot remove the benchmark's folder");
        }
    }
}
