//! A handler: it greets, now or a little later.

const sandhog = @import("sandhog.zig");

pub const panic = sandhog.panic;

comptime {
    sandhog.exports(@This());
}

const Greet = struct { name: []const u8, later: bool = false };

pub fn handle(job: sandhog.Job) !sandhog.Outcome {
    const greet = try job.parse(Greet);
    if (greet.later and job.attempt == 1) {
        // No failure: the job comes again.
        return .{ .retry = .{ .after_ms = 5000 } };
    }
    sandhog.log(.info, "greeting {s}", .{greet.name});
    return sandhog.complete(sandhog.print("Hello, {s}!", .{greet.name}));
}
