//! One attempt's view of its handler's state: a snapshot, and what the attempt has changed so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Changes, Size, Snapshot, StateStore};
use crate::queue::QueueError;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// So many keys are listed at one time.
const KEYS_PAGE: usize = 1_000;

/// What an attempt sees of the state, and leaves of it.
pub struct Draft {
    snapshot: Box<dyn Snapshot>,
    /// As it would be if the attempt ended now.
    size: Option<Size>,
    keys: Option<BTreeSet<String>>,
    changes: Changes,
}

/// Why an attempt cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No key.
    #[error("a key of {0} bytes: it must have from 1 to {KEY_BYTES_MAX}")]
    Key(usize),
    /// One too many.
    #[error("the state would have more than {0} keys, which is the limit (`limits.state_keys`)")]
    TooManyKeys(u64),
    /// Too much.
    #[error("the state would have more than {0} bytes, which is the limit (`limits.state`)")]
    TooLarge(u64),
    /// Something else is there.
    #[error("the value is no number in decimal digits that could be incremented")]
    NoNumber,
    /// Beyond 64 bits.
    #[error("the number would not be between {0} and {1}")]
    Overflow(i128, i128),
    /// The store's fault, not the guest's.
    #[error("the state cannot be read")]
    Unreadable(#[from] QueueError),
}

/// What can be counted with.
pub trait Number: Copy + Default + std::str::FromStr + std::fmt::Display {
    /// The smallest one, and the largest.
    const BOUNDS: (i128, i128);

    /// The sum, if there is one.
    fn plus(self, other: Self) -> Option<Self>;
}

impl Number for u64 {
    const BOUNDS: (i128, i128) = (u64::MIN as i128, u64::MAX as i128);

    fn plus(self, other: u64) -> Option<u64> {
        self.checked_add(other)
    }
}

impl Number for i64 {
    const BOUNDS: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);

    fn plus(self, other: i64) -> Option<i64> {
        self.checked_add(other)
    }
}

// === impl Draft ===

impl Draft {
    /// What an attempt of `handler` sees from now on, which may have `quota`.
    pub fn new(store: &dyn StateStore, handler: Arc<str>, quota: Size) -> Draft {
        let changes = Changes { handler, quota, writes: BTreeMap::new(), expected: BTreeMap::new() };
        Draft { snapshot: store.snapshot(&changes.handler), size: None, keys: None, changes }
    }

