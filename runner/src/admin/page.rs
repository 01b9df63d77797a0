//! The web page: files that are compiled in.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Runner;
use super::error::ApiError;
use crate::generation::hex;

/// What the page may do in a browser: nothing but what comes from here, and no script or style that stands in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Debug)]
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File {
            name: $name,
            content_type: $content_type,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/page/", $name)),
        }
    };
}

/// The first is the page itself.
const FILES: [File; 16] = [
    file!("index.html", "text/html; charset=utf-8"),
    file!("app.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("api.js", "text/javascript; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("chart.js", "text/javascript; charset=utf-8"),
    file!("dead.js", "text/javascript; charset=utf-8"),
    file!("dialog.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("format.js", "text/javascript; charset=utf-8"),
    file!("handlers.js", "text/javascript; charset=utf-8"),
    file!("job.js", "text/javascript; charset=utf-8"),
    file!("jobs.js", "text/javascript; charset=utf-8"),
    file!("overview.js", "text/javascript; charset=utf-8"),
    file!("parts.js", "text/javascript; charset=utf-8"),
    file!("undo.js", "text/javascript; charset=utf-8"),
];

/// What tells two versions of the page apart: one for all files, which belong together.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = FILES.iter().fold(Sha256::new(), |digest, file| digest.chain_update(file.text));
    let tag = format!("\"{}\"", hex(&digest.finalize()[..8]));
    HeaderValue::from_str(&tag).expect("it is hexadecimal digits")
});

/// The routes of the page.
pub(super) fn routes() -> Router<Arc<Runner>> {
    Router::new().route("/", get(async |headers: HeaderMap| answer(&FILES[0], &headers))).route(
        "/page/{name}",
        get(async |Path(name): Path<String>, headers: HeaderMap| {
            match FILES[1..].iter().find(|file| file.name == name) {
                Some(file) => answer(file, &headers),
                None => ApiError::new(StatusCode::NOT_FOUND, "no-such-route", "there is nothing at this path")
                    .into_response(),
            }
        }),
    )
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.content_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        // It is asked for each time, so that a new version is never mixed with an old one.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, TAG.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&*TAG) {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, file.text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_files_of_the_page_are_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let found = std::fs::read_dir(folder).expect("it is compiled in from there");
        let found: BTreeSet<_> =
            found.map(|entry| entry.expect("it is there").file_name().into_string().expect("we named it")).collect();
        assert_eq!(FILES.iter().map(|file| file.name.to_owned()).collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn nothing_in_the_page_makes_markup_of_text() {
        let markup =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"];
        for file in FILES.iter().filter(|file| file.name.ends_with(".js")) {
            assert!(!markup.iter().any(|word| file.text.contains(word)), "{} makes markup", file.name);
        }
        let page = FILES[0].text;
        assert!(!page.contains("style=") && !page.contains(" on") && page.matches("<script").count() == 1, "{page}");
    }
}
