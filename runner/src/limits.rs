//! What an attempt may use. Everything has a limit.

use std::time::Duration;

use crate::state::Size;

/// The limits of one attempt. A manifest may set some of them, up to the ceilings in the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Wall-clock time, instantiation included.
    pub timeout: Duration,
    /// Bytes of all linear memories together.
    pub memory_bytes: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Resources that the guest holds at one time.
    pub handles: u32,
    /// Bytes of the result, or of a changed body, that the guest may answer with.
    pub result_bytes: u64,
    /// Bytes that the guest may hand to the host in one call.
    pub host_call_bytes: u64,
    /// HTTP requests that the guest may send.
    pub http_calls: u32,
    /// Bytes of their bodies, all together.
    pub http_request_bytes: u64,
    /// Bytes of the bodies of the responses, all together.
    pub http_response_bytes: u64,
    /// How long it may wait for a connection, for the first byte of a response, and between two.
    pub http_wait: Duration,
    /// Calls of `log` and of `queue`.
    pub host_calls: u64,
    /// Bytes of log, stdout and stderr that are kept; the rest is cut, with a marker.
    pub log_bytes: u64,
    /// Bytes of one line of these.
    pub log_line_bytes: usize,
    /// Bytes of a job's body.
    pub body_bytes: usize,
    /// Jobs that an attempt may enqueue.
    pub follow_ups: u32,
    /// Bytes of these together.
    pub follow_up_bytes: u64,
    /// What a handler may keep from one job to another.
    pub state: Size,
    /// How long a chain of jobs may be that enqueue one another.
    pub follow_up_depth: u32,
}

/// How instances are used again, where a manifest says so. Without, every attempt has an instance of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reuse {
    /// How many jobs an instance works before it ends: two at least.
    pub jobs: u32,
    /// How long an instance waits for its next job before it ends.
    pub idle: Duration,
    /// How many instances of the handler are kept for their next jobs: as many as may run at a time.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            timeout: Duration::from_secs(30),
            memory_bytes: 128 << 20,
            // CPython's largest table has some 8,000 elements, debug builds of other runtimes over 10,000.
            table_elements: 100_000,
            handles: 1_000,
            result_bytes: 1 << 20,
            // Twice the largest body, so that a handler can pass one through; the result has its own, smaller limit.
            host_call_bytes: 16 << 20,
            http_calls: 32,
            http_request_bytes: 8 << 20,
            http_response_bytes: 32 << 20,
            // Less than the default timeout, so that a guest hears of it and can say so.
            http_wait: Duration::from_secs(10),
            // A log flood is cut, not trapped; this only ends a guest that does nothing else.
            host_calls: 100_000_000,
            log_bytes: 64 << 10,
            log_line_bytes: 4 << 10,
            body_bytes: 8 << 20,
            // They stand in memory until the attempt is settled, and then in one transaction.
            follow_ups: 1_000,
            follow_up_bytes: 16 << 20,
            // All keys are in memory while a guest lists them.
            state: Size { keys: 10_000, bytes: 16 << 20 },
            // A chain that is longer is most likely one without an end.
            follow_up_depth: 100,
        }
    }
}
