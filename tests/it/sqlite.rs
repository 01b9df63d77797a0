//! What is the SQLite queue's alone: its file, its runners, its ids.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::outcome::{Disposition, Kind};
use sandhog::queue::sqlite::{Options, SqliteQueue};
use sandhog::queue::{Demand, Filter, Keep, NewJob, Queue, QueueError, Requeue, Settled, State};
use tempfile::TempDir;

use crate::queue_contract::follow_ups::{self, with_follow_ups};
use crate::queue_contract::{
    bury, complete, counted, demand, enqueue, exercise, named, new_job, receive_one, reports, settle, settle_all,
    settling, state, within,
};

/// A clock that stands until it is moved.
#[derive(Debug)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.0.load(Ordering::SeqCst))
    }
}

impl HandClock {
    fn new() -> Arc<HandClock> {
        Arc::new(HandClock(AtomicI64::new(SystemClock.now().0)))
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

pub(crate) fn options(dir: &Path) -> Options {
    Options::new(dir.join("jobs.db"), dir.join("jobs.db.state"))
}

fn open(dir: &TempDir) -> Arc<SqliteQueue> {
    SqliteQueue::open(options(dir.path())).unwrap()
}

fn refused(dir: &TempDir) -> QueueError {
    let error = SqliteQueue::open(options(dir.path())).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    assert!(!error.transient);
    error
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_queues() {
    let dirs = Mutex::new(Vec::new());
    let make_with = async |reports| {
        let dir = TempDir::new().unwrap();
        let queue: Arc<dyn Queue> = SqliteQueue::open(Options { reports, ..options(dir.path()) }).unwrap();
        dirs.lock().unwrap().push(dir);
        queue
    };
    let make = || make_with(None);
    exercise(make).await;
    follow_ups::exercise(make).await;
    state::exercise(make).await;
    reports::exercise(|| make_with(reports::wanted())).await;
}

#[tokio::test]
async fn restart_keeps_every_job() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, vec![new_job("t"), new_job("t"), new_job("t")]).await;
    let running = receive_one(&*queue, "t").await;
    let executing = running.executing();
    let claimed = receive_one(&*queue, "t").await;
    queue.close().await;
    assert_eq!(settle(&*queue, claimed, complete()).await, Settled::Fenced);
    drop(executing);
    drop(running);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("jobs.db.state/runners")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let queue = open(&dir);
    let mut attempts = Vec::new();
    while attempts.len() < 3 {
        let received = within(queue.receive(&demand("t", 3))).await.unwrap();
        attempts.extend(received.iter().map(|delivery| (delivery.job.attempt, delivery.job.interruptions)));
        settle_all(&*queue, received).await;
    }
    assert_eq!(attempts, [(2, 1), (1, 0), (1, 0)]);
}

#[tokio::test]
async fn next_runner_removes_the_files_of_one_that_is_in_no_list_unless_its_process_lives() {
    let dir = TempDir::new().unwrap();
    open(&dir).close().await;
    let path = |name: &str| dir.path().join("jobs.db.state/runners").join(name);
    for name in ["7.lock", "7.slots", "8.lock", "8.slots"] {
        std::fs::write(path(name), "").unwrap();
    }
    // It lost its lease, and has not noticed yet.
    let alive = std::fs::File::open(path("8.lock")).unwrap();
    alive.lock().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, complete()).await;
    assert!(!path("7.lock").exists() && !path("7.slots").exists());
    assert!(path("8.lock").exists() && path("8.slots").exists());
}

