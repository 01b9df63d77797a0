//! What a handler in Zig is written with.
//!
//!     const sandhog = @import("sandhog.zig");
//!     pub const panic = sandhog.panic;
//!     comptime { sandhog.exports(@This()); }
//!
//!     pub fn handle(job: sandhog.Job) !sandhog.Outcome {
//!         const greet = try job.parse(struct { name: []const u8 });
//!         sandhog.log(.info, "greeting somebody", .{});
//!         return sandhog.complete(greet.name);
//!     }
//!
//! An error is a failed attempt: its name, or what `fail` said; what follows is up to the manifest. So is a panic. What comes
//! from here belongs to the job, and so does what is made with `allocator`: it is gone when the job is done.
//!
//! Besides `handle` a handler may have `pub fn setUp() !void` and `pub fn tearDown() void`, called once for an instance, and
//! `pub fn jobFailed(job: Job, failure: Failure) void`, which is told of failed attempts and of rejects.

const std = @import("std");

/// One unit of work, as one attempt sees it.
pub const Job = struct {
    /// The same on every attempt.
    id: []const u8,
    /// What selected this handler.
    type: []const u8,
    /// The job as it was enqueued, or as the last retry left it.
    body: []const u8,
    /// Which start this is, from 1, interrupted ones included.
    attempt: u32,
    /// How many attempts failed so far.
    failures: u32,
    /// How many bury the job.
    max_failures: u32,
    /// When it was enqueued: Unix time.
    enqueued_at_ms: u64,
    /// How long this attempt may take.
    timeout_ms: u32,
    metadata: Pairs,

    /// Reads the body as JSON. What the type does not have is left out.
    pub fn parse(job: Job, comptime T: type) !T {
        return std.json.parseFromSliceLeaky(T, allocator, job.body, .{ .ignore_unknown_fields = true }) catch |err|
            fail("cannot read the body: {s}", .{@errorName(err)});
    }
};

/// A failed attempt.
pub const Failure = struct {
    /// What went wrong: "error", "trap", "timeout", "rejected" and others.
    kind: []const u8,
    /// The same for people.
    message: []const u8,
    /// Whether the job became a dead letter with this failure.
    buried: bool,
    metadata: Pairs,
};

/// Pairs of a name and a value. A name may come more than once.
pub const Pairs = struct {
    raw: []const [2]Text,

    /// The first value of this name; "header.NAME" is what the enqueuer sent along.
    pub fn get(pairs: Pairs, name: []const u8) ?[]const u8 {
        for (pairs.raw) |pair| if (std.mem.eql(u8, pair[0].slice(), name)) return pair[1].slice();
        return null;
    }
};

/// How an attempt ended.
pub const Outcome = union(enum) {
    /// Done, with a result, which is JSON.
    complete: ?[]const u8,
    /// Not finished yet, which is no failure.
    retry: Retry,
    /// It will never work: a dead letter at once, with this reason.
    reject: []const u8,
};

/// Asks for another attempt.
pub const Retry = struct {
    /// How long to wait; null: the handler's backoff.
    after_ms: ?u32 = null,
    /// What the next attempt sees as its body, as JSON; null: the same.
    body: ?[]const u8 = null,
    /// Why, for people.
    reason: ?[]const u8 = null,
};

/// An option of `enqueue`, by its name in the contract: "after-ms", "id", "key", "header.NAME".
pub const Option = struct { name: []const u8, value: []const u8 };

pub const Level = enum(u32) { trace, debug, info, warn, @"error" };

/// For what belongs to the job.
pub const allocator = arena.allocator();

/// Done, with a result, which is written as JSON.
pub fn complete(result: anytype) !Outcome {
    return .{ .complete = try json(result) };
}

/// A value as JSON.
pub fn json(value: anytype) ![]const u8 {
    return std.json.Stringify.valueAlloc(allocator, value, .{});
}

/// Says why the attempt fails: `return sandhog.fail("no {s}", .{name})`.
pub fn fail(comptime format: []const u8, arguments: anytype) error{Failed} {
    why = print(format, arguments);
    return error.Failed;
}

