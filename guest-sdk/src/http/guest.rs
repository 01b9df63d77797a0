//! In the sandbox, by `wasi:http`.

use super::bindings::wasi::http::outgoing_handler::handle;
use super::bindings::wasi::http::types::{
    ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use super::bindings::wasi::io::streams::StreamError;
use super::{Request, Response};

/// So much may be written to a stream at once.
const CHUNK: usize = 4096;

/// So much is read from a stream at most at once.
const READ: u64 = 64 << 10;

pub(super) fn send(request: Request) -> Result<Response, String> {
    let body = request.body;
    let outgoing = outgoing(&request.method, &request.url, &request.headers, body.len())?;
    let sink = outgoing.body().map_err(|()| "the request takes no body")?;
    let answer = handle(outgoing, None).map_err(said)?;
    write(sink, &body)?;
    answer.subscribe().block();
    let answer = answer.get().ok_or("there is no answer")?;
    read(answer.map_err(|()| "the answer was taken before")?.map_err(said)?)
}

fn outgoing(method: &str, url: &str, headers: &[(String, String)], length: usize) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is no URL, such as `https://example.com/path`")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    };
    let fields = Fields::new();
    let has_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let own = (length > 0 && !has_length).then(|| ("content-length".to_owned(), length.to_string()));
    for (name, value) in headers.iter().chain(&own) {
        fields
            .append(name, value.as_bytes())
            .map_err(|error| format!("the header `{name}` cannot be sent: {error}"))?;
    }
    let request = OutgoingRequest::new(fields);
    request.set_method(&method).map_err(|()| "there is no such method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "there is no such scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "there is no such server")?;
    request.set_path_with_query(Some(&path)).map_err(|()| "there is no such path")?;
    Ok(request)
}

fn write(sink: OutgoingBody, body: &[u8]) -> Result<(), String> {
    let stream = sink.write().map_err(|()| "the request takes no body")?;
    for chunk in body.chunks(CHUNK) {
        // A server that answers early may not want the rest: what it says counts.
        if stream.blocking_write_and_flush(chunk).is_err() {
            return Ok(());
        }
    }
    drop(stream);
    OutgoingBody::finish(sink, None).map_err(said)
}

fn read(answer: IncomingResponse) -> Result<Response, String> {
    let status = answer.status();
    let headers = answer.headers().entries();
    let source = answer.consume().map_err(|()| "the answer has no body")?;
    let stream = source.stream().map_err(|()| "the answer has no body")?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(READ) {
            Ok(bytes) => body.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("the answer broke off: {}", error.to_debug_string()));
            }
        }
    }
    let small = |(name, value): (String, Vec<u8>)| (name.to_ascii_lowercase(), value);
    Ok(Response { status, headers: headers.into_iter().map(small).collect(), body })
}

fn said(error: ErrorCode) -> String {
    format!("{error:?}")
}
