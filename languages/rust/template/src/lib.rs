//! A handler: it greets, now or a little later.

use sandhog_guest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Greet {
    name: String,
    #[serde(default)]
    later: bool,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let greet: Greet = job.parse()?;
    if greet.later && job.attempt == 1 {
        // No failure: the job comes again.
        return Ok(Outcome::retry_after(Duration::from_secs(5)));
    }
    info!("greeting {}", greet.name);
    Outcome::complete(&format!("Hello, {}!", greet.name))
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let outcome = handle(Job::new("{{name}}", r#"{"name": "Ada"}"#)).unwrap();
        assert_eq!(outcome, Outcome::complete("Hello, Ada!").unwrap());
    }
}