/// What `error.Failed` means: why the last call that failed did.
pub fn fault() []const u8 {
    return why;
}

/// A line in the job's log.
pub fn log(level: Level, comptime format: []const u8, arguments: anytype) void {
    const line = print(format, arguments);
    imports.log(@intFromEnum(level), pointer(line), line.len);
}

/// Enqueues a follow-up job, a JSON object with a "job_type", which the manifest must grant (grants.enqueue), and answers its
/// id.
pub fn enqueue(job: []const u8, options: []const Option) ![]const u8 {
    const lowered = try texts(options.len);
    for (options, lowered) |option, *pair| pair.* = .{ .of(option.name), .of(option.value) };
    imports.enqueue(pointer(job), job.len, lowered.ptr, lowered.len, &told);
    if (said(0)) return fail("cannot enqueue a job: {s}", .{text(1)});
    return text(1);
}

/// A value that the manifest grants (grants.config).
pub fn config(key: []const u8) !?[]const u8 {
    imports.configGet(pointer(key), key.len, &told);
    if (said(0)) return fail("cannot read the configuration: {s}", .{text(2)});
    return if (said(1)) text(2) else null;
}

/// What the handler keeps (grants.state = true). What an attempt wrote is kept when it is settled as complete or retry.
pub const state = struct {
    pub fn get(key: []const u8) !?[]const u8 {
        const bucket = try open();
        defer imports.dropBucket(bucket);
        imports.get(bucket, pointer(key), key.len, &told);
        try refused(1);
        return if (said(1)) text(2) else null;
    }

    pub fn set(key: []const u8, value: []const u8) !void {
        const bucket = try open();
        defer imports.dropBucket(bucket);
        imports.set(bucket, pointer(key), key.len, pointer(value), value.len, &told);
        try refused(1);
    }

    pub fn delete(key: []const u8) !void {
        const bucket = try open();
        defer imports.dropBucket(bucket);
        imports.delete(bucket, pointer(key), key.len, &told);
        try refused(1);
    }

    /// Adds to a number, from 0. If another attempt changes it before this one is settled, the job runs again.
    pub fn increment(key: []const u8, delta: u64) !u64 {
        const bucket = try open();
        defer imports.dropBucket(bucket);
        imports.increment(bucket, pointer(key), key.len, delta, &told);
        try refused(2);
        return told[2] | @as(u64, told[3]) << 32;
    }

    fn open() !u32 {
        imports.open("", 0, &told);
        try refused(1);
        return told[1];
    }

    fn refused(word: usize) !void {
        if (!said(0)) return;
        return switch (told[word] & 0xff) {
            0 => fail("there is no such store", .{}),
            1 => fail("state is not granted to this handler", .{}),
            else => fail("{s}", .{text(word + 1)}),
        };
    }
};

/// Requests by HTTP: `sandhog.http.fetch(.{ .url = "https://…" })`.
pub const http = @import("sandhog_http.zig");

/// A panic says why in the job's log.
pub const panic = std.debug.FullPanic(struct {
    fn call(message: []const u8, _: ?usize) noreturn {
        const line = std.fmt.allocPrint(allocator, "panic: {s}", .{message}) catch message;
        imports.log(@intFromEnum(Level.@"error"), pointer(line), line.len);
        @trap();
    }
}.call);

