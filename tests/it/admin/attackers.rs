//! Who means no good: pages in a user's browser, clients that guess and inject, and what jobs and guests say.

use serde_json::{Value, json};

use super::{ask, obeying};
use crate::eventually;
use crate::support::{Answer, Api, TestRunner};

const TOKEN: &str = "a-token-that-nobody-guesses";

/// What a page must not make of an answer.
fn assert_hardened(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{answer:?}");
    assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("frame-ancestors 'none'")));
    assert_eq!(answer.header("access-control-allow-origin"), None, "{answer:?}");
}

#[test]
fn name_that_leads_to_this_machine_is_not_ours() {
    let (_runner, api) = obeying();
    for host in ["evil.example", "evil.example:7676", "localhost.evil.example", "127.0.0.1.evil.example"] {
        for path in ["/v1/jobs", "/v1/stats", "/v1/events", "/", "/metrics"] {
            let answer = api.send("GET", path, &[("host", host)], "");
            assert_eq!((answer.status, answer.code()), (403, "host-refused".to_owned()), "{host} {path}");
            assert_hardened(&answer);
        }
    }
    assert_eq!(api.send("GET", "/v1/jobs", &[("host", &api.address.to_string())], "").status, 200);
}

#[test]
fn page_of_another_site_enqueues_nothing_and_reads_nothing() {
    let (runner, api) = obeying();
    let json = ("content-type", "application/json");
    for headers in [
        &[json, ("origin", "https://evil.example")][..],
        &[json, ("origin", "null")],
        &[json, ("origin", "http://localhost:8080")],
        &[json, ("sec-fetch-site", "cross-site")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[],
    ] {
        let answer = api.send("POST", "/v1/jobs", headers, &ask("complete"));
        assert!([403, 415].contains(&answer.status), "{headers:?}: {answer:?}");
        assert_hardened(&answer);
    }
    let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert_hardened(&api.send("OPTIONS", "/v1/jobs", &preflight, ""));
    assert_eq!(runner.jobs(&[]).len(), 0);
    let own = format!("http://{}", api.address);
    let headers = [json, ("host", &own[7..]), ("origin", &own), ("sec-fetch-site", "same-origin")];
    assert_eq!(api.send("POST", "/v1/jobs", &headers, &ask("complete")).status, 201);
}

#[test]
fn without_the_token_nothing_is_told_and_with_it_everything() {
    let mut runner = TestRunner::new();
    let mut command = runner.command();
    command.env("SANDHOG_ADMIN__TOKEN", TOKEN).env("SANDHOG_ADMIN__LISTEN", "0.0.0.0:0");
    let shell = std::mem::replace(&mut command, runner.command());
    runner.spawn_as(shell, &[]);
    let mut api = Api::of(&runner);
    api.address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    eventually!(api.get("/readyz").status == 200);
    for guess in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a-token-that-nobody-guesse",
        "Bearer a-token-that-nobody-guesses2",
        "Basic YTpi",
    ] {
        let answer = api.send("GET", "/v1/stats", &[("authorization", guess)], "");
        assert_eq!(answer.status, 401, "{guess}");
        assert!(answer.header("www-authenticate").is_some_and(|asked| asked.starts_with("Bearer")));
        assert!(!answer.text().contains(TOKEN));
    }
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(api.send("GET", "/v1/stats", &[("authorization", &bearer), ("host", "any.name")], "").status, 200);
    assert_eq!(runner.log().iter().filter(|line| line.to_string().contains(TOKEN)).count(), 0);
    let shown = runner.command().env("SANDHOG_ADMIN__TOKEN", TOKEN).args(["config"]).output().unwrap();
    assert!(shown.status.success() && !String::from_utf8_lossy(&shown.stdout).contains(TOKEN), "{shown:?}");
}

