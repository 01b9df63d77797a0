//! A handler that misbehaves as its job type says: `trap`, `spin` (never returns) or `memory-hog`.
//!
//! Each costs nothing but its own job. The limits that it runs into stand in `hostile.toml`.

use std::hint::black_box;

use sandhog_guest::prelude::*;

fn handle(job: Job) -> Result<Outcome, Error> {
    match job.job_type.as_str() {
        "trap" => panic!("this job was asked to trap"),
        "spin" => loop {
            black_box(());
        },
        "memory-hog" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        other => Ok(Outcome::reject(format!("`{other}` is not hostile"))),
    }
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "asked to trap")]
    fn trap_panics() {
        handle(Job::new("trap", "{}")).unwrap();
    }

    #[test]
    fn other_types_are_rejected() {
        assert_eq!(handle(Job::new("kind", "{}")).unwrap(), Outcome::reject("`kind` is not hostile"));
    }
}
