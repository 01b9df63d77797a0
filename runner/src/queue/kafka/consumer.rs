//! The thread that consumes: it alone knows what is in flight. It turns several times a second whatever jobs do, so that no
//! job, however long, costs this runner its partitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::flight::{Flight, Stage};
use super::groups::Groups;
use super::inbox::{Order, Work};
use super::right::STANDSTILL;
use super::suspects::Suspects;
use super::write::Why;
use super::{Shared, client};
use crate::clock::UnixMs;
use crate::queue::Demand;

/// How long the thread waits for something to do.
const TICK: Duration = Duration::from_millis(50);

/// How long settlements wait for others, so that the thread does not turn for each: next to nothing of what is fetched ahead,
/// but only where so much is in flight that nobody waits for the room that one of them leaves.
const LINGER: Duration = Duration::from_millis(1);
const LINGER_FROM: usize = 64;

/// How long the last commit may take.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// How long leaving the groups may take.
const LEAVE: Duration = Duration::from_secs(10);

mod committing;
mod intake;
mod membership;
mod settling;

/// The consumer's thread.
pub(super) struct Consumer {
    shared: Arc<Shared>,
    groups: Groups,
    /// No membership is tried before.
    join_at: Instant,
    /// A former process of this runner is still a member, and that was said.
    waits_for_session: bool,
    /// How they are joined.
    protocol: client::Protocol,
    flight: Flight,
    suspects: Suspects,
    /// The last number of a tenure, or of a membership.
    numbers: i64,
    demand: Option<Demand>,
    stopped: bool,
    closing: Option<(Option<oneshot::Sender<()>>, Instant)>,
    commit_for: Vec<oneshot::Sender<()>>,
    /// Topics that cannot be written, and said to be so.
    unwritable: HashSet<String>,
    /// There is more to read.
    more: bool,
    /// When it is looked for what crowds its partition.
    look_for_crowds_at: Instant,
    /// A thread follows what is parked.
    follows_parked: bool,
    /// It was tried to enter this runner into its state folder.
    entered: bool,
}

// === impl Consumer ===

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>) -> Consumer {
        Consumer {
            protocol: shared.topics.protocol,
            shared,
            groups: Groups::default(),
            join_at: Instant::now(),
            waits_for_session: false,
            flight: Flight::default(),
            suspects: Suspects::default(),
            numbers: 0,
            demand: None,
            stopped: false,
            closing: None,
            commit_for: Vec::new(),
            unwritable: HashSet::new(),
            more: false,
            look_for_crowds_at: Instant::now(),
            follows_parked: false,
            entered: false,
        }
    }

    /// Turns until it is told to close.
    pub(super) fn run(mut self) {
        while self.turn() {}
        let told = self.closing.take().and_then(|(told, _)| told);
        // What is left is not done, and comes again.
        self.flight = Flight::default();
        self.leave();
        self.shared.parking.close();
        std::mem::take(&mut self.suspects).leave(self.now());
        self.shared.inbox.end();
        if let Some(told) = told {
            told.send(()).ok();
        }
    }

    fn turn(&mut self) -> bool {
        let linger = if self.flight.jobs() < LINGER_FROM { Duration::ZERO } else { LINGER };
        let work = self.shared.inbox.take(self.wait(), linger);
        let stood = self.shared.right.turn();
        if stood >= STANDSTILL {
            self.stood(stood);
        }
        self.hear(work);
        self.keep_time();
        self.suspects.keep(self.now());
        self.meet();
        self.set_aside();
        self.more = !self.stopped && self.take_in();
        self.hand_over();
        self.commit();
        !self.is_closed()
    }

    fn wait(&self) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        let due = self.flight.next_due().map(|at| at.since(self.now()));
        due.map_or(TICK, |due| due.min(TICK))
    }

    fn hear(&mut self, work: Work) {
        for settle in work.settles {
            self.shared.right.settled(settle.receipt.record);
            self.settle(settle);
        }
        for written in work.written {
            self.written(written);
        }
        for committed in work.committed {
            self.committed(committed);
        }
        if let Some(demand) = work.demand {
            if let Some((unserved, grown)) = self.flight.serve(&demand) {
                self.shared.parking.serve(self.flight.served().clone(), grown);
                for delivery in unserved {
                    self.write(delivery, Why::Unserved, None);
                }
            }
            self.demand = Some(demand);
        }
        for order in work.orders {
            self.order(order);
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Commit(told) => self.commit_for.push(told),
            Order::StopReceiving(told) => {
                self.stopped = true;
                self.demand = None;
                for delivery in self.flight.all() {
                    // What was handed out comes back by itself, or is settled.
                    if matches!(
                        self.flight.get(delivery).map(|held| &held.stage),
                        Some(Stage::Waiting | Stage::Timed(_))
                    ) {
                        self.flight.remove(delivery);
                    }
                }
                told.send(()).ok();
            }
            Order::Close(told) => {
                self.stopped = true;
                self.closing = Some((told, Instant::now()));
            }
        }
    }

    /// Whether it was told to close, and what was under way is done.
    fn is_closed(&self) -> bool {
        let Some((_, since)) = &self.closing else { return false };
        let writes = |delivery: &i64| {
            let stage = self.flight.get(*delivery).map(|held| &held.stage);
            matches!(stage, Some(Stage::Writing(writing)) if writing.is_sent())
        };
        let busy = self.flight.all().iter().any(writes) || !self.groups.are_committed();
        !busy || since.elapsed() >= LAST_COMMIT
    }

    fn now(&self) -> UnixMs {
        self.shared.options.clock.now()
    }
}
