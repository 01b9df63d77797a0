//! The last pair of each handler that loaded, kept in the state folder, so that a restart has it too.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::generation::{Generation, hex};
use crate::reload::folder::Pair;

/// Where last good pairs are kept: `NAME.last` says the generation, and the pair lies beside it under the generation's
/// name, once for all handlers that share it.
#[derive(Debug, Clone)]
pub(crate) struct LastGood {
    dir: PathBuf,
}

// === impl LastGood ===

impl LastGood {
    /// The pairs of the handlers in `folder`, kept under `state_dir`. Several runners may share a state folder and have
    /// handlers of one name in different folders.
    pub(crate) fn new(state_dir: &Path, folder: &Path) -> LastGood {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let folder = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        LastGood { dir: state_dir.join("last-good").join(hex(&folder[..6])) }
    }

    /// Keeps `pair` as the last good one of the handler `name`.
    pub(crate) fn keep(&self, name: &str, generation: &Generation, pair: &Pair) -> io::Result<()> {
        // At most starts it is there already, whole.
        if self.get(name).is_some_and(|(kept, _)| kept == *generation) {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        if let Some(manifest) = &pair.manifest {
            self.write(&format!("{generation}.toml"), manifest)?;
        }
        self.write(&format!("{generation}.wasm"), &pair.component)?;
        self.write(&format!("{name}.last"), generation.as_str().as_bytes())?;
        self.sweep()
    }

    /// Forgets the handler `name`, whose file was deleted.
    pub(crate) fn forget(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(format!("{name}.last"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sweep()),
        }
    }

    /// The last good pair of the handler `name`, unless what was kept is gone or damaged.
    pub(crate) fn get(&self, name: &str) -> Option<(Generation, Pair)> {
        let generation = Generation::named(&fs::read_to_string(self.dir.join(format!("{name}.last"))).ok()?);
        let component = fs::read(self.dir.join(format!("{generation}.wasm"))).ok()?;
        let manifest = fs::read(self.dir.join(format!("{generation}.toml"))).ok();
        let pair = Pair { component, manifest };
        (pair.generation() == generation).then_some((generation, pair))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = self.dir.join(format!("{name}.part-{}", std::process::id()));
        fs::write(&part, bytes)?;
        fs::rename(part, self.dir.join(name))
    }

    /// Removes the pairs that nothing names any more.
    fn sweep(&self) -> io::Result<()> {
        let (mut named, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "last") {
                named.push(fs::read_to_string(&path)?);
            } else {
                files.push(path);
            }
        }
        for file in files {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_pair = file.extension().is_some_and(|extension| extension == "wasm" || extension == "toml");
            if is_pair && !named.iter().any(|generation| generation == stem) {
                fs::remove_file(&file)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_names_the_last_good_pair_only_a_pair_of_that_name_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood { dir: dir.path().to_owned() };
        let pair = Pair { component: b"component".to_vec(), manifest: Some(b"manifest".to_vec()) };
        kept.keep("a", &pair.generation(), &pair).unwrap();
        let name = kept.dir.join("a.last");
        crate::fuzzing::fuzz("last_good", vec![fs::read(&name).unwrap()], |bytes| {
            fs::write(&name, bytes).unwrap();
            if let Some((generation, found)) = kept.get("a") {
                assert_eq!((generation.as_str().as_bytes(), found.generation()), (bytes, generation.clone()));
                assert_eq!(found.component, b"component");
            }
        });
    }
}
