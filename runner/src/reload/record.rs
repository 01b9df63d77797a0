//! What is kept of one handler: its generations, newest first, which one is served or pinned, and what is known of each.
//! Plain data, no I/O.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::generation::Generation;
use crate::trial::Standing;

/// How many generations are kept besides the newest. Each holds its component on the disk.
const PREVIOUS_MAX: usize = 5;

/// What is kept of one handler. Whoever changes it holds the history's lock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// Those that were served, the one that came into the folder last first.
    pub(crate) generations: Vec<Kept>,
    /// The one that was served last.
    pub(crate) serving: Option<Generation>,
    /// The one that is served whatever lies in the folder.
    pub(crate) pinned: Option<Generation>,
    /// What lay in the folder last and is no handler.
    pub(crate) refused: Option<Refused>,
    /// Whether a person paused it: no attempt starts, whichever generation is served.
    pub(crate) paused: bool,
    /// The generation whose instances cannot be set up now, and why.
    pub(crate) not_ready: Option<Refused>,
}

/// A generation that was served. Its pair is kept by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Kept {
    #[schema(value_type = String)]
    pub(crate) generation: Generation,
    pub(crate) first_served_at_ms: UnixMs,
    pub(crate) job_types: Vec<String>,
    /// Whether the one before it completed an attempt, as far as anybody knows.
    pub(crate) before: bool,
    pub(crate) standing: Standing,
}

/// A pair that does not load, or is not ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) generation: Generation,
    pub(crate) why: String,
}

/// Why a record cannot be changed as somebody asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no generation of it was served yet")]
    NeverServed,
    #[error("it has no generation before `{0}` that is kept and not braked")]
    NoneBefore(Generation),
    #[error("no generation of it begins with `{0}`")]
    Unknown(String),
    #[error("`{0}` begins the names of several of its generations")]
    Ambiguous(String),
    #[error("it is not pinned")]
    NotPinned,
    #[error("it is not paused, and its generation `{0}` is not braked")]
    NotPaused(Generation),
}

// === impl Record ===

impl Record {
    /// What is kept of a generation.
    pub(crate) fn kept(&self, generation: &Generation) -> Option<&Kept> {
        self.generations.iter().find(|kept| kept.generation == *generation)
    }

    /// The generation that is served, or will be.
    pub(crate) fn present(&self) -> Option<&Generation> {
        self.pinned.as_ref().or(self.serving.as_ref())
    }

    /// What is served, or will be, and what is known of it.
    fn present_kept(&self) -> Result<&Kept, Refusal> {
        self.present().and_then(|present| self.kept(present)).ok_or(Refusal::NeverServed)
    }

    /// Notes that a generation from the folder is served, which was new, or is there again.
    pub(crate) fn deployed(&mut self, generation: &Generation, job_types: Vec<String>, now: UnixMs) {
        self.serving = Some(generation.clone());
        self.refused = None;
        let kept = match self.generations.iter().position(|kept| kept.generation == *generation) {
            Some(at) => self.generations.remove(at),
            None => Kept {
                generation: generation.clone(),
                first_served_at_ms: now,
                job_types,
                before: self.generations.first().is_some_and(|last| last.standing.vouches(last.before)),
                standing: Standing::default(),
            },
        };
        self.generations.insert(0, kept);
        let mut at = 0;
        let (serving, pinned) = (&self.serving, &self.pinned);
        self.generations.retain(|kept| {
            at += 1;
            let named = [serving, pinned].map(|name| name.as_ref() == Some(&kept.generation));
            at <= 1 + PREVIOUS_MAX || named.contains(&true)
        });
    }

    /// Notes what is known of a generation. Answers what is known then.
    pub(crate) fn note(&mut self, generation: &Generation, standing: Standing) -> Standing {
        let Some(kept) = self.generations.iter_mut().find(|kept| kept.generation == *generation) else {
            return standing;
        };
        kept.standing = kept.standing.max(standing);
        kept.standing
    }

    /// Pins the handler to the generation that begins so, or to the one that is served.
    pub(crate) fn pin(&mut self, begins: Option<&str>) -> Result<Generation, Refusal> {
        let found = match begins {
            None => self.present_kept()?,
            Some(begins) => {
                let mut found = self.generations.iter().filter(|kept| kept.generation.as_str().starts_with(begins));
                match (found.next(), found.next()) {
                    (Some(kept), None) => kept,
                    (None, _) => return Err(Refusal::Unknown(begins.to_owned())),
                    (Some(_), Some(_)) => return Err(Refusal::Ambiguous(begins.to_owned())),
                }
            }
        };
        let generation = found.generation.clone();
        self.pinned = Some(generation.clone());
        Ok(generation)
    }

    /// Pins the handler to the generation before the present one. Those that were braked are passed over.
    pub(crate) fn roll_back(&mut self) -> Result<Generation, Refusal> {
        let present = self.present_kept()?.generation.clone();
        let mut older = self.generations.iter().skip_while(|kept| kept.generation != present).skip(1);
        let found = older.find(|kept| kept.standing != Standing::Braked);
        let generation = found.ok_or(Refusal::NoneBefore(present))?.generation.clone();
        self.pinned = Some(generation.clone());
        Ok(generation)
    }

    /// Takes the pin away. Answers which it was.
    pub(crate) fn unpin(&mut self) -> Result<Generation, Refusal> {
        self.pinned.take().ok_or(Refusal::NotPinned)
    }

    /// Pauses the handler, whichever generation is served.
    pub(crate) fn pause(&mut self) -> Result<Generation, Refusal> {
        let generation = self.present_kept()?.generation.clone();
        self.paused = true;
        Ok(generation)
    }

