//! [`Resolved`]: the states that the first request finds, and the engine for their checks.

use std::sync::Arc;

use super::config::ScopeSources;
use crate::{
    check::Check,
    discovery::state::{self, AppData, ResolvedState},
    engine::{self, CheckEntry, Engine, EngineKey, Sources},
    redact::label,
    registry::{Registry, registry},
};

/// The engine of a scope and its states. The engine is dropped first, because its key contains the addresses of the states.
pub(super) struct Resolved {
    pub(super) engine: Arc<Engine>,
    _states: Vec<ResolvedState>,
}

impl Resolved {
    pub(super) fn new(config: &ScopeSources, app_data: AppData<'_>) -> Self {
        let states = state::find(&config.states, app_data);
        let registries: Vec<_> = config.registries.iter().chain([registry()]).cloned().collect();
        let key = EngineKey {
            states: states.iter().map(ResolvedState::address).collect(),
            checks: config.checks.iter().map(Check::identity).collect(),
            names: config.checks.iter().map(Check::to_string).collect(),
            registries: registries.iter().map(Registry::identity).collect(),
            config: config.engine,
            filter: config.filter.clone(),
        };
        let (engine, is_new) = engine::get_or_create(key, || Sources {
            fixed: static_checks(config, &states),
            registries,
            filter: config.filter.clone(),
        });
        if is_new {
            log_static_checks(config, &states);
        }
        Self { engine, _states: states }
    }
}

/// The checks of the states and of the scope itself.
fn static_checks(config: &ScopeSources, states: &[ResolvedState]) -> Vec<CheckEntry> {
    let mut entries: Vec<_> = checks(config, states).cloned().map(CheckEntry::Check).collect();
    if states.iter().any(|state| state.checks().has_panicked()) {
        entries.push(CheckEntry::misconfigured("health", "state", "`health_checks` of a state panicked"));
    }
    if is_state_missing(config, states) {
        entries.push(CheckEntry::misconfigured("health", "state", MISSING_STATE));
    }
    entries
}

fn checks<'a>(config: &'a ScopeSources, states: &'a [ResolvedState]) -> impl Iterator<Item = &'a Check> {
    states.iter().flat_map(|state| state.checks().iter()).chain(&config.checks)
}

/// Logs what is probed and what is ignored.
fn log_static_checks(config: &ScopeSources, states: &[ResolvedState]) {
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let ignored = list(states.iter().flat_map(|state| state.checks().ignored().to_vec()).collect());
    let elsewhere = list(state::unused_state_types(states));
    let probed = list(checks(config, states).map(Check::to_string).collect());
    let path = label(&config.path);
    tracing::info!(
        "health scope at {path} probes: {probed}; ignored fields: {ignored}; types that derive HealthCheck and are not in this \
         application: {elsewhere}"
    );
    if is_state_missing(config, states) {
        let types = state::type_names().join(", ");
        tracing::error!(types, "health scope: {MISSING_STATE}; these types derive HealthCheck: {types}");
    }
}

const MISSING_STATE: &str = "no state was found: add `.app_data(web::Data::new(state))` to the App, or `.state(&data)` to \
                             health::scope(), as a management server needs; to show only registered checks, add \
                             `.registry(health::registry())`";

/// Whether the scope has no state, check or registry of its own although a type derives `HealthCheck`: then a step is missing, and
/// resources are not probed.
fn is_state_missing(config: &ScopeSources, states: &[ResolvedState]) -> bool {
    let is_configured = !states.is_empty() || !config.checks.is_empty() || !config.registries.is_empty();
    !is_configured && !state::type_names().is_empty()
}
