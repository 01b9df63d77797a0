//! A stream of jobs, a line each, of any length: while one batch is made durable the next is read, and each line is answered
//! when it is durable.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::Runner;
use super::enqueue::{self, Manner};
use super::error::{ApiError, ProblemBody};
use super::site::Caller;
use crate::queue::{Answer, Enqueued, NewJob, QueueError};

/// How many large bodies are read at one time: each is in memory, or a part of it.
const UPLOADS_MAX: usize = 32;

/// How long one of them waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stream may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// How many jobs, and bytes of them, are one transaction.
const BATCH_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How many of these may be under way: while one is made durable the next one waits at the queue, which is never without.
const UNDER_WAY_MAX: usize = 2;

/// Lets in so many large bodies at a time.
#[derive(Debug)]
pub(crate) struct Uploads(Arc<Semaphore>);

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Line {
    /// It is a job, and durable.
    Enqueued {
        /// Which line, from 1.
        line: u64,
        #[serde(flatten)]
        enqueued: Enqueued,
    },
    /// It is none, or was not enqueued. The others are.
    Refused {
        /// Which line, from 1; none if it is about the stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<u64>,
        error: ProblemBody,
    },
    /// The last line, where only what was refused was asked for.
    Done {
        /// How many jobs were added.
        enqueued: u64,
        /// Of how many there was one of the same id.
        duplicates: u64,
        /// How many lines were refused.
        refused: u64,
    },
}

/// A line that waits for its answer.
enum Pending {
    Job(u64),
    Refused(u64, ApiError),
}

/// Lines that become durable together.
#[derive(Default)]
struct Batch {
    lines: Vec<Pending>,
    jobs: Vec<NewJob>,
    bytes: usize,
}

/// A batch that is being made durable.
struct UnderWay {
    lines: Vec<Pending>,
    enqueued: Answer<'static, Result<Vec<Enqueued>, QueueError>>,
}

/// A stream of jobs, on its way.
struct Upload {
    runner: Arc<Runner>,
    caller: Caller,
    manner: Manner,
    /// None: nothing more comes.
    body: Option<Body>,
    lines: Lines,
    batch: Batch,
    under_way: VecDeque<UnderWay>,
    counts: Option<Counts>,
    /// Why it broke off: said last.
    fault: Option<ApiError>,
    _turn: OwnedSemaphorePermit,
}

/// What is counted where only faults are answered.
#[derive(Default)]
struct Counts {
    enqueued: u64,
    duplicates: u64,
    refused: u64,
}

/// Bytes that become lines.
struct Lines {
    bytes: Vec<u8>,
    /// How many of them are read.
    read: usize,
    /// Up to where no line ends.
    looked: usize,
    number: u64,
    line_bytes_max: usize,
    /// The rest of a line that was too long is passed over.
    skips: bool,
}

