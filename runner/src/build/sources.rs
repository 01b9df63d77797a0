//! What a handler is built of, as far as a look at its folder can tell: so that a change is noticed, and what a build leaves is
//! none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::language::Project;

/// A look at a project's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
    folders: Vec<PathBuf>,
}

/// Folders that hold nothing that a build takes in: what tools make, and the cases of `sandhog test`.
const OTHERS: [&str; 7] = ["__pycache__", "jobs", "node_modules", "target", "venv", "zig-cache", "zig-out"];

/// More files than that are no handler's. What is beyond is not watched.
const FILES_MAX: usize = 10_000;

// === impl Sources ===

impl Sources {
    /// Looks. What is hidden, what tools make, and the component itself are no sources.
    pub(crate) fn of(project: &Project) -> Sources {
        let mut sources = Sources { files: BTreeMap::new(), folders: vec![project.folder().to_owned()] };
        let component = project.folder().join(format!("{}.wasm", project.name()));
        let mut at = 0;
        while let Some(folder) = sources.folders.get(at).cloned() {
            at += 1;
            sources.look_into(&folder, &component);
        }
        sources
    }

    /// When the newest of them was changed.
    pub(crate) fn newest(&self) -> Option<SystemTime> {
        self.files.values().filter_map(|(_, modified)| *modified).max()
    }

    /// The folders that they are in.
    pub(crate) fn folders(&self) -> Vec<&Path> {
        self.folders.iter().map(PathBuf::as_path).collect()
    }

    fn look_into(&mut self, folder: &Path, component: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // A link may lead back to where it is.
            let Ok(metadata) = entry.metadata() else { continue };
            if name.starts_with('.') || self.files.len() + self.folders.len() >= FILES_MAX {
                continue;
            }
            let path = entry.path();
            if metadata.is_dir() && !OTHERS.contains(&name.as_str()) {
                self.folders.push(path);
            } else if metadata.is_file() && path != component {
                self.files.insert(path, (metadata.len(), metadata.modified().ok()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_of_a_source_is_noticed_and_what_a_build_leaves_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
            fs::write(path, text).expect("the folder is ours");
        };
        write("a.toml", "");
        write("src/lib.rs", "1");
        let look = || Sources::of(&Project::open(folder.path()).expect("it is there"));
        let before = look();
        for left in ["a.wasm", "target/x", ".sandhog/y", "src/.lib.rs.swp", "node_modules/z/a.js"] {
            write(left, "");
            assert_eq!(look(), before, "{left}");
        }
        write("src/lib.rs", "22");
        assert_ne!(look(), before);
        let before = look();
        write("src/deep/er.rs", "");
        assert_ne!(look(), before);
        assert_eq!(look().folders().len(), 3);
    }
}
