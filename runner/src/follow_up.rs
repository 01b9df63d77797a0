//! Follow-up jobs: what a handler asks to be enqueued with the settlement of its attempt. Pure, no I/O.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::UnixMs;
use crate::generation::hex;
use crate::job::{self, Job, Malformed, NAME_BYTES_MAX, name_fault};
use crate::limits::Limits;
use crate::queue::NewJob;

/// The metadata that a follow-up has of its parent: the parent's id.
pub const PARENT: &str = "parent";

/// The metadata with the length of the chain of follow-ups that a job stands in: 1 where no follow-up made it.
pub const DEPTH: &str = "depth";

/// The metadata of a report and of all that descends from it: the id of the dead letter that it is about.
pub const REPORT_OF: &str = "report-of";

/// Metadata that go from a job to its follow-ups.
const INHERITED: [&str; 3] = ["traceparent", "tracestate", REPORT_OF];

/// What one attempt asked to be enqueued, in its order. Bounded by its limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FollowUps {
    asked: Vec<FollowUp>,
    bytes: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
struct FollowUp {
    job_type: String,
    body: String,
    id: String,
    after: Option<Duration>,
    metadata: Vec<(String, String)>,
}

/// What a handler said beside the job.
#[derive(Default)]
struct Options {
    after: Option<Duration>,
    id: Option<String>,
    metadata: Vec<(String, String)>,
}

/// Why a handler cannot enqueue a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are none.
    #[error("the job is malformed: {0}")]
    Malformed(Malformed),
    /// The manifest does not say that it may.
    #[error(
        "enqueueing `{0}` is not granted to this handler: its manifest grants it with `enqueue = [\"{0}\"]` in `[grants]`"
    )]
    NotGranted(String),
    /// An option that there is not.
    #[error("there is no option `{0}`: it is none of `after-ms`, `id`, `key` and `header.NAME`")]
    UnknownOption(String),
    /// An option that cannot be what it is.
    #[error("the option `{0}` {1}")]
    BadOption(String, &'static str),
    /// It would be the same job.
    #[error("`{0}` is the id of the job that runs: a follow-up needs another")]
    OwnId(String),
    /// One too many.
    #[error("this attempt has enqueued {0} jobs, which is the limit (`limits.follow_ups`)")]
    TooMany(u32),
    /// A chain that may have no end.
    #[error("this job is follow-up {0} in a chain, which is the limit (`limits.follow_up_depth`)")]
    TooDeep(u32),
    /// More than one attempt may hand over.
    #[error(
        "the jobs that this attempt enqueues have more than {0} bytes, which is the limit (`limits.follow_up_bytes`)"
    )]
    TooLarge(u64),
}

// === impl FollowUps ===