#[test]
fn path_leads_to_no_file() {
    let (_runner, api) = obeying();
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/app.js/../../sandhog.db",
        "//etc/passwd",
        "/.%00./etc/passwd",
        "/v1/../sandhog.db",
        "/v1/handlers/..%2f..%2fx/pause",
    ] {
        let (method, path) = if path.ends_with("/pause") { ("POST", path) } else { ("GET", path) };
        let answer = api.send(method, path, &[], "");
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert!(!answer.text().contains("root:"), "{path}");
    }
}

#[test]
fn what_jobs_and_guests_say_is_data_and_nothing_else() {
    let evil = "<script>alert(1)</script>\u{202e}' or 1=1 --";
    let runner = TestRunner::new().handler("others", "obedient").manifest("others", "job_types = ['*']").start();
    let api = Api::of(&runner);
    let body = json!({"job_type": evil, "do": format!("result \"{}\"", "</script><img src=x onerror=alert(1)>")});
    let id = api.enqueue(&body.to_string());
    let answer = api.get(&format!("/v1/jobs/{id}?body=true"));
    assert_hardened(&answer);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["job_type"], evil);
    // An id of a header's end, and names that are no names.
    for name in ["a%0d%0aset-cookie:%20x=1", "%1b%5b31m", "%ff"] {
        let answer = api.get(&format!("/v1/jobs/{name}"));
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert!(answer.header("set-cookie").is_none() && !answer.body.contains(&0x1b), "{answer:?}");
    }
    let with_escape = json!({"job_type": "a\u{1b}[31m"}).to_string();
    assert_eq!(api.post("/v1/jobs", &with_escape).code(), "job-refused");
    // On a terminal nothing of it is an order.
    let listed = runner.stdout(&["jobs", "list"]);
    assert!(!listed.contains(&0x1b) && !String::from_utf8_lossy(&listed).contains('\u{202e}'));
    let logged: Vec<Value> = runner.log();
    assert!(logged.iter().all(|line| !line.to_string().contains("onerror")), "no body is logged");
}

#[test]
fn no_parameter_reaches_the_database_as_anything_but_a_value() {
    let (runner, api) = obeying();
    let id = api.enqueue(&ask("reject"));
    api.ended(&id);
    let evil = "x%27%20or%20%271%27%3D%271%27%3B%20drop%20table%20job%3B%20--";
    for path in [
        format!("/v1/jobs?type={evil}"),
        format!("/v1/jobs?kind={evil}"),
        format!("/v1/jobs?since={evil}"),
        format!("/v1/jobs?cursor={evil}"),
        format!("/v1/jobs?limit={evil}"),
        format!("/v1/jobs?state={evil}"),
        format!("/v1/jobs?order={evil}"),
        format!("/v1/jobs/{evil}"),
        format!("/v1/jobs/{evil}/wait?timeout=0"),
        format!("/v1/dead?type={evil}"),
        format!("/v1/dead/{evil}"),
        format!("/v1/events?kind={evil}"),
        format!("/v1/jobs?cursor={}", "9".repeat(2_000)),
        format!("/v1/jobs?cursor={}", "%00".repeat(50)),
        "/v1/jobs?limit=4294967296".to_owned(),
        "/v1/jobs?limit=-1".to_owned(),
        "/v1/jobs?state=dead&state=ready".to_owned(),
    ] {
        let answer = api.get(&path);
        let found = if answer.status == 200 { answer.json()["jobs"].as_array().map_or(0, Vec::len) } else { 0 };
        assert!(answer.status < 500 && found == 0, "{path}: {answer:?}");
    }
    let evil = "x' or '1'='1'; drop table job; --";
    for body in [json!({"type": evil}), json!({"ids": [evil]})] {
        assert_eq!(api.post("/v1/dead/delete", &body.to_string()).json()["count"], 0);
    }
    assert!(api.post("/v1/dead/delete", &json!({"kind": evil}).to_string()).status < 500);
    assert_eq!(runner.dead().len(), 1);
}
