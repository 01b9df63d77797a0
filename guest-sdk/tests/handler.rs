//! What a handler author meets, natively.

use sandhog_guest::prelude::*;
use serde_json::json;

#[derive(serde::Deserialize)]
struct Resize<'a> {
    file: &'a str,
    #[serde(default)]
    width: u32,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let resize: Resize<'_> = job.parse()?;
    if resize.width == 0 {
        return Ok(Outcome::reject("a width of 0"));
    }
    if resize.width > 1000 {
        bail!("`{}` is too wide: {}", resize.file, resize.width);
    }
    let width: u16 = resize.width.to_string().parse()?;
    info!("resizing `{}` to {width}", resize.file);
    queue::enqueue("upload", &json!({ "file": resize.file }))?;
    Outcome::complete(&json!({ "width": width }))
}

sandhog_guest::handler!(handle);

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot read the width")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn result_is_json() {
    let outcome = handle(Job::new("resize", json!({ "file": "a.png", "width": 20 }))).unwrap();
    assert_eq!(outcome, Outcome::Complete(Some(r#"{"width":20}"#.to_owned())));
}

#[test]
fn reject_is_no_error() {
    let outcome = handle(Job::new("resize", r#"{"file": "a.png"}"#)).unwrap();
    assert_eq!(outcome, Outcome::reject("a width of 0"));
}

#[test]
fn unreadable_body_is_an_error_that_says_where() {
    let error = handle(Job::new("resize", "{}")).unwrap_err();
    assert_eq!(error.message(), "cannot parse the body: missing field `file` at line 1 column 2");
}

#[test]
fn bail_is_an_error_with_its_text() {
    let error = handle(Job::new("resize", json!({ "file": "a.png", "width": 2000 }))).unwrap_err();
    assert_eq!(error.message(), "`a.png` is too wide: 2000");
}

#[test]
fn error_keeps_its_causes() {
    let cause = "x".parse::<u8>().unwrap_err();
    let error = Error::from(Outer(cause)).context("cannot resize");
    assert_eq!(error.to_string(), "cannot resize: cannot read the width: invalid digit found in string");
}

#[test]
fn follow_up_is_recorded_natively_with_its_type() {
    handle(Job::new("resize", json!({ "file": "a.png", "width": 20 }))).unwrap();
    let recorded = queue::take_recorded();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].body(), r#"{"file":"a.png","job_type":"upload"}"#);
    assert_eq!(queue::take_recorded(), []);
}

#[test]
fn follow_up_has_the_contracts_options() {
    let follow_up = FollowUp::new("upload", &json!({})).unwrap();
    let follow_up = follow_up.after(Duration::from_micros(1_500)).id("a").key("k").header("who", "me");
    let options: Vec<_> = follow_up.options().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(options, [("after-ms", "2"), ("id", "a"), ("key", "k"), ("header.who", "me")]);
}

#[test]
fn follow_up_must_be_an_object_of_its_own_type() {
    let error = FollowUp::new("upload", &[1]).unwrap_err();
    assert_eq!(error.message(), "cannot enqueue a `upload`: its body is no JSON object");
    let error = FollowUp::new("upload", &json!({ "job_type": "resize" })).unwrap_err();
    assert_eq!(error.message(), "cannot enqueue a `upload`: its body says that it is a \"resize\"");
}

#[test]
fn job_for_a_test_is_the_first_attempt() {
    let job = Job::new("resize", "{}").with_metadata("header.who", "me").with_metadata("queue", "sqlite");
    assert_eq!((job.attempt, job.failures, job.max_failures), (1, 0, 1));
    assert_eq!((job.header("who"), job.header("x"), job.metadata("queue")), (Some("me"), None, Some("sqlite")));
    assert_eq!(job.with_attempt(3).with_failures(1, 4).attempt, 3);
}