/// The answer to a stream of jobs, which is a stream too.
pub(super) async fn answer(
    runner: Arc<Runner>,
    caller: Caller,
    manner: Manner,
    quiet: bool,
    body: Body,
) -> Result<Response, ApiError> {
    let turn = runner.room.uploads.enter().await?;
    let line_bytes_max = runner.config.body_bytes_max;
    let upload = Upload {
        runner,
        caller,
        manner,
        body: Some(body),
        lines: Lines { bytes: Vec::new(), read: 0, looked: 0, number: 0, line_bytes_max, skips: false },
        batch: Batch::default(),
        under_way: VecDeque::new(),
        counts: quiet.then(Counts::default),
        fault: None,
        _turn: turn,
    };
    let answers = stream::unfold(Some(upload), async |upload| {
        let mut upload = upload?;
        match upload.next().await {
            Some(answers) => Some((Ok::<_, io::Error>(answers), Some(upload))),
            None => upload.counts.map(|counts| (Ok(counts.line()), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((StatusCode::OK, headers, Body::from_stream(answers)).into_response())
}

// === impl Uploads ===

impl Uploads {
    pub(crate) fn new() -> Uploads {
        Uploads(Arc::new(Semaphore::new(UPLOADS_MAX)))
    }

    /// Waits for a turn, for a while.
    ///
    /// # Errors
    ///
    /// That others take too long.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turn = tokio::time::timeout(TURN_PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        let busy = || {
            let message = format!("{UPLOADS_MAX} large bodies are being read already");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-uploads", message).retry_after(5)
        };
        turn.map_err(|_| busy())?.map_err(|_| busy())
    }
}

// === impl Upload ===

impl Upload {
    /// The next answers, a line each; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.fill();
            while self.under_way.len() < UNDER_WAY_MAX && self.is_due() {
                self.start().await;
                self.fill();
            }
            let reads = self.body.is_some() && !self.batch.is_full();
            let answers = tokio::select! {
                biased;
                done = settled(&mut self.under_way), if !self.under_way.is_empty() => self.answers(done),
                frame = frame(&mut self.body), if reads => {
                    self.take(frame);
                    continue;
                }
                () = self.caller.closing.cancelled(), if self.body.is_some() => {
                    // What is under way is answered, and the rest was never taken.
                    self.end(Some(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not-running", "the runner ends")));
                    continue;
                }
                else => {
                    let mut last = Vec::new();
                    let error = self.fault.take()?.into_body();
                    Line::Refused { line: None, error }.write(&mut last);
                    return Some(last.into());
                }
            };
            if !answers.is_empty() {
                return Some(answers.into());
            }
        }
    }

    /// Whether the batch is to be made durable: as soon as nothing else is, or when it is full.
    fn is_due(&self) -> bool {
        !self.batch.lines.is_empty() && (self.under_way.is_empty() || self.batch.is_full() || self.body.is_none())
    }

    /// Puts lines into the batch, as far as there is room.
    fn fill(&mut self) {
        while !self.batch.is_full() {
            let Some((number, line)) = self.lines.next(self.body.is_none()) else { break };
            let (pending, bytes) = match line.map_err(|limit| {
                let message = format!("the line is over the limit of {limit} bytes");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "job-too-large", message)
            }) {
                Ok(line) => match self.manner.job(line) {
                    Ok(job) => {
                        self.batch.jobs.push(job);
                        (Pending::Job(number), line.len())
                    }
                    Err(error) => (Pending::Refused(number, error), 0),
                },
                Err(error) => (Pending::Refused(number, error), 0),
            };
            self.batch.lines.push(pending);
            self.batch.bytes += bytes;
        }
    }

    /// Has the batch made durable, unless too many jobs wait already.
    async fn start(&mut self) {
        let room = enqueue::has_room(&self.runner).await;
        let Batch { mut lines, mut jobs, .. } = std::mem::take(&mut self.batch);
        if let Err(full) = room {
            jobs.clear();
            for line in &mut lines {
                if let Pending::Job(number) = line {
                    *line = Pending::Refused(*number, full.clone());
                }
            }
        }
        let enqueued: Answer<'static, _> = match jobs.is_empty() {
            true => Box::pin(std::future::ready(Ok(Vec::new()))),
            false => self.runner.queue.enqueue(jobs),
        };
        self.under_way.push_back(UnderWay { lines, enqueued });
    }

    fn take(&mut self, frame: Result<Option<Bytes>, ApiError>) {
        match frame {
            Ok(Some(bytes)) => self.lines.add(&bytes),
            Ok(None) => self.end(None),
            Err(error) => self.end(Some(error)),
        }
    }

    /// Nothing more comes. If it broke off, what came last of it is no line, however much it looks like one.
    fn end(&mut self, fault: Option<ApiError>) {
        self.body = None;
        if fault.is_some() {
            self.lines.cut();
            self.fault = fault;
        }
    }

    /// What is said of a batch that is durable, or is not.
    fn answers(&mut self, (lines, enqueued): (Vec<Pending>, Result<Vec<Enqueued>, QueueError>)) -> Vec<u8> {
        let mut answers = Vec::with_capacity(lines.len() * 80);
        let (mut enqueued, failed) = match enqueued {
            Ok(enqueued) => {
                self.runner.metrics.enqueued(&enqueued);
                (enqueued.into_iter(), None)
            }
            Err(error) => (Vec::new().into_iter(), Some(ApiError::from(error))),
        };
        for pending in lines {
            let line = match (pending, &failed) {
                (Pending::Job(line), None) => {
                    Line::Enqueued { line, enqueued: enqueued.next().expect("a queue answers for each job") }
                }
                (Pending::Job(line), Some(error)) => {
                    Line::Refused { line: Some(line), error: error.clone().into_body() }
                }
                (Pending::Refused(line, error), _) => Line::Refused { line: Some(line), error: error.into_body() },
            };
            if self.counts.as_mut().is_none_or(|counts| counts.count(&line)) {
                line.write(&mut answers);
            }
        }
        answers
    }
}

/// The oldest batch that is under way, when it is durable; without one, never.
async fn settled(under_way: &mut VecDeque<UnderWay>) -> (Vec<Pending>, Result<Vec<Enqueued>, QueueError>) {
    let Some(first) = under_way.front_mut() else { return std::future::pending().await };
    let enqueued = first.enqueued.as_mut().await;
    let lines = under_way.pop_front().map(|batch| batch.lines).unwrap_or_default();
    (lines, enqueued)
}

/// What comes next of the body, if it comes in time.
async fn frame(body: &mut Option<Body>) -> Result<Option<Bytes>, ApiError> {
    let Some(body) = body else { return Ok(None) };
    loop {
        match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad("body-broken", format!("the stream broke off: {error}")));
            }
            Err(_) => {
                let message = format!("nothing came for {SILENCE:?}");
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", message));
            }
        }
    }
}

