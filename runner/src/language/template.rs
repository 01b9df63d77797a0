//! What `sandhog new` writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file of a template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    /// Where it goes, from the folder of the handler. `NAME` in it is the handler's name.
    pub(crate) path: &'static str,
    /// What is in it. `{{name}}` is the handler's name.
    pub(crate) text: &'static str,
}

/// Files of a folder of this repository, as they go into a handler's folder: `files!("languages/c/template", "", ["a", "b"])`.
macro_rules! files {
    ($from:literal, $into:literal, [$($path:literal),+ $(,)?]) => {
        [$($crate::language::File {
            path: concat!($into, $path),
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $from, "/", $path)),
        }),+]
    };
}
pub(super) use files;

/// Why nothing new was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    /// Something is there already.
    #[error("`{}` is there already, and nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// A file.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The longest name of a handler, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Why this cannot be a new handler's name; none if it can. It becomes a job type, a file, and a package of its language.
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    let mut chars = name.chars();
    if !chars.next().is_some_and(|c| c.is_ascii_lowercase()) {
        return Some("does not begin with a small letter");
    }
    if !chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') || name.ends_with('-') {
        return Some("has something else in it than small letters, digits and, inside, `-`");
    }
    (name.len() > NAME_CHARS_MAX).then_some("has more than 64 characters")
}

/// Writes the files of a template into a folder that is not there yet, or empty.
///
/// # Errors
///
/// There is something, or it cannot be written.
pub(crate) fn write(folder: &Path, name: &str, files: &[File]) -> Result<(), NewError> {
    let failed = |path: &Path, error| NewError::Write { path: path.to_owned(), error };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(NewError::Exists(folder.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(NewError::Exists(folder.to_owned()));
        }
        Err(error) => return Err(failed(folder, error)),
    }
    for file in files {
        let path = folder.join(file.path.replace("NAME", name));
        let parent = path.parent().expect("it is in the folder");
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        fs::write(&path, file.text.replace("{{name}}", name)).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_fit_for_every_language() {
        for name in ["a", "resize", "render-markdown", "md5"] {
            assert_eq!(name_fault(name), None, "{name}");
        }
        for name in ["", "-a", "a-", "1a", "Resize", "a_b", "a b", "a/b", "..", &"a".repeat(65)] {
            assert!(name_fault(name).is_some(), "{name}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let root = tempfile::tempdir().expect("a folder");
        let files = [File { path: "NAME.txt", text: "This is {{name}}." }];
        let folder = root.path().join("one");
        write(&folder, "one", &files).expect("nothing is there");
        assert_eq!(fs::read_to_string(folder.join("one.txt")).expect("it was written"), "This is one.");
        assert!(matches!(write(&folder, "one", &files), Err(NewError::Exists(_))));
        assert!(matches!(write(&folder.join("one.txt"), "one", &files), Err(NewError::Exists(_))));
    }
}
