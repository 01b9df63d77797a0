//! Gives the handler back the shadow stack that Rust has by default, 1 MiB, in place of this workspace's smaller one.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=1048576");
    }
}
