//! HTTP requests, to where the manifest grants them: `grants.http = ["https://api.example.com"]`.
//!
//! A call waits for the answer, and the time counts as the attempt's. Redirects are not followed. Limits on requests and bytes
//! are the runner's.
//!
//! ```
//! # use sandhog_guest::prelude::*;
//! use sandhog_guest::http::{self, Request, Response};
//!
//! fn handle(job: Job) -> Result<Outcome, Error> {
//!     let answer = Request::post("https://api.example.com/v1/mails").header("x-job", &job.id).body(job.body).send()?;
//!     match answer.status {
//!         200..300 => Ok(Outcome::done()),
//!         400..500 => Ok(Outcome::reject(format!("refused: {}", answer.text()))),
//!         status => bail!("the server says {status}"),
//!     }
//! }
//!
//! // Natively nothing is sent: a test says what is answered, and looks at what was asked.
//! http::answer_with(Response { status: 404, ..Response::default() });
//! assert_eq!(handle(Job::new("mail", "{}")).unwrap(), Outcome::reject("refused: "));
//! assert_eq!(http::take_recorded()[0].url(), "https://api.example.com/v1/mails");
//! ```

use crate::Error;

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, unreachable_pub, reason = "made by wit-bindgen: strings and lists cross the border as pointers")]
mod bindings;
#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
use self::guest::send;
#[cfg(not(target_arch = "wasm32"))]
use self::native::send;
#[cfg(not(target_arch = "wasm32"))]
pub use self::native::{answer_with, take_recorded};

/// A request that is not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request is sent by `send`"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a server answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The status: 200.
    pub status: u16,
    /// The headers, their names in small letters.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Gets a URL.
///
/// # Errors
///
/// As for [`Request::send`].
pub fn get(url: impl Into<String>) -> Result<Response, Error> {
    Request::new("GET", url).send()
}

// === impl Request ===

impl Request {
    /// A request of any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Request {
        Request { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Request {
        Request::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Request {
        Request::new("POST", url)
    }

    /// With a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// Sends it, and waits for the whole answer, whatever its status. Natively nothing is sent: see the module.
    ///
    /// # Errors
    ///
    /// The URL is none, the handler has no grant for it, the server cannot be reached or breaks off, or a limit is reached.
    pub fn send(self) -> Result<Response, Error> {
        let what = format!("{} {}", self.method, self.url);
        send(self).map_err(|reason| Error::msg(reason).context(format_args!("cannot send `{what}`")))
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Where it goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The headers, as pairs of a name and a value.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }
}

// === impl Response ===

impl Response {
    /// The first header of this name, in small letters, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The body as text; what is not UTF-8 becomes `�`.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// It is none, or not of this type.
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::from(error).context("cannot parse the answer"))
    }
}
