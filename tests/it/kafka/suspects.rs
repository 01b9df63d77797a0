//! Jobs that are there whenever a runner dies.

use super::fleet::KIP_848;
use super::{Broker, Record};
use crate::eventually;
use crate::support::TestRunner;

/// So much that it takes some seconds.
const WORK: &str = "report 8000";

/// How often the guests of this job said that they began.
fn begun(runner: &TestRunner, id: &str) -> usize {
    runner.log().iter().filter(|line| line["message"] == "begun" && line["job.id"] == id).count()
}

#[test]
fn job_that_kills_its_runner_again_and_again_ends_alone_as_suspect() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1).noticing_deaths();
    let job =
        |id: &str, command: &str| Record::from(format!(r#"{{"job_type":"obey","job_id":"{id}","do":"{command}"}}"#));
    topic.send([job("bad", "begin-spin"), job("one", WORK), job("two", WORK)]);
    let mut runner = topic
        .runner(&format!("slots = 4\nfailures.job_type = 'report'\n{KIP_848}"))
        .handler("obey", "obedient")
        .manifest("obey", "timeout = '10m'");
    // Twice all of them are at work when the runner dies, so that any may have done it.
    for death in 1..=2 {
        runner.restart(&[]);
        eventually!(["bad", "one", "two"].iter().all(|id| begun(&runner, id) == death));
        runner.kill();
    }
    // Now each runs alone, and one of them dies so.
    runner.restart(&[]);
    eventually!(begun(&runner, "bad") == 3);
    runner.kill();
    assert_eq!(["one", "two"].map(|id| begun(&runner, id)), [2, 2], "it was alone");
    runner.restart(&[]);
    eventually!(topic.left() == 0);
    // They say it as they begin, and as they end.
    assert_eq!(["bad", "one", "two"].map(|id| begun(&runner, id)), [3, 4, 4]);
    let letter = runner.until("bad", "dead");
    assert_eq!((letter.kind(), letter.failures), ("suspect", 0));
    assert_eq!((letter.attempt, letter.interruptions), (3, 3));
    assert_eq!(topic.dead().len(), 1);
    let reports = topic.live(".parked");
    let ids: Vec<&[u8]> = reports.iter().filter_map(|report| report.header("id")).collect();
    assert_eq!(ids, [b"bad/report/1"], "no handler saw its end, and somebody is told");

    // Requeued, it is tried as any other, and a restart does not remember otherwise.
    runner.stop();
    runner.stdout(&["dead", "requeue", "bad"]);
    runner.restart(&[]);
    eventually!(begun(&runner, "bad") == 4);
    runner.kill();
    assert!(topic.dead().is_empty());
}
