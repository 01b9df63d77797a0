//! What handlers may do by their manifests: inside a grant it works, a hair outside it is refused. The servers are real ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::guests;

pub(crate) mod https;
mod network;

/// A handler in a folder of its own, run by the real program without a queue.
struct Reach {
    folder: TempDir,
    name: &'static str,
    variables: Vec<(&'static str, String)>,
}

/// What one job came to.
struct Said {
    json: Value,
    stderr: String,
}

/// The guest that reaches for whatever it is told to.
pub(crate) fn reach() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let into = root.join("target/guests-of-tests");
        let mut build = Command::new(root.join("tools/build-guests"));
        // Variables that cargo sets for tests would be taken for the build's own.
        let built = build.env_remove("CARGO").arg("--into").arg(&into).arg("reach").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::read(into.join("reach.wasm")).unwrap()
    })
}

/// Where compiled code is kept between the jobs of these tests.
fn state() -> &'static TempDir {
    static STATE: OnceLock<TempDir> = OnceLock::new();
    STATE.get_or_init(|| TempDir::new().unwrap())
}

// === impl Reach ===

impl Reach {
    /// The guest with these grants. It imports `wasi:http`, and so has to be granted some of that.
    fn new(grants: &str) -> Reach {
        let grants = if grants.contains("http =") {
            grants.to_owned()
        } else {
            format!("http = ['http://0.0.0.0:1']\n{grants}")
        };
        Reach::of("reach", reach(), &grants)
    }

    /// A handler with these grants, all of which the operator allows.
    fn of(name: &'static str, component: &[u8], grants: &str) -> Reach {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(format!("{name}.wasm")), component).unwrap();
        let reach = Reach { folder, name, variables: Vec::new() };
        reach.manifest(&format!("[grants]\n{grants}")).allow("'*: http http://0.0.0.0:1'")
    }

    fn manifest(self, manifest: &str) -> Reach {
        fs::write(self.path(&format!("{}.toml", self.name)), manifest).unwrap();
        self
    }

    /// The lines of the operator.
    fn allow(self, lines: &str) -> Reach {
        let state = state().path().display();
        let config = format!("state_dir = '{state}'\n[handlers]\nallow = ['*: http http://0.0.0.0:1', {lines}]\n");
        fs::write(self.path("sandhog.toml"), config).unwrap();
        self
    }

    fn variable(mut self, name: &'static str, value: impl Into<String>) -> Reach {
        self.variables.push((name, value.into()));
        self
    }