impl FollowUps {
    /// Takes down what `parent`'s attempt asks for, and answers the id.
    ///
    /// # Errors
    ///
    /// Says why it cannot be, for the handler's author. Nothing is taken down then.
    pub fn ask(
        &mut self,
        parent: &Job,
        body: String,
        options: Vec<(String, String)>,
        granted: impl FnOnce(&str) -> bool,
        limits: &Limits,
    ) -> Result<String, Refused> {
        let head = match job::parse(body.as_bytes(), limits.body_bytes) {
            Ok((_, head)) => head,
            Err(malformed) => return Err(Refused::Malformed(malformed)),
        };
        if !granted(&head.job_type) {
            return Err(Refused::NotGranted(head.job_type));
        }
        let depth = depth(&parent.metadata);
        if depth >= limits.follow_up_depth {
            return Err(Refused::TooDeep(depth));
        }
        if self.asked.len() >= limits.follow_ups as usize {
            return Err(Refused::TooMany(limits.follow_ups));
        }
        let said = options.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let bytes = self.bytes.saturating_add((body.len() + said) as u64);
        if bytes > limits.follow_up_bytes {
            return Err(Refused::TooLarge(limits.follow_up_bytes));
        }
        let Options { after, id, metadata: said } = Options::read(options)?;
        let id = id
            .or(head.job_id)
            .unwrap_or_else(|| child_id(&parent.id, &format!("{}/{}", parent.attempt, self.asked.len() + 1)));
        if id == parent.id {
            return Err(Refused::OwnId(id));
        }
        let mut metadata = inherited(&parent.id, &parent.metadata);
        metadata.extend(said);
        self.bytes = bytes;
        self.asked.push(FollowUp { job_type: head.job_type, body, id: id.clone(), after, metadata });
        Ok(id)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// As the queue takes them, where their parent's attempt is over `now`: delays count from there.
    pub fn into_jobs(self, now: UnixMs) -> Vec<NewJob> {
        let job = |FollowUp { job_type, body, id, after, metadata }| {
            let run_at = after.map(|after| now.plus(after));
            NewJob::Job { job_type, body, id: Some(id), run_at, metadata, keep: None }
        };
        self.asked.into_iter().map(job).collect()
    }
}

/// What a job has of the one that it follows from: `parent` is its id, `metadata` are its own.
pub(crate) fn inherited(parent: &str, metadata: &[(String, String)]) -> Vec<(String, String)> {
    let depth = depth(metadata).saturating_add(1);
    let mut inherited = vec![(PARENT.to_owned(), parent.to_owned()), (DEPTH.to_owned(), depth.to_string())];
    inherited.extend(metadata.iter().filter(|(name, _)| INHERITED.contains(&name.as_str())).cloned());
    inherited
}

/// The id of a job that follows from another and is not named: `parent`'s, and `rest`, the same should it be made again.
/// Chains grow longer than names may be; then a digest stands for the parent's id.
pub(crate) fn child_id(parent: &str, rest: &str) -> String {
    let id = format!("{parent}/{rest}");
    if id.len() <= NAME_BYTES_MAX {
        return id;
    }
    let digest = hex(&Sha256::digest(parent.as_bytes()));
    format!("{}/{rest}", &digest[..32])
}

/// The length of the chain of follow-ups that led to a job. What is no number was written by somebody else.
fn depth(metadata: &[(String, String)]) -> u32 {
    let said = metadata.iter().find(|(name, _)| name == DEPTH);
    said.and_then(|(_, depth)| depth.parse().ok()).unwrap_or(0)
}

/// Says why a follow-up cannot have a header of that name, if it cannot. On Kafka some say what the job is: with them a guest
/// could make one of another type than it was granted.
fn header_fault(name: &str) -> Option<&'static str> {
    let is_ours = matches!(name, "job_type" | "id") || name.starts_with("sandhog");
    if is_ours { Some("is a name that the queue has a use for itself") } else { name_fault(name) }
}

// === impl Options ===

impl Options {
    fn read(pairs: Vec<(String, String)>) -> Result<Options, Refused> {
        let mut options = Options::default();
        for (name, value) in pairs {
            match name.as_str() {
                "after-ms" | "id" | "key" if options.has(&name) => {
                    return Err(Refused::BadOption(name, "stands there twice"));
                }
                "after-ms" => match value.parse::<u32>() {
                    Ok(ms) => options.after = Some(Duration::from_millis(ms.into())),
                    Err(_) => {
                        return Err(Refused::BadOption(
                            name,
                            "is no whole number of milliseconds from 0 to 4294967295",
                        ));
                    }
                },
                "id" => match name_fault(&value) {
                    None => options.id = Some(value),
                    Some(fault) => return Err(Refused::BadOption(name, fault)),
                },
                "key" => options.metadata.push((name, value)),
                _ => match name.strip_prefix("header.").map(header_fault) {
                    Some(None) => options.metadata.push((name, value)),
                    // It may be long, and is not shown whole.
                    Some(Some(fault)) => return Err(Refused::BadOption("header.NAME".to_owned(), fault)),
                    None => return Err(Refused::UnknownOption(name.chars().take(40).collect())),
                },
            }
        }
        Ok(options)
    }

