//! Records and the ids that are made of them.
//!
//! A record is a row's number: 48 bits of milliseconds and 15 bits of a counter, the first 63 free bits of a `UUIDv7`. New
//! rows go to the end of the table, their order is time order, and the row of an automatic id is found without an index.

use std::hash::{BuildHasher, RandomState};

use uuid::Uuid;

use crate::clock::UnixMs;
use crate::queue::QueueError;

const COUNTER_BITS: u32 = 15;

/// Gives out records and ids. It lives for a connection.
#[derive(Debug, Default)]
pub(super) struct Records {
    random: RandomState,
    last: i64,
}

// === impl Records ===

impl Records {
    /// The record after `highest`, the highest in the file, at `now`. Whoever asks holds the file's write lock, so no other
    /// process can take the same. None is given out twice, deleted rows' neither: an id would come twice. Only
    /// another process may give a deleted row's out again within a millisecond, or when the clock was set back: its ids
    /// have another random part, and its claims another fence.
    pub(super) fn after(&mut self, highest: i64, now: UnixMs) -> i64 {
        self.last = (now.0.clamp(1, (1 << 48) - 1) << COUNTER_BITS).max(highest.max(self.last).saturating_add(1));
        self.last
    }

    /// The `UUIDv7` of `record`; what of it does not follow from the record is random.
    pub(super) fn id(&self, record: i64) -> String {
        let record = u128::try_from(record).expect("records are positive");
        let ms = record >> COUNTER_BITS;
        let counter = record & ((1 << COUNTER_BITS) - 1);
        let random = u128::from(self.random.hash_one(record)) & ((1 << 59) - 1);
        let bits = ms << 80 | 0x7 << 76 | (counter >> 3) << 64 | 0b10 << 62 | (counter & 0b111) << 59 | random;
        Uuid::from_u128(bits).hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
    }
}

/// The record that an automatic id names; none for an id of another form.
pub(super) fn of_id(id: &str) -> Option<i64> {
    if id.len() != 36 {
        return None;
    }
    let bits = Uuid::try_parse(id).ok()?.as_u128();
    if bits >> 76 & 0xf != 0x7 || bits >> 62 & 0b11 != 0b10 {
        return None;
    }
    let counter = (bits >> 64 & 0xfff) << 3 | (bits >> 59 & 0b111);
    i64::try_from((bits >> 80) << COUNTER_BITS | counter).ok()
}

/// When a record was made.
pub(super) fn moment(record: i64) -> UnixMs {
    UnixMs(record >> COUNTER_BITS)
}

/// Where a record stands in a list, for whoever asks for what is behind it.
pub(super) fn cursor(record: i64) -> String {
    record.to_string()
}

/// The record that a cursor names.
///
/// # Errors
///
/// That it is none.
pub(super) fn of_cursor(cursor: &str) -> Result<i64, QueueError> {
    cursor.parse().map_err(|_| QueueError::no_cursor(cursor))
}

/// Whether `id` is what the queue itself named `record`.
pub(super) fn is_automatic(id: &str, record: i64) -> bool {
    of_id(id) == Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_leads_back_to_its_record() {
        let records = Records::default();
        for record in [1 << 15, (1_790_000_000_000 << 15) + 32_767, i64::MAX] {
            let id = records.id(record);
            assert_eq!(of_id(&id), Some(record), "{id}");
            assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        }
        assert_eq!(of_id("order-7"), None);
    }

    #[test]
    fn records_grow_even_when_the_clock_does_not() {
        let mut records = Records::default();
        let first = records.after(0, UnixMs(1_790_000_000_000));
        assert_eq!(records.after(0, UnixMs(1_790_000_000_000)), first + 1);
        assert_eq!(records.after(first + 7, UnixMs(5)), first + 8);
    }
}