// === impl Batch ===

impl Batch {
    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

// === impl Line ===

impl Line {
    fn write(&self, answers: &mut Vec<u8>) {
        serde_json::to_writer(&mut *answers, self).expect("it is strings and numbers, and memory can be written to");
        answers.push(b'\n');
    }
}

// === impl Counts ===

impl Counts {
    /// Counts a line; whether it is to be answered by itself.
    fn count(&mut self, line: &Line) -> bool {
        match line {
            Line::Enqueued { enqueued, .. } if enqueued.duplicate => self.duplicates += 1,
            Line::Enqueued { .. } => self.enqueued += 1,
            Line::Refused { .. } => self.refused += 1,
            Line::Done { .. } => {}
        }
        matches!(line, Line::Refused { .. })
    }

    fn line(&self) -> Bytes {
        let mut line = Vec::new();
        let Counts { enqueued, duplicates, refused } = *self;
        Line::Done { enqueued, duplicates, refused }.write(&mut line);
        line.into()
    }
}

// === impl Lines ===

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.looked = self.looked.saturating_sub(std::mem::take(&mut self.read));
        self.bytes.extend_from_slice(bytes);
    }

    /// What has no end yet is no line.
    fn cut(&mut self) {
        let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(self.read, |at| (at + 1).max(self.read));
        self.bytes.truncate(end);
        self.looked = self.looked.min(end);
    }

    /// The next line that is not blank, with its number, or the limit that it is over; none until more comes. `is_last`: no
    /// more comes, and what is left is a line.
    fn next(&mut self, is_last: bool) -> Option<(u64, Result<&[u8], usize>)> {
        loop {
            let begins = self.read;
            // A long line that comes in many pieces is looked through once.
            let from = self.looked.max(begins);
            let ends = self.bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at);
            self.looked = ends.unwrap_or(self.bytes.len());
            let length = self.looked - begins;
            let skips = self.skips;
            if ends.is_none() && (length == 0 || !is_last) {
                // Of a line that is too long nothing is kept.
                if length > self.line_bytes_max || skips {
                    self.read += length;
                    self.skips = true;
                    if !skips {
                        self.number += 1;
                        return Some((self.number, Err(self.line_bytes_max)));
                    }
                }
                return None;
            }
            self.read += length + usize::from(ends.is_some());
            self.skips = false;
            if skips {
                continue;
            }
            self.number += 1;
            let line = self.bytes[begins..begins + length].trim_ascii_end();
            if line.len() > self.line_bytes_max {
                return Some((self.number, Err(self.line_bytes_max)));
            }
            if !line.trim_ascii_start().is_empty() {
                // The borrow checker does not see that the loop ends here.
                let end = begins + line.len();
                return Some((self.number, Ok(&self.bytes[begins..end])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of text that comes in pieces, each with its number; of what is too long only that.
    fn lines(pieces: &[&str], whole: bool) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines { bytes: Vec::new(), read: 0, looked: 0, number: 0, line_bytes_max: 5, skips: false };
        let mut found = Vec::new();
        for (at, piece) in pieces.iter().chain([&""]).enumerate() {
            lines.add(piece.as_bytes());
            let is_last = at == pieces.len();
            if is_last && !whole {
                lines.cut();
            }
            while let Some((number, line)) = lines.next(is_last) {
                found.push((number, line.ok().map(|line| String::from_utf8_lossy(line).into_owned())));
            }
        }
        found
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let of = |found: &[(u64, &str)]| -> Vec<(u64, Option<String>)> {
            found.iter().map(|(number, line)| (*number, (!line.is_empty()).then(|| (*line).to_owned()))).collect()
        };
        assert_eq!(lines(&["a\n\n \r\nb"], true), of(&[(1, "a"), (4, "b")]));
        assert_eq!(lines(&["ab", "c\nd", "e\n"], true), of(&[(1, "abc"), (2, "de")]));
        assert_eq!(lines(&["a\nb"], false), of(&[(1, "a")]), "what broke off is no line");
        assert_eq!(lines(&["a\nb\n"], false), of(&[(1, "a"), (2, "b")]));
        assert_eq!(lines(&["12345\n123456\nab\n"], true), of(&[(1, "12345"), (2, ""), (3, "ab")]));
        assert_eq!(lines(&["123456", "7890", "12\nab"], true), of(&[(1, ""), (2, "ab")]));
        assert_eq!(lines(&["123456", "7890"], true), of(&[(1, "")]));
        assert_eq!(lines(&[], true), of(&[]));
    }
}