    fn has(&self, name: &str) -> bool {
        match name {
            "after-ms" => self.after.is_some(),
            "id" => self.id.is_some(),
            _ => self.metadata.iter().any(|(known, _)| known == name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    fn parent() -> Job {
        Job { id: "p".into(), job_type: "t".into(), attempt: 3, ..Job::default() }
    }

    fn ask(follow_ups: &mut FollowUps, job: &Job, body: &str, options: &[(&str, &str)]) -> Result<String, Refused> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let limits =
            Limits { follow_ups: 3, follow_up_bytes: 100, follow_up_depth: 2, body_bytes: 80, ..Limits::default() };
        follow_ups.ask(job, body.to_owned(), options, |job_type| job_type == "t", &limits)
    }

    fn refused(body: &str, options: &[(&str, &str)]) -> String {
        let mut follow_ups = FollowUps::default();
        let refused = ask(&mut follow_ups, &parent(), body, options).expect_err(body).to_string();
        assert_eq!(follow_ups, FollowUps::default(), "what is refused leaves nothing");
        refused
    }

    #[test]
    fn id_is_the_option_s_or_the_body_s_or_made_of_the_parent_s() {
        let mut follow_ups = FollowUps::default();
        let body = r#"{"job_type":"t","job_id":"b"}"#;
        assert_eq!(ask(&mut follow_ups, &parent(), r#"{"job_type":"t"}"#, &[]).as_deref(), Ok("p/3/1"));
        assert_eq!(ask(&mut follow_ups, &parent(), body, &[("id", "o")]).as_deref(), Ok("o"));
        assert_eq!(ask(&mut follow_ups, &parent(), r#"{"job_type":"t"}"#, &[]).as_deref(), Ok("p/3/3"));
        assert_eq!(ask(&mut FollowUps::default(), &parent(), body, &[]).as_deref(), Ok("b"));
        let own = refused(r#"{"job_type":"t","job_id":"p"}"#, &[]);
        assert_eq!(own, "`p` is the id of the job that runs: a follow-up needs another");
    }

    #[test]
    fn id_of_a_long_chain_stays_a_name_and_the_same() {
        let [x, y] = ["x", "y"].map(|letter| letter.repeat(NAME_BYTES_MAX));
        let id = child_id(&x, "3/12");
        assert_eq!((id.len(), child_id(&x, "3/12")), (37, id.clone()));
        assert!(id.ends_with("/3/12") && id != child_id(&y, "3/12"));
    }

    #[test]
    fn follow_up_knows_its_parent_and_the_trace_goes_on() {
        let mut follow_ups = FollowUps::default();
        let said = [("traceparent", "00-1"), ("header.a", "1"), ("key", "k"), ("depth", "1"), (REPORT_OF, "o")];
        let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let parent = Job { metadata: said.into(), ..parent() };
        let options = [("header.b", "2"), ("after-ms", "1500"), ("key", "l")];
        ask(&mut follow_ups, &parent, r#"{"job_type":"t"}"#, &options).unwrap();
        let NewJob::Job { job_type, run_at, metadata, .. } = follow_ups.into_jobs(NOW).remove(0) else { panic!() };
        let pairs: Vec<(&str, &str)> = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((job_type.as_str(), run_at), ("t", Some(NOW.plus(Duration::from_millis(1_500)))));
        let inherited = [("parent", "p"), ("depth", "2"), ("traceparent", "00-1"), (REPORT_OF, "o")];
        assert_eq!(pairs, [&inherited[..], &[("header.b", "2"), ("key", "l")]].concat());
        let deep = Job { metadata, ..parent };
        let refused = ask(&mut FollowUps::default(), &deep, r#"{"job_type":"t"}"#, &[]);
        assert_eq!(refused, Err(Refused::TooDeep(2)));
    }

    #[test]
    fn what_is_refused_says_why() {
        let job = r#"{"job_type":"t"}"#;
        assert_eq!(refused("[]", &[]), "the job is malformed: not a JSON object");
        assert_eq!(refused(&format!("{job:81}"), &[]), "the job is malformed: 81 bytes, which is over the limit of 80");
        let granted = "enqueueing `u` is not granted to this handler: its manifest grants it with `enqueue = [\"u\"]` in `[grants]`";
        assert_eq!(refused(r#"{"job_type":"u"}"#, &[]), granted);
        assert_eq!(
            refused(job, &[("after", "5")]),
            "there is no option `after`: it is none of `after-ms`, `id`, `key` and `header.NAME`"
        );
        for ms in ["", "-1", "1.5", "4294967296"] {
            let message = "the option `after-ms` is no whole number of milliseconds from 0 to 4294967295";
            assert_eq!(refused(job, &[("after-ms", ms)]), message);
        }
        assert_eq!(refused(job, &[("id", "")]), "the option `id` is empty");
        assert_eq!(refused(job, &[("header.", "")]), "the option `header.NAME` is empty");
        for name in ["header.job_type", "header.id", "header.sandhog", "header.sandhog-depth"] {
            let message = "the option `header.NAME` is a name that the queue has a use for itself";
            assert_eq!(refused(job, &[(name, "")]), message);
        }
        assert_eq!(refused(job, &[("key", "1"), ("key", "1")]), "the option `key` stands there twice");
    }

    #[test]
    fn attempt_has_limits() {
        let mut follow_ups = FollowUps::default();
        let job = r#"{"job_type":"t"}"#;
        for _ in 0..3 {
            ask(&mut follow_ups, &parent(), job, &[]).unwrap();
        }
        assert_eq!(ask(&mut follow_ups, &parent(), job, &[]), Err(Refused::TooMany(3)));
        let value = "x".repeat(90);
        let refused = ask(&mut FollowUps::default(), &parent(), job, &[("header.a", &value)]);
        assert_eq!(refused, Err(Refused::TooLarge(100)));
    }
}
