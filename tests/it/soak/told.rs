//! What the jobs of a soak are told to do, and how each must end.

use crate::support::Random;

/// One command to the obedient guest, and what must come of it.
#[derive(Debug)]
pub(super) struct Told {
    /// How often, beside the others.
    weight: u64,
    pub(super) job_type: &'static str,
    command: &'static str,
    pub(super) end: End,
    /// Its guest says `begun` when an attempt begins, and again when it ends, and there is one attempt unless it is
    /// interrupted: so that what ran again can be told.
    pub(super) reports: bool,
}

/// How a job must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// A dead letter of that kind.
    Dead(&'static str),
}

/// The handler of most jobs. A failure buries.
pub(super) const OBEY: &str = "obey";
/// The handler of those that do not end by themselves.
const SPIN: &str = "spin";
/// A handler that tries again twice.
const AGAIN: &str = "again";
/// A handler that is deleted, and put back.
pub(super) const LATE: &str = "late";

/// The manifest of [`OBEY`]. Its time goes on while its runner stands still, and none of its jobs is to end so.
pub(super) const PATIENT: &str = "timeout = '5m'\nmemory = '32MiB'\n[retry.backoff]\nfirst = '100ms'";

/// All handlers, with their manifests.
pub(super) const HANDLERS: [(&str, &str); 4] = [
    (OBEY, PATIENT),
    (SPIN, "timeout = '300ms'\nmemory = '32MiB'\nconcurrency = 2"),
    (AGAIN, "timeout = '5m'\n[retry]\nmax_failures = 3\nbackoff = { first = '100ms', factor = 1 }"),
    (LATE, PATIENT),
];

/// What a line that is no job becomes.
pub(super) const MALFORMED: usize = 0;

const fn told(weight: u64, job_type: &'static str, command: &'static str, end: End) -> Told {
    Told { weight, job_type, command, end, reports: false }
}

/// All of them. Those that keep a core busy until they are stopped are rare.
pub(super) const ALL: [Told; 30] = [
    Told { weight: 1, job_type: OBEY, command: "", end: End::Dead("malformed"), reports: false },
    Told { weight: 300, job_type: OBEY, command: "report 1", end: End::Completed, reports: true },
    Told { weight: 120, job_type: OBEY, command: "report 20", end: End::Completed, reports: true },
    Told { weight: 40, job_type: LATE, command: "report 1", end: End::Completed, reports: true },
    told(120, OBEY, "complete", End::Completed),
    told(40, OBEY, "result 5", End::Completed),
    told(20, OBEY, "body", End::Completed),
    told(40, OBEY, "then 50 work 1", End::Completed),
    told(20, OBEY, "until 3 retry-plain", End::Completed),
    told(20, AGAIN, "fail-before 3 work 1", End::Completed),
    told(10, OBEY, "log-line 100000", End::Completed),
    told(3, OBEY, "log 2000", End::Completed),
    told(20, OBEY, "err", End::Dead("error")),
    told(10, AGAIN, "err", End::Dead("error")),
    told(5, AGAIN, "trap", End::Dead("trap")),
    told(20, OBEY, "reject", End::Dead("rejected")),
    told(10, OBEY, "trap", End::Dead("trap")),
    told(5, OBEY, "divide", End::Dead("trap")),
    told(5, OBEY, "peek", End::Dead("trap")),
    told(5, OBEY, "panic", End::Dead("trap")),
    told(5, OBEY, "recurse", End::Dead("trap")),
    told(5, OBEY, "bad-text", End::Dead("trap")),
    told(5, OBEY, "lie", End::Dead("trap")),
    told(5, OBEY, "grow 65000", End::Dead("out-of-memory")),
    told(3, OBEY, "fill 2000000", End::Dead("limit:result-bytes")),
    told(3, OBEY, "table 4000000000", End::Dead("limit:table-elements")),
    told(2, SPIN, "spin", End::Dead("timeout")),
    told(1, SPIN, "begin-spin", End::Dead("timeout")),
    told(1, SPIN, "wipe 100", End::Dead("timeout")),
    told(1, SPIN, "flood", End::Dead("timeout")),
];

// === impl Told ===

impl Told {
    /// The line of a file of jobs, with an id if there is one.
    pub(super) fn line(&self, id: Option<&str>) -> String {
        if self.command.is_empty() {
            return "{\"job_type\":7}\n".to_owned();
        }
        let id = id.map(|id| format!(",\"job_id\":\"{id}\"")).unwrap_or_default();
        format!("{{\"job_type\":\"{}\",\"do\":\"{}\"{id}}}\n", self.job_type, self.command)
    }
}

/// One of all, by its place.
pub(super) fn any(random: &mut Random) -> usize {
    random.weighted(&ALL, |told| told.weight)
}
