//! Job type → handler. Never changed, only swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::handler::Handler;

/// The job type of a handler that takes every type which no other handler claims.
pub const OTHERS: &str = "*";

/// Which handler serves which job type.
#[derive(Debug, Default)]
pub struct Registry {
    by_type: BTreeMap<Arc<str>, Arc<Handler>>,
    others: Option<Arc<Handler>>,
}

/// A handler that is not served, since another claims one of its types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("claims job type `{job_type}`, which `{owner}` serves; the first by file name keeps it")]
pub struct Conflict {
    /// The handler that is left out.
    pub name: Arc<str>,
    /// The type that both claim.
    pub job_type: Arc<str>,
    /// The handler that keeps it.
    pub owner: Arc<str>,
}

// === impl Registry ===

impl Registry {
    /// The registry of `handlers`. Where two claim a type the first by name keeps it, whichever came first in time, so that
    /// the same folder always makes the same registry; the other is left out whole.
    pub fn of(handlers: impl IntoIterator<Item = Arc<Handler>>) -> (Registry, Vec<Conflict>) {
        let mut handlers: Vec<Arc<Handler>> = handlers.into_iter().collect();
        handlers.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut registry, mut conflicts) = (Registry::default(), Vec::new());
        for handler in handlers {
            let taken = handler.job_types.iter().find_map(|job_type| Some((job_type, registry.owner(job_type)?)));
            if let Some((job_type, owner)) = taken {
                conflicts.push(Conflict {
                    name: Arc::clone(&handler.name),
                    job_type: Arc::clone(job_type),
                    owner: Arc::clone(&owner.name),
                });
                continue;
            }
            for job_type in &handler.job_types {
                if &**job_type == OTHERS {
                    registry.others = Some(Arc::clone(&handler));
                } else {
                    registry.by_type.insert(Arc::clone(job_type), Arc::clone(&handler));
                }
            }
        }
        (registry, conflicts)
    }

    /// The handler of `job_type`.
    pub fn get(&self, job_type: &str) -> Option<&Arc<Handler>> {
        self.by_type.get(job_type).or(self.others.as_ref())
    }

    /// Whether a handler claims it by name.
    pub fn claims(&self, job_type: &str) -> bool {
        self.by_type.contains_key(job_type)
    }

    /// The types that are claimed by name, and their handlers.
    pub fn types(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Handler>)> {
        self.by_type.iter()
    }

    /// The handler of every other type.
    pub fn others(&self) -> Option<&Arc<Handler>> {
        self.others.as_ref()
    }

    fn owner(&self, job_type: &str) -> Option<&Arc<Handler>> {
        if job_type == OTHERS { self.others.as_ref() } else { self.by_type.get(job_type) }
    }
}
