//! Natively: kept for this thread, for tests.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static KEPT: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Forgets all that this thread has kept. Only there natively: for tests.
pub fn clear() {
    KEPT.take();
}

pub(super) fn get(key: &str) -> Result<Option<Vec<u8>>, String> {
    KEPT.with_borrow(|kept| Ok(kept.get(key).cloned()))
}

pub(super) fn set(key: &str, value: &[u8]) -> Result<(), String> {
    KEPT.with_borrow_mut(|kept| kept.insert(key.to_owned(), value.to_vec()));
    Ok(())
}

pub(super) fn delete(key: &str) -> Result<(), String> {
    KEPT.with_borrow_mut(|kept| kept.remove(key));
    Ok(())
}

pub(super) fn increment(key: &str, delta: u64) -> Result<u64, String> {
    let before = get(key)?.map_or(Ok(0), |value| String::from_utf8_lossy(&value).parse::<u64>());
    let sum = before.map_err(|_| "the value is no number in decimal digits that could be incremented".to_owned())?;
    let sum = sum.checked_add(delta).ok_or("the number would be larger than 18446744073709551615")?;
    set(key, sum.to_string().as_bytes())?;
    Ok(sum)
}

pub(super) fn keys() -> Result<Vec<String>, String> {
    KEPT.with_borrow(|kept| Ok(kept.keys().cloned().collect()))
}