/// Exports what a handler has. `comptime { sandhog.exports(@This()); }`
pub fn exports(comptime handler: type) void {
    const Export = struct {
        fn handleJob(
            id: [*]const u8,
            id_length: usize,
            job_type: [*]const u8,
            type_length: usize,
            body: [*]const u8,
            body_length: usize,
            attempt: u32,
            failures: u32,
            max_failures: u32,
            enqueued_at_ms: u64,
            timeout_ms: u32,
            metadata: [*]const [2]Text,
            metadata_count: usize,
        ) callconv(.c) *const Answer {
            return lower(handler.handle(.{
                .id = id[0..id_length],
                .type = job_type[0..type_length],
                .body = body[0..body_length],
                .attempt = attempt,
                .failures = failures,
                .max_failures = max_failures,
                .enqueued_at_ms = enqueued_at_ms,
                .timeout_ms = timeout_ms,
                .metadata = .{ .raw = metadata[0..metadata_count] },
            }));
        }

        fn setUp() callconv(.c) *const Answer {
            answer = @splat(0);
            handler.setUp() catch |err| failed(err);
            return &answer;
        }

        fn tearDown() callconv(.c) void {
            if (@hasDecl(handler, "tearDown")) handler.tearDown();
            release(null);
        }

        fn jobFailed(lowered: *const FailedJob) callconv(.c) void {
            const job, const failure = .{ lowered.job, lowered.failure };
            handler.jobFailed(.{
                .id = job.id.slice(),
                .type = job.type.slice(),
                .body = job.body.slice(),
                .attempt = job.attempt,
                .failures = job.failures,
                .max_failures = job.max_failures,
                .enqueued_at_ms = job.enqueued_at_ms,
                .timeout_ms = job.timeout_ms,
                .metadata = .{ .raw = job.metadata[0..job.metadata_count] },
            }, .{
                .kind = failure.kind.slice(),
                .message = failure.message.slice(),
                .buried = failure.buried,
                .metadata = .{ .raw = failure.metadata[0..failure.metadata_count] },
            });
            release(null);
        }
    };
    @export(&Export.handleJob, .{ .name = "sandhog:jobs/handler@1.0.0#handle-job" });
    @export(&release, .{ .name = "cabi_post_sandhog:jobs/handler@1.0.0#handle-job" });
    @export(&realloc, .{ .name = "cabi_realloc" });
    if (@hasDecl(handler, "setUp")) {
        @export(&Export.setUp, .{ .name = "sandhog:jobs/context@1.0.0#set-up" });
        @export(&Export.tearDown, .{ .name = "sandhog:jobs/context@1.0.0#tear-down" });
    }
    if (@hasDecl(handler, "jobFailed")) {
        @export(&Export.jobFailed, .{ .name = "sandhog:jobs/failure-hook@1.0.0#job-failed" });
    }
}

// === the canonical ABI ===

// Written by hand: texts and lists are an address and a length, variants a number and what belongs to it, each part at a place
// of its own.

pub const Text = extern struct {
    at: [*]const u8,
    length: usize,

    pub fn of(from: []const u8) Text {
        return .{ .at = pointer(from), .length = from.len };
    }

    pub fn slice(from: Text) []const u8 {
        return from.at[0..from.length];
    }
};

/// An address that the host may look at: that of a text without bytes may be anything in Zig.
pub fn pointer(from: []const u8) [*]const u8 {
    return if (from.len == 0) "" else from.ptr;
}

/// Room for pairs of texts, at an address that the host may look at.
pub fn texts(count: usize) ![][2]Text {
    return (try allocator.alloc([2]Text, @max(count, 1)))[0..count];
}

/// What job-failed is told, each with the room that it has in a list of its kind.
const FailedJob = extern struct { job: LoweredJob, failure: LoweredFailure };

const LoweredJob = extern struct {
    id: Text,
    type: Text,
    body: Text,
    attempt: u32,
    failures: u32,
    max_failures: u32,
    enqueued_at_ms: u64,
    timeout_ms: u32,
    metadata: [*]const [2]Text,
    metadata_count: usize,
};

const LoweredFailure = extern struct {
    kind: Text,
    message: Text,
    buried: bool,
    metadata: [*]const [2]Text,
    metadata_count: usize,
};

const Answer = [10]u32;

/// What an export answers, and where an import puts what it answers.
var answer: Answer = undefined;
var told: [8]u32 align(8) = undefined;
var why: []const u8 = "";
var arena: std.heap.ArenaAllocator = .init(std.heap.c_allocator);