#[tokio::test]
async fn file_and_folder_are_their_owners_alone() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, vec![new_job("t")]).await;
    for (name, mode) in [("jobs.db", 0o600), ("jobs.db-wal", 0o600), ("jobs.db.state", 0o700)] {
        let found = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[tokio::test]
async fn chosen_id_is_one_job_until_a_day_after_its_end() {
    // Whether the job's row is kept as it completes, or goes at once.
    for age in [Duration::ZERO, Duration::from_secs(60 * 60)] {
        id_is_one_job_until_a_day_after_its_end(Keep { age, bytes: 1 << 20 }).await;
    }
}

async fn id_is_one_job_until_a_day_after_its_end(keep: Keep) {
    let dir = TempDir::new().unwrap();
    let clock = HandClock::new();
    let queue = SqliteQueue::open(Options { clock: clock.clone(), keep, ..options(dir.path()) }).unwrap();
    let duplicates = async |queue: &SqliteQueue| {
        let enqueued = enqueue(queue, vec![named("t", "order-7"), named("t", "order-7")]).await;
        assert!(enqueued.iter().all(|job| job.id == "order-7"));
        enqueued.iter().filter(|job| job.duplicate).count()
    };
    assert_eq!(duplicates(&queue).await, 1);
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(duplicates(&queue).await, 2, "it runs");
    settle(&*queue, delivery, complete()).await;
    assert_eq!(duplicates(&queue).await, 2, "it has just ended");
    clock.forward(Duration::from_secs(24 * 60 * 60 + 1));
    assert_eq!(duplicates(&queue).await, 1, "a day is over");
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, bury(Kind::Error, "no")).await;
    assert_eq!(duplicates(&queue).await, 2);
    clock.forward(Duration::from_secs(25 * 60 * 60));
    queue.requeue_dead(Filter { ids: vec!["order-7".into()], ..Filter::default() }, Requeue::default()).await.unwrap();
    assert_eq!(duplicates(&queue).await, 2, "requeued, it has not ended");
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, bury(Kind::Error, "no")).await;
    queue.delete_dead(Filter { ids: vec!["order-7".into()], ..Filter::default() }, false).await.unwrap();
    assert_eq!(duplicates(&queue).await, 2, "deleted, it ended not long ago");
}

