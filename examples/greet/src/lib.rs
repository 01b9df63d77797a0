//! The smallest handler that does something: `{"job_type": "greet", "name": "Ada"}` completes with `"Hello, Ada!"`.

use sandhog_guest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Greet {
    name: String,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let greet: Greet = job.parse()?;
    info!("greeting somebody");
    Outcome::complete(&format!("Hello, {}!", greet.name))
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let outcome = handle(Job::new("greet", r#"{"name": "Ada"}"#)).unwrap();
        assert_eq!(outcome, Outcome::complete("Hello, Ada!").unwrap());
    }

    #[test]
    fn body_without_a_name_is_an_error() {
        let error = handle(Job::new("greet", "{}")).unwrap_err();
        assert_eq!(error.message(), "cannot parse the body: missing field `name` at line 1 column 2");
    }
}
