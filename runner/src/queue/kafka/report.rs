//! Reporting: the record that tells of a dead letter, to be there when that is.

use std::sync::Arc;

use super::record::Record;
use super::topics::Topics;
use super::write::Write;
use super::{Options, enqueue, found};
use crate::clock::UnixMs;

/// The report of what is to be written, if that is a dead letter which is reported. It goes where a follow-up would of a job
/// in the topic with the number `topic`.
pub(super) fn of(letter: &Write, options: &Options, topics: &Topics, topic: usize, now: UnixMs) -> Option<Write> {
    let reports = options.reports.as_ref()?;
    let record = Record::of_headers(letter.headers.as_ref()?);
    let letter = found::letter(&record, letter.value.as_deref()?)?;
    let forms = reports.of(&letter).into_iter().rev();
    forms.fold(None, |shorter, job| {
        let shorter = shorter.map(Arc::new);
        Some(Write { shorter, ..enqueue::follow_up(job, topics, topic, now) })
    })
}
