//! The tasks of one simulated process: which of them goes on next is for the schedule to say.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::dispatch::Spawn;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a guest panics with.
pub(crate) struct GuestPanic;

/// Tasks, until they are killed all together.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// None while a task is being polled.
    tasks: BTreeMap<u64, Option<Task>>,
    ready: Vec<u64>,
    made: u64,
    killed: bool,
}

struct Bell {
    task: u64,
    state: Arc<Mutex<State>>,
}

// === impl Tasks ===

impl Tasks {
    /// How many can go on.
    pub(crate) fn ready(&self) -> usize {
        self.0.lock().unwrap().ready.len()
    }

    /// Polls one of those that can go on. An error tells of a panic that was no guest's.
    pub(crate) fn run(&self, nth: usize) -> Result<(), String> {
        let (id, mut task) = {
            let mut state = self.0.lock().unwrap();
            let id = state.ready.swap_remove(nth);
            match state.tasks.get_mut(&id).and_then(Option::take) {
                Some(task) => (id, task),
                // It was woken when it had ended.
                None => return Ok(()),
            }
        };
        let waker = Waker::from(Arc::new(Bell { task: id, state: Arc::clone(&self.0) }));
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(&waker))));
        let mut state = self.0.lock().unwrap();
        if matches!(polled, Ok(Poll::Pending)) && !state.killed {
            state.tasks.insert(id, Some(task));
            return Ok(());
        }
        state.tasks.remove(&id);
        drop(state);
        drop(task);
        match polled {
            Err(panic) if !panic.is::<GuestPanic>() => Err("a task panicked".to_owned()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Ends all of them wherever they stand, as the death of their process does.
    pub(crate) fn kill(&self) {
        let tasks = {
            let mut state = self.0.lock().unwrap();
            state.killed = true;
            state.ready.clear();
            std::mem::take(&mut state.tasks)
        };
        drop(tasks);
    }
}

impl Spawn for Tasks {
    fn spawn(&self, task: Task) {
        let mut state = self.0.lock().unwrap();
        if !state.killed {
            state.made += 1;
            let id = state.made;
            state.tasks.insert(id, Some(task));
            state.ready.push(id);
        }
    }
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        let mut state = self.state.lock().unwrap();
        if state.tasks.contains_key(&self.task) && !state.ready.contains(&self.task) {
            state.ready.push(self.task);
        }
    }
}