fn lower(outcome: anyerror!Outcome) *const Answer {
    answer = @splat(0);
    const ended = outcome catch |err| {
        failed(err);
        return &answer;
    };
    answer[1] = @intFromEnum(ended);
    switch (ended) {
        .complete => |result| optional(2, result),
        .retry => |retry| {
            if (retry.after_ms) |ms| answer[2..4].* = .{ 1, ms };
            optional(4, retry.body);
            optional(7, retry.reason);
        },
        .reject => |reason| put(2, reason),
    }
    return &answer;
}

fn failed(err: anyerror) void {
    answer[0] = 1;
    put(1, if (err == error.Failed) why else @errorName(err));
}

fn optional(word: usize, from: ?[]const u8) void {
    if (from) |value| {
        answer[word] = 1;
        put(word + 1, value);
    }
}

fn put(word: usize, from: []const u8) void {
    answer[word..][0..2].* = .{ @intFromPtr(pointer(from)), from.len };
}

fn said(word: usize) bool {
    return told[word] & 0xff != 0;
}

fn text(word: usize) []const u8 {
    return @as([*]const u8, @ptrFromInt(told[word]))[0..told[word + 1]];
}

/// A text that belongs to the job.
pub fn print(comptime format: []const u8, arguments: anytype) []const u8 {
    return std.fmt.allocPrint(allocator, format, arguments) catch "out of memory";
}

/// The host asks for room here when it hands something over.
fn realloc(old: [*]u8, old_size: usize, alignment: usize, size: usize) callconv(.c) [*]u8 {
    _ = alignment; // Never more than 8.
    const made = allocator.alignedAlloc(u8, .@"8", @max(size, 1)) catch @trap();
    @memcpy(made[0..@min(old_size, size)], old[0..@min(old_size, size)]);
    return made.ptr;
}

/// Called when the host has read an answer, while nothing of the host may be called.
fn release(_: ?*const Answer) callconv(.c) void {
    _ = arena.reset(.retain_capacity);
}

const imports = struct {
    const log = @extern(*const fn (u32, [*]const u8, usize) callconv(.c) void, .{
        .name = "log",
        .library_name = "sandhog:jobs/log@1.0.0",
    });
    const enqueue = @extern(*const fn ([*]const u8, usize, [*]const [2]Text, usize, *[8]u32) callconv(.c) void, .{
        .name = "enqueue",
        .library_name = "sandhog:jobs/queue@1.0.0",
    });
    const configGet = @extern(*const fn ([*]const u8, usize, *[8]u32) callconv(.c) void, .{
        .name = "get",
        .library_name = "wasi:config/store@0.2.0-rc.1",
    });
    const open = @extern(*const fn ([*]const u8, usize, *[8]u32) callconv(.c) void, .{
        .name = "open",
        .library_name = "wasi:keyvalue/store@0.2.0-draft",
    });
    const get = @extern(*const fn (u32, [*]const u8, usize, *[8]u32) callconv(.c) void, .{
        .name = "[method]bucket.get",
        .library_name = "wasi:keyvalue/store@0.2.0-draft",
    });
    const set = @extern(*const fn (u32, [*]const u8, usize, [*]const u8, usize, *[8]u32) callconv(.c) void, .{
        .name = "[method]bucket.set",
        .library_name = "wasi:keyvalue/store@0.2.0-draft",
    });
    const delete = @extern(*const fn (u32, [*]const u8, usize, *[8]u32) callconv(.c) void, .{
        .name = "[method]bucket.delete",
        .library_name = "wasi:keyvalue/store@0.2.0-draft",
    });
    const dropBucket = @extern(*const fn (u32) callconv(.c) void, .{
        .name = "[resource-drop]bucket",
        .library_name = "wasi:keyvalue/store@0.2.0-draft",
    });
    const increment = @extern(*const fn (u32, [*]const u8, usize, u64, *[8]u32) callconv(.c) void, .{
        .name = "increment",
        .library_name = "wasi:keyvalue/atomics@0.2.0-draft",
    });
};
