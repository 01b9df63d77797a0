//! The sandbox as the rest of the runner sees it.

use std::sync::Arc;

use sandhog::clock::UnixMs;
use sandhog::grants::Grants;
use sandhog::job::Job;
use sandhog::limits::Limits;
use sandhog::outcome::Outcome;
use sandhog::sandbox::{Config, GuestLog, Level, Sandbox, Source};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::support::guests::guest;

struct Silence;

impl GuestLog for Silence {
    fn line(&self, _: Option<&Job>, _: Source, _: Level, _: &str) {}
}

/// A sandbox without a runner.
pub(crate) fn sandbox(runtime: &Runtime) -> Sandbox {
    let config = Config {
        slots: 2,
        threads: 2,
        memory_ceiling_bytes: 256 << 20,
        compiled_dir: None,
        timers: runtime.handle().clone(),
        guests: runtime.handle().clone(),
    };
    Sandbox::new(config).unwrap()
}

#[test]
fn handler_gets_its_job_and_answers() {
    let runtime = Runtime::new().unwrap();
    let sandbox = sandbox(&runtime);
    let component = sandbox.load(&guest("obedient"), &Limits::default(), &Grants::default()).unwrap();
    let job = Arc::new(Job {
        id: "7".to_owned(),
        job_type: "a".to_owned(),
        body: r#"result {"a": "naïve ✓"}"#.to_owned(),
        attempt: 1,
        failures: 0,
        retries_requested: 0,
        interruptions: 0,
        enqueued_at: UnixMs(1),
        first_started_at: None,
        metadata: vec![("queue".to_owned(), "q".to_owned())],
    });
    let log: Arc<dyn GuestLog> = Arc::new(Silence);
    let attempt = runtime.block_on(component.run(&job, 1, &Limits::default(), &CancellationToken::new(), &log));
    assert_eq!(attempt.outcome, Outcome::Complete { result: Some(r#"{"a": "naïve ✓"}"#.to_owned()) });
}