    fn file(self, name: &str, text: &str) -> Reach {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sandhog(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandhog"));
        // Variables that are for the tests would be taken for the program's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SANDHOG_")) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().cloned()).current_dir(self.folder.path()).args(arguments).output().unwrap()
    }

    fn invoke(&self, job_type: &str, body: &Value) -> Said {
        let file = format!("{}.wasm", self.name);
        let output = self.sandhog(&["invoke", &file, &body.to_string(), "--type", job_type, "--json"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Said { json: serde_json::from_slice(&output.stdout).unwrap_or_default(), stderr }
    }

    /// What the guest says of each step.
    #[track_caller]
    fn steps(&self, steps: Value) -> Vec<String> {
        let said = self.invoke("reach", &json!({ "steps": steps }));
        let result = said.json["result"].as_array().unwrap_or_else(|| panic!("{} {}", said.json, said.stderr));
        result.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Why it would not load.
    fn refused(&self) -> String {
        let output = self.sandhog(&["check", &format!("{}.wasm", self.name), "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let reasons = said["reasons"].as_array().unwrap();
        reasons.iter().map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }
}

// Values.

#[test]
fn environment_is_what_is_granted_and_nothing_else() {
    let reach = Reach::new("env = { LANG = 'C.UTF-8', KEY = 'a-${SECRET}' }").allow("'reach: variable SECRET'");
    let reach = reach.variable("SECRET", "xyzzy").variable("OTHER", "plugh");
    assert_eq!(reach.steps(json!(["env"])), [r#"ok: [("KEY", "a-xyzzy"), ("LANG", "C.UTF-8")]"#]);
    for arguments in
        [&["check", "reach.wasm"][..], &["check", "reach.wasm", "--json"], &["config"], &["config", "--json"]]
    {
        let output = reach.sandhog(arguments);
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!shown.contains("xyzzy") && shown.len() > 100, "{arguments:?}: {shown}");
    }
    assert_eq!(Reach::new("").steps(json!(["env"])), ["ok: []"]);
}

#[test]
fn configuration_is_what_is_granted_and_nothing_else() {
    let wit = format!(
        "{}\nworld w {{ include job-handler; import wasi:config/store@0.2.0-rc.1; }}
        package wasi:config@0.2.0-rc.1 {{ interface store {{
            variant error {{ upstream(string), io(string) }}
            get: func(key: string) -> result<option<string>, error>;
        }} }}",
        guests::contract()
    );
    let component = guests::module(&guests::text("config"), &wit, "w");
    let handler = Reach::of("config", &component, "config = { bucket = 'thumbs', token = '${TOKEN}' }");
    let handler = handler.allow("'*: variable TOKEN'").variable("TOKEN", "xyzzy");
    assert_eq!(handler.invoke("bucket", &json!({})).json["result"], json!("thumbs"));
    assert_eq!(handler.invoke("token", &json!({})).json["result"], json!("xyzzy"));
    assert_eq!(handler.invoke("PATH", &json!({})).json["result"], Value::Null);
    let refused = Reach::of("config", &component, "env = { bucket = 'thumbs' }").refused();
    assert_eq!(
        refused,
        "imports `wasi:config/store@0.2.0-rc.1`, which its manifest does not grant; \
         write into `[grants]` of its manifest: config = { NAME = \"VALUE\" }"
    );
}

#[test]
fn variable_of_the_runner_needs_the_operators_line_which_the_refusal_prints() {
    let reach = Reach::new("env = { KEY = '${SECRET}' }").variable("SECRET", "xyzzy");
    let line = r#""reach: variable SECRET""#;
    let refused = reach.refused();
    assert!(refused.contains("`${SECRET}`: it is not allowed by the operator") && refused.contains(line), "{refused}");
    let reach = reach.allow(line);
    assert_eq!(reach.refused(), "");
    let unset = Reach { variables: Vec::new(), ..reach };
    let refused = unset.refused();
    assert!(refused.contains("the variable `SECRET`, which the runner's environment does not have"), "{refused}");
}

// Folders.

/// A guest that may read `/in` and write `/out`, with files in and beside both.
fn files() -> Reach {
    let reach = Reach::new("read = { '/in' = 'in' }\nwrite = { '/out' = './out' }");
    let reach = reach.file("in/a", "alpha").file("in/below/b", "beta").file("out/c", "gamma").file("secret", "xyzzy");
    let (read, write) = (reach.path("in"), reach.path("out"));
    reach.allow(&format!("'reach: read {}', 'reach: write {}'", read.display(), write.display()))
}

#[test]
fn folder_is_read_and_written_as_granted() {
    let reach = files();
    let said = reach.steps(json!([
        "folders",
        { "read": ["/in", "a"] },
        { "read": ["/in", "below/../below/b"] },
        { "read": ["/out", "c"] },
        { "write": ["/out", "new", "delta"] },
        { "rename": ["/out", "new", "/out", "newer"] },
        { "read": ["/out", "newer"] },
    ]));
    assert_eq!(said, ["ok: /in /out", "ok: alpha", "ok: beta", "ok: gamma", "ok: written", "ok: moved", "ok: delta"]);
    assert_eq!(fs::read_to_string(reach.path("out/newer")).unwrap(), "delta");
}

#[test]
fn nothing_leads_out_of_a_folder() {
    let reach = files();
    symlink(reach.path("secret"), reach.path("in/absolute")).unwrap();
    symlink("../secret", reach.path("in/relative")).unwrap();
    symlink("..", reach.path("out/up")).unwrap();
    let secret = reach.path("secret");
    let said = reach.steps(json!([
        { "read": ["/in", "../secret"] },
        { "read": ["/in", "below/../../secret"] },
        { "read": ["/in", secret] },
        { "read": ["/in", "absolute"] },
        { "read": ["/in", "relative"] },
        { "read": ["/out", "up/secret"] },
        { "write": ["/out", "../new", "x"] },
        { "write": ["/out", "up/new", "x"] },
        { "symlink": ["/out", secret, "link"] },
        { "link": ["/out", "../secret", "/out", "link"] },
        { "rename": ["/out", "c", "/out", "../c"] },
    ]));
    assert!(said.iter().all(|said| said == "err: not-permitted"), "{said:#?}");
    // A link that says where it leads can be made; it leads nowhere for the guest.
    let said = reach.steps(json!([{ "symlink": ["/out", "../secret", "link"] }, { "read": ["/out", "link"] }]));
    assert_eq!(said[1], "err: not-permitted", "{said:?}");
    assert_eq!(fs::read_to_string(reach.path("secret")).unwrap(), "xyzzy");
}

#[test]
fn what_may_be_read_may_not_be_written_by_any_detour() {
    let reach = files();
    let said = reach.steps(json!([
        { "write": ["/in", "a", "x"] },
        { "write": ["/in", "new", "x"] },
        { "truncate": ["/in", "a"] },
        { "link": ["/in", "a", "/out", "a"] },
        { "link": ["/out", "c", "/in", "c"] },
        { "rename": ["/in", "a", "/out", "a"] },
        { "rename": ["/out", "c", "/in", "c"] },
        { "symlink": ["/in", "a", "link"] },
    ]));
    assert!(said.iter().all(|said| said == "err: not-permitted" || said == "err: read-only"), "{said:#?}");
    assert_eq!(fs::read_to_string(reach.path("in/a")).unwrap(), "alpha");
    assert_eq!(fs::read_dir(reach.path("in")).unwrap().count(), 2);
}

#[test]
fn folder_that_is_not_allowed_or_not_there_is_refused_when_the_handler_loads() {
    let reach = files();
    let real = reach.path("in").canonicalize().unwrap();
    let bare = Reach::new("read = { '/in' = 'in' }").file("in/a", "alpha");
    let refused = bare.refused();
    let line = format!("\"reach: read {}\"", bare.path("in").canonicalize().unwrap().display());
    assert!(refused.contains("it is not allowed by the operator") && refused.contains(&line), "{refused}");
    let refused = Reach::new("read = { '/in' = 'gone' }").refused();
    assert!(refused.contains("cannot grant the folder") && refused.contains("No such file"), "{refused}");
    let refused = Reach::new("read = { '/in' = 'reach.wasm' }").refused();
    assert!(refused.contains("Not a directory"), "{refused}");
    // A line for a folder is none for what a link in it leads to.
    let elsewhere = TempDir::new().unwrap();
    fs::remove_dir_all(&real).unwrap();
    symlink(elsewhere.path(), &real).unwrap();
    let reach = reach.allow(&format!("'reach: write {}'", real.parent().unwrap().join("out").display()));
    let refused = reach.refused();
    let line = format!("\"reach: read {}\"", elsewhere.path().canonicalize().unwrap().display());
    assert!(refused.contains(&line), "{refused}");
}

#[test]
fn operators_line_for_writing_allows_reading_and_not_the_other_way_round() {
    let reach = Reach::new("write = { '/in' = 'in' }").file("in/a", "alpha");
    let folder = reach.path("in");
    let reach = reach.allow(&format!("'*: read {}'", folder.display()));
    assert!(reach.refused().contains("not allowed by the operator"));
    let reach = reach.allow(&format!("'*: write {}'", folder.display()));
    assert_eq!(reach.refused(), "");
    let reach = reach.manifest("[grants]\nhttp = ['http://0.0.0.0:1']\nread = { '/in' = 'in' }");
    assert_eq!(reach.steps(json!([{ "read": ["/in", "a"] }])), ["ok: alpha"]);
}
