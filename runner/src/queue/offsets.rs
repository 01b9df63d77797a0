//! Which offsets of a partition are done: what may be committed, and what of it would be repeated without a note. Pure, no I/O.
//!
//! Jobs of a partition end in any order. The mark, which is committed, is the lowest offset that is not done; which are done
//! above it stands beside it, in the metadata that Kafka keeps with an offset, so that another runner repeats only what was
//! in flight.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// The most that we write as metadata: brokers keep 4,096 bytes (`offset.metadata.max.bytes`).
pub(crate) const METADATA_BYTES_MAX: usize = 3_900;

/// In front of what is ours.
const PREFIX: &str = "s1.";

/// Behind it, what holds a partition up.
const BLOCKED: &str = ";blocked ";

/// The most of a reason that is written.
const REASON_BYTES_MAX: usize = 300;

/// The offsets of one partition that were received and are not done.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    in_flight: BTreeSet<i64>,
    /// One behind the last that was received; none before the first.
    next: Option<i64>,
    /// Done before this assignment, and not received again yet.
    known: VecDeque<Range<i64>>,
}

/// What stands beside a committed offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The offsets above it that are done, in their order.
    pub done: VecDeque<Range<i64>>,
    /// What holds the partition up.
    pub blocked: Option<Blocked>,
}

/// An offset that cannot be settled, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// Which.
    pub offset: i64,
    /// Why.
    pub reason: String,
}

// === impl Offsets ===

impl Offsets {
    /// Those of a partition that is read from `committed` on; none: from wherever it begins.
    pub(crate) fn new(committed: Option<i64>, noted: Noted) -> Offsets {
        Offsets { in_flight: BTreeSet::new(), next: committed, known: noted.done }
    }

    /// Takes in the next offset. Answers whether it is to be worked: it is not if it was done before.
    pub(crate) fn receive(&mut self, offset: i64) -> bool {
        debug_assert!(self.next.is_none_or(|next| offset >= next), "a partition is read in its order");
        self.next = Some(offset + 1);
        while self.known.front().is_some_and(|done| done.end <= offset) {
            self.known.pop_front();
        }
        let is_new = !self.known.front().is_some_and(|done| done.contains(&offset));
        if is_new {
            self.in_flight.insert(offset);
        }
        is_new
    }

    /// It is done.
    pub(crate) fn done(&mut self, offset: i64) {
        self.in_flight.remove(&offset);
    }

    /// It is not done after all: what was to be committed with it was not.
    pub(crate) fn not_done(&mut self, offset: i64) {
        self.in_flight.insert(offset);
    }

    /// How many are received and not done.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What may be committed: all below it is done. None where nothing was received.
    pub(crate) fn mark(&self) -> Option<i64> {
        self.in_flight.first().copied().or(self.next)
    }

    /// What is to stand beside the mark, and whether that is all of it: what does not fit would be repeated.
    pub(crate) fn note(&self, blocked: Option<&Blocked>) -> (String, bool) {
        let mut note = String::from(PREFIX);
        let blocked = blocked.map(Blocked::written).unwrap_or_default();
        let room = METADATA_BYTES_MAX - blocked.len();
        let mut whole = true;
        // Lengths by turns: not done, done, not done, …
        let mut at = self.mark().unwrap_or_default();
        for done in self.done_above() {
            let before = note.len();
            push_number(&mut note, done.start - at);
            push_number(&mut note, done.end - done.start);
            if note.len() > room {
                note.truncate(before);
                whole = false;
                break;
            }
            at = done.end;
        }
        note.push_str(&blocked);
        (note, whole)
    }

    /// What is done above the mark, in order. Offsets that hold no record count as done.
    fn done_above(&self) -> impl Iterator<Item = Range<i64>> {
        let ends = self.in_flight.iter().skip(1).copied().chain(self.in_flight.last().and(self.next));
        let starts = self.in_flight.iter().map(|offset| offset + 1);
        starts.zip(ends).map(|(start, end)| start..end).filter(|done| !done.is_empty()).chain(self.unread())
    }

