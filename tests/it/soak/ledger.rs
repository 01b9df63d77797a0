//! What was accepted, what became of it, and what the guests themselves said: what must add up at the end.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::told::{ALL, End, MALFORMED};
use crate::support::{Seen, message};

/// Where one thing is wrong, many are.
const FAULTS_SHOWN: usize = 20;

/// The account of one soak.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    jobs: HashMap<String, Entry>,
    processes: Vec<Process>,
    pub(super) counts: Counts,
    /// What does not add up.
    faults: Vec<String>,
}

/// What is counted as it comes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: usize,
    pub(super) duplicates: usize,
    pub(super) completed: usize,
    pub(super) dead: BTreeMap<String, usize>,
    pub(super) requeued: usize,
    pub(super) deleted: usize,
    /// Starts that were interrupted, as the queue knows them.
    pub(super) again: u32,
    /// Settlements of which a runner said that they came too late.
    pub(super) too_late: u64,
    pub(super) leases_lost: usize,
}

/// Of what ran again: how it stood when its process ended.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub(super) executing: usize,
    /// It had ended, and its settlement was lost with its process.
    pub(super) unsettled: usize,
    /// It began and had no time to say so.
    pub(super) silent: usize,
    /// Its start was noted nowhere, since the disk was full, or its process had lost its lease.
    pub(super) unnoted: usize,
}

#[derive(Debug)]
struct Entry {
    told: usize,
    /// Its attempts before it was requeued.
    before: u32,
    state: State,
    begun: Vec<Begun>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Accepted,
    /// With this attempt.
    Completed(u32),
    Dead(u32),
    Deleted,
}

/// What a guest said of one attempt.
#[derive(Debug)]
struct Begun {
    process: usize,
    attempt: u32,
    generation: String,
    times: u32,
}

/// A process of a runner.
#[derive(Debug, Default)]
struct Process {
    name: String,
    /// Its disk was full for a while, or its lease was lost: not all that it began is noted.
    unsure: bool,
    /// It was killed, or told to end.
    ended: bool,
}

// === impl Ledger ===

impl Ledger {
    /// A process more; answers its number.
    pub(super) fn process(&mut self, name: String) -> usize {
        self.processes.push(Process { name, ..Process::default() });
        self.processes.len() - 1
    }

    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn ended(&mut self, process: usize) {
        self.processes[process].ended = true;
    }

    pub(super) fn unsure(&mut self, process: usize) {
        self.processes[process].unsure = true;
    }

