//! A handler's manifest: `resize.toml` beside `resize.wasm`. `docs/manifest.md` has every key.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use crate::config::settings::Settings;
use crate::config::{self, Config, Origin, quantity};
use crate::grants::Grants;
use crate::job;
use crate::limits::{Limits, Reuse};
use crate::retry::Policy;

pub use crate::config::settings::Faults as ManifestErrors;

/// What a manifest says, with the configuration's defaults where it says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the handler serves, in the manifest's order: at least one. `*` is every type that no other handler claims.
    pub job_types: Vec<String>,
    /// How many of its attempts run at one time. The runner's slots bound it further.
    pub concurrency: u32,
    /// How much of the slots' time is its own while others want some too, beside theirs. From 1.
    pub weight: u32,
    /// What an attempt may use.
    pub limits: Limits,
    /// How instances are used again; none: every attempt has an instance of its own.
    pub reuse: Option<Reuse>,
    /// What follows an attempt.
    pub retry: Policy,
    /// What the handler may do.
    pub grants: Grants,
}

/// A share that is larger than this is all there is.
const WEIGHT_MAX: u32 = 1_000;

/// How long an instance that is reused waits for its next job, if the manifest does not say.
const IDLE: Duration = Duration::from_secs(60);

/// Instances that end sooner would be looked for all the time.
const IDLE_MIN: Duration = Duration::from_millis(10);

// === impl Manifest ===

impl Manifest {
    /// Reads the manifest of the handler `stem` (`resize` for `resize.wasm`), which lies in `folder`. A handler without one has
    /// the empty text.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, at once.
    pub fn parse(text: &str, stem: &str, folder: &Path, config: &Config) -> Result<Manifest, ManifestErrors> {
        let mut settings = Settings::default();
        settings.add_file(&format!("{stem}.toml"), text);
        let manifest = Manifest::read(&mut settings, stem, folder, config);
        manifest.check(&mut settings, config);
        settings.finish()?;
        Ok(manifest)
    }

    fn read(settings: &mut Settings, stem: &str, folder: &Path, config: &Config) -> Manifest {
        let concurrency = settings.whole("concurrency", config.slots);
        let jobs = settings.whole("instances.reuse", 1);
        let idle = settings.duration("instances.idle", IDLE);
        Manifest {
            job_types: settings.texts("job_types", vec![stem.to_owned()]),
            concurrency,
            weight: settings.whole("weight", 1),
            limits: Limits {
                timeout: settings.duration("timeout", config.limits.timeout),
                memory_bytes: settings.size("memory", config.limits.memory_bytes),
                ..config.limits.clone()
            },
            reuse: (jobs != 1).then_some(Reuse { jobs, idle, instances: concurrency }),
            retry: config::read_retry(settings, config.retry.clone()),
            grants: Grants::read(settings, stem, folder, &config.handlers.allow),
        }
    }

    fn check(&self, settings: &mut Settings, config: &Config) {
        settings
            .require("job_types", !self.job_types.is_empty(), || "is empty: the handler would serve nothing".into());
        let mut seen = HashSet::new();
        let origin = settings.origin("job_types").cloned().unwrap_or(Origin::Default);
        for job_type in &self.job_types {
            let message = match job::name_fault(job_type) {
                Some(fault) => format!("{job_type:?} cannot be a job type: it {fault}"),
                None if !seen.insert(job_type) => format!("`{job_type}` stands there twice"),
                None => continue,
            };
            settings.fault(Some("job_types"), Some(origin.clone()), message, None);
        }
        let (concurrency, most) = (self.concurrency, config.ceilings.concurrency);
        settings.require("concurrency", concurrency >= 1, || "0 lets no job run: remove the component instead".into());
        // The default is the runner's slots, which are the operator's own word.
        settings.require("concurrency", concurrency <= most.max(config.slots), || {
            format!("{concurrency} is over the ceiling of {most} (`ceilings.concurrency`)")
        });
        settings.require("weight", (1..=WEIGHT_MAX).contains(&self.weight), || {
            format!("{} is not from 1 to {WEIGHT_MAX}", self.weight)
        });
        if let Some(reuse) = &self.reuse {
            check_reuse(settings, reuse, config);
        }
        config::check_limits(settings, ("timeout", "memory"), &self.limits, &config.ceilings);
        config::check_retry(settings, &self.retry, &config.ceilings);
    }
}