    fn unread(&self) -> impl Iterator<Item = Range<i64>> {
        let next = self.next.unwrap_or_default();
        self.known.iter().map(move |done| done.start.max(next)..done.end).filter(|done| !done.is_empty())
    }
}

// === impl Noted ===

impl Noted {
    /// Reads what stands beside `committed`. What is not ours, or was cut, is as if nothing stood there: jobs come again.
    pub(crate) fn read(committed: i64, metadata: &str) -> Noted {
        let Some(rest) = metadata.strip_prefix(PREFIX) else { return Noted::default() };
        let (numbers, blocked) = match rest.split_once(BLOCKED) {
            Some((numbers, blocked)) => (numbers, Blocked::read(blocked)),
            None => (rest, None),
        };
        Noted { done: read_done(committed, numbers).unwrap_or_default(), blocked }
    }

    /// Whether an offset at or above the committed one is done.
    pub(crate) fn is_done(&self, offset: i64) -> bool {
        let behind = self.done.partition_point(|done| done.end <= offset);
        self.done.get(behind).is_some_and(|done| done.contains(&offset))
    }

    /// How many offsets above the committed one are done.
    pub(crate) fn count(&self) -> i64 {
        self.done.iter().map(|done| done.end - done.start).sum()
    }
}

fn read_done(committed: i64, text: &str) -> Option<VecDeque<Range<i64>>> {
    let mut digits = text.bytes();
    let mut done = VecDeque::new();
    let mut at = committed;
    while digits.len() > 0 {
        let start = at.checked_add(read_number(&mut digits)?)?;
        at = start.checked_add(read_number(&mut digits)?)?;
        done.push_back(start..at);
    }
    Some(done)
}

// === impl Blocked ===

impl Blocked {
    fn written(&self) -> String {
        let printable = |c: &char| c.is_ascii() && !c.is_ascii_control();
        let reason: String = self.reason.chars().filter(printable).take(REASON_BYTES_MAX).collect();
        format!("{BLOCKED}{} {reason}", self.offset)
    }

    fn read(text: &str) -> Option<Blocked> {
        let (offset, reason) = text.split_once(' ')?;
        Some(Blocked { offset: offset.parse().ok()?, reason: reason.to_owned() })
    }
}

/// Five bits a digit, the lowest first; the sixth says that more follow. Short runs, which are the most, take one.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn push_number(text: &mut String, number: i64) {
    let mut rest = number.cast_unsigned();
    loop {
        let more = if rest >> 5 > 0 { 32 } else { 0 };
        text.push(char::from(DIGITS[(rest & 31) as usize | more]));
        rest >>= 5;
        if more == 0 {
            return;
        }
    }
}

