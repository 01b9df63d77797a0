//! What became of all in a soak: what is asked while it goes on, what must add up at its end, and what it says of itself.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::figures::{Held, Stored, files, megabytes};
use super::ledger::Again;
use super::member::{Member, State};
use super::{SLOTS, Soak};

/// No more settlements than this are lost with a process that is killed: what its disk lets come together.
const UNSETTLED_MAX: usize = 512;

/// After so long all that hostile guests make a runner keep is there.
const WARM: Duration = Duration::from_secs(10);

/// How much more a runner may hold after its last third than after its first. What guests touched of their memory is given back
/// some time later.
const GROWN_MAX: u64 = 80 << 20;

// === impl Soak ===

impl Soak {
    /// Asks the queue what became of jobs since it was asked last; with `all`, of all that are kept.
    pub(super) fn harvest(&mut self, all: bool) {
        // A job ended when its settlement began: while the file is locked that is a while before it can be seen.
        let since = self.harvested.elapsed() + Duration::from_secs(30);
        let since = if all { "1h".to_owned() } else { format!("{}s", since.as_secs()) };
        self.harvested = Instant::now();
        let completed = self.any().jobs(&["--state", "completed", "--since", &since]);
        let dead = self.any().dead();
        completed.iter().for_each(|job| self.ledger.completed(job));
        dead.iter().for_each(|job| self.ledger.dead(job));
        self.ready = self.any().count("ready");
    }

    pub(super) fn measure(&mut self) {
        let third = (self.began.elapsed().as_millis() * 3 / self.length.as_millis().max(1)).min(2);
        let third = usize::try_from(third).expect("there are three");
        self.stored[third] = self.stored[third].max(Stored::now(self.any()));
        if self.warmed.is_some_and(|at| at.elapsed() > WARM) && self.members[0].state == State::Up {
            self.held.extend(self.members[0].held());
        }
    }

    /// Stops all, and looks whether it adds up.
    pub(super) fn close(&mut self) -> Again {
        let stats = self.any().stats();
        let jobs = self.any().jobs(&[]);
        for state in ["completed", "dead", "running"] {
            let (listed, counted) =
                (jobs.iter().filter(|job| job.state == state).count() as u64, self.any().count(state));
            if listed != counted {
                self.ledger.fault(format!("{listed} jobs are {state}, and `stats` counts {counted}"));
            }
        }
        let dead = self.ledger.dead_letters(true).len() as u64;
        if stats["runners"] != self.members.len() || self.any().count("dead") != dead {
            self.ledger.fault(format!("there are {dead} dead letters, and `stats` says {stats}"));
        }
        let idle = self.members[0].held();
        for member in &mut self.members {
            member.stop(&mut self.ledger, false);
        }
        // One that was told before its process ended.
        let too_late = self.any().stats()["fenced_total"].as_u64().expect("stats have it");
        let counts = &self.ledger.counts;
        if counts.too_late > too_late || (counts.leases_lost == 0 && too_late > 0) {
            let fault = format!("{} settled too late, and `stats` counts {too_late}", counts.too_late);
            self.ledger.fault(fault);
        }
        self.state_files = files(&self.any().path("sandhog.db.state"));
        let again = self.ledger.close(SLOTS, UNSETTLED_MAX);
        self.assert_flat(idle);
        again
    }

    fn assert_flat(&mut self, idle: Option<Held>) {
        let [first, .., last] = self.stored;
        if last.database_bytes > first.database_bytes * 2 + (16 << 20) || last.log_bytes > 80 << 20 {
            self.ledger.fault(format!("the file grows: {first:?}, {last:?}"));
        }
        // Two builds: compiled code and its note. For each folder four handlers, and their pairs of two files. The bell.
        let (files, most) = (self.state_files.len(), 4 + 2 * (4 + 2 * 6) + 1);
        let left = |file: &&String| file.starts_with("runners/") || file.contains(".tmp") || file.contains(".part");
        let left: Vec<&String> = self.state_files.iter().filter(left).collect();
        if files > most || !left.is_empty() {
            self.ledger.fault(format!("files are left in the state folder: {files}, {left:?}"));
        }
        let third = self.held.len() / 3;
        if third > 0 {
            let before = Held::median(&self.held[..third]);
            let after = Held::median(&self.held[self.held.len() - third..]);
            let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
            if grown > GROWN_MAX || after.files > before.files + 8 || after.threads > before.threads + 16 {
                self.ledger.fault(format!("the runner grows: {before:?}, {after:?}, idle {idle:?}"));
            }
        }
    }

