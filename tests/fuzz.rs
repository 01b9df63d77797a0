//! Byte fuzzing: a property is tried on a corpus, and then on what is nearly the same.
//!
//! `tests/README.md` says how to let it run for longer, and what to do with what it finds.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bolero::generator::bolero_generator::driver::{Options, Rng};
use bolero::{Driver, ValueGenerator};
use rand_xoshiro::Xoroshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// How many inputs a target is tried with, the same each time, where nobody asks for more.
const INPUTS: u64 = 2_000;

/// Asks for other inputs at each run, for so many milliseconds. It is bolero's own.
const TIME_MS: &str = "BOLERO_RANDOM_TEST_TIME_MS";

/// At most so many changes to a seed.
const CHANGES_MAX: u8 = 6;

/// Bytes and texts that parsers trip over.
const TOKENS: [&[u8]; 32] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80",
    b"\x7f",
    b"\n",
    b"\r\n",
    b"\"",
    b"'",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"{",
    b"}",
    b"[",
    b"[[[[[[[[",
    b"]",
    b",",
    b":",
    b"=",
    b".",
    b"-",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"18446744073709551615",
    b"null",
    b"${",
    b"#",
    "\u{202e}".as_bytes(),
];

/// Bytes to try, written for people.
struct Input(Vec<u8>);

/// Makes bytes that are nearly one of the seeds.
struct Nearly {
    seeds: Vec<Vec<u8>>,
}

/// Tries `property`, which panics where it does not hold: on the corpus in `tests/__fuzz__/TARGET/`, on `seeds`, and then on
/// what is nearly one of them: on the same inputs each time, so that a run says something about a change, or, where the
/// environment asks for it, on others for as long as it says. What it does not hold for is kept as `crashes/found`, which
/// belongs to the corpus from then on.
pub(crate) fn fuzz(target: &str, mut seeds: Vec<Vec<u8>>, property: impl Fn(&[u8])) {
    // What a property leaves behind where it does not hold is not looked at any more.
    let property = AssertUnwindSafe(property);
    let holds = |bytes: &[u8]| held(target, bytes, &*property);
    // With no iterations and no end: each file once.
    bolero::check!(name = target).with_iterations(0).with_test_time(Duration::MAX).for_each(holds);
    for seed in &seeds {
        holds(seed);
    }
    seeds.extend(corpus(target));
    assert!(!seeds.is_empty(), "there is nothing to begin with: `{}` has no corpus", folder(target).display());
    let nearly = Nearly { seeds };
    if std::env::var_os(TIME_MS).is_none() {
        for seed in 0..INPUTS {
            let mut driver = Rng::new(Xoroshiro128PlusPlus::seed_from_u64(seed), &Options::default());
            let input = nearly.generate(&mut driver).expect("there is a seed to begin with");
            held(target, &input.0, &*property);
        }
        return;
    }
    bolero::check!(name = format!("nearly {target}"))
        .with_generator(nearly)
        .for_each(|input: &Input| held(target, &input.0, &*property));
}

fn held(target: &str, bytes: &[u8], property: &dyn Fn(&[u8])) {
    // What ends the whole process can only be kept before it is tried.
    if let Some(path) = std::env::var_os("SANDHOG_TEST_FUZZ_KEEP") {
        fs::write(path, bytes).expect("it can be written");
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(bytes))) {
        let crashes = folder(target).join("crashes");
        fs::create_dir_all(&crashes).expect("the tests' folder is ours");
        fs::write(crashes.join("found"), bytes).expect("the tests' folder is ours");
        resume_unwind(panic);
    }
}

/// The files that bolero replays, as seeds.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folders = ["corpus", "crashes"].map(|name| fs::read_dir(folder(target).join(name)));
    let files = folders.into_iter().flatten().flatten();
    files.map(|file| fs::read(file.expect("it can be read").path()).expect("it can be read")).collect()
}

fn folder(target: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/__fuzz__")).join(target)
}

// === impl Input ===

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(2_000)];
        write!(f, "{} bytes: {}", self.0.len(), shown.escape_ascii())
    }
}

// === impl Nearly ===

impl ValueGenerator for Nearly {
    type Output = Input;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Input> {
        let mut bytes = self.seed(driver)?.clone();
        for _ in 0..(0..=CHANGES_MAX).generate(driver)? {
            self.change(&mut bytes, driver)?;
        }
        Some(Input(bytes))
    }
}

impl Nearly {
    fn seed<D: Driver>(&self, driver: &mut D) -> Option<&Vec<u8>> {
        self.seeds.get((0..self.seeds.len()).generate(driver)?)
    }

    fn change<D: Driver>(&self, bytes: &mut Vec<u8>, driver: &mut D) -> Option<()> {
        let (start, end) = range(bytes, driver)?;
        match (0..8_u8).generate(driver)? {
            // A bit.
            0 | 1 => {
                let bit = (0..8_u8).generate(driver)?;
                if let Some(byte) = bytes.get_mut(start) {
                    *byte ^= 1 << bit;
                }
            }
            2 => drop(bytes.drain(start..end)),
            3 => bytes.truncate(start),
            // A part twice.
            4 => drop(bytes.splice(start..start, bytes[start..end].to_vec())),
            5 => {
                let token = TOKENS[(0..TOKENS.len()).generate(driver)?];
                // Over what stands there, or between.
                let until = if driver.produce::<bool>()? { (start + token.len()).min(bytes.len()) } else { start };
                bytes.splice(start..until, token.iter().copied());
            }
            6 => {
                let other = self.seed(driver)?;
                let (from, to) = range(other, driver)?;
                bytes.splice(start..end, other[from..to].iter().copied());
            }
            _ => drop(bytes.splice(start..start, [driver.produce::<u8>()?])),
        }
        Some(())
    }
}

/// A part of `bytes`, short more often than long.
fn range<D: Driver>(bytes: &[u8], driver: &mut D) -> Option<(usize, usize)> {
    let start = (0..=bytes.len()).generate(driver)?;
    let most = [4, 16, 64, usize::MAX][(0..4_usize).generate(driver)?];
    let length = (0..=most.min(bytes.len() - start)).generate(driver)?;
    Some((start, start + length))
}
