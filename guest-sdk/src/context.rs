//! Handlers whose jobs share something.

use crate::{Error, Job, Outcome};

/// A handler whose jobs share something, and that may be told of its failures. It is exported by
/// [`context_handler!`](crate::context_handler), in place of [`handler!`](crate::handler).
///
/// One value belongs to one instance. It pays where the manifest has instances reused, as with
/// `instances = { reuse = 1000 }`; otherwise it is set up and torn down around every attempt.
///
/// ```
/// use sandhog_guest::prelude::*;
///
/// struct Counter {
///     jobs: u64,
/// }
///
/// impl Handler for Counter {
///     fn set_up() -> Result<Counter, Error> {
///         Ok(Counter { jobs: 0 })
///     }
///
///     fn handle(&mut self, _: Job) -> Result<Outcome, Error> {
///         self.jobs += 1;
///         Outcome::complete(&self.jobs)
///     }
///
///     fn tear_down(self) {
///         info!("worked {} jobs", self.jobs);
///     }
/// }
///
/// sandhog_guest::context_handler!(Counter);
/// ```
pub trait Handler: Sized + 'static {
    /// Makes what the jobs of an instance share. Called once for an instance, before its first job. It belongs to no job, and
    /// cannot enqueue any.
    ///
    /// # Errors
    ///
    /// An error is no attempt of any job: the handler is not ready, its jobs wait, and this is tried again.
    fn set_up() -> Result<Self, Error>;

    /// Works one job.
    ///
    /// # Errors
    ///
    /// An error is a failed attempt. The value stays as it is for the next job.
    fn handle(&mut self, job: Job) -> Result<Outcome, Error>;

    /// Called after a failed attempt or a reject. Nothing that it does changes what happens to the job.
    ///
    /// After an error or a reject it is the value that handled the job, where instances are reused; else it is another one,
    /// which was set up for this.
    fn job_failed(&mut self, job: Job, failure: Failure) {
        drop((job, failure));
    }

    /// Called once for an instance, after its last job, unless it panicked or was stopped.
    fn tear_down(self) {}
}

/// Why an attempt failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong: `error`, `trap`, `timeout`, `out-of-memory`, `limit:NAME`, `rejected` and others, since the set is
    /// open.
    pub kind: String,
    /// The same for people.
    pub message: String,
    /// Whether the job became a dead letter with it. If not, it will be started again.
    pub buried: bool,
    /// Pairs of a name and a value.
    pub metadata: Vec<(String, String)>,
}

/// Makes a [`Handler`] the handler of this crate: `sandhog_guest::context_handler!(Counter);`, once.
///
/// Natively the macro only checks that it is one.
#[macro_export]
macro_rules! context_handler {
    ($handler:ty) => {
        const _: fn() -> ::core::result::Result<$handler, $crate::Error> = <$handler as $crate::Handler>::set_up;

        #[cfg(target_arch = "wasm32")]
        #[expect(unsafe_code, reason = "an exported function is unsafe to name")]
        const _: () = {
            use $crate::bindings::sandhog::jobs::types;
            use $crate::bindings_full::exports::sandhog::jobs::{context, failure_hook, handler};

            ::std::thread_local! {
                static SHARED: $crate::sandbox::Shared<$handler> = const { $crate::sandbox::Shared::new() };
            }

            struct Exported;

            impl handler::Guest for Exported {
                fn handle_job(job: types::Job) -> ::core::result::Result<types::Outcome, ::std::string::String> {
                    SHARED.with(|shared| shared.handle(job))
                }
            }

            impl context::Guest for Exported {
                fn set_up() -> ::core::result::Result<(), ::std::string::String> {
                    SHARED.with(|shared| shared.set_up())
                }

                fn tear_down() {
                    SHARED.with(|shared| shared.tear_down());
                }
            }

            impl failure_hook::Guest for Exported {
                fn job_failed(job: types::Job, failure: types::Failure) {
                    SHARED.with(|shared| shared.job_failed(job, failure));
                }
            }

            $crate::bindings_full::export!(Exported);
        };
    };
}
