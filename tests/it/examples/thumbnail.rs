//! `examples/thumbnail`: a picture in, several sizes out, through folders that are granted.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::languages::sandhog;
use crate::support::project;

#[test]
fn thumbnail_makes_the_widths_it_is_asked_for_of_png_and_jpeg_and_rejects_what_is_no_picture() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["photos", "thumbs"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    let here = root.path().display();
    let allow = format!("handlers.allow = ['thumbnail: read {here}/photos', 'thumbnail: write {here}/thumbs']");
    fs::write(root.path().join("sandhog.toml"), allow).unwrap();
    fs::copy(project("examples/thumbnail/photos/lake.png"), root.path().join("photos/lake.png")).unwrap();
    fs::write(root.path().join("photos/text.png"), "text").unwrap();

    let said = |command: &mut Command| -> Value {
        let output = command.arg("--json").output().unwrap();
        let said = serde_json::from_slice(&output.stdout);
        said.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let mut build = sandhog(root.path());
    build.arg("build").arg(project("examples/thumbnail")).arg("--into").arg(root.path());
    let built = said(build.env("CARGO_TARGET_DIR", project("target/conformance/thumbnail")));
    assert_eq!(built["loads"], json!(true), "{built}");
    let invoke = |photo: &str, widths: &[u32]| {
        let body = json!({ "photo": photo, "widths": widths });
        said(sandhog(root.path()).args(["invoke", "thumbnail.wasm", &body.to_string()]))
    };

    let of_png = invoke("lake.png", &[64, 256]);
    let thumbnails = json!([
        { "file": "lake-64.jpg", "width": 64, "height": 43 },
        { "file": "lake-256.jpg", "width": 256, "height": 171 },
    ]);
    assert_eq!(of_png["result"], thumbnails, "{of_png}");
    let made = |name: &str| fs::read(root.path().join("thumbs").join(name)).unwrap();
    assert!(made("lake-64.jpg").len() < made("lake-256.jpg").len());

    fs::copy(root.path().join("thumbs/lake-256.jpg"), root.path().join("photos/small.jpg")).unwrap();
    let of_jpeg = invoke("small.jpg", &[32]);
    assert_eq!(of_jpeg["result"], json!([{ "file": "small-32.jpg", "width": 32, "height": 22 }]), "{of_jpeg}");
    assert!(made("small-32.jpg").starts_with(&[0xff, 0xd8, 0xff]));

    assert_eq!(invoke("text.png", &[64])["outcome"], json!("reject"));
    assert_eq!(invoke("not-there.png", &[64])["outcome"], json!("retry"));
    let outside = invoke("../sandhog.toml", &[64]);
    assert!(outside["kind"] == "error" && !outside.to_string().contains("allow"), "{outside}");
}
