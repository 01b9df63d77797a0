//! Handlers that were built a while ago, and are never built again: the contract's promise to whoever has such a file.

use serde_json::{Value, json};

use crate::support::{TestRunner, project};

const FOLDER: &str = "tests/fixtures/built-1.0.0";

/// What `sandhog invoke --json` says of a fixture and a body of any text.
fn invoke(runner: &TestRunner, file: &str, body: &str) -> Value {
    let file = project(FOLDER).join(file);
    let output = runner.sandhog(&["invoke", file.to_str().unwrap(), body, "--type", "built", "--json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn log(said: &Value) -> Vec<&str> {
    said["log"].as_array().unwrap().iter().filter_map(|line| line["line"].as_str()).collect()
}

#[test]
fn handler_that_was_built_against_1_0_0_loads_and_does_what_it_did() {
    let runner = TestRunner::new();
    for file in ["rust.wasm", "text.wasm", "module.wasm"] {
        let path = project(FOLDER).join(file);
        let checked = runner.sandhog(&["check", path.to_str().unwrap()]);
        assert!(checked.status.success(), "{file}: {}", String::from_utf8_lossy(&checked.stdout));
    }

    let said = invoke(&runner, "rust.wasm", "hello");
    assert_eq!((&said["result"], log(&said)), (&json!("hello"), vec!["set up", "torn down"]), "{said}");
    let said = invoke(&runner, "rust.wasm", "retry");
    assert_eq!((&said["outcome"], &said["after_ms"]), (&json!("retry"), &json!(1500)), "{said}");
    let said = invoke(&runner, "rust.wasm", "error");
    assert_eq!((&said["kind"], &said["message"]), (&json!("error"), &json!("boom")), "{said}");
    assert!(log(&said).contains(&"failed: boom"), "{said}");

    for file in ["text.wasm", "module.wasm"] {
        let said = invoke(&runner, file, "result {\"a\": 1}");
        assert_eq!(said["result"], json!({ "a": 1 }), "{file}: {said}");
        let said = invoke(&runner, file, "retry");
        assert_eq!((&said["after_ms"], &said["changed_body"]), (&json!(1500), &json!("again")), "{file}: {said}");
        let said = invoke(&runner, file, "reject");
        assert_eq!((&said["outcome"], &said["reason"]), (&json!("reject"), &json!("never")), "{file}: {said}");
        let said = invoke(&runner, file, "err");
        assert_eq!(said["message"], json!("boom"), "{file}: {said}");
    }
}
