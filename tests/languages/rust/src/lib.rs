//! The handler of the conformance list, in Rust: it does what its body says.

use sandhog_guest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Told {
    Complete { result: Option<Value> },
    Retry { after_ms: Option<u64>, body: Option<Value>, reason: Option<String> },
    Reject { message: String },
    Error { message: String },
    Throw { message: String },
    Log { text: String },
    Echo { text: String },
    Fields,
    Enqueue { job_type: String, body: Value },
    Config { key: String },
    State { key: String },
    Http { url: String },
    Read { path: String },
    Write { path: String, text: String },
    Grow,
    Spin,
}

struct Obedient;

impl Handler for Obedient {
    fn set_up() -> Result<Obedient, Error> {
        info!("set up");
        Ok(Obedient)
    }

    fn handle(&mut self, job: Job) -> Result<Outcome, Error> {
        match job.parse()? {
            Told::Complete { result: None } => Ok(Outcome::done()),
            Told::Complete { result: Some(result) } => Outcome::complete(&result),
            Told::Retry { after_ms, body, reason } => {
                let retry = after_ms.map(Duration::from_millis).map_or_else(Retry::with_backoff, Retry::after);
                let retry = if let Some(reason) = reason { retry.because(reason) } else { retry };
                Ok(if let Some(body) = body { retry.with_body(&body)? } else { retry }.into())
            }
            Told::Reject { message } => Ok(Outcome::reject(message)),
            Told::Error { message } => bail!("{message}"),
            Told::Throw { message } => panic!("{message}"),
            Told::Log { text } => {
                trace!("{text}");
                debug!("{text}");
                info!("{text}");
                warn!("{text}");
                error!("{text}");
                println!("{text}");
                eprintln!("{text}");
                Ok(Outcome::done())
            }
            Told::Echo { text } => Outcome::complete(&text),
            Told::Fields => Outcome::complete(&fields(&job)),
            Told::Enqueue { job_type, body } => answer(queue::enqueue(&job_type, &body)),
            Told::Config { key } => Outcome::complete(&config::get(&key)?),
            Told::State { key } => Outcome::complete(&state::increment(&key, 1)?),
            Told::Http { url } => {
                let got = http::get(url)?;
                Outcome::complete(&json!({ "status": got.status, "body": got.text() }))
            }
            Told::Read { path } => answer(std::fs::read_to_string(path)),
            Told::Write { path, text } => {
                std::fs::write(path, text)?;
                Ok(Outcome::done())
            }
            Told::Grow => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            Told::Spin => loop {
                std::hint::black_box(0);
            },
        }
    }

    fn job_failed(&mut self, _: Job, failure: Failure) {
        info!("failed: {} {}", failure.kind, failure.message);
    }

    fn tear_down(self) {
        info!("torn down");
    }
}

sandhog_guest::context_handler!(Obedient);

fn fields(job: &Job) -> Value {
    json!({
        "id": job.id,
        "job_type": job.job_type,
        "body": job.body,
        "attempt": job.attempt,
        "failures": job.failures,
        "max_failures": job.max_failures,
        "enqueued_at_ms": job.enqueued_at_ms,
        "timeout_ms": u64::try_from(job.timeout.as_millis()).unwrap_or(u64::MAX),
        "metadata": job.metadata,
    })
}

/// What went well, or the error's text: both are results.
fn answer(said: Result<String, impl std::fmt::Display>) -> Result<Outcome, Error> {
    Outcome::complete(&said.unwrap_or_else(|error| error.to_string()))
}
