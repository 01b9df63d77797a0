//! Guests' own account of what they did, held against the queue's: whatever happens to runners and handlers, every job reaches
//! one end, and only what was executing when a runner died is executed again.

use std::collections::{BTreeMap, BTreeSet};

use crate::eventually;
use crate::support::{Random, Seen, TestRunner, guests, message, now_ms};

/// How many attempts a runner executes at a time here.
const SLOTS: usize = 4;

/// Settlements of jobs that ended just before their runner died may be lost with it, and so the jobs run again. There are no
/// more of these than a disk that is slow to sync lets come together.
const UNSETTLED_MAX: usize = 4 * SLOTS;

/// Were it for a runner's lease on its jobs, the others would wait so long for them.
const LEASE_MS: i64 = 30_000;

/// Within so many milliseconds of its restart, its start as a process included, a runner executes again what it executed when
/// it died.
const AGAIN_MS: i64 = 1_000;

/// The same for another runner, from the death of the first.
const TAKEN_OVER_MS: i64 = 2_000;

/// What a guest said when it began or ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    job: String,
    attempt: u64,
    /// Which process of the runner it was, counted from 1.
    process: usize,
    generation: String,
    word: String,
}

/// What the guests said, in its order.
fn ledger(runner: &TestRunner) -> Vec<Entry> {
    let mut process = 0;
    let mut entries = Vec::new();
    for line in runner.log() {
        process += usize::from(message(&line).starts_with("ready: "));
        if line["target"] == "guest" {
            let text = |key: &str| line[key].as_str().expect("a guest's line has it").to_owned();
            entries.push(Entry {
                job: text("job.id"),
                attempt: line["attempt"].as_u64().expect("a guest's line has it"),
                process,
                generation: text("handler.generation"),
                word: text("message"),
            });
        }
    }
    entries
}

/// The entries of each job.
fn by_job(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut jobs: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        jobs.entry(&entry.job).or_default().push(entry);
    }
    jobs
}

/// Jobs of which a dispatcher said that they completed, in that process of the runner.
fn completed_in(runner: &TestRunner, process: usize) -> BTreeSet<String> {
    let log = runner.log();
    let starts = log.iter().enumerate().filter(|(_, line)| message(line).starts_with("ready: "));
    let starts: Vec<usize> = starts.map(|(at, _)| at).chain([log.len()]).collect();
    let lines = log[starts[process - 1]..starts[process]].iter();
    let completed = lines.filter(|line| message(line).starts_with("job `") && message(line).ends_with("` completed"));
    completed.filter_map(|line| line["job.id"].as_str().map(str::to_owned)).collect()
}

/// All jobs, by id, each of which completed and is blamed for nothing.
fn all_completed(runner: &TestRunner, expected: usize) -> BTreeMap<String, Seen> {
    let jobs: BTreeMap<String, Seen> = runner.jobs(&[]).into_iter().map(|job| (job.id.clone(), job)).collect();
    assert_eq!(jobs.len(), expected, "jobs were lost, or made");
    for job in jobs.values() {
        assert_eq!((job.state.as_str(), job.failures), ("completed", 0), "{job:?}");
    }
    jobs
}

/// The same command, so many times.
fn lines(command: &str, jobs: usize) -> String {
    format!("{{\"job_type\":\"obey\",\"do\":\"{command}\"}}\n").repeat(jobs)
}

// === kills ===

#[test]
fn five_kills_lose_no_job_and_run_again_only_what_was_executing() {
    const JOBS: usize = 3_000;
    const KILLS: usize = 5;
    let mut random = Random::seeded();
    let mut runner = TestRunner::new()
        .handler("obey", "obedient")
        .config(&format!("slots = {SLOTS}\n[log]\nlevel = 'info,sandhog::dispatch=debug'\n"));
    assert_eq!(runner.enqueue_lines(lines("work 20", JOBS), &[]).len(), JOBS);
    let mut restarted_at = Vec::new();
    for _ in 0..KILLS {
        restarted_at.push(now_ms());
        runner.restart(&[]);
        // Far enough into the backlog that no innocent job is there at three deaths, the last of which it would die alone.
        let begun = runner.says("begun") + 50 + random.below(400);
        eventually!(runner.says("begun") >= begun);
        runner.kill();
    }
    restarted_at.push(now_ms());
    runner.restart(&[]);
    eventually!(runner.count("completed") == JOBS as u64);
    assert!(runner.stop().success());
    assert_eq!(runner.stats()["runners"], 0);

    let jobs = all_completed(&runner, JOBS);
    let entries = ledger(&runner);
    let by_job = by_job(&entries);
    assert_eq!(by_job.len(), JOBS, "every job ran");
    let mut again = BTreeMap::<usize, BTreeSet<&str>>::new();
    let mut longest = [0; KILLS + 1];
    for (id, entries) in &by_job {
        let job = &jobs[*id];
        for pair in entries.windows(2) {
            assert!(pair[0].process < pair[1].process && pair[0].attempt < pair[1].attempt, "{entries:?}");
            again.entry(pair[0].process).or_default().insert(id);
        }
        let last = entries.last().expect("it has one");
        assert_eq!(last.attempt, u64::from(job.attempt), "{entries:?}");
        if entries.len() > 1 {
            assert_eq!(runner.job(id).interruptions + 1, job.attempt, "{job:?}");
            let waited = job.started_at.expect("it started") - restarted_at[last.process - 1];
            let longest = &mut longest[last.process - 1];
            *longest = waited.max(*longest);
        }
    }
    longest.sort_unstable();
    eprintln!("what was interrupted ran again within {longest:?} ms of each restart");
    // A machine that is very busy for a moment may have delayed one.
    assert!(longest[KILLS / 2] < AGAIN_MS && longest[KILLS] < LEASE_MS / 2, "{longest:?} ms");
    for (process, again) in again {
        let completed = completed_in(&runner, process);
        let (unsettled, executing): (Vec<&str>, Vec<&str>) = again.iter().partition(|id| completed.contains(**id));
        eprintln!("kill {process}: {} executing, {} not settled", executing.len(), unsettled.len());
        assert!(process <= KILLS && executing.len() <= SLOTS, "kill {process}: {executing:?}");
        assert!(unsettled.len() <= UNSETTLED_MAX, "kill {process}: {unsettled:?}");
    }
}

