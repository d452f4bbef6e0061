//! Engines by key: the scopes of all workers that see the same states and have the same settings share one.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;

use super::{Engine, Settings, Sources};
use crate::runtime::Executor;

/// What makes two scopes share an engine.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The addresses of the states.
    pub(crate) states: Vec<(TypeId, usize)>,
    /// The identities of the scope's own checks, and what they are called.
    pub(crate) checks: Vec<usize>,
    pub(crate) names: Vec<String>,
    pub(crate) registries: Vec<usize>,
    pub(crate) settings: Settings,
}

/// The engine of that key: the one there is, or a new one.
///
/// A key holds addresses, which say nothing once their owners are gone. So an engine is found only while it is alive,
/// and it is alive only while a scope holds it, together with everything whose address is in its key.
pub(crate) fn shared(key: Key, make: impl FnOnce() -> Sources) -> Arc<Engine> {
    static ENGINES: LazyLock<Mutex<HashMap<Key, Weak<Engine>>>> = LazyLock::new(Mutex::default);

    let mut engines = ENGINES.lock();
    if let Some(engine) = engines.get(&key).and_then(Weak::upgrade) {
        return engine;
    }
    engines.retain(|_, engine| engine.strong_count() > 0);
    if engines.keys().any(|known| known.differs_by_identity_alone(&key)) {
        let names: HashSet<_> = key.names.iter().map(String::as_str).collect();
        tracing::warn!(
            checks = ?names,
            "health scope: these checks are made anew for each worker, so each worker runs its own; \
             make them once, outside the factory of HttpServer, and clone them into it"
        );
    }
    let engine = Arc::new(Engine::new(make(), key.settings, Executor::Global));
    engines.insert(key, Arc::downgrade(&engine));
    engine
}

impl Key {
    fn differs_by_identity_alone(&self, other: &Self) -> bool {
        self.checks != other.checks
            && !self.checks.is_empty()
            && self.names == other.names
            && self.states == other.states
            && self.registries == other.registries
            && self.settings == other.settings
    }
}
