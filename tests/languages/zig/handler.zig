//! The handler of the conformance list: it does what its body says.

const std = @import("std");
const sandhog = @import("sandhog.zig");

pub const panic = sandhog.panic;

comptime {
    sandhog.exports(@This());
}

const Value = std.json.Value;

const Ask = struct {
    do: []const u8,
    result: ?Value = null,
    after_ms: ?u32 = null,
    body: ?Value = null,
    reason: ?[]const u8 = null,
    message: []const u8 = "",
    text: []const u8 = "",
    job_type: []const u8 = "",
    options: struct { @"after-ms": ?Value = null, id: ?[]const u8 = null, key: ?[]const u8 = null } = .{},
    key: []const u8 = "",
    url: []const u8 = "",
    path: [:0]const u8 = "",
};

const Do = enum { complete, retry, reject, @"error", throw, log, echo, fields, enqueue, config, state, http, read, write, grow, spin };

pub fn handle(job: sandhog.Job) !sandhog.Outcome {
    const ask = try job.parse(Ask);
    const do = std.meta.stringToEnum(Do, ask.do) orelse return sandhog.fail("cannot `{s}`", .{ask.do});
    switch (do) {
        .complete => return if (ask.result) |result| sandhog.complete(result) else .{ .complete = null },
        .retry => return .{ .retry = .{
            .after_ms = ask.after_ms,
            .body = if (ask.body) |body| try sandhog.json(body) else null,
            .reason = ask.reason,
        } },
        .reject => return .{ .reject = ask.message },
        .@"error" => return sandhog.fail("{s}", .{ask.message}),
        .throw => @panic(ask.message),
        .log => return say(ask.text),
        .echo => return sandhog.complete(ask.text),
        .fields => return fields(job),
        .enqueue => return enqueue(ask),
        .config => return sandhog.complete(try sandhog.config(ask.key)),
        .state => return sandhog.complete(try sandhog.state.increment(ask.key, 1)),
        .http => {
            const answer = try sandhog.http.fetch(.{ .url = ask.url });
            return sandhog.complete(.{ .status = answer.status, .body = answer.body });
        },
        .read => return sandhog.complete(read(ask.path) orelse sandhog.print("cannot open {s}", .{ask.path})),
        .write => {
            if (write(ask.path, ask.text)) return .{ .complete = null };
            return sandhog.complete(sandhog.print("cannot write {s}", .{ask.path}));
        },
        .grow => while (true) {
            const more = try sandhog.allocator.alloc(u8, 1 << 20);
            @memset(@as([]volatile u8, more), 1);
        },
        .spin => while (true) std.mem.doNotOptimizeAway(job.attempt),
    }
}

fn say(text: []const u8) !sandhog.Outcome {
    inline for (.{ .trace, .debug, .info, .warn, .@"error" }) |level| sandhog.log(level, "{s}", .{text});
    _ = std.c.write(1, text.ptr, text.len);
    _ = std.c.write(1, "\n", 1);
    _ = std.c.write(2, text.ptr, text.len);
    _ = std.c.write(2, "\n", 1);
    return .{ .complete = null };
}

fn fields(job: sandhog.Job) !sandhog.Outcome {
    const metadata = try sandhog.allocator.alloc([2][]const u8, job.metadata.raw.len);
    for (job.metadata.raw, metadata) |pair, *copy| copy.* = .{ pair[0].slice(), pair[1].slice() };
    return sandhog.complete(.{
        .id = job.id,
        .job_type = job.type,
        .body = job.body,
        .attempt = job.attempt,
        .failures = job.failures,
        .max_failures = job.max_failures,
        .enqueued_at_ms = job.enqueued_at_ms,
        .timeout_ms = job.timeout_ms,
        .metadata = metadata,
    });
}

fn enqueue(ask: Ask) !sandhog.Outcome {
    var body = if (ask.body) |body| body else Value{ .object = .empty };
    try body.object.put(sandhog.allocator, "job_type", .{ .string = ask.job_type });
    var options: [3]sandhog.Option = undefined;
    var count: usize = 0;
    if (ask.options.@"after-ms") |ms| {
        options[count] = .{ .name = "after-ms", .value = if (ms == .string) ms.string else try sandhog.json(ms) };
        count += 1;
    }
    inline for (.{ "id", "key" }) |name| if (@field(ask.options, name)) |value| {
        options[count] = .{ .name = name, .value = value };
        count += 1;
    };
    const id = sandhog.enqueue(try sandhog.json(body), options[0..count]) catch |err|
        return if (err == error.Failed) sandhog.complete(sandhog.fault()) else err;
    return sandhog.complete(id);
}

fn read(path: [:0]const u8) ?[]const u8 {
    const file = std.c.fopen(path, "r") orelse return null;
    defer _ = std.c.fclose(file);
    const all = sandhog.allocator.alloc(u8, 1 << 16) catch return null;
    return all[0..std.c.fread(all.ptr, 1, all.len, file)];
}

fn write(path: [:0]const u8, text: []const u8) bool {
    const file = std.c.fopen(path, "w") orelse return false;
    const written = std.c.fwrite(text.ptr, 1, text.len, file);
    return std.c.fclose(file) == 0 and written == text.len;
}

pub fn setUp() !void {
    sandhog.log(.info, "set up", .{});
}

pub fn tearDown() void {
    sandhog.log(.info, "torn down", .{});
}

pub fn jobFailed(_: sandhog.Job, failure: sandhog.Failure) void {
    sandhog.log(.info, "failed: {s} {s}", .{ failure.kind, failure.message });
}
