//! A handler that sends one HTTP request and reads the answer, by the raw WASI interface: what a call costs.

use sandhog_guest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fetch {
    /// `HOST:PORT`
    from: String,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let fetch: Fetch = job.parse()?;
    match get(&fetch.from) {
        Ok(0) => bail!("the answer is empty"),
        Ok(_) => Ok(Outcome::done()),
        Err(error) => bail!("{error}"),
    }
}

/// Answers how long the answer is.
#[cfg(target_arch = "wasm32")]
fn get(authority: &str) -> Result<usize, String> {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{Fields, OutgoingRequest, Scheme};
    use wasip2::io::streams::StreamError;

    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).map_err(|()| "no such scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "no such authority")?;
    request.set_path_with_query(Some("/")).map_err(|()| "no such path")?;
    let answer = handle(request, None).map_err(|error| format!("{error:?}"))?;
    answer.subscribe().block();
    let answer = answer.get().ok_or("no answer")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let body = answer.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut length = 0;
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(bytes) => length += bytes.len(),
            Err(StreamError::Closed) => return Ok(length),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn get(_: &str) -> Result<usize, String> {
    Err("it runs in the sandbox alone".to_owned())
}

sandhog_guest::handler!(handle);
