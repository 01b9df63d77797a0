//! A handler that is measured, and the jobs that it gets.

use std::path::{Path, PathBuf};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::UsageError;
use crate::clock::UnixMs;
use crate::job::{self, Job};
use crate::queue::NewJob;

/// The handler that is always there.
const BUILT_IN: &str = "built-in";

const NO_OP: &str = include_str!("no_op.wat");
const FOLLOWS: &str = include_str!("follows.wat");
const SAYS_SO: &str = include_str!("says_so.wat");
const CONTRACT: &str = include_str!("../../../wit/sandhog.wit");

/// The size of the built-in body, more or less, in bytes.
const BODY_BYTES: usize = 120;

/// A handler.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its file's stem, and its job type.
    pub(crate) name: String,
    /// Its file.
    pub(super) file: Vec<u8>,
    /// The body of its jobs: an object.
    pub(super) body: String,
}

/// The built-in handler and those of `files`, with jobs of `body`, or of the built-in one.
pub(super) fn read(files: &[PathBuf], body: Option<&Path>, body_bytes_max: usize) -> Result<Vec<Subject>, UsageError> {
    let body = body.map(|path| {
        std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read the body `{}`: {e}", path.display())))
    });
    let body = body.transpose()?;
    let mut subjects = vec![Subject::new(BUILT_IN.to_owned(), no_op(0), body.as_deref())];
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(fault) = job::name_fault(&name) {
            return Err(usage(format!("`{}` cannot be measured: as a job type its name {fault}", path.display())));
        }
        if subjects.iter().any(|subject| subject.name == name) {
            return Err(usage(format!("there are two handlers of the name `{name}`")));
        }
        let file = std::fs::read(path).map_err(|e| usage(format!("cannot read handler `{}`: {e}", path.display())))?;
        subjects.push(Subject::new(name, file, body.as_deref()));
    }
    for subject in &subjects {
        job::parse_of_type(subject.body.as_bytes(), body_bytes_max, &subject.name).map_err(|malformed| UsageError {
            message: format!("the body is no job for `{}`: {malformed}", subject.name),
            hint: Some("a body for several handlers is an object without a `job_type`".to_owned()),
        })?;
    }
    Ok(subjects)
}

/// The least that a handler can do; each number gives another component.
pub(super) fn no_op(number: u32) -> Vec<u8> {
    let constant = "(global $number i32 (i32.const 0))";
    debug_assert!(NO_OP.contains(constant), "the text has a number to replace");
    built_in(&NO_OP.replace(constant, &format!("(global $number i32 (i32.const {number}))")))
}

/// A handler that writes one line when it starts.
pub(super) fn says_so() -> Subject {
    Subject::new("says-so".to_owned(), built_in(SAYS_SO), None)
}

/// A handler that enqueues a job of the built-in one's type.
pub(super) fn follows() -> Subject {
    Subject::new("follows".to_owned(), built_in(FOLLOWS), None)
}

/// A core module that carries its component type.
fn built_in(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).expect("the built-in handlers are valid");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("sandhog.wit", CONTRACT).expect("the contract is valid");
    let world = resolve.select_world(&[package], Some("job-handler")).expect("the contract has this world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a type fits every module");
    module
}

fn usage(message: String) -> UsageError {
    UsageError { message, hint: None }
}

// === impl Subject ===

impl Subject {
    fn new(name: String, file: Vec<u8>, body: Option<&str>) -> Subject {
        let body = body.map_or_else(|| built_in_body(&name), |body| body.trim().to_owned());
        Subject { name, file, body }
    }

    /// Whether it sends HTTP requests: its figure is another.
    pub(super) fn fetches(&self) -> bool {
        let import = b"wasi:http/outgoing-handler";
        self.file.windows(import.len()).any(|bytes| bytes == import)
    }

    /// The name of its file in the handlers' folder.
    pub(super) fn file_name(&self) -> String {
        format!("handlers/{}.wasm", self.name)
    }

    /// Its body with an id in it, a different one for each number.
    pub(super) fn body_with_id(&self, number: u64) -> (String, String) {
        let id = format!("01k{number:029}");
        let rest = self.body.strip_prefix('{').expect("it was checked to be an object").trim_start();
        let comma = if rest.starts_with('}') { "" } else { "," };
        (format!(r#"{{"job_id":"{id}"{comma}{rest}"#), id)
    }

    /// Jobs for a queue, from a number on.
    pub(super) fn new_jobs(&self, from: u64, jobs: u64, unique_ids: bool) -> Vec<NewJob> {
        let new_job = |number| {
            let (body, id) = if unique_ids {
                let (body, id) = self.body_with_id(number);
                (body, Some(id))
            } else {
                (self.body.clone(), None)
            };
            NewJob::Job { job_type: self.name.clone(), body, id, run_at: None, metadata: Vec::new(), keep: None }
        };
        (from..from + jobs).map(new_job).collect()
    }

    /// One as it comes from a queue.
    pub(super) fn job(&self) -> Job {
        Job {
            id: format!("01k{:029}", 0),
            job_type: self.name.clone(),
            body: self.body.clone(),
            attempt: 1,
            enqueued_at: UnixMs(1),
            metadata: vec![("queue".to_owned(), "sandhog.db".to_owned())],
            ..Job::default()
        }
    }
}

fn built_in_body(job_type: &str) -> String {
    let head = format!(r#"{{"job_type":"{job_type}","n":123,"a":1,"pad":""#);
    let pad = BODY_BYTES.saturating_sub(head.len() + 2);
    format!(r#"{head}{}"}}"#, "x".repeat(pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_jobs_of_their_type_with_and_without_an_id() {
        for body in [None, Some("{}"), Some(r#" { "a": 1 } "#)] {
            let subject = Subject::new("x".to_owned(), Vec::new(), body);
            let (with_id, id) = subject.body_with_id(7);
            let (_, head) = job::parse_of_type(with_id.as_bytes(), 1_000, "x").unwrap();
            assert_eq!(head.job_id.as_ref(), Some(&id), "{with_id}");
            assert_eq!(job::parse_of_type(subject.body.as_bytes(), 1_000, "x").unwrap().1.job_id, None);
        }
        assert_eq!(built_in_body("sdk").len(), BODY_BYTES);
    }

    #[test]
    fn numbers_make_different_handlers() {
        assert_ne!(no_op(1), no_op(2));
    }
}
