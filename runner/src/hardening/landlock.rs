//! Landlock: which files this process can open, whatever its user may.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, RestrictSelf, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::paths::Paths;
use super::{CONFINED, Part};
use crate::config::{Config, Wanted};

/// The newest version whose rules are made use of. Each adds some; those that the kernel does not know are left out.
const RULES: ABI = ABI::V6;

/// The oldest that will do: before it, nobody can rename from one folder to another under Landlock, and handlers with a folder
/// of their own may.
const OLDEST: i32 = 2;

/// Without `Execute`, here and below: a runner starts no program.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | RemoveFile | RemoveDir | MakeReg | MakeDir | MakeSym | MakeSock | Refer
});

/// Sees to it that this thread, and what it will start, gains no rights by starting a program that has them. Answers the version
/// of Landlock that the kernel has, 0 if it has none; nothing if that was not taken.
pub(super) fn seal() -> Option<i32> {
    let status = RestrictSelf::default().apply().ok().filter(|status| status.no_new_privs)?;
    Some(match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi.unwrap_or(effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    })
}

/// Puts all files out of reach but `paths`; `abi` is the version that the kernel has.
pub(super) fn restrict(paths: &Paths, config: &Config, abi: i32) -> Part {
    match (config.hardening.landlock, abi) {
        (Wanted::Off, _) => return Part::Off,
        (_, 0) => return Part::Missing("the kernel has none, or a container keeps it from the runner".to_owned()),
        (_, ..OLDEST) => return Part::Missing(format!("the kernel's version {abi} is too old")),
        (Wanted::Auto | Wanted::Require, _) => {}
    }
    // What is not there yet could not be named. A fault is the queue's to tell, which needs the folder.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir).ok();
    for absent in paths.read.iter().chain(&paths.write).filter(|path| !path.exists()) {
        let path = absent.display();
        tracing::warn!(path = %path, "`{path}` is not there: should it come, the runner can open it only after a restart");
    }
    match enforce(paths) {
        Ok(true) => {
            CONFINED.store(true, Ordering::Relaxed);
            Part::On(format!("landlock (version {abi})"))
        }
        Ok(false) => Part::Missing("the kernel takes none of it".to_owned()),
        Err(error) => Part::Missing(format!("the kernel does not take it: {error}")),
    }
}

fn enforce(paths: &Paths) -> Result<bool, RulesetError> {
    let read = |paths: &[PathBuf]| path_beneath_rules(paths.to_vec(), READ);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        // Nor does it signal others. Abstract sockets stay: a supervisor may listen on one.
        .scope(Scope::Signal)?
        .create()?
        .add_rules(read(&paths.system))?
        .add_rules(read(&paths.read))?
        .add_rules(path_beneath_rules(paths.write.clone(), WRITE))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    /// Runs `claims` on a thread that was restricted to these.
    fn confined(paths: Paths, claims: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if seal() < Some(OLDEST) {
                    eprintln!("NOT TESTED: what Landlock keeps out of reach, since this kernel has no Landlock");
                    return;
                }
                assert!(enforce(&paths).expect("the kernel has it"));
                claims();
            });
        });
    }

    #[test]
    fn only_what_is_named_can_be_opened_and_only_as_it_is_named() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = |name: &str| folder.path().join(name);
        for name in ["read", "write", "other"] {
            fs::create_dir(path(name)).expect("it is empty");
            fs::write(path(name).join("file"), "x").expect("there is room");
        }
        std::os::unix::fs::symlink("../other/file", path("read/link")).expect("the name is new");
        let paths = Paths { read: vec![path("read")], write: vec![path("write")], ..Paths::default() };
        confined(paths, || {
            let denied = |done: std::io::Result<()>| done.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
            assert_eq!(fs::read(path("read/file")).expect("it is named"), b"x");
            assert!(denied(fs::write(path("read/file"), "y")));
            assert!(denied(fs::read(path("read/link")).map(drop)), "it leads elsewhere");
            assert!(denied(fs::read(path("other/file")).map(drop)));
            assert!(denied(fs::read_dir(path("other")).map(drop)));
            assert!(denied(fs::read("/etc/hostname").map(drop)));
            fs::write(path("write/new"), "y").expect("it is named");
            fs::rename(path("write/new"), path("write/file")).expect("it is named");
            fs::create_dir(path("write/below")).expect("it is named");
            fs::rename(path("write/file"), path("write/below/file")).expect("it is named");
            assert!(denied(fs::create_dir(path("new"))));
        });
        assert_eq!(fs::read(path("other/file")).expect("only that thread gave it up"), b"x");
    }

    #[test]
    fn no_program_can_be_started_even_of_what_can_be_read() {
        confined(Paths { read: vec!["/".into()], ..Paths::default() }, || {
            let started = std::process::Command::new("/bin/true").status();
            assert_eq!(started.expect_err("it is denied").kind(), ErrorKind::PermissionDenied);
        });
    }
}
