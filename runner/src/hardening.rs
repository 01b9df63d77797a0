//! What a runner's process gives up at its start, so that whoever breaks out of a sandbox has little of the machine.
//!
//! Both rules are the thread's that makes them and of all that it starts, so they are made before any other is started. The
//! choices are in `docs/decisions/016-hardening.md`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{Config, Wanted};

mod landlock;
mod paths;
mod seccomp;

use paths::Paths;

/// Whether files are out of this process's reach that its user may open.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Why a runner does not start.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// The process may still gain rights by starting a program that has them.
    #[error("the kernel does not take `no_new_privs`")]
    Privileges,
    /// Something is required that is not to be had.
    #[error("`{key}` is `require`, and {reason}")]
    Missing {
        /// The key that requires it.
        key: &'static str,
        /// Why it is not to be had.
        reason: String,
    },
}

/// What became of one of the two.
enum Part {
    /// It is on; what is said of it.
    On(String),
    /// It is not wanted.
    Off,
    /// It is not to be had, and why.
    Missing(String),
}

/// Gives up, for the calling thread and what it will start, what a runner of this configuration does not need. Says in the log
/// what that is.
///
/// # Errors
///
/// What the configuration requires and the kernel does not have.
pub fn apply(config: &Config) -> Result<(), HardeningError> {
    let abi = landlock::seal().ok_or(HardeningError::Privileges)?;
    let paths = Paths::of(config, &|name| std::env::var_os(name));
    let parts = [
        ("hardening.landlock", "landlock", config.hardening.landlock, landlock::restrict(&paths, config, abi)),
        ("hardening.seccomp", "seccomp", config.hardening.seccomp, seccomp::restrict(config)),
    ];
    let mut said = vec!["no-new-privileges".to_owned()];
    for (key, name, wanted, part) in parts {
        match part {
            Part::On(what) => said.push(what),
            Part::Off => said.push(format!("{name} is off")),
            Part::Missing(reason) if wanted == Wanted::Require => return Err(HardeningError::Missing { key, reason }),
            Part::Missing(reason) => said.push(format!("no {name} ({reason})")),
        }
    }
    tracing::info!("hardening: {}", said.join(", "));
    Ok(())
}

/// What to do where a file cannot be opened that the process's user may open, if that can be why.
pub(crate) fn hint() -> Option<String> {
    let confined = CONFINED.load(Ordering::Relaxed);
    confined.then(|| {
        "a runner opens only what its configuration named and what was there when it started: start it again, or name the folder \
         in `hardening.read` or `hardening.write`"
            .to_owned()
    })
}
