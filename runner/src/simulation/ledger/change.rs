//! What may become of a row: each change must follow from what the ledger heard.

use super::asked::Answer;
use super::{Fate, Ledger, Right};
use crate::clock::UnixMs;
use crate::outcome::{Disposition, RetryAfter};
use crate::queue::Settlement;
use crate::queue::sqlite::simulation::{Counts, Row};

/// How a right to a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Its settlement was applied.
    Applied,
    /// It was given back.
    Released,
    /// Its holder died, stood still, or signed off.
    TakenOver,
}

/// What a row may have become (none: it is gone), and how that ended the right to its job.
type Way = (Option<Row>, Option<How>);

/// A piece of work of a writer, as far as it explains a change.
pub(super) struct Change<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) process: usize,
    pub(super) runner: Option<i64>,
    pub(super) closed: bool,
    pub(super) now: UnixMs,
    pub(super) runners: &'a [(i64, i64)],
}

// === impl Change ===

impl Change<'_> {
    /// How a right ended with this change, if one did; an error says that nothing explains it.
    pub(super) fn explain(&self, before: Option<&Row>, after: Option<&Row>) -> Result<Option<How>, &'static str> {
        let ways = match before {
            None => self.comes(after.expect("a change is of something"))?,
            Some(row) if row.state == 2 => vec![(Some(row.clone()), None)],
            Some(row) if row.state == 3 => self.rights_end(row),
            Some(row) => self.after_the_end(row),
        };
        for (expected, how) in ways {
            let explained = match (&expected, after) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(expected), None) => expected.state == 5 && self.ledger.forgets,
                (Some(expected), Some(after)) => same(expected, after) || self.is_claim(expected, after),
            };
            if explained {
                return Ok(how);
            }
        }
        Err("nothing explains this")
    }

    /// A new row: what was asked for.
    fn comes(&self, row: &Row) -> Result<Vec<Way>, &'static str> {
        let Some(asked) = self.ledger.jobs.get(&row.number) else { return Err("nobody asked for this job") };
        let refused = match asked.follow_up {
            Some(_) => asked.answer.is_some() || !self.ledger.due.contains(&row.number),
            None => matches!(asked.answer, Some(Answer::Refused | Answer::Duplicate)),
        };
        if asked.process != self.process || refused || asked.ended {
            return Err("this job must not come now");
        }
        let twin = |other: &Row| other.id == row.id && other.record != row.record;
        if self.ledger.rows.values().any(|other| other.state < 4 && twin(other)) {
            return Err("this id names two jobs");
        }
        let run_at_ms = asked.run_at.unwrap_or(self.now).0;
        Ok(vec![(Some(Row { state: 2, counts: Counts::default(), run_at_ms, kind: None, ..row.clone() }), None)])
    }

    /// A job that is running.
    fn rights_end(&self, row: &Row) -> Vec<Way> {
        let right = &self.ledger.rights[&(row.record, row.fence)];
        let owner = self.ledger.owners[&row.runner];
        let mut ways = Vec::new();
        if owner == self.process {
            match &right.fate {
                Some(Fate::Settled(settlement)) => {
                    ways.push((Some(self.settled(row, settlement)), Some(How::Applied)));
                }
                Some(Fate::Dropped) => ways.push((Some(self.taken_back(row, right)), Some(How::Released))),
                // Never handed out, since `receive` was stopped.
                None if !right.handed_out => ways.push((Some(waiting(row)), Some(How::Released))),
                Some(Fate::Withdrawn) | None => {}
            }
            if self.closed {
                ways.push((Some(interrupted(row, right, false)), Some(How::TakenOver)));
            }
        } else if !self.runners.iter().any(|(id, _)| *id == row.runner) {
            ways.push((Some(interrupted(row, right, false)), Some(How::TakenOver)));
            if self.ledger.processes[owner].is_gone() {
                ways.insert(0, (Some(interrupted(row, right, true)), Some(How::TakenOver)));
            }
        }
        ways
    }

    /// A job that has ended: only a person brings it back, and only the dead.
    fn after_the_end(&self, row: &Row) -> Vec<Way> {
        if row.state == 5 {
            return vec![(Some(row.clone()), None)];
        }
        if !self.ledger.touched.contains(&row.record) {
            return Vec::new();
        }
        let counts = Counts { failures: 0, retries: 0, deaths: 0, requeues: row.counts.requeues + 1, ..row.counts };
        vec![(Some(Row { state: 2, run_at_ms: self.now.0, counts, ..row.clone() }), None), (None, None)]
    }

    fn settled(&self, row: &Row, settlement: &Settlement) -> Row {
        let mut row = row.clone();
        if let Some(attempt) = &settlement.attempt {
            row.counts.attempt = attempt.number;
            row.counts.failures += u32::from(attempt.failure.is_some());
        }
        match &settlement.disposition {
            Disposition::Ack { .. } => row.state = 5,
            Disposition::Bury(failure) => {
                row.state = 4;
                row.kind = Some(failure.kind.as_str().into_owned());
            }
            Disposition::Retry { at, after, .. } => {
                row.state = 2;
                row.run_at_ms = at.0;
                match after {
                    RetryAfter::Failure(failure) => row.kind = Some(failure.kind.as_str().into_owned()),
                    RetryAfter::Request { .. } => row.counts.retries += 1,
                }
            }
            Disposition::Release { at, started } => {
                row.state = 2;
                row.run_at_ms = at.0;
                row.counts.interruptions += u32::from(*started);
            }
            Disposition::Park => row.state = 2,
        }
        row
    }

    fn taken_back(&self, row: &Row, right: &Right) -> Row {
        let mut row = waiting(row);
        if right.started {
            row.counts.attempt += 1;
            row.counts.interruptions += 1;
            row.run_at_ms = self.now.0 + 1_000;
        }
        row
    }

    /// Whether `after` is `expected`, claimed by this process.
    fn is_claim(&self, expected: &Row, after: &Row) -> bool {
        let claimed = Row { state: 3, runner: after.runner, fence: after.fence, ..expected.clone() };
        expected.state == 2
            && *after == claimed
            && Some(after.runner) == self.runner
            && after.run_at_ms <= self.now.0
            && !self.ledger.rights.keys().any(|(_, fence)| *fence > after.fence)
            && !self.ledger.rights.contains_key(&(after.record, after.fence))
    }
}

/// Equal but for who holds it, which means something only while somebody does.
fn same(expected: &Row, after: &Row) -> bool {
    expected.state != 3 && *after == Row { runner: after.runner, fence: after.fence, ..expected.clone() }
}

fn waiting(row: &Row) -> Row {
    Row { state: 2, ..row.clone() }
}

/// A job whose runner is no more: a start counts, and a death if it may have been the job's doing.
fn interrupted(row: &Row, right: &Right, died: bool) -> Row {
    let mut row = waiting(row);
    if right.started {
        let guilty = died && !(right.alone && right.executed);
        row.counts.attempt += 1;
        row.counts.interruptions += 1;
        row.counts.deaths += u32::from(guilty);
        if guilty && right.alone {
            row.state = 4;
            row.kind = Some("suspect".to_owned());
        }
    }
    row
}