fn check_reuse(settings: &mut Settings, Reuse { jobs, idle, .. }: &Reuse, config: &Config) {
    let (most, longest) = (config.ceilings.reuse, config.ceilings.idle);
    settings.require("instances.reuse", *jobs >= 1, || "0 lets no job run: 1 is an instance for each attempt".into());
    settings.require("instances.reuse", *jobs <= most, || {
        format!("{jobs} is over the ceiling of {most} (`ceilings.reuse`)")
    });
    settings.require("instances.idle", *idle >= IDLE_MIN, || {
        format!("is less than {}", quantity::format_duration(IDLE_MIN))
    });
    settings.require("instances.idle", *idle <= longest, || {
        let (idle, longest) = (quantity::format_duration(*idle), quantity::format_duration(longest));
        format!("{idle} is over the ceiling of {longest} (`ceilings.idle`)")
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Environment, Flags};

    const DOCUMENT: &str = include_str!("../../docs/manifest.md");

    fn config() -> Config {
        let environment = Environment { variables: BTreeMap::new(), cores: 2 };
        Config::resolve(&Flags::default(), &environment, None).expect("defaults are sound")
    }

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(text, "resize", Path::new("/h"), &config()).unwrap_or_else(|faults| panic!("{text}: {faults}"))
    }

    fn check(text: &str, expected: &[&str]) {
        let faults = Manifest::parse(text, "resize", Path::new("/h"), &config()).expect_err(text);
        assert_eq!(faults.0.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn handler_without_a_manifest_serves_the_type_of_its_name_by_the_defaults() {
        let expected = Manifest {
            job_types: vec!["resize".into()],
            concurrency: 8,
            weight: 1,
            limits: Limits::default(),
            reuse: None,
            retry: Policy::default(),
            grants: Grants::default(),
        };
        assert_eq!(manifest(""), expected);
    }

    #[test]
    fn manifest_says_what_is_otherwise() {
        let sample = DOCUMENT.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample");
        let manifest = manifest(sample);
        assert_eq!(manifest.job_types, ["resize", "crop"]);
        assert_eq!((manifest.concurrency, manifest.weight), (4, 3));
        assert_eq!(manifest.limits.timeout, Duration::from_secs(10));
        assert_eq!(manifest.limits.memory_bytes, 256 << 20);
        assert_eq!(manifest.limits.handles, Limits::default().handles);
        let reuse = Reuse { jobs: 1_000, idle: Duration::from_secs(120), instances: 4 };
        assert_eq!(manifest.reuse, Some(reuse));
        assert_eq!((manifest.retry.max_failures, manifest.retry.max_attempts), (25, Some(100)));
        assert_eq!(manifest.retry.expire_after, Duration::from_secs(2 * 86_400));
        assert_eq!(manifest.retry.backoff.first, Duration::from_secs(2));
    }

    #[test]
    fn instances_are_reused_only_where_the_manifest_says_so() {
        assert_eq!(manifest("instances = { reuse = 1, idle = '5m' }").reuse, None);
        let reuse = Reuse { jobs: 2, idle: Duration::from_secs(60), instances: 8 };
        assert_eq!(manifest("instances.reuse = 2").reuse, Some(reuse));
    }

    #[test]
    fn one_type_needs_no_list_and_a_star_is_every_other() {
        assert_eq!(manifest("job_types = 'crop'").job_types, ["crop"]);
        assert_eq!(manifest("job_types = ['*', 'crop']").job_types, ["*", "crop"]);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        check(
            "job_types = ['a', 'a', '']\nconcurrency = 5000\ntimeout = '2h'\nmemory = '1GiB'\nretry.max_failures = 2000",
            &[
                "resize.toml:1: `job_types`: `a` stands there twice",
                r#"resize.toml:1: `job_types` "" cannot be a job type: it is empty"#,
                "resize.toml:2: `concurrency` 5000 is over the ceiling of 1024 (`ceilings.concurrency`)",
                "resize.toml:3: `timeout` 2h is over the ceiling of 1h (`ceilings.timeout`)",
                "resize.toml:4: `memory` 1GiB is over the ceiling of 512MiB (`ceilings.memory`)",
                "resize.toml:5: `retry.max_failures` 2000 is over the ceiling of 1000 (`ceilings.max_failures`)",
            ],
        );
        check("job_types = []", &["resize.toml:1: `job_types` is empty: the handler would serve nothing"]);
        check("job_types = [1]", &["resize.toml:1: `job_types`: `1` is no string: put it in quotes"]);
        check("concurrency = 0", &["resize.toml:1: `concurrency` 0 lets no job run: remove the component instead"]);
        check(
            "instances = { reuse = 2000000, idle = '2h' }",
            &[
                "resize.toml:1: `instances.reuse` 2000000 is over the ceiling of 1000000 (`ceilings.reuse`)",
                "resize.toml:1: `instances.idle` 2h is over the ceiling of 1h (`ceilings.idle`)",
            ],
        );
        check(
            "instances.reuse = 0",
            &["resize.toml:1: `instances.reuse` 0 lets no job run: 1 is an instance for each attempt"],
        );
        check("weight = 0", &["resize.toml:1: `weight` 0 is not from 1 to 1000"]);
        check("timeout = 5", &["resize.toml:1: `timeout`: `5` has no unit: write `5s` for seconds"]);
    }

    #[test]
    fn unknown_key_is_refused_with_the_nearest_name() {
        let faults =
            Manifest::parse("job_type = 'a'", "resize", Path::new("/h"), &config()).expect_err("there is no such key");
        assert_eq!(faults.to_string(), "resize.toml:1: `job_type` is unknown (did you mean `job_types`?)");
    }

    #[test]
    fn document_has_every_key() {
        let mut settings = Settings::default();
        Manifest::read(&mut settings, "resize", Path::new("/h"), &config());
        let effective = settings.finish().expect("nothing was set");
        let mut known: Vec<&str> = effective.iter().map(|effective| effective.key).collect();
        let mut documented: Vec<&str> =
            DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        known.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, known);
    }
}
