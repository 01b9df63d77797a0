//! Who may ask: the token, and that no web page of somebody else's asks through the user's browser. Pure.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::config::Token;

/// Who may ask what.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// What must be shown; none: nothing.
    pub(super) token: Option<Token>,
    /// Names of this runner, beside those of the machine itself.
    pub(super) hosts: Vec<String>,
}

/// What everybody may ask for who reaches the runner: it tells nothing of the jobs, and those who ask (an orchestrator)
/// have neither a token nor a name.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

const FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

// === impl Guard ===

impl Guard {
    /// Whether a request goes through. `trusted` is one that the file system let in already.
    pub(super) fn check(&self, request: &Parts, trusted: bool) -> Result<(), ApiError> {
        let Parts { method, uri, headers, .. } = request;
        if HEALTH.contains(&uri.path()) {
            return Ok(());
        }
        refuse_forms(method, headers)?;
        if trusted {
            // No browser speaks to a socket's file.
            return Ok(());
        }
        let shown = self.token.as_ref().map(|token| shows(headers, token));
        // A page that is found at a name of somebody else's has no token: with one the name says nothing.
        if shown != Some(true) {
            self.check_host(uri.authority(), headers)?;
        }
        check_origin(method, uri.path(), headers)?;
        match shown {
            // The page itself tells nothing, and asks its reader for the token.
            Some(false) if !is_of_page(method, uri.path()) => Err(refused(headers)),
            _ => Ok(()),
        }
    }

    /// The name that the request is addressed to must be one of this runner, or a number: whoever makes a name of his own
    /// lead to 127.0.0.1 has his pages send that name.
    fn check_host(&self, authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (authority, hosts.next(), hosts.next()) {
            (None, Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
            (Some(authority), None | Some(_), None) => Some(authority.clone()),
            _ => None,
        };
        let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
            return Err(ApiError::bad("host-missing", "the request does not say, or not once, which `Host` it is for"));
        };
        let name = host.host().trim_end_matches('.').to_ascii_lowercase();
        let is_number = name.parse::<std::net::Ipv4Addr>().is_ok() || name.starts_with('[');
        let is_ours = name == "localhost" || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(&name));
        if is_number || is_ours {
            return Ok(());
        }
        let message = "the request is addressed to a name that is none of this runner's";
        Err(ApiError::new(StatusCode::FORBIDDEN, "host-refused", message)
            .with_hint("names of its own, besides `localhost`, it has by `admin.hosts`"))
    }
}

/// A browser says whose page asks. Only the runner's own page may, and only a person may follow a link to it.
fn check_origin(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let is_own = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some() && authority == value("host")
    };
    let followed_a_link = is_of_page(method, path)
        && value("sec-fetch-mode") == Some(b"navigate")
        && value("sec-fetch-dest") == Some(b"document");
    let site_is_other = value("sec-fetch-site").is_some_and(|site| site != b"same-origin" && site != b"none");
    if value("origin").is_some_and(|origin| !is_own(origin)) || (site_is_other && !followed_a_link) {
        let message = "the request comes from a page that is not the runner's own";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "origin-refused", message));
    }
    Ok(())
}

/// What a form of any page can send is never taken, whatever else the browser says.
fn refuse_forms(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    let Some(media) = media(headers) else { return Ok(()) };
    if media.is_empty() || FORMS.contains(&media.as_str()) {
        let message = "the `Content-Type` is one of a web form";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type-refused", message).with_hint(
            "send `Content-Type: application/json` (`curl --json`), or `application/x-ndjson` for a stream",
        ));
    }
    Ok(())
}

/// What the body of a request is, by its `Content-Type`, without parameters and in lower case; nothing readable is empty, and
/// none at all is none.
pub(super) fn media(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether it is a file of the page.
fn is_of_page(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && !path.starts_with("/v1/") && path != "/metrics"
}

fn shows(headers: &HeaderMap, token: &Token) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, shown)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(shown.trim_ascii().ct_eq(token.as_bytes()))
}

fn refused(headers: &HeaderMap) -> ApiError {
    let (code, message) = match headers.contains_key(header::AUTHORIZATION) {
        true => ("token-refused", "the token is not the one that this runner was given"),
        false => ("token-missing", "this runner asks for a token"),
    };
    ApiError::new(StatusCode::UNAUTHORIZED, code, message)
        .with_hint("send `Authorization: Bearer TOKEN`, with the token of `admin.token_file` or `admin.token`")
}

