//! What the manifest gives the handler to read: `grants.config = { bucket = "thumbnails" }`.
//!
//! ```
//! # use sandhog_guest::config;
//! # fn example() -> Result<(), sandhog_guest::Error> {
//! # config::provide("bucket", "thumbnails");
//! assert_eq!(config::get("bucket")?.as_deref(), Some("thumbnails"));
//! assert_eq!(config::get("colour")?, None);
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```

use crate::Error;

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, unreachable_pub, reason = "made by wit-bindgen: strings and lists cross the border as pointers")]
mod bindings;

/// A value; none where the manifest has none of this name.
///
/// # Errors
///
/// None but that it cannot be read.
#[cfg(target_arch = "wasm32")]
pub fn get(name: &str) -> Result<Option<String>, Error> {
    use bindings::wasi::config::store;

    store::get(name).map_err(|error| match error {
        store::Error::Upstream(reason) | store::Error::Io(reason) => {
            Error::msg(reason).context(format_args!("cannot read the configuration `{name}`"))
        }
    })
}

/// A value; none where the manifest has none of this name. Natively: what [`provide`] gave.
///
/// # Errors
///
/// None here; in the sandbox, that it cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn get(name: &str) -> Result<Option<String>, Error> {
    PROVIDED.with_borrow(|provided| Ok(provided.get(name).cloned()))
}

/// Gives this thread a value to read. Only there natively: for tests.
#[cfg(not(target_arch = "wasm32"))]
pub fn provide(name: impl Into<String>, value: impl Into<String>) {
    PROVIDED.with_borrow_mut(|provided| provided.insert(name.into(), value.into()));
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static PROVIDED: std::cell::RefCell<std::collections::BTreeMap<String, String>> =
        const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}