fn read_number(digits: &mut std::str::Bytes<'_>) -> Option<i64> {
    let mut number: i64 = 0;
    for shift in (0..60).step_by(5) {
        let digit = digits.next()?;
        let value = DIGITS.iter().position(|known| *known == digit)?;
        number |= (value as i64 & 31) << shift;
        if value & 32 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(committed: i64) -> Offsets {
        Offsets::new(Some(committed), Noted::default())
    }

    #[test]
    fn mark_is_the_lowest_offset_that_is_not_done() {
        let mut offsets = offsets(10);
        assert_eq!(offsets.mark(), Some(10));
        for offset in 10..15 {
            assert!(offsets.receive(offset));
        }
        offsets.done(11);
        offsets.done(13);
        assert_eq!((offsets.mark(), offsets.in_flight()), (Some(10), 3));
        offsets.done(10);
        assert_eq!(offsets.mark(), Some(12));
        offsets.done(12);
        offsets.done(14);
        assert_eq!((offsets.mark(), offsets.in_flight()), (Some(15), 0));
        assert_eq!(Offsets::new(None, Noted::default()).mark(), None);
    }

    #[test]
    fn what_is_done_above_the_mark_is_not_worked_again() {
        let mut before = offsets(0);
        for offset in 0..100 {
            before.receive(offset);
        }
        for offset in (1..100).filter(|offset| offset % 3 != 0) {
            before.done(offset);
        }
        let (note, whole) = before.note(None);
        assert!(whole);
        let noted = Noted::read(0, &note);
        assert_eq!((noted.is_done(1), noted.is_done(3), noted.count()), (true, false, 66));
        let mut after = Offsets::new(Some(0), noted);
        let worked: Vec<i64> = (0..110).filter(|offset| after.receive(*offset)).collect();
        assert_eq!(worked, (0..110).filter(|offset| offset % 3 == 0 || *offset >= 100).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_done_before_is_noted_until_it_is_read_again() {
        let mut before = offsets(0);
        for offset in 0..10 {
            before.receive(offset);
        }
        for offset in 5..10 {
            before.done(offset);
        }
        let mut after = Offsets::new(Some(0), Noted::read(0, &before.note(None).0));
        after.receive(0);
        after.receive(1);
        assert_eq!(Noted::read(0, &after.note(None).0).count(), 5);
        after.receive(7);
        after.done(1);
        let noted = Noted::read(0, &after.note(None).0);
        assert!((1..10).all(|offset| noted.is_done(offset)), "what lies between holds no record");
        assert_eq!(noted.count(), 9);
    }

    #[test]
    fn one_slow_job_and_millions_done_behind_it_take_a_few_bytes() {
        let mut offsets = offsets(0);
        for offset in 0..100_000 {
            offsets.receive(offset);
            if offset > 0 {
                offsets.done(offset);
            }
        }
        assert!(offsets.note(None).0.len() < 10);
    }

    #[test]
    fn note_fits_whatever_is_in_flight_and_says_when_it_is_cut() {
        let mut offsets = offsets(0);
        for offset in 0..20_000 {
            offsets.receive(offset);
            if offset % 2 == 1 {
                offsets.done(offset);
            }
        }
        let blocked = Blocked { offset: 0, reason: "x".repeat(1_000) };
        let (note, whole) = offsets.note(Some(&blocked));
        assert!(note.len() <= METADATA_BYTES_MAX && !whole);
        let noted = Noted::read(0, &note);
        assert!(noted.count() > 1_000 && (0..20_000).all(|offset| !noted.is_done(offset) || offset % 2 == 1));
        assert_eq!(noted.blocked.unwrap().offset, 0);
    }

    #[test]
    fn reason_comes_back_as_plain_text() {
        let mut offsets = offsets(7);
        offsets.receive(7);
        let blocked = Blocked { offset: 7, reason: "no topic `a.dead`:\n\u{1b}[1m unknown ü".into() };
        let noted = Noted::read(7, &offsets.note(Some(&blocked)).0);
        assert_eq!(noted.blocked.unwrap().reason, "no topic `a.dead`:[1m unknown ");
        assert!(noted.done.is_empty());
    }

    #[test]
    fn metadata_that_is_not_ours_says_nothing() {
        for metadata in
            ["", "s1.", "x", "s1.B", "s1.ü", "{\"offset\":1}", "s1.gggggggggggggggggggggg", "s1.;blocked x y"]
        {
            assert_eq!(Noted::read(5, metadata), Noted::default(), "{metadata}");
        }
    }

    #[test]
    fn any_order_of_ends_loses_and_repeats_nothing() {
        crate::fuzzing::fuzz("offsets", vec![(0..64).collect()], |bytes| {
            let mut offsets = offsets(0);
            let mut done = BTreeSet::new();
            let mut next = 0;
            for byte in bytes {
                if byte % 2 == 0 {
                    // Some offsets hold no record.
                    next += i64::from(byte % 8 == 0);
                    offsets.receive(next);
                    next += 1;
                } else if let Some(offset) = offsets.in_flight.iter().nth(usize::from(byte / 2) % 8).copied() {
                    offsets.done(offset);
                    done.insert(offset);
                }
                let mark = offsets.mark().expect("it was read from 0");
                let (note, whole) = offsets.note(None);
                let noted = Noted::read(mark, &note);
                for offset in 0..next {
                    let kept = offset >= mark && !noted.is_done(offset);
                    assert_eq!(kept, offsets.in_flight.contains(&offset), "{offset} with {note}");
                    assert!(whole);
                }
            }
        });
    }
}
