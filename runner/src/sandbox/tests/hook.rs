//! Claims about `failure-hook`: what it is told, and that nothing follows from what it does.

use super::context::{attentive, reusing, work};
use super::*;

const UNSEEN: &[&str] = &["set up", "torn down"];

/// What is heard beside set-up and tear-down.
fn told(component: &Component, bodies: &[&str], limits: &Limits) -> (Vec<Outcome>, Vec<String>) {
    let (outcomes, mut heard) = work(component, bodies, limits);
    heard.retain(|line| !UNSEEN.contains(&line.as_str()));
    (outcomes, heard)
}

#[test]
fn handler_is_told_of_failures_and_rejects_and_of_nothing_else() {
    let fresh = attentive(&[]);
    for (body, lines) in [
        ("complete", &[][..]),
        ("retry", &[]),
        ("err", &["error", "boom", "7"]),
        ("trap", &["trap", "unreachable at render", "7"]),
        ("reject", &["rejected", "never", "7", "buried"]),
        ("spin", &["timeout", "100 ms", "7"]),
    ] {
        let limits = if body == "spin" { short() } else { limits() };
        let reuse = Reuse { jobs: 100, idle: Duration::from_secs(600), instances: 4 };
        for component in [fresh.clone(), fresh.clone().reusing(reuse)] {
            assert_eq!(told(&component, &[body], &limits).1, lines, "{body}");
        }
    }
}

#[test]
fn last_failure_is_told_as_the_one_that_buries_the_job() {
    let ear = Arc::new(Ear::default());
    let log: Arc<dyn GuestLog> = Arc::clone(&ear) as _;
    let runtime = Builder::new_current_thread().build().unwrap();
    let component = attentive(&[]);
    // It has failed once already.
    for (max_failures, buried) in [(2, true), (3, false)] {
        runtime.block_on(component.run(&job("err"), max_failures, &limits(), &CancellationToken::new(), &log));
        let heard = std::mem::take(&mut *ear.heard.lock().unwrap());
        assert_eq!(heard.iter().any(|(_, _, line)| line == "buried"), buried, "{heard:?}");
    }
}

#[test]
fn it_is_told_in_the_instance_that_answered_and_else_in_a_fresh_one() {
    let (outcomes, heard) = work(&reusing(&[], 100), &["err", "seen"], &limits());
    assert_eq!((&outcomes[1], heard.iter().filter(|line| *line == "set up").count()), (&complete("1"), 1));
    let (outcomes, heard) = work(&reusing(&[], 100), &["trap", "seen"], &limits());
    // The one that was made for the hook goes on.
    assert_eq!((&outcomes[1], heard.iter().filter(|line| *line == "set up").count()), (&complete("0"), 2));
    let (_, heard) = work(&attentive(&[]), &["err"], &limits());
    assert_eq!(heard, ["set up", "torn down", "set up", "error", "boom", "7", "torn down"]);
}

#[test]
fn hook_that_fails_changes_nothing_and_is_said() {
    let limits = Limits { timeout: Duration::from_millis(300), ..limits() };
    for (how, said) in [(2, "failure hook: trap: unreachable at job-failed"), (3, "failure hook: timeout: 300 ms")] {
        for component in [attentive(&[("job-failed", how)]), reusing(&[("job-failed", how)], 100)] {
            let (outcomes, heard) = work(&component, &["err", "result 1"], &limits);
            assert!(matches!(&outcomes[0], Outcome::Failed(failure) if failure.message == "boom"), "{outcomes:?}");
            assert_eq!(outcomes[1], complete("1"));
            assert!(heard.iter().any(|line| line.starts_with(said)), "{heard:?}");
        }
    }
}
