//! The engines of the process: scopes of all workers that have the same states, checks and settings share one.

use std::{any::TypeId, collections::BTreeSet, sync::Arc};

use super::{Engine, EngineConfig, Sources};
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
}

/// Returns the engine of that key, or creates it. An engine lives as long as a scope holds it, and that scope also holds
/// everything whose address is in the key.
pub(crate) fn get_or_create(key: EngineKey, sources: impl FnOnce() -> Sources) -> Arc<Engine> {
    static ENGINES: WeakMap<EngineKey, Engine> = WeakMap::new();

    ENGINES.get_or_insert_with(key, |key, mut others| {
        if others.any(|other| other.differs_only_by_identity(key)) {
            let checks: BTreeSet<_> = key.names.iter().map(String::as_str).collect();
            tracing::warn!(
                ?checks,
                "health scope: each worker creates these checks and runs its own copies; create them once, outside the \
                 factory of HttpServer, and clone them into it"
            );
        }
        Arc::new(Engine::new(sources(), key.config, Executor::Global))
    })
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
    }
}
