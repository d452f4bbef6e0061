//! The engines of the process: scopes of all workers that have the same states, checks and settings share one.

use std::{any::TypeId, collections::BTreeSet, sync::Arc};

use super::{Engine, EngineConfig, Filter, Sources};
use crate::{runtime::Executor, weak_map::WeakMap};

/// The identity of an engine.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineKey {
    /// The addresses of the states.
    pub(crate) states: Vec<(TypeId, usize)>,
    /// The identities of the scope's own checks.
    pub(crate) checks: Vec<usize>,
    /// The names of the scope's own checks.
    pub(crate) names: Vec<String>,
    /// The identities of the registries.
    pub(crate) registries: Vec<usize>,
    pub(crate) config: EngineConfig,
    /// The message about a state that was not found.
    pub(crate) missing_state: Option<String>,
    pub(crate) filter: Filter,
}

/// Returns the engine of that key, or creates it; and whether it was created. An engine lives as long as a scope holds it, and that
/// scope also holds everything whose address is in the key.
///
/// All engines are locked while `sources` runs, so it must not log: a subscriber may block.
pub(crate) fn get_or_create(key: EngineKey, sources: impl FnOnce() -> Sources) -> (Arc<Engine>, bool) {
    static ENGINES: WeakMap<EngineKey, Engine> = WeakMap::new();

    let mut is_new = false;
    let mut created_per_worker = None;
    let engine = ENGINES.get_or_insert_with(key, |key, mut others| {
        is_new = true;
        created_per_worker = others.any(|other| other.differs_only_by_identity(key)).then(|| key.names.clone());
        Arc::new(Engine::new(sources(), key.config, Executor::Global))
    });
    if let Some(names) = created_per_worker {
        let checks: BTreeSet<_> = names.iter().map(String::as_str).collect();
        tracing::warn!(
            ?checks,
            "health scope: each worker creates these checks and runs its own copies; create them once, outside the factory of \
             HttpServer, and clone them into it; for `.probe`, put the resource into an `Arc` there"
        );
    }
    (engine, is_new)
}

impl EngineKey {
    /// Whether the keys are the same but for the identities of checks that have the same names: checks were created per worker.
    fn differs_only_by_identity(&self, other: &Self) -> bool {
        self.checks != other.checks
            && !self.checks.is_empty()
            && self.names == other.names
            && self.states == other.states
            && self.registries == other.registries
            && self.config == other.config
            && self.missing_state == other.missing_state
            && self.filter == other.filter
    }
}