    /// A value.
    ///
    /// # Errors
    ///
    /// No key; or the store is sick.
    pub fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        check(key)?;
        match self.changes.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.snapshot.get(key)?),
        }
    }

    /// Whether there is one.
    ///
    /// # Errors
    ///
    /// As [`Draft::get`].
    pub fn has(&mut self, key: &str) -> Result<bool, Refused> {
        check(key)?;
        Ok(self.length(key)?.is_some())
    }

    /// Puts a value there.
    ///
    /// # Errors
    ///
    /// As [`Draft::get`]; and where the handler would have more than its quota.
    pub fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), Refused> {
        self.put(key, Some(value))
    }

    /// Takes it away, if it is there.
    ///
    /// # Errors
    ///
    /// As [`Draft::get`].
    pub fn delete(&mut self, key: String) -> Result<(), Refused> {
        self.put(key, None)
    }

    /// Adds to a number in decimal digits, from 0 where there is none, and answers the sum. Nobody else may have changed it
    /// when the attempt is settled.
    ///
    /// # Errors
    ///
    /// As [`Draft::set`]; and where there is something else, or the sum is too large.
    pub fn increment<N: Number>(&mut self, key: String, delta: N) -> Result<N, Refused> {
        let before = self.get(&key)?;
        let number = match &before {
            None => N::default(),
            Some(value) => {
                std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Refused::NoNumber)?
            }
        };
        let sum = number.plus(delta).ok_or(Refused::Overflow(N::BOUNDS.0, N::BOUNDS.1))?;
        self.replace(key, before, sum.to_string().into_bytes())?;
        Ok(sum)
    }

    /// Puts a value there if what is there is what was seen before, and answers whether it was. Nobody else may have changed it
    /// when the attempt is settled.
    ///
    /// # Errors
    ///
    /// As [`Draft::set`].
    pub fn swap(&mut self, key: String, seen: &Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, Refused> {
        let before = self.get(&key)?;
        if before != *seen {
            return Ok(false);
        }
        self.replace(key, before, value)?;
        Ok(true)
    }

    /// Keys in their order, from the `from`-th on, and where the next ones begin, if there are more.
    ///
    /// # Errors
    ///
    /// The store is sick.
    pub fn keys(&mut self, from: u64) -> Result<(Vec<String>, Option<u64>), Refused> {
        if self.keys.is_none() {
            let mut keys: BTreeSet<String> = self.snapshot.keys()?.into_iter().collect();
            for (key, value) in &self.changes.writes {
                if value.is_some() {
                    keys.insert(key.clone())
                } else {
                    keys.remove(key)
                };
            }
            self.keys = Some(keys);
        }
        let keys = self.keys.as_ref().expect("it was made above");
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(keys.len());
        let page: Vec<String> = keys.iter().skip(from).take(KEYS_PAGE).cloned().collect();
        let next = from + page.len();
        Ok((page, (next < keys.len()).then_some(next as u64)))
    }

    /// What the attempt leaves; none where it changes nothing.
    pub fn into_changes(self) -> Option<Changes> {
        (!self.changes.writes.is_empty()).then_some(self.changes)
    }

    /// Puts a value there that follows from what was there before.
    fn replace(&mut self, key: String, before: Option<Vec<u8>>, value: Vec<u8>) -> Result<(), Refused> {
        // What this attempt itself has put there is nobody else's.
        let seen = (!self.changes.writes.contains_key(&key)).then(|| key.clone());
        self.set(key, value)?;
        if let Some(key) = seen {
            self.changes.expected.insert(key, before);
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), Refused> {
        check(&key)?;
        let size = match self.size {
            Some(size) => size,
            None => self.snapshot.size()?,
        };
        let (before, after) = (self.length(&key)?, value.as_ref().map(|value| value.len() as u64));
        let (grown, quota) = (size.with(&key, before, after), self.changes.quota);
        if !grown.fits(quota, size) {
            let keys = grown.keys > quota.keys.max(size.keys);
            return Err(if keys { Refused::TooManyKeys(quota.keys) } else { Refused::TooLarge(quota.bytes) });
        }
        self.size = Some(grown);
        if let Some(keys) = &mut self.keys {
            if value.is_some() {
                keys.insert(key.clone())
            } else {
                keys.remove(&key)
            };
        }
        if before.is_some() || value.is_some() || self.changes.writes.contains_key(&key) {
            self.changes.writes.insert(key, value);
        }
        Ok(())
    }

    fn length(&mut self, key: &str) -> Result<Option<u64>, Refused> {
        match self.changes.writes.get(key) {
            Some(written) => Ok(written.as_ref().map(|value| value.len() as u64)),
            None => Ok(self.snapshot.length(key)?),
        }
    }
}

fn check(key: &str) -> Result<(), Refused> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(()) } else { Err(Refused::Key(key.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Given;

    fn draft(pairs: &[(&str, &str)]) -> Draft {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        Draft::new(&Given(pairs.collect()), "h".into(), Size { keys: 3, bytes: 20 })
    }

    fn text(draft: &mut Draft, key: &str) -> Option<String> {
        draft.get(key).unwrap().map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn attempt_sees_what_it_wrote_and_leaves_that() {
        let mut draft = draft(&[("a", "1"), ("b", "2")]);
        draft.set("a".into(), b"3".to_vec()).unwrap();
        draft.delete("b".into()).unwrap();
        draft.delete("nothing".into()).unwrap();
        assert_eq!((text(&mut draft, "a"), text(&mut draft, "b")), (Some("3".into()), None));
        assert!(draft.has("a").unwrap() && !draft.has("b").unwrap());
        let changes = draft.into_changes().unwrap();
        assert_eq!(changes.writes, BTreeMap::from([("a".into(), Some(b"3".to_vec())), ("b".into(), None)]));
        assert!(changes.expected.is_empty(), "who only writes does not mind what was there");
    }

    #[test]
    fn attempt_that_only_reads_changes_nothing() {
        let mut draft = draft(&[("a", "1")]);
        assert_eq!(text(&mut draft, "a").as_deref(), Some("1"));
        draft.delete("b".into()).unwrap();
        assert_eq!(draft.into_changes(), None);
    }

    #[test]
    fn increment_expects_what_it_saw() {
        let mut draft = draft(&[("a", "41"), ("text", "x")]);
        assert_eq!(draft.increment("a".into(), 1u64).unwrap(), 42);
        assert_eq!(draft.increment("a".into(), 0u64).unwrap(), 42);
        assert_eq!(draft.increment("new".into(), 5u64).unwrap(), 5);
        draft.set("text".into(), b"7".to_vec()).unwrap();
        assert_eq!(draft.increment("text".into(), 1i64).unwrap(), 8);
        assert!(matches!(draft.increment("a".into(), u64::MAX), Err(Refused::Overflow(0, _))));
        let changes = draft.into_changes().unwrap();
        assert_eq!(changes.expected, BTreeMap::from([("a".into(), Some(b"41".to_vec())), ("new".into(), None)]));
    }

    #[test]
    fn numbers_may_fall_below_nothing_where_they_have_a_sign() {
        let mut draft = draft(&[("a", "1")]);
        assert_eq!(draft.increment("a".into(), -3i64).unwrap(), -2);
        assert!(matches!(draft.increment("a".into(), 1u64), Err(Refused::NoNumber)));
        assert!(matches!(draft.increment("a".into(), i64::MIN), Err(Refused::Overflow(..))));
    }

    #[test]
    fn swap_expects_what_it_saw_and_is_refused_where_that_is_not_so_any_more() {
        let mut draft = draft(&[("a", "1")]);
        let (seen, nothing) = (Some(b"1".to_vec()), None);
        assert!(draft.swap("a".into(), &seen, b"2".to_vec()).unwrap());
        assert!(!draft.swap("a".into(), &seen, b"3".to_vec()).unwrap(), "it is 2 by now");
        assert!(draft.swap("new".into(), &nothing, b"4".to_vec()).unwrap());
        let changes = draft.into_changes().unwrap();
        assert_eq!(changes.expected, BTreeMap::from([("a".into(), seen), ("new".into(), None)]));
        assert_eq!(changes.writes["a"], Some(b"2".to_vec()));
    }

    #[test]
    fn what_is_no_number_is_not_incremented() {
        let mut draft = draft(&[("text", "x")]);
        assert!(matches!(draft.increment("text".into(), 1u64), Err(Refused::NoNumber)));
        assert_eq!(draft.into_changes(), None);
    }

    #[test]
    fn quota_bounds_keys_and_bytes_and_less_is_always_possible() {
        let mut draft = draft(&[("a", "1"), ("b", "2")]);
        draft.set("c".into(), vec![0; 15]).unwrap();
        assert!(matches!(draft.set("d".into(), Vec::new()), Err(Refused::TooManyKeys(3))));
        assert!(matches!(draft.set("a".into(), b"12".to_vec()), Err(Refused::TooLarge(20))));
        draft.set("c".into(), vec![0; 14]).unwrap();
        draft.set("a".into(), b"12".to_vec()).unwrap();
        assert!(matches!(draft.set(String::new(), Vec::new()), Err(Refused::Key(0))));
        let mut full = super::tests::draft(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "a value that is too long")]);
        full.set("d".into(), b"a value that is too lon".to_vec()).unwrap();
        full.delete("a".into()).unwrap();
    }

    #[test]
    fn keys_come_in_their_order_page_by_page() {
        let pairs: Vec<String> = (0..2_500).map(|n| format!("{n:04}")).collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|key| (key.as_str(), "")).collect();
        let mut draft = Draft {
            changes: Changes { quota: Size { keys: 9_999, bytes: 99_999 }, ..draft(&[]).changes },
            ..draft(&pairs)
        };
        draft.set("0000a".into(), Vec::new()).unwrap();
        draft.delete("0001".into()).unwrap();
        let (first, next) = draft.keys(0).unwrap();
        assert_eq!((&first[..3], next), (&["0000".into(), "0000a".into(), "0002".into()][..], Some(1_000)));
        draft.delete("0000a".into()).unwrap();
        let (last, next) = draft.keys(2_000).unwrap();
        assert_eq!((last.len(), next), (499, None));
        assert_eq!(draft.keys(u64::MAX).unwrap(), (Vec::new(), None));
    }
}
