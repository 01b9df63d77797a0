//! Requests, by `wasi:http`.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use wasip2::io::streams::StreamError;

type Said = Result<String, String>;

const CHUNK: usize = 4096;

pub(crate) fn get(scheme: &str, authority: &str, path: &str) -> Said {
    let request = request(scheme, authority, path)?;
    answer(sent(request)?)
}

pub(crate) fn post(authority: &str, bytes: u64) -> Said {
    let request = request("http", authority, "/")?;
    request.set_method(&Method::Post).map_err(|()| "no method")?;
    let body = request.body().map_err(|()| "no body")?;
    let response = handle(request, None).map_err(name)?;
    let mut left = bytes;
    {
        let stream = body.write().map_err(|()| "no stream")?;
        while left > 0 {
            let chunk = vec![b'x'; CHUNK.min(left as usize)];
            if stream.blocking_write_and_flush(&chunk).is_err() {
                break;
            }
            left -= chunk.len() as u64;
        }
    }
    let finished = OutgoingBody::finish(body, None);
    response.subscribe().block();
    let response = response.get().ok_or("no response")?.map_err(|()| "taken")?.map_err(name)?;
    finished.map_err(name)?;
    answer(response)
}

fn request(scheme: &str, authority: &str, path: &str) -> Result<OutgoingRequest, String> {
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).map_err(|()| "no such scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "no such authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "no such path")?;
    Ok(request)
}

fn sent(request: OutgoingRequest) -> Result<IncomingResponse, String> {
    let response = handle(request, None).map_err(name)?;
    response.subscribe().block();
    response.get().ok_or("no response")?.map_err(|()| "taken")?.map_err(name)
}

/// The status, and the body up to its first 100 bytes, or how long it is.
fn answer(response: IncomingResponse) -> Said {
    let status = response.status();
    let body: IncomingBody = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(read) => bytes.extend(read),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    let text = match bytes.len() {
        0..=100 => String::from_utf8_lossy(&bytes).into_owned(),
        length => format!("{length} bytes"),
    };
    Ok(format!("{status} {text}"))
}

fn name(error: ErrorCode) -> String {
    format!("{error:?}")
}