#[tokio::test]
async fn completed_jobs_are_kept_up_to_a_size_and_an_age() {
    let dir = TempDir::new().unwrap();
    let clock = HandClock::new();
    let keep = Keep { age: Duration::from_secs(3_600), bytes: 100 * 1_024 };
    let queue = SqliteQueue::open(Options {
        clock: clock.clone(),
        keep,
        heartbeat: Duration::from_millis(20),
        lease: Duration::from_secs(60 * 60 * 24),
        ..options(dir.path())
    })
    .unwrap();
    let job = || NewJob::Job {
        job_type: "t".into(),
        body: "x".repeat(768),
        id: None,
        run_at: None,
        metadata: Vec::new(),
        keep: None,
    };
    let work = async |jobs: usize| {
        enqueue(&*queue, (0..jobs).map(|_| job()).collect()).await;
        let mut left = jobs;
        while left > 0 {
            let received = within(queue.receive(&demand("t", 50))).await.unwrap();
            left -= received.len();
            settle_all(&*queue, received).await;
        }
    };
    work(50).await;
    assert_eq!(counted(&*queue, State::Completed).await, 50);
    work(950).await;
    let kept = counted(&*queue, State::Completed).await;
    assert!((90..=150).contains(&kept), "{kept} of 1 KiB are kept of 100 KiB");
    assert_eq!(queue.list(Filter::default()).await.unwrap().len() as u64, kept, "the counter is right");
    clock.forward(Duration::from_secs(3_601));
    work(1).await;
    within(async {
        while counted(&*queue, State::Completed).await > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn parked_job_expires_only_after_its_type_was_unserved_for_long() {
    let dir = TempDir::new().unwrap();
    let clock = HandClock::new();
    let queue = SqliteQueue::open(Options {
        clock: clock.clone(),
        park_for: Duration::from_secs(1_000),
        reports: reports::wanted(),
        heartbeat: Duration::from_millis(20),
        lease: Duration::from_secs(60 * 60 * 24),
        ..options(dir.path())
    })
    .unwrap();
    enqueue(&*queue, vec![new_job("nobody"), new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, complete()).await;
    let file = Connection::open(dir.path().join("jobs.db")).unwrap();
    let since = || file.query_row("select since_ms from parked", [], |row| row.get::<_, i64>(0));
    within(async {
        while since().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    clock.forward(Duration::from_secs(999));
    assert_eq!(counted(&*queue, State::Parked).await, 1);
    clock.forward(Duration::from_secs(2));
    let dead = within(async {
        loop {
            let dead = queue.list(Filter { state: Some(State::Dead), ..Filter::default() }).await.unwrap();
            if !dead.is_empty() {
                return dead;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(dead[0].failure.as_ref().unwrap().kind, Kind::Expired);
    assert_eq!(dead[0].attempt, 0);
    let report = receive_one(&*queue, "report").await;
    assert_eq!(report.job.id, format!("{}/report/1", dead[0].id));
    settle_all(&*queue, vec![report]).await;
}

#[tokio::test]
async fn report_whose_id_is_taken_has_another() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(Options { reports: reports::wanted(), ..options(dir.path()) }).unwrap();
    enqueue(&*queue, vec![named("t", "a"), named("other", "a/report/1")]).await;
    let job = receive_one(&*queue, "t").await;
    assert_eq!(settle(&*queue, job, bury(Kind::Rejected, "no")).await, Settled::Settled);
    let report = receive_one(&*queue, "report").await;
    assert_ne!(report.job.id, "a/report/1");
    assert!(report.job.metadata.contains(&("report-of".to_owned(), "a".to_owned())), "{:?}", report.job);
    settle_all(&*queue, vec![report]).await;
}

#[tokio::test]
async fn follow_up_whose_id_is_taken_is_not_added() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    let first = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    enqueue(&*queue, vec![named("follow", &format!("{first}/1/2")), new_job("t")]).await;
    let parent = receive_one(&*queue, "t").await;
    assert_eq!(parent.job.id, first);
    let settlement = with_follow_ups(&parent, Disposition::Ack { result: None }, 3);
    assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
    let mut received = within(queue.receive(&demand("follow", 9))).await.unwrap();
    received.sort_by(|one, other| one.job.id.cmp(&other.job.id));
    let made_by = |name: &str| received.iter().map(|child| child.job.metadata.iter().any(|(n, _)| n == name)).collect();
    let made_by: Vec<bool> = made_by("parent");
    assert_eq!(made_by, [true, false, true], "the one that was there stays as it was");
    settle_all(&*queue, received).await;
    // A fourth job of an id that ended names it still.
    let shown = queue.show(&format!("{first}/1/3")).await.unwrap().unwrap();
    assert_eq!(shown.listed.state, State::Completed);
}

#[tokio::test]
async fn settlement_of_a_lost_job_is_refused_and_counted() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    // What another runner does that takes this one for dead.
    let file = Connection::open(dir.path().join("jobs.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.execute_batch("update job set state = 2; delete from runner").unwrap();
    let other = open(&dir);
    let again = receive_one(&*other, "t").await;
    let late = with_follow_ups(&delivery, Disposition::Ack { result: None }, 3);
    assert_eq!(settle(&*queue, delivery, late).await, Settled::Fenced);
    assert_eq!(counted(&*other, State::Parked).await, 0, "what is fenced brings no follow-ups");
    assert_eq!(settle(&*other, again, complete()).await, Settled::Settled);
    assert_eq!(other.stats().await.unwrap().fenced_total, Some(1));
    // It registers anew with its next receive.
    enqueue(&*queue, vec![new_job("u")]).await;
    let delivery = receive_one(&*queue, "u").await;
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
    assert_eq!(queue.stats().await.unwrap().runners, Some(2));
}

#[tokio::test]
async fn locked_file_is_an_error_to_who_enqueues_and_a_wait_to_who_settles() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(Options { busy: Duration::from_millis(50), ..options(dir.path()) }).unwrap();
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    let file = Connection::open(dir.path().join("jobs.db")).unwrap();
    file.execute_batch("begin immediate").unwrap();
    let error = within(queue.enqueue(vec![new_job("t")])).await.unwrap_err();
    assert!(error.transient && error.hint.is_some(), "{error}");
    let settled = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { settle(&*queue, delivery, complete()).await }
    });
    let error = within(queue.enqueue(vec![new_job("t")])).await.unwrap_err();
    assert!(error.transient, "{error}");
    file.execute_batch("commit").unwrap();
    assert_eq!(settled.await.unwrap(), Settled::Settled);
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_can_make_the_file_at_once() {
    let dir = TempDir::new().unwrap();
    let opened: Vec<_> = (0..8)
        .map(|_| {
            let options = options(dir.path());
            std::thread::spawn(move || SqliteQueue::open(options).unwrap())
        })
        .collect();
    for thread in opened {
        let queue = thread.join().unwrap();
        enqueue(&*queue, vec![new_job("t")]).await;
    }
    let queue = open(&dir);
    assert_eq!(queue.list(Filter::default()).await.unwrap().len(), 8);
}

#[tokio::test]
async fn type_with_a_flood_leaves_room_for_others() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, (0..3_000).map(|_| new_job("flood")).collect()).await;
    enqueue(&*queue, vec![new_job("rare")]).await;
    let demand = Demand { types: vec![("flood".into(), 5_000), ("rare".into(), 5_000)], ..Demand::default() };
    let received = within(queue.receive(&demand)).await.unwrap();
    assert!(received.iter().any(|delivery| delivery.job.job_type == "rare"));
    settle_all(&*queue, received).await;
}

#[tokio::test]
async fn file_that_is_no_queue_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jobs.db");
    std::fs::create_dir(&path).unwrap();
    assert!(refused(&dir).message.contains("is a directory"));
    std::fs::remove_dir(&path).unwrap();

    std::fs::write(&path, "not a database at all, just some text that is longer than a header".repeat(100)).unwrap();
    assert!(refused(&dir).message.contains("not an SQLite database"));
    std::fs::remove_file(&path).unwrap();

    Connection::open(&path).unwrap().execute_batch("create table theirs(a)").unwrap();
    assert!(refused(&dir).message.contains("another program's database"));

    let error = SqliteQueue::open(Options::new(dir.path().join("no/jobs.db"), dir.path().join("s"))).unwrap_err();
    assert!(error.message.contains("there is no directory"), "{error}");
}

#[tokio::test]
async fn newer_file_is_refused() {
    let dir = TempDir::new().unwrap();
    open(&dir).close().await;
    Connection::open(dir.path().join("jobs.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refused(&dir).message.contains("version 99"));
}

#[tokio::test]
async fn file_of_version_1_is_brought_up_with_its_jobs() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, vec![new_job("t")]).await;
    queue.close().await;
    // Version 1 knew no paused types, and kept with an id when its job ended.
    let connection = Connection::open(dir.path().join("jobs.db")).unwrap();
    let back = "alter table served drop column paused; drop table departed; drop table state; drop table state_size;
        drop table cancelled; drop table kept; drop table log;
        alter table identity add column ended_at_ms integer;
        create index identity_ended on identity(ended_at_ms) where ended_at_ms is not null;
        insert into identity(id, record, ended_at_ms) values('ended', 7, ?1);
        pragma user_version = 1";
    connection.execute_batch(&back.replace("?1", &SystemClock.now().0.to_string())).unwrap();
    drop(connection);
    let queue = open(&dir);
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, complete()).await;
    assert!(enqueue(&*queue, vec![named("t", "ended")]).await[0].duplicate);
}

#[tokio::test]
async fn damaged_file_is_said_to_be_damaged() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, (0..500).map(|_| new_job("t")).collect()).await;
    queue.close().await;
    let path = dir.path().join("jobs.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..8_192].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(refused(&dir).message.contains("damaged"));
}

#[tokio::test]
async fn close_makes_durable_whatever_was_settled_before() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir);
    enqueue(&*queue, (0..3_000).map(|_| new_job("t")).collect()).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 3_000 {
        deliveries.extend(within(queue.receive(&demand("t", 3_000))).await.unwrap());
    }
    let settled: Vec<_> = deliveries.into_iter().map(|delivery| settling(&*queue, delivery, complete())).collect();
    within(queue.close()).await;
    for settled in settled {
        assert_eq!(settled.await, Settled::Settled);
    }
    let queue = open(&dir);
    assert_eq!(counted(&*queue, State::Completed).await, 3_000);
}
