//! Requests by wasi:http. Written by hand against the canonical ABI, as sandhog.zig.

const std = @import("std");
const sandhog = @import("sandhog.zig");
const Text = sandhog.Text;

pub const Header = sandhog.Option;

pub const Request = struct {
    method: []const u8 = "GET",
    url: []const u8,
    header: []const Header = &.{},
    body: []const u8 = "",
};

/// The answer to a request, whatever its status.
pub const Response = struct {
    status: u32,
    /// Names are in lower case.
    header: sandhog.Pairs,
    body: []const u8,
};

/// Sends a request and waits for all of the answer. The manifest must grant where it goes (grants.http). Redirects are not
/// followed.
pub fn fetch(request: Request) !Response {
    const response = try wait(try send(request));
    defer imports.dropResponse(response);
    const fields = imports.headers(response);
    defer imports.dropFields(fields);
    imports.entries(fields, &told);
    const header: sandhog.Pairs = .{ .raw = @as([*]const [2]Text, @ptrFromInt(told[0]))[0..told[1]] };
    return .{ .status = imports.status(response), .header = header, .body = try read(response) };
}

fn send(request: Request) !u32 {
    const made = try lower(request);
    imports.requestBody(made, &told);
    const body = told[1];
    imports.handle(made, 0, 0, &told);
    if (said(0)) {
        imports.dropOutgoingBody(body);
        return failedByCode(2);
    }
    const future = told[2];
    errdefer imports.dropFuture(future);
    write(body, request.body) catch |err| {
        imports.dropOutgoingBody(body);
        return err;
    };
    imports.finish(body, 0, 0, &told);
    if (said(0)) return failedByCode(2);
    return future;
}

fn lower(request: Request) !u32 {
    const is_secure = std.mem.startsWith(u8, request.url, "https://");
    if (!is_secure and !std.mem.startsWith(u8, request.url, "http://"))
        return sandhog.fail("`{s}` is no URL of http or https", .{request.url});
    const all = request.url[if (is_secure) 8 else 7..];
    const rest = all[0 .. std.mem.indexOfScalar(u8, all, '#') orelse all.len];
    const end = std.mem.indexOfAny(u8, rest, "/?") orelse rest.len;
    const slash = if (std.mem.startsWith(u8, rest[end..], "/")) "" else "/";
    const path = sandhog.print("{s}{s}", .{ slash, rest[end..] });
    const header = try sandhog.texts(request.header.len);
    for (request.header, header) |from, *pair| pair.* = .{ .of(from.name), .of(from.value) };
    imports.fields(header.ptr, header.len, &told);
    if (said(0)) return sandhog.fail("a header is malformed, or is not the handler's to set", .{});
    const made = imports.newRequest(told[1]);
    const which: u32 = for (methods, 0..) |method, i| {
        if (std.mem.eql(u8, method, request.method)) break i;
    } else methods.len;
    const method = sandhog.pointer(request.method);
    const refused = imports.setMethod(made, which, method, request.method.len) |
        imports.setScheme(made, 1, @intFromBool(is_secure), "", 0) |
        imports.setAuthority(made, 1, rest.ptr, end) | imports.setPath(made, 1, path.ptr, path.len);
    if (refused != 0) {
        imports.dropRequest(made);
        return sandhog.fail("the method or the URL is malformed: {s} {s}", .{ request.method, request.url });
    }
    return made;
}

fn write(body: u32, bytes: []const u8) !void {
    if (bytes.len == 0) return;
    imports.bodyWrite(body, &told);
    const stream = told[1];
    defer imports.dropOutput(stream);
    var at: usize = 0;
    while (at < bytes.len) : (at += write_max) {
        imports.write(stream, bytes.ptr + at, @min(bytes.len - at, write_max), &told);
        if (said(0)) return brokeOff();
    }
}

fn wait(future: u32) !u32 {
    defer imports.dropFuture(future);
    const pollable = imports.subscribe(future);
    imports.block(pollable);
    imports.dropPollable(pollable);
    imports.futureGet(future, &told);
    // Whether it is there; whether it was asked for before; whether it is an error.
    if (!said(0) or said(2)) return sandhog.fail("no answer came", .{});
    if (said(4)) return failedByCode(6);
    return told[6];
}

fn read(response: u32) ![]const u8 {
    imports.consume(response, &told);
    const body = told[1];
    defer imports.dropIncomingBody(body);
    imports.bodyStream(body, &told);
    const stream = told[1];
    defer imports.dropInput(stream);
    var all: std.ArrayList(u8) = .empty;
    while (true) {
        imports.read(stream, read_max, &told);
        if (said(0)) break;
        try all.appendSlice(sandhog.allocator, @as([*]const u8, @ptrFromInt(told[1]))[0..told[2]]);
    }
    return if (said(1)) all.items else brokeOff();
}

fn brokeOff() error{Failed} {
    if (!said(1)) imports.dropError(told[2]);
    return sandhog.fail("the connection broke off", .{});
}

/// The error-code that stands at this word. The last one may come with a text.
fn failedByCode(word: usize) error{Failed} {
    const code = told[word] & 0xff;
    if (code == codes.len - 1 and said(word + 2))
        return sandhog.fail("{s}", .{@as([*]const u8, @ptrFromInt(told[word + 3]))[0..told[word + 4]]});
    return sandhog.fail("{s}", .{if (code < codes.len) codes[code] else "an unknown error of wasi:http"});
}

