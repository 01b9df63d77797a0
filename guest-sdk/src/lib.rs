//! Write a Sandhog handler in Rust: a function and one macro line.
//!
//! ```
//! use sandhog_guest::prelude::*;
//!
//! #[derive(serde::Deserialize)]
//! struct Greet {
//!     name: String,
//! }
//!
//! fn handle(job: Job) -> Result<Outcome, Error> {
//!     let greet: Greet = job.parse()?;
//!     info!("greeting {}", greet.name);
//!     Outcome::complete(&format!("Hello, {}!", greet.name))
//! }
//!
//! sandhog_guest::handler!(handle);
//! ```
//!
//! The crate is built as a `cdylib` for `wasm32-wasip2`; the file that comes out goes into the runner's handlers folder.
//!
//! - [`Job`] is what the runner hands over. [`Job::parse`] reads its body.
//! - [`Outcome`] is what the handler answers: complete, retry or reject. None of them is a failure.
//! - [`Error`] is a failed attempt. `?` makes one of any error. What follows is up to the handler's retry policy.
//! - [`trace!`], [`debug!`], [`info!`], [`warn!`] and [`error!`](macro@error) write to the job's log.
//! - [`queue`] enqueues follow-up jobs, [`state`] keeps something from one job to the next: both by a grant in the manifest.
//! - [`http`] sends requests, [`config`] reads what the manifest gives: by a grant, too.
//! - [`Handler`] is for handlers whose jobs share something, or that are told of their failures.
//!
//! A panic ends the attempt as a trap, after a line in the log that says where and why.
//!
//! # Tests
//!
//! The same function runs natively, under `cargo test`: make a job with [`Job::new`], call the handler, and compare the
//! outcome. Log lines are printed to stderr, and follow-up jobs are recorded: see [`queue::take_recorded`].
//!
//! ```
//! # use sandhog_guest::prelude::*;
//! # fn handle(job: Job) -> Result<Outcome, Error> {
//! #     if job.attempt < 2 { Ok(Outcome::retry_after(Duration::from_secs(5))) } else { Ok(Outcome::done()) }
//! # }
//! let first = handle(Job::new("poll", "{}")).unwrap();
//! assert_eq!(first, Outcome::retry_after(Duration::from_secs(5)));
//!
//! let second = handle(Job::new("poll", "{}").with_attempt(2)).unwrap();
//! assert_eq!(second, Outcome::done());
//! ```

#![deny(missing_docs, unsafe_code)]

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[expect(unsafe_code, unreachable_pub, reason = "made by wit-bindgen: strings and lists cross the border as pointers")]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[expect(unsafe_code, unreachable_pub, reason = "made by wit-bindgen: strings and lists cross the border as pointers")]
pub mod bindings_full;
pub mod config;
mod context;
mod error;
pub mod http;
mod job;
pub mod log;
mod outcome;
pub mod queue;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod sandbox;
pub mod state;

pub use context::{Failure, Handler};
pub use error::Error;
pub use job::Job;
pub use outcome::{Outcome, Retry};

/// What nearly every handler needs.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::queue::{self, FollowUp};
    pub use crate::{Error, Failure, Handler, Job, Outcome, Retry, bail, debug, error, info, trace, warn};
    pub use crate::{config, http, state};
}

/// Makes a function the handler of this crate: `sandhog_guest::handler!(handle);`, once.
///
/// The function takes a [`Job`] and answers a `Result<Outcome, Error>`. Natively the macro only checks that.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        const _: fn($crate::Job) -> ::core::result::Result<$crate::Outcome, $crate::Error> = $handle;

        #[cfg(target_arch = "wasm32")]
        #[expect(unsafe_code, reason = "an exported function is unsafe to name")]
        const _: () = {
            struct Handler;

            impl $crate::bindings::exports::sandhog::jobs::handler::Guest for Handler {
                fn handle_job(
                    job: $crate::bindings::sandhog::jobs::types::Job,
                ) -> ::core::result::Result<$crate::bindings::sandhog::jobs::types::Outcome, ::std::string::String>
                {
                    $crate::sandbox::run(job, $handle)
                }
            }

            $crate::bindings::export!(Handler);
        };
    };
}