    // --- what it says ---

    pub(super) fn progress(&self) -> String {
        let counts = &self.ledger.counts;
        let [kills, stops] = self.ended();
        let held: Vec<String> = self.members.iter().map(|member| self.at(member)).collect();
        let stored = Stored::now(self.any());
        format!(
            "{:5.0} s, step {}: {} accepted, {} completed, {} dead, {} open; {kills} kills, {stops} stops, {} swaps; {}; \
             database {:.1} MB, log {:.1} MB, {} state files",
            self.began.elapsed().as_secs_f64(),
            self.step,
            counts.accepted,
            counts.completed,
            counts.dead.values().sum::<usize>(),
            self.ledger.open(),
            self.swaps,
            held.join(", "),
            megabytes(stored.database_bytes),
            megabytes(stored.log_bytes),
            stored.state_files,
        )
    }

    fn at(&self, member: &Member) -> String {
        match (member.state, member.state != State::Down) {
            (State::Down, _) | (_, false) => "down".to_owned(),
            (state, true) => match member.held() {
                Some(held) => format!(
                    "{state:?} {:.0} MB {} files {} threads",
                    megabytes(held.resident_bytes),
                    held.files,
                    held.threads
                ),
                None => format!("{state:?}"),
            },
        }
    }

    fn ended(&self) -> [usize; 2] {
        [self.members.iter().map(|member| member.kills).sum(), self.members.iter().map(|member| member.stops).sum()]
    }

    pub(super) fn table(&self, again: &Again) -> String {
        let (counts, [kills, stops]) = (&self.ledger.counts, self.ended());
        let dead: Vec<String> = counts.dead.iter().map(|(kind, jobs)| format!("{kind} {jobs}")).collect();
        let third = self.held.len() / 3;
        let (before, after) = (Held::median(&self.held[..third]), Held::median(&self.held[self.held.len() - third..]));
        let both = |figure: fn(&Held) -> u64| format!("{} → {}", figure(&before), figure(&after));
        let rows = [
            ("seed", self.random.seed.to_string()),
            ("took", format!("{:.0} s, {} steps", self.began.elapsed().as_secs_f64(), self.step)),
            ("runners", format!("{}, {} processes", self.members.len(), self.ledger.processes())),
            ("kills, stops", format!("{kills}, {stops}")),
            ("swaps of handlers", self.swaps.to_string()),
            ("leases lost", counts.leases_lost.to_string()),
            ("accepted", counts.accepted.to_string()),
            ("not added again", counts.duplicates.to_string()),
            ("refused, file locked", self.refused.to_string()),
            ("completed", counts.completed.to_string()),
            ("dead", dead.join(", ")),
            ("requeued, deleted", format!("{}, {}", counts.requeued, counts.deleted)),
            ("interrupted starts", counts.again.to_string()),
            ("  of jobs that report: executing", again.executing.to_string()),
            ("  not settled yet", again.unsettled.to_string()),
            ("  began without a word", again.silent.to_string()),
            ("  not noted", again.unnoted.to_string()),
            ("settled too late", counts.too_late.to_string()),
            ("resident MB, spared runner", both(|held| held.resident_bytes / 1_000_000)),
            ("files, spared runner", both(|held| held.files)),
            ("threads, spared runner", both(|held| held.threads)),
            ("database MB, by thirds", self.stored.map(|s| format!("{:.1}", megabytes(s.database_bytes))).join(" → ")),
            ("log MB, by thirds", self.stored.map(|s| format!("{:.1}", megabytes(s.log_bytes))).join(" → ")),
            ("state files at the end", self.state_files.len().to_string()),
            ("lost, or not adding up", self.ledger.faults().to_string()),
        ];
        rows.iter().fold(String::new(), |mut table, (name, value)| {
            writeln!(table, "{name:34} {value}").expect("a string takes what is written");
            table
        })
    }
}