    pub(super) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.jobs.contains_key(id)
    }

    /// How many jobs were accepted and have not ended, as far as was seen.
    pub(super) fn open(&self) -> usize {
        self.jobs.values().filter(|job| job.state == State::Accepted).count()
    }

    /// `enqueue` answered that the job is there.
    pub(super) fn accept(&mut self, id: &str, told: usize, duplicate: bool) {
        if duplicate {
            self.counts.duplicates += 1;
            if !self.knows(id) {
                self.fault(format!("`{id}` is called a duplicate, and was never accepted"));
            }
            return;
        }
        self.counts.accepted += 1;
        let entry = Entry { told, before: 0, state: State::Accepted, begun: Vec::new() };
        if self.jobs.insert(id.to_owned(), entry).is_some() {
            self.fault(format!("`{id}` was accepted twice"));
        }
    }

    /// A line of a process's log.
    pub(super) fn read(&mut self, process: usize, line: &Value) {
        let said = message(line);
        if line["target"] != "guest" {
            if said.contains("the right to job") {
                self.counts.too_late += 1;
            } else if said.contains("stood still for longer than its lease") {
                self.counts.leases_lost += 1;
                self.unsure(process);
            }
            if line["level"] == "ERROR" || (line.is_string() && said.contains("panicked")) {
                self.fault(format!("{}: {line}", self.processes[process].name));
            }
        } else if said == "begun" {
            let text = |key: &str| line[key].as_str().unwrap_or_default();
            let (id, generation) = (text("job.id"), text("handler.generation"));
            let attempt = line["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(0);
            self.begun(process, id, attempt, generation);
        }
    }

    fn begun(&mut self, process: usize, id: &str, attempt: u32, generation: &str) {
        // A job may begin before `enqueue` has answered that it is there, and `accept` comes before any log is read.
        let Some(job) = self.jobs.get_mut(id) else {
            return self.fault(format!("`{id}` ran, and was never accepted"));
        };
        if !ALL[job.told].reports {
            return;
        }
        let known = job.begun.iter_mut().find(|begun| begun.process == process && begun.attempt == attempt);
        match known {
            Some(begun) => {
                begun.times += 1;
                if begun.generation != generation {
                    let fault = format!("attempt {attempt} of `{id}` ran on {generation} and on {}", begun.generation);
                    self.fault(fault);
                }
            }
            None => job.begun.push(Begun { process, attempt, generation: generation.to_owned(), times: 1 }),
        }
    }

    /// The queue shows the job as completed.
    pub(super) fn completed(&mut self, seen: &Seen) {
        let Some(job) = self.jobs.get_mut(&seen.id) else {
            return self.fault(format!("made of nothing: {seen:?}"));
        };
        if job.state == State::Completed(seen.attempt) {
            return;
        }
        let own = 1 + seen.failures + seen.retries_requested;
        let again = (seen.attempt - job.before).checked_sub(own);
        if job.state != State::Accepted || ALL[job.told].end != End::Completed || again.is_none() {
            let fault = format!("completed, where it was {:?} and told {:?}: {seen:?}", job.state, ALL[job.told]);
            return self.fault(fault);
        }
        job.state = State::Completed(seen.attempt);
        self.counts.completed += 1;
        self.counts.again += again.unwrap_or(0);
    }

    /// The queue shows the job as a dead letter.
    pub(super) fn dead(&mut self, seen: &Seen) {
        let Some(job) = self.jobs.get_mut(&seen.id) else {
            return self.fault(format!("made of nothing: {seen:?}"));
        };
        if job.state == State::Dead(seen.attempt) {
            return;
        }
        // Whatever its end should be: it brought its runners down, as far as these can tell.
        let suspect = seen.kind() == "suspect" && seen.attempt >= job.before + 3;
        let own = match seen.kind() {
            "suspect" | "malformed" => 0,
            "rejected" => 1 + seen.failures + seen.retries_requested,
            _ => seen.failures + seen.retries_requested,
        };
        let again = (seen.attempt - job.before).checked_sub(own);
        let as_told = suspect || matches!(ALL[job.told].end, End::Dead(kind) if kind == seen.kind());
        if job.state != State::Accepted || !as_told || again.is_none() {
            let fault = format!("dead, where it was {:?} and told {:?}: {seen:?}", job.state, ALL[job.told]);
            return self.fault(fault);
        }
        job.state = State::Dead(seen.attempt);
        *self.counts.dead.entry(seen.kind().to_owned()).or_default() += 1;
        self.counts.again += again.unwrap_or(0);
    }

    /// Ids of dead letters that can be sent back.
    pub(super) fn dead_letters(&self, malformed: bool) -> Vec<String> {
        let dead = self.jobs.iter().filter(|(_, job)| matches!(job.state, State::Dead(_)));
        let mut ids: Vec<String> =
            dead.filter(|(_, job)| malformed || job.told != MALFORMED).map(|(id, _)| id.clone()).collect();
        // The order of a map is not the seed's.
        ids.sort_unstable();
        ids
    }

    pub(super) fn requeued(&mut self, id: &str) {
        self.counts.requeued += 1;
        self.change(id, State::Accepted);
    }

    pub(super) fn deleted(&mut self, id: &str) {
        self.counts.deleted += 1;
        self.change(id, State::Deleted);
    }

    fn change(&mut self, id: &str, state: State) {
        match self.jobs.get_mut(id) {
            Some(Entry { state: known @ State::Dead(_), before, .. }) => {
                if let State::Dead(attempt) = *known {
                    *before = attempt;
                }
                *known = state;
            }
            known => {
                let fault = format!("`{id}` becomes {state:?}, where it was {known:?}");
                self.fault(fault);
            }
        }
    }

    /// Adds it all up. `slots` is how many attempts a process executes at a time, `unsettled_max` how many settlements may
    /// be lost with one.
    pub(super) fn close(&mut self, slots: usize, unsettled_max: usize) -> Again {
        let jobs = std::mem::take(&mut self.jobs);
        let mut again = Again::default();
        let mut of_process = BTreeMap::<usize, (usize, usize)>::new();
        for (id, job) in &jobs {
            match job.state {
                State::Accepted => self.fault(format!("lost: `{id}`, told {:?}: {job:?}", ALL[job.told])),
                State::Completed(attempt) if ALL[job.told].reports => {
                    if let Err(fault) = self.add_up(job, attempt, &mut again, &mut of_process) {
                        self.fault(format!("{fault}: `{id}`, attempt {attempt}, {job:?}"));
                    }
                }
                _ => {}
            }
        }
        for (process, (executing, unsettled)) in of_process {
            let Process { name, unsure, ended } = &self.processes[process];
            let fault = format!("{name}: {executing} executing, {unsettled} not settled, {unsure} {ended}");
            if executing > slots || (unsettled > unsettled_max && !unsure) || !(*ended || *unsure) {
                self.fault(fault);
            }
        }
        again
    }

    /// Whether the attempts of a job that completed are what they may be.
    fn add_up(
        &self,
        job: &Entry,
        last: u32,
        again: &mut Again,
        of_process: &mut BTreeMap<usize, (usize, usize)>,
    ) -> Result<(), &'static str> {
        for attempt in 1..=last {
            let begun: Vec<&Begun> = job.begun.iter().filter(|begun| begun.attempt == attempt).collect();
            if begun.iter().any(|begun| begun.times > 2) {
                return Err("an attempt ran twice in one process");
            }
            let unsure = begun.iter().filter(|begun| self.processes[begun.process].unsure).count();
            if begun.len() > 1 && unsure + 1 < begun.len() {
                return Err("an attempt ran in two processes");
            }
            again.unnoted += begun.len().saturating_sub(1);
            if attempt == last {
                if !begun.iter().any(|begun| begun.times == 2) {
                    return Err("it completed, and its guest did not say so");
                }
                continue;
            }
            if begun.is_empty() {
                again.silent += 1;
            }
            for begun in begun {
                let (executing, unsettled) = of_process.entry(begun.process).or_default();
                if begun.times == 2 {
                    *unsettled += 1;
                    again.unsettled += 1;
                } else {
                    *executing += 1;
                    again.executing += 1;
                }
            }
        }
        match job.begun.iter().any(|begun| begun.attempt > last) {
            true => Err("it ran again when it had completed"),
            false => Ok(()),
        }
    }

    /// How much does not add up.
    pub(super) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// Says what does not add up, if anything.
    pub(super) fn assert_adds_up(&self) {
        let (faults, shown) = (&self.faults, self.faults.len().min(FAULTS_SHOWN));
        assert!(faults.is_empty(), "{} things do not add up:\n{}", faults.len(), faults[..shown].join("\n"));
    }
}
