//! The work: real Markdown, the READMEs of every crate that the project is built of; and a few jobs that go another way.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::sandhog::output;

/// One round of jobs, one of each README, as a file has them.
#[derive(Debug)]
pub(crate) struct Round {
    /// A line a job.
    pub lines: Vec<u8>,
    /// How many.
    pub jobs: u64,
}

/// What is expected of the jobs of one type that are sent through once.
#[derive(Debug)]
pub(crate) struct Odd {
    /// The type; none: bytes that are no job.
    pub job_type: Option<&'static str>,
    /// How many.
    pub jobs: u64,
    /// How often each asks for a retry.
    pub retries: u32,
    /// The kind of dead letter that each becomes; none: it completes.
    pub dead: Option<&'static str>,
}

/// The jobs that are sent through once.
pub(crate) const ODD: &[Odd] = &[
    Odd { job_type: Some("poll"), jobs: 3, retries: 2, dead: None },
    Odd { job_type: Some("trap"), jobs: 2, retries: 0, dead: Some("trap") },
    Odd { job_type: Some("spin"), jobs: 2, retries: 0, dead: Some("timeout") },
    Odd { job_type: Some("memory-hog"), jobs: 2, retries: 0, dead: Some("out-of-memory") },
    Odd { job_type: Some("greet"), jobs: 3, retries: 0, dead: None },
    Odd { job_type: None, jobs: 1, retries: 0, dead: Some("malformed") },
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    readme: Option<PathBuf>,
    source: Option<String>,
}

/// Finds the READMEs in cargo's registry folder, where they are since the build.
pub(crate) fn gather() -> Result<Round> {
    let mut round = Round { lines: Vec::new(), jobs: 0 };
    for package in packages()? {
        // Our own have no source.
        let (Some(_), Some(readme), Some(folder)) = (package.source, package.readme, package.manifest_path.parent())
        else {
            continue;
        };
        // A package may name a README that it does not have, or one that is no text.
        let Ok(markdown) = fs::read_to_string(folder.join(readme)) else { continue };
        let job = json!({
            "job_type": "render-markdown",
            "crate": format!("{} {}", package.name, package.version),
            "markdown": markdown,
        });
        writeln!(round.lines, "{job}")?;
        round.jobs += 1;
    }
    ensure!(round.jobs > 0, "there are no READMEs in cargo's registry folder");
    Ok(round)
}

/// Writes a file of `rounds` rounds.
pub(crate) fn write(file: &Path, round: &Round, rounds: u64) -> Result<()> {
    let context = || format!("cannot write `{}`", file.display());
    let mut out = BufWriter::new(File::create(file).with_context(context)?);
    for _ in 0..rounds {
        out.write_all(&round.lines).with_context(context)?;
    }
    out.flush().with_context(context)
}

/// Writes a file of the odd jobs.
pub(crate) fn write_odd(file: &Path) -> Result<()> {
    let mut text = String::new();
    for odd in ODD {
        for number in 1..=odd.jobs {
            match odd.job_type {
                Some("greet") => text.push_str(&json!({ "job_type": "greet", "name": number.to_string() }).to_string()),
                Some(job_type) => text.push_str(&json!({ "job_type": job_type }).to_string()),
                None => text.push_str("this line is not JSON"),
            }
            text.push('\n');
        }
    }
    fs::write(file, text).with_context(|| format!("cannot write `{}`", file.display()))
}

/// The packages that this machine builds. Without the filter cargo would fetch those of all other platforms.
fn packages() -> Result<Vec<Package>> {
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut version = cargo();
    version.arg("-vV");
    let said = String::from_utf8(output(version)?).context("`cargo -vV` is no text")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("`cargo -vV` names no host")?;
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--filter-platform", host]);
    let metadata: Metadata = serde_json::from_slice(&output(metadata)?).context("cannot read `cargo metadata`")?;
    Ok(metadata.packages)
}
