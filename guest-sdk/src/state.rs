//! What a handler keeps from one job to the next: keys and values of its own.
//!
//! An attempt sees the state as it was at its first question, and what it wrote itself. What it wrote is kept when the
//! attempt is settled as complete or retry, and forgotten otherwise. The manifest must say `grants.state = true`.
//!
//! ```
//! # use sandhog_guest::prelude::*;
//! # fn example() -> Result<(), Error> {
//! let visits = state::increment("visits", 1)?;
//! state::set("last", format!("visit {visits}"))?;
//! assert_eq!(state::get("last")?.as_deref(), Some(&b"visit 1"[..]));
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```

use crate::Error;

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, unreachable_pub, reason = "made by wit-bindgen: strings and lists cross the border as pointers")]
mod bindings;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
use self::guest as kept;
#[cfg(not(target_arch = "wasm32"))]
use self::native as kept;
#[cfg(not(target_arch = "wasm32"))]
pub use self::native::clear;

/// A value; none where there is none.
///
/// # Errors
///
/// The key is empty or longer than 1,024 bytes.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    kept::get(key).map_err(|reason| Error::msg(reason).context(format_args!("cannot read `{key}`")))
}

/// Puts a value there, whatever was there before.
///
/// # Errors
///
/// As for [`get`]; and where the handler would keep more than it may.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    kept::set(key, value.as_ref()).map_err(|reason| Error::msg(reason).context(format_args!("cannot write `{key}`")))
}

/// Takes a value away, if it is there.
///
/// # Errors
///
/// As for [`get`].
pub fn delete(key: &str) -> Result<(), Error> {
    kept::delete(key).map_err(|reason| Error::msg(reason).context(format_args!("cannot delete `{key}`")))
}

/// Adds to a number, from 0 where there is none, and answers the sum. If another attempt changes it before this one is
/// settled, the job runs again: nothing is counted twice.
///
/// # Errors
///
/// As for [`set`]; and where something else is there than decimal digits.
pub fn increment(key: &str, delta: u64) -> Result<u64, Error> {
    kept::increment(key, delta).map_err(|reason| Error::msg(reason).context(format_args!("cannot increment `{key}`")))
}

/// All keys, in their order.
///
/// # Errors
///
/// None but that the handler has no state.
pub fn keys() -> Result<Vec<String>, Error> {
    kept::keys().map_err(|reason| Error::msg(reason).context("cannot list the keys"))
}

/// In the sandbox.
#[cfg(target_arch = "wasm32")]
mod guest {
    use super::bindings::wasi::keyvalue::atomics;
    use super::bindings::wasi::keyvalue::store::{self, Bucket};

    pub(super) fn get(key: &str) -> Result<Option<Vec<u8>>, String> {
        open()?.get(key).map_err(told)
    }

    pub(super) fn set(key: &str, value: &[u8]) -> Result<(), String> {
        open()?.set(key, value).map_err(told)
    }

    pub(super) fn delete(key: &str) -> Result<(), String> {
        open()?.delete(key).map_err(told)
    }

    pub(super) fn increment(key: &str, delta: u64) -> Result<u64, String> {
        atomics::increment(&open()?, key, delta).map_err(told)
    }

    pub(super) fn keys() -> Result<Vec<String>, String> {
        let bucket = open()?;
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let page = bucket.list_keys(cursor).map_err(told)?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    fn open() -> Result<Bucket, String> {
        store::open("").map_err(told)
    }

    fn told(error: store::Error) -> String {
        match error {
            store::Error::NoSuchStore => "there is no such store".to_owned(),
            store::Error::AccessDenied => "state is not granted to this handler".to_owned(),
            store::Error::Other(reason) => reason,
        }
    }
}
