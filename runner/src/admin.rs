//! The HTTP API: a way in for other programs and for the page, on a thread and a runtime of its own, so that neither guests
//! nor the queue hold it up, nor it them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::connection::Connections;
use self::guard::Guard;
use self::listen::Door;
use self::site::{Served, Site};
use self::upload::Uploads;
use crate::activity::Activity;
use crate::config::{Config, Token};
use crate::dispatch::Dispatcher;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::registry::Registry;
use crate::reload::overview::Overview;
use crate::reload::tally::Tally;
use crate::sampler::Sampler;
use crate::sandbox::Sandbox;
use crate::traces::Traces;

mod activity;
pub(crate) mod bare;
mod connection;
mod dead;
mod enqueue;
mod error;
mod events;
mod follow_ups;
mod guard;
mod handlers;
mod health;
mod jobs;
pub(crate) mod listen;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod site;
mod stats;
mod upload;
mod wait;

/// How long requests that are being answered may go on when the runner ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many looks at the queue go on at one time. On Kafka each may read a million records.
const LOOKS_MAX: usize = 8;

/// What the API can reach of a runner.
pub struct Runner {
    /// Its configuration.
    pub config: Arc<Config>,
    /// Where jobs come from and go to.
    pub queue: Arc<dyn Queue>,
    /// What its handlers are.
    pub registry: Arc<ArcSwap<Registry>>,
    /// What works its jobs.
    pub dispatcher: Arc<Dispatcher>,
    /// Cancelled, it drains.
    pub drain: CancellationToken,
    /// Whether what lay in the folder of handlers at the start is loaded.
    pub loaded: Arc<AtomicBool>,
    /// What the queue counts.
    pub sampler: Arc<Sampler>,
    /// What happens to its jobs.
    pub events: Arc<Events>,
    /// What it did in the last hour.
    pub activity: Arc<Activity>,
    /// What is counted of them.
    pub metrics: Arc<Metrics>,
    /// What makes spans of its attempts, if anything does.
    pub traces: Option<Arc<Traces>>,
    /// Where they run; nowhere, where none is worked.
    pub sandbox: Option<Sandbox>,
    /// What loading its handlers came to.
    pub loads: Option<Arc<Tally>>,
    /// When it was started.
    pub started: Instant,
    /// The handlers as people see them.
    pub(crate) handlers: Arc<Overview>,
    /// Room for what is large.
    pub room: Room,
}

/// How much of what is large goes on at one time.
#[derive(Debug)]
pub struct Room {
    /// Bodies that are being read.
    uploads: Uploads,
    /// Looks at the queue for which it may have much to read.
    looks: Semaphore,
}

/// The API's thread. Dropped, it ends, and with it all connections.
#[derive(Debug)]
pub struct Server {
    site: Arc<Site>,
    end: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Why the API cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that was asked for cannot be had.
    #[error("cannot listen on `{listen}`, which `admin.listen` names")]
    Listen {
        /// The address.
        listen: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The file with the token cannot be read.
    #[error("cannot read `{file}`, which `admin.token_file` names")]
    TokenFile {
        /// The file.
        file: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// What is in it is no token.
    #[error("what is in `{file}`, which `admin.token_file` names, {fault}")]
    Token {
        /// The file.
        file: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The system gives no thread, or nothing to wait by.
    #[error("cannot start the thread of the HTTP API")]
    Thread(#[source] std::io::Error),
}

// === impl Server ===

impl Server {
    /// Listens. Until there is a runner to serve, it answers that it starts.
    ///
    /// # Errors
    ///
    /// That an address which was asked for cannot be had, or the token cannot be read.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        let admin = &config.admin;
        let token = match &admin.token_file {
            Some(path) => Some(read_token(path)?),
            None => admin.token.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().thread_name("admin-files").build().map_err(StartError::Thread)?;
        let doors = {
            let _inside = runtime.enter();
            Door::open_all(admin, &config.state_dir)
        };
        let doors = match doors {
            Ok(doors) => doors,
            Err(error) => {
                // This may be called on another runtime, where dropping it would wait.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let site = Arc::new(Site {
            guard: Guard { token, hosts: admin.hosts.clone() },
            served: ArcSwapOption::empty(),
            connections: Connections::new(admin.connections),
        });
        let end = CancellationToken::new();
        let (serving, ended) = (Arc::clone(&site), end.clone());
        let serve = move || {
            runtime.block_on(site::serve(&serving, doors, &ended));
            // A look at the queue that still goes on is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(serve).map_err(StartError::Thread)?;
        Ok(Server { site, end, thread: Some(thread) })
    }

    /// Serves a runner, in place of another.
    pub fn serve(&self, runner: Runner) {
        self.site.served.store(Some(Arc::new(Served::new(Arc::new(runner)))));
    }

    /// Serves no runner any more, and waits until what was asked of it is answered, but not for long.
    pub async fn retire(&self) {
        let Some(served) = self.site.served.swap(None) else { return };
        served.close();
        if tokio::time::timeout(PATIENCE, served.answered()).await.is_err() {
            tracing::debug!("some requests to the HTTP API are broken off");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.cancel();
        // Else the files of its sockets could outlive the process.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the HTTP API panicked");
        }
    }
}

fn read_token(path: &Path) -> Result<Token, StartError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| StartError::TokenFile { file: file.clone(), error })?;
    Token::new(text.trim_end().to_owned()).map_err(|fault| StartError::Token { file, fault })
}

// === impl Room ===

impl Default for Room {
    fn default() -> Room {
        Room { uploads: Uploads::new(), looks: Semaphore::new(LOOKS_MAX) }
    }
}

// === impl Runner ===

impl Runner {
    /// Whether it takes jobs, or soon will.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether all handlers are loaded that lay there at the start.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }
}
