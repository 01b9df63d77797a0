//! Reports: jobs that tell one handler, the runner-wide failure hook, of dead letters. Pure, no I/O.

use serde::Serialize;
use serde_json::{Value, json};

use crate::follow_up::{REPORT_OF, child_id, inherited};
use crate::queue::{NewJob, Shown};

/// The least that bodies may hold where dead letters are reported: what is known of any of them in short.
pub const BODY_BYTES_MIN: usize = 16 << 10;

/// Who is told of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports {
    /// The type of the jobs that tell of them.
    pub job_type: String,
    /// The largest body of a job.
    pub body_bytes_max: usize,
}

/// A report's body.
#[derive(Serialize)]
struct Body<'a> {
    job_type: &'a str,
    dead_letter: &'a Value,
}

// === impl Reports ===

impl Reports {
    /// The report of a dead letter, whole and in shorter forms for whom it is too large, which end with one that is some KiB.
    /// None of a report itself, or of what descends from one: it would feed on itself.
    pub fn of(&self, letter: &Shown) -> Vec<NewJob> {
        let descends = letter.metadata.iter().any(|(name, _)| name == REPORT_OF);
        if descends || letter.listed.job_type.as_ref() == Some(&self.job_type) {
            return Vec::new();
        }
        let (parent, burial) = (&letter.listed.id, letter.listed.requeues.saturating_add(1));
        let id = child_id(parent, &format!("report/{burial}"));
        let mut metadata = inherited(parent, &letter.metadata);
        metadata.push((REPORT_OF.to_owned(), parent.clone()));
        let forms = forms(letter, letter.body.len() <= self.body_bytes_max);
        let mut bodies: Vec<String> = forms.iter().map(|dead_letter| self.body(dead_letter)).collect();
        let fits = bodies.iter().position(|body| body.len() <= self.body_bytes_max).unwrap_or(bodies.len() - 1);
        let job = |body| NewJob::Job {
            job_type: self.job_type.clone(),
            body,
            id: Some(id.clone()),
            run_at: None,
            metadata: metadata.clone(),
            keep: None,
        };
        bodies.drain(fits..).map(job).collect()
    }

    fn body(&self, dead_letter: &Value) -> String {
        let body = Body { job_type: &self.job_type, dead_letter };
        serde_json::to_string(&body).expect("it is JSON already")
    }
}

/// A dead letter whole, without its bytes, and without what else may be long.
fn forms(letter: &Shown, with_whole: bool) -> Vec<Value> {
    let whole = with_whole.then(|| letter.to_json(true));
    let mut bare = letter.to_json(false);
    bare["body_omitted"] = json!(true);
    bare["body_bytes"] = json!(letter.body.len());
    let mut short = bare.clone();
    short["details_omitted"] = json!(true);
    short["failed_attempts"] = json!([]);
    short["metadata"] = json!([]);
    whole.into_iter().chain([bare, short]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::follow_up::{DEPTH, PARENT};
    use crate::job;
    use crate::outcome::{Failure, Kind, MESSAGE_CHARS_MAX};
    use crate::queue::{JobSource, Listed, State};

    fn letter(body: &[u8]) -> Shown {
        let failure = Some(Failure::new(Kind::Trap, "\u{1}".repeat(MESSAGE_CHARS_MAX)));
        let listed = Listed {
            id: "order-7".into(),
            job_type: Some("resize".into()),
            state: State::Dead,
            attempt: 2,
            failures: 2,
            retries_requested: 0,
            enqueued_at: UnixMs(1),
            run_at: None,
            started_at: Some(UnixMs(2)),
            duration_us: Some(3),
            ended_at: Some(UnixMs(4)),
            generation: None,
            failure,
            requeues: 0,
            cursor: None,
        };
        let metadata = [("queue", "jobs"), ("depth", "4"), ("traceparent", "00-1"), ("header.a", "b")];
        Shown {
            listed,
            body: body.to_vec(),
            changed_body: None,
            result: None,
            source: JobSource { queue: "jobs".into(), partition: Some(3), offset: Some(17) },
            metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            failed_attempts: Vec::new(),
            failed_attempts_omitted: 0,
            interruptions: 0,
            logs: Vec::new(),
        }
    }

    fn of(letter: &Shown, body_bytes_max: usize) -> Vec<Value> {
        let reports = Reports { job_type: "report-failure".into(), body_bytes_max };
        let body = |job| match job {
            NewJob::Job { body, job_type, .. } => {
                assert_eq!(job::parse(body.as_bytes(), usize::MAX).unwrap().1.job_type, job_type);
                serde_json::from_str(&body).unwrap()
            }
            NewJob::Malformed { reason, .. } => panic!("{reason}"),
        };
        reports.of(letter).into_iter().map(body).collect()
    }

    #[test]
    fn report_holds_the_dead_letter_and_shorter_ones_less_of_it() {
        let forms = of(&letter(b"{\"n\":1}"), 100_000);
        let letters: Vec<&Value> = forms.iter().map(|form| &form["dead_letter"]).collect();
        assert_eq!(letters.len(), 3);
        assert_eq!((&letters[0]["body"], &letters[0]["body_omitted"]), (&json!("{\"n\":1}"), &Value::Null));
        assert_eq!(letters[0]["source"], json!({ "queue": "jobs", "partition": 3, "offset": 17 }));
        assert_eq!((&letters[1]["body"], &letters[1]["body_bytes"]), (&Value::Null, &json!(7)));
        assert!(letters[1]["metadata"].as_array().is_some_and(|metadata| metadata.len() == 4));
        assert!(letters[2]["metadata"].as_array().is_some_and(Vec::is_empty));
        assert!(letters.iter().all(|letter| letter["failure"]["kind"] == "trap" && letter["id"] == "order-7"));
        assert_eq!(of(&letter(b"\xff\0"), 100_000)[0]["dead_letter"]["body_base64"], "/wA=");
    }

    #[test]
    fn report_is_no_larger_than_a_body_may_be() {
        let forms = of(&letter(&[b'"'; 20_000]), 40_000);
        assert_eq!((forms.len(), &forms[0]["dead_letter"]["body_omitted"]), (2, &json!(true)));
        let mut long = letter(b"");
        long.metadata.push(("header.long".into(), "x".repeat(50_000)));
        long.listed.job_type = Some("\"".repeat(256));
        let forms = of(&long, BODY_BYTES_MIN);
        assert_eq!((forms.len(), &forms[0]["dead_letter"]["details_omitted"]), (1, &json!(true)));
        assert!(forms[0].to_string().len() <= BODY_BYTES_MIN);
    }

    #[test]
    fn report_is_a_child_of_its_job_and_feeds_on_no_report() {
        let reports = Reports { job_type: "report-failure".into(), body_bytes_max: 100_000 };
        let mut letter = letter(b"{}");
        letter.listed.requeues = 2;
        let NewJob::Job { id, metadata, .. } = reports.of(&letter).remove(0) else { panic!("it is a job") };
        assert_eq!(id.as_deref(), Some("order-7/report/3"));
        let pairs = [(PARENT, "order-7"), (DEPTH, "5"), ("traceparent", "00-1"), (REPORT_OF, "order-7")];
        assert_eq!(metadata, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        letter.metadata = inherited("order-7/report/3", &metadata);
        assert_eq!(reports.of(&letter), []);
        letter.metadata.clear();
        letter.listed.job_type = Some("report-failure".into());
        assert_eq!(reports.of(&letter), []);
    }
}