fn said(word: usize) bool {
    return told[word] & 0xff != 0;
}

/// Where an import puts what it answers.
var told: Told align(8) = undefined;
const Told = [16]u32;

/// What a stream takes at once, by its contract; and what is read of one at once.
const write_max = 4096;
const read_max = 64 << 10;

// In the order of the contract.
const methods = [_][]const u8{ "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH" };

const codes = [_][]const u8{
    "DNS-timeout",                       "DNS-error",
    "destination-not-found",             "destination-unavailable",
    "destination-IP-prohibited",         "destination-IP-unroutable",
    "connection-refused",                "connection-terminated",
    "connection-timeout",                "connection-read-timeout",
    "connection-write-timeout",          "connection-limit-reached",
    "TLS-protocol-error",                "TLS-certificate-error",
    "TLS-alert-received",                "HTTP-request-denied",
    "HTTP-request-length-required",      "HTTP-request-body-size",
    "HTTP-request-method-invalid",       "HTTP-request-URI-invalid",
    "HTTP-request-URI-too-long",         "HTTP-request-header-section-size",
    "HTTP-request-header-size",          "HTTP-request-trailer-section-size",
    "HTTP-request-trailer-size",         "HTTP-response-incomplete",
    "HTTP-response-header-section-size", "HTTP-response-header-size",
    "HTTP-response-body-size",           "HTTP-response-trailer-section-size",
    "HTTP-response-trailer-size",        "HTTP-response-transfer-coding",
    "HTTP-response-content-coding",      "HTTP-response-timeout",
    "HTTP-upgrade-failed",               "HTTP-protocol-error",
    "loop-detected",                     "configuration-error",
    "internal-error",
};

const types = "wasi:http/types@0.2.12";
const streams = "wasi:io/streams@0.2.12";
const poll = "wasi:io/poll@0.2.12";
const Bytes = [*]const u8;

/// An import of this type and name.
fn import(comptime F: type, comptime module: []const u8, comptime name: []const u8) *const F {
    return @extern(*const F, .{ .name = name, .library_name = module });
}

const Drop = fn (u32) callconv(.c) void;
const Make = fn (u32) callconv(.c) u32;
const Ask = fn (u32, *Told) callconv(.c) void;
const SetText = fn (u32, u32, Bytes, usize) callconv(.c) u32;

const imports = struct {
    const fields = import(fn ([*]const [2]Text, usize, *Told) callconv(.c) void, types, "[static]fields.from-list");
    const entries = import(Ask, types, "[method]fields.entries");
    const dropFields = import(Drop, types, "[resource-drop]fields");
    const newRequest = import(Make, types, "[constructor]outgoing-request");
    const setMethod = import(SetText, types, "[method]outgoing-request.set-method");
    const setScheme = import(
        fn (u32, u32, u32, Bytes, usize) callconv(.c) u32,
        types,
        "[method]outgoing-request.set-scheme",
    );
    const setAuthority = import(SetText, types, "[method]outgoing-request.set-authority");
    const setPath = import(SetText, types, "[method]outgoing-request.set-path-with-query");
    const requestBody = import(Ask, types, "[method]outgoing-request.body");
    const dropRequest = import(Drop, types, "[resource-drop]outgoing-request");
    const bodyWrite = import(Ask, types, "[method]outgoing-body.write");
    const finish = import(fn (u32, u32, u32, *Told) callconv(.c) void, types, "[static]outgoing-body.finish");
    const dropOutgoingBody = import(Drop, types, "[resource-drop]outgoing-body");
    const handle = import(
        fn (u32, u32, u32, *Told) callconv(.c) void,
        "wasi:http/outgoing-handler@0.2.12",
        "handle",
    );
    const subscribe = import(Make, types, "[method]future-incoming-response.subscribe");
    const futureGet = import(Ask, types, "[method]future-incoming-response.get");
    const dropFuture = import(Drop, types, "[resource-drop]future-incoming-response");
    const status = import(Make, types, "[method]incoming-response.status");
    const headers = import(Make, types, "[method]incoming-response.headers");
    const consume = import(Ask, types, "[method]incoming-response.consume");
    const dropResponse = import(Drop, types, "[resource-drop]incoming-response");
    const bodyStream = import(Ask, types, "[method]incoming-body.stream");
    const dropIncomingBody = import(Drop, types, "[resource-drop]incoming-body");
    const block = import(Drop, poll, "[method]pollable.block");
    const dropPollable = import(Drop, poll, "[resource-drop]pollable");
    const write = import(
        fn (u32, Bytes, usize, *Told) callconv(.c) void,
        streams,
        "[method]output-stream.blocking-write-and-flush",
    );
    const dropOutput = import(Drop, streams, "[resource-drop]output-stream");
    const read = import(fn (u32, u64, *Told) callconv(.c) void, streams, "[method]input-stream.blocking-read");
    const dropInput = import(Drop, streams, "[resource-drop]input-stream");
    const dropError = import(Drop, "wasi:io/error@0.2.12", "[resource-drop]error");
};