#[test]
fn jobs_of_a_runner_killed_under_load_run_in_another_within_two_seconds() {
    const JOBS: usize = 1_000;
    let mut first = TestRunner::new().handler("obey", "obedient");
    let second = first.beside("handlers-2").handler("obey", "obedient");
    first.enqueue_lines(lines("work 20", JOBS), &[]);
    first.restart(&[]);
    let second = second.start();
    eventually!(first.says("begun") > 20 && second.says("begun") > 20);
    let killed_at = now_ms();
    first.kill();
    eventually!(second.count("completed") == JOBS as u64);

    let jobs = all_completed(&second, JOBS);
    let (of_first, of_second) = (ledger(&first), ledger(&second));
    let (of_first, of_second) = (by_job(&of_first), by_job(&of_second));
    let (mut again, mut longest) = (0, 0);
    for (id, job) in &jobs {
        let attempts = |entries: &BTreeMap<&str, Vec<&Entry>>| entries.get(id.as_str()).map_or(0, Vec::len);
        let (in_first, in_second) = (attempts(&of_first), attempts(&of_second));
        assert!(in_first <= 1 && in_second <= 1 && in_first + in_second > 0, "{job:?}");
        if in_first + in_second == 2 {
            again += 1;
            assert_eq!((job.attempt, second.job(id).interruptions), (2, 1), "{job:?}");
            let waited = job.started_at.expect("it started") - killed_at;
            assert!(waited < TAKEN_OVER_MS, "{waited} ms: {job:?}");
            longest = longest.max(waited);
        }
    }
    eprintln!("{again} jobs ran again within {longest} ms of the death");
    assert!(again > 0, "nothing was executing when the first runner died");
}

// === reloads ===

#[test]
fn twenty_swaps_under_load_lose_no_job_and_run_none_twice() {
    const SWAPS: usize = 20;
    /// How many jobs there are at least when the handler is swapped.
    const IN_FLIGHT: u64 = 10_000;
    // Two builds of one handler, each of which says which one it is when an attempt begins, and when it ends.
    let words = ["azure", "green"];
    let builds = words.map(|word| {
        let text = guests::text("obedient").replace("\"begun\"", &format!("\"{word}\""));
        guests::encoded(&guests::module(&text, &guests::contract(), "job-handler"))
    });
    let runner = TestRunner::new();
    runner.put("obey.wasm", &builds[0]);
    let runner = runner.start();
    let mut enqueued = 0;
    for swap in 1..=SWAPS {
        while enqueued < runner.count("completed") + IN_FLIGHT {
            enqueued += runner.enqueue_lines(lines("report 1", 1_000), &[]).len() as u64;
        }
        let before = runner.says(words[swap % 2]);
        runner.put("obey.wasm", &builds[swap % 2]);
        eventually!(runner.says("handler `obey` loaded") == swap + 1);
        eventually!(runner.says(words[swap % 2]) > before);
    }
    eventually!(runner.count("completed") == enqueued);
    eprintln!("{enqueued} jobs");

    let jobs = all_completed(&runner, usize::try_from(enqueued).expect("it is small"));
    let entries = ledger(&runner);
    let by_job = by_job(&entries);
    assert_eq!(by_job.len(), jobs.len(), "every job ran");
    for (id, entries) in by_job {
        let job = &jobs[id];
        assert!(entries.len() == 2 && entries[0] == entries[1], "{entries:?}");
        assert_eq!((job.attempt, &job.generation), (1, &Some(entries[0].generation.clone())), "{job:?}");
    }
    let generations: BTreeSet<(&str, &str)> = entries.iter().map(|e| (&*e.word, &*e.generation)).collect();
    assert_eq!(generations.len(), 2, "each build is one generation: {generations:?}");
}