/// What every answer tells a browser: to guess nothing, to show it in no frame, to keep nothing.
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The page has a policy of its own, and may be kept.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// The code that a request is refused with, if it is.
    fn check(guard: &Guard, line: &str, headers: &[(&str, &str)]) -> Option<String> {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("it is a request").into_parts();
        guard.check(&parts, false).err().map(|error| {
            let json = serde_json::to_value(error.into_body()).expect("it is strings");
            json["code"].as_str().unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn page_of_somebody_else_reaches_nothing() {
        let guard = Guard { token: None, hosts: vec!["jobs.example".to_owned()] };
        let local = ("host", "127.0.0.1:7676");
        for (line, headers, expected) in [
            ("GET /v1/jobs", &[local][..], None),
            ("GET /v1/jobs", &[("host", "localhost:7676")], None),
            ("GET /v1/jobs", &[("host", "LOCALHOST.")], None),
            ("GET /v1/jobs", &[("host", "[::1]:7676")], None),
            ("GET /v1/jobs", &[("host", "jobs.EXAMPLE")], None),
            // A name of the attacker's that leads here.
            ("GET /v1/jobs", &[("host", "evil.example:7676")], Some("host-refused")),
            ("GET /", &[("host", "evil.example:7676")], Some("host-refused")),
            ("GET /v1/jobs", &[("host", "127.0.0.1.evil.example")], Some("host-refused")),
            ("GET /v1/jobs", &[("host", "localhost@evil.example")], Some("host-missing")),
            ("GET /v1/jobs", &[local, ("host", "evil.example")], Some("host-missing")),
            ("GET /v1/jobs", &[], Some("host-missing")),
            ("GET /healthz", &[("host", "evil.example")], None),
            // His page, or one on another port of this machine, that asks the right address.
            ("POST /v1/jobs", &[local, ("origin", "http://127.0.0.1:7676")], None),
            ("POST /v1/jobs", &[local, ("origin", "http://evil.example")], Some("origin-refused")),
            ("POST /v1/jobs", &[local, ("origin", "http://127.0.0.1:8080")], Some("origin-refused")),
            ("POST /v1/jobs", &[local, ("origin", "null")], Some("origin-refused")),
            ("GET /v1/jobs", &[local, ("sec-fetch-site", "cross-site")], Some("origin-refused")),
            ("GET /v1/jobs", &[local, ("sec-fetch-site", "same-site")], Some("origin-refused")),
            ("GET /v1/jobs", &[local, ("sec-fetch-site", "same-origin")], None),
            ("GET /", &[local, ("sec-fetch-site", "none")], None),
            // A link to the page may be followed; what it shows is not there for a link.
            (
                "GET /",
                &[
                    local,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                None,
            ),
            (
                "GET /",
                &[
                    local,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                Some("origin-refused"),
            ),
            (
                "GET /v1/jobs",
                &[
                    local,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                Some("origin-refused"),
            ),
            // An old browser that says nothing of all that sends what a form can.
            ("POST /v1/jobs", &[local, ("content-type", "text/plain")], Some("content-type-refused")),
            (
                "POST /v1/jobs",
                &[local, ("content-type", "Multipart/Form-Data; boundary=x")],
                Some("content-type-refused"),
            ),
            (
                "DELETE /v1/jobs/a",
                &[local, ("content-type", "application/x-www-form-urlencoded")],
                Some("content-type-refused"),
            ),
            ("POST /v1/jobs", &[local, ("content-type", "application/json")], None),
        ] {
            assert_eq!(check(&guard, line, headers).as_deref(), expected, "{line} {headers:?}");
        }
    }

    #[test]
    fn token_is_asked_for_but_for_health_and_the_page_itself() {
        let guard = Guard { token: Some(Token::new(TOKEN.to_owned()).expect("it is one")), hosts: Vec::new() };
        let host = ("host", "10.0.0.7:7676");
        let bearer = format!("Bearer {TOKEN}");
        let longer = format!("{bearer}0");
        for (line, headers, expected) in [
            ("GET /v1/jobs", &[host][..], Some("token-missing")),
            ("GET /metrics", &[host], Some("token-missing")),
            ("GET /healthz", &[host], None),
            ("GET /", &[host], None),
            ("POST /", &[host], Some("token-missing")),
            ("GET /v1/jobs", &[host, ("authorization", &bearer)], None),
            ("GET /v1/jobs", &[("host", "any.name"), ("authorization", &bearer)], None),
            ("GET /v1/jobs", &[host, ("authorization", "bearer 0123456789abcdef")], None),
            ("GET /v1/jobs", &[host, ("authorization", &longer)], Some("token-refused")),
            ("GET /v1/jobs", &[host, ("authorization", "Bearer ")], Some("token-refused")),
            ("GET /v1/jobs", &[host, ("authorization", "Bearer 0123456789abcde")], Some("token-refused")),
            ("GET /v1/jobs", &[host, ("authorization", "Basic 0123456789abcdef")], Some("token-refused")),
            ("GET /v1/jobs", &[host, ("authorization", &bearer), ("authorization", &bearer)], Some("token-refused")),
            (
                "POST /v1/jobs",
                &[host, ("authorization", &bearer), ("origin", "http://evil.example")],
                Some("origin-refused"),
            ),
        ] {
            assert_eq!(check(&guard, line, headers).as_deref(), expected, "{line} {headers:?}");
        }
    }
}
