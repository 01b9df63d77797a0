//! A handler that turns Markdown into HTML.
//!
//! `{"job_type": "render-markdown", "markdown": "# Hello"}` completes with `{"html": "<h1>Hello</h1>\n"}`. Built with the
//! feature `smart`, quotes and dashes come out typographic, and the result has `"smart": true`.

use std::borrow::Cow;

use pulldown_cmark::{Options, Parser, html};
use sandhog_guest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Render<'a> {
    /// Borrowed from the body where nothing in it is escaped.
    #[serde(borrow)]
    markdown: Cow<'a, str>,
}

#[derive(Serialize)]
struct Rendered {
    html: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    smart: bool,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let render: Render<'_> = job.parse()?;
    debug!("rendering {} bytes", render.markdown.len());
    let smart = cfg!(feature = "smart");
    let mut html = String::with_capacity(render.markdown.len() * 3 / 2);
    html::push_html(&mut html, Parser::new_ext(&render.markdown, options(smart)));
    Outcome::complete(&Rendered { html, smart })
}

sandhog_guest::handler!(handle);

fn options(smart: bool) -> Options {
    let mut options =
        Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    options.set(Options::ENABLE_SMART_PUNCTUATION, smart);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn html_of(markdown: &str) -> String {
        let outcome = handle(Job::new("render-markdown", json!({ "markdown": markdown }))).unwrap();
        let Outcome::Complete(Some(result)) = outcome else { panic!("{outcome:?}") };
        let result: Value = serde_json::from_str(&result).unwrap();
        result["html"].as_str().unwrap().to_owned()
    }

    #[test]
    fn heading_becomes_html() {
        assert_eq!(html_of("# Hello"), "<h1>Hello</h1>\n");
    }

    #[test]
    fn extensions_are_on() {
        let html = html_of("a~~b~~[^1]\n\n- [x] c\n\n| d |\n|---|\n| e |\n\n[^1]: f\n");
        for part in ["<del>b</del>", "footnote-reference", "checkbox", "<table>"] {
            assert!(html.contains(part), "no `{part}` in {html}");
        }
    }

    #[test]
    fn body_without_markdown_is_an_error() {
        let error = handle(Job::new("render-markdown", "{}")).unwrap_err();
        assert_eq!(error.message(), "cannot parse the body: missing field `markdown` at line 1 column 2");
    }
}
