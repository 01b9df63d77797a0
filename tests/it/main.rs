//! The one integration-test binary: claims through the public surface, or the real one. `tests/README.md` says what belongs
//! where.

#![expect(clippy::unwrap_used, reason = "a test says with its panic what went wrong")]

#[path = "../fuzz.rs"]
mod fuzzing;
mod support;

// The HTTP API.
mod admin;
// The benchmark: what it prints, not how fast anything is.
mod bench;
// Handlers that were built a while ago.
mod built;
// A new generation that only fails.
mod brake;
// Commands that ask running runners, and that wait for jobs.
mod client;
// How jobs fail, are buried, and what people do about them.
mod burial;
mod cancel;
// The command line itself: its help, its words, its exit codes.
mod cli;
// What handlers may do by their manifests.
mod grants;
// `sandhog handlers`: rollback, pins, and the brake lifted.
mod handlers;
// What a runner's process gives up at its start.
mod hardening;
// The Kafka queue, with a real broker.
mod kafka;
// Guests' own account of what they did, under kills and reloads.
mod ledger;
// A job's life: what it is given, how it completes, waits and comes again.
mod lifecycle;
// The example handlers, built from source.
mod examples;
// Files in the handlers' folder that nobody should put there.
mod files;
// Jobs that enqueue jobs, and runners that die between the two.
mod follow_ups;
// Bytes from outside, made at random, and what holds for them.
mod fuzz;
// Guests that mean no good, and the jobs beside them.
mod hostile;
// Bytes that are no jobs.
mod inputs;
// Every language that handlers are written in.
mod languages;
// What scrapers are told, and what should wake somebody.
mod metrics;
// What every queue must hold.
mod queue_contract;
// Dead letters, and the jobs that tell of them.
mod reports;
// New generations, bad files, and jobs that notice neither.
mod reload;
// What is kept between the jobs of an instance, and what is not.
mod instances;
// The sandbox, without a runner around it.
mod sandbox;
// Drains, kills, and who takes over.
mod shutdown;
// A file that cannot be written for a while.
mod sick_file;
// Who starts a runner and watches over it.
mod supervisor;
// What a handler keeps from one job to another.
mod state;
// Everything at once, at random, for as long as one says.
mod soak;
// What is the SQLite queue's alone.
mod sqlite;
// Several processes on one SQLite file.
mod sqlite_processes;
// The code base's own rules.
mod tidy;
// Spans of attempts, and a real receiver that gets them.
mod traces;
