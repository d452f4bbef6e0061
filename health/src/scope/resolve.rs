//! [`Resolved`]: the states that the first request finds, and the engine for their checks.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::config::ScopeConfig;
use crate::{
    check::Check,
    discovery::{
        Checks,
        state::{self, ResolvedState},
    },
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
    pub(super) fn new(config: &ScopeConfig, request: &HttpRequest) -> Self {
        let states = state::find(&config.states, request);
        let registries: Vec<_> = config.registries.iter().chain([registry()]).cloned().collect();
        let key = EngineKey {
            states: states.iter().map(ResolvedState::address).collect(),
            checks: config.checks.iter().map(Check::identity).collect(),
            names: config.checks.iter().map(Check::to_string).collect(),
            registries: registries.iter().map(Registry::identity).collect(),
            config: config.engine,
        };
        let engine = engine::get_or_create(key, || Sources { fixed: static_checks(config, &states), registries });
        Self { engine, _states: states }
    }
}

/// The checks of the states and of the scope itself. Logs what is probed and what is ignored.
fn static_checks(config: &ScopeConfig, states: &[ResolvedState]) -> Vec<CheckEntry> {
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let found = || states.iter().map(ResolvedState::checks);
    let ignored = list(found().flat_map(|found| found.ignored().to_vec()).collect());
    let elsewhere = list(state::unused_state_types(states));
    let mut checks: Vec<_> = found().flat_map(Checks::iter).cloned().collect();
    checks.extend(config.checks.iter().cloned());
    let probed = list(checks.iter().map(Check::to_string).collect());
    let path = label(&config.path);
    tracing::info!(
        "health scope at {path} probes: {probed}; ignored fields: {ignored}; types that derive HealthCheck and are not in this \
         application: {elsewhere}"
    );
    let mut entries: Vec<_> = checks.into_iter().map(CheckEntry::Check).collect();
    if found().any(Checks::has_panicked) {
        entries.push(CheckEntry::misconfigured("health", "state", "`health_checks` of a state panicked"));
    }
    entries.extend(missing_state(config, states));
    entries
}

/// A misconfigured entry if the scope has no state, check or registry of its own although a type derives `HealthCheck`: then a step
/// is missing, and resources are not probed.
fn missing_state(config: &ScopeConfig, states: &[ResolvedState]) -> Option<CheckEntry> {
    let types = state::type_names();
    let is_configured = !states.is_empty() || !config.checks.is_empty() || !config.registries.is_empty();
    if is_configured || types.is_empty() {
        return None;
    }
    let types = types.join(", ");
    let message = "no state was found: add `.app_data(web::Data::new(state))` to the App, or `.state(&data)` to \
                    health::scope(); to show only registered checks, add `.registry(health::registry())`";
    tracing::error!(types, "health scope: {message}; these types derive HealthCheck: {types}");
    Some(CheckEntry::misconfigured("health", "state", message))
}