    /// Lifts what a person paused, and the brake of the present generation.
    pub(crate) fn resume(&mut self) -> Result<Generation, Refusal> {
        let present = self.present_kept()?;
        let (generation, standing) = (present.generation.clone(), present.standing);
        let was_paused = std::mem::take(&mut self.paused);
        if standing == Standing::Braked {
            self.note(&generation, Standing::Resumed);
        } else if !was_paused {
            return Err(Refusal::NotPaused(generation));
        }
        Ok(generation)
    }

    /// Whether all names in it are names: they become names of files.
    pub(crate) fn is_sound(&self) -> bool {
        let kept = self.generations.iter().map(|kept| &kept.generation);
        let named = [&self.serving, &self.pinned].into_iter().flatten();
        kept.chain(named).all(|generation| {
            let name = generation.as_str();
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Generation {
        Generation::named(name)
    }

    /// A handler of which these generations came into the folder one after the other, each with what its attempts came to:
    /// `a+` completed, `a-` did not, `a!` was braked, `a` was not tried.
    fn record(deployed: &str) -> Record {
        let mut record = Record::default();
        for (at, word) in (0..).zip(deployed.split_whitespace()) {
            let name = named(word.trim_end_matches(['+', '-', '!']));
            record.deployed(&name, vec!["t".into()], UnixMs(at));
            let standing = match word.chars().last() {
                Some('+') => Standing::Proven,
                Some('-') => Standing::Unproven,
                Some('!') => Standing::Braked,
                _ => Standing::Untried,
            };
            record.note(&name, standing);
        }
        record
    }

    fn names(record: &Record) -> String {
        record.generations.iter().map(|kept| kept.generation.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn generation_is_on_trial_if_the_one_before_completed_or_one_before_that_which_was_not_tried() {
        for (deployed, before) in [
            ("a", false),
            ("a+ b", true),
            ("a- b", false),
            ("a b", false),
            ("a+ b c", true),
            ("a+ b- c", false),
            ("a+ b! c", true),
            ("a+ b! c! d", true),
            ("a+ b- a", false),
        ] {
            let record = record(deployed);
            assert_eq!(record.generations[0].before, before, "{deployed}");
        }
    }

    #[test]
    fn five_previous_generations_are_kept_and_what_is_pinned() {
        assert_eq!(names(&record("a b c")), "c b a");
        assert_eq!(names(&record("a b a")), "a b");
        assert_eq!(names(&record("a b c d e f 1 2")), "2 1 f e d c");
        let mut record = record("a b c");
        record.pin(Some("a")).unwrap();
        for name in ["d", "e", "f", "1", "2"] {
            record.deployed(&named(name), Vec::new(), UnixMs(0));
        }
        assert_eq!(names(&record), "2 1 f e d c a");
    }

    #[test]
    fn rollback_goes_to_the_one_before_and_then_further() {
        let mut three = record("a+ b+ c+");
        assert_eq!(three.roll_back(), Ok(named("b")));
        assert_eq!(three.roll_back(), Ok(named("a")));
        assert_eq!(three.roll_back(), Err(Refusal::NoneBefore(named("a"))));
        assert_eq!(three.present(), Some(&named("a")));
        assert_eq!(three.unpin(), Ok(named("a")));
        assert_eq!(three.unpin(), Err(Refusal::NotPinned));
        assert_eq!(three.present(), Some(&named("c")));
        assert_eq!(record("a+ b! c!").roll_back(), Ok(named("a")), "a braked one is no help");
        assert_eq!(record("a+ b+ a+").roll_back(), Ok(named("b")), "the one before came back");
        assert_eq!(Record::default().roll_back(), Err(Refusal::NeverServed));
    }

    #[test]
    fn pin_takes_the_beginning_of_a_name_or_what_is_served() {
        let mut record = record("ab1 ab2 cd");
        assert_eq!(record.pin(Some("ab1")), Ok(named("ab1")));
        assert_eq!(record.pin(Some("ab")), Err(Refusal::Ambiguous("ab".into())));
        assert_eq!(record.pin(Some("x")), Err(Refusal::Unknown("x".into())));
        assert_eq!(record.pin(None), Ok(named("ab1")));
        record.unpin().unwrap();
        assert_eq!(record.pin(None), Ok(named("cd")));
        assert_eq!(Record::default().pin(None), Err(Refusal::NeverServed));
    }

    #[test]
    fn pause_holds_for_whichever_generation_is_served_until_it_is_lifted() {
        let mut paused = record("a+ b");
        assert_eq!(paused.pause(), Ok(named("b")));
        paused.deployed(&named("c"), Vec::new(), UnixMs(0));
        assert!(paused.paused);
        assert_eq!(paused.resume(), Ok(named("c")));
        assert!(!paused.paused);
        assert_eq!(paused.resume(), Err(Refusal::NotPaused(named("c"))));
        assert_eq!(Record::default().pause(), Err(Refusal::NeverServed));
    }

    #[test]
    fn only_a_brake_is_lifted() {
        let mut braked = record("a+ b!");
        assert_eq!(braked.resume(), Ok(named("b")));
        assert_eq!(braked.generations[0].standing, Standing::Resumed);
        assert_eq!(braked.note(&named("b"), Standing::Braked), Standing::Resumed, "it does not come on again");
        assert_eq!(braked.resume(), Err(Refusal::NotPaused(named("b"))));
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_sound() {
        assert!(record("a b").is_sound());
        for name in ["", "../a", "a/b", "lock"] {
            assert!(!Record { pinned: Some(named(name)), ..Record::default() }.is_sound(), "{name}");
        }
    }
}
