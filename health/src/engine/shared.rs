//! The engines of the process: scopes of all workers that have the same states, checks and settings share one.

use std::{any::TypeId, sync::Arc};

use super::{Engine, EngineConfig, Filter, Sources};
use crate::{runtime::Executor, weak_map::WeakMap};

/// The identity of an engine.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineKey {
    /// The addresses of the states.
    pub(crate) states: Vec<(TypeId, usize)>,
    /// The identities of the scope's own checks.
    pub(crate) checks: Vec<usize>,
    /// The types of the states, and then the names of the scope's own checks, in the same order.
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
    let mut copies = None;
    let engine = ENGINES.get_or_insert_with(key, |key, others| {
        is_new = true;
        // Logged with the second copy only.
        let mut found = others.filter_map(|other| key.copies_in(other));
        copies = found.next().filter(|_| found.next().is_none());
        Arc::new(Engine::new(sources(), key.config, Executor::Global))
    });
    if let Some(copies) = copies {
        tracing::warn!(
            ?copies,
            "health scope: there are several copies of these states and checks, and each of them runs; if each worker creates them, \
             create them once, before HttpServer::new, and clone the `web::Data` or the check into its closure; for `.probe`, put the \
             resource into an `Arc` there"
        );
    }
    (engine, is_new)
}

impl EngineKey {
    /// The names of the states and checks of which `other` has another copy, if that is all that differs: they were probably created
    /// per worker.
    fn copies_in(&self, other: &Self) -> Option<Vec<String>> {
        let is_same = self.names == other.names
            && self.registries == other.registries
            && self.config == other.config
            && self.missing_state == other.missing_state
            && self.filter == other.filter;
        let states = self.states.iter().zip(&other.states).map(|(ours, theirs)| ours == theirs);
        let checks = self.checks.iter().zip(&other.checks).map(|(ours, theirs)| ours == theirs);
        let named = self.names.iter().zip(states.chain(checks));
        let copies: Vec<_> = named.filter(|(_, is_shared)| !is_shared).map(|(name, _)| name.clone()).collect();
        (is_same && !copies.is_empty()).then_some(copies)
    }
}
