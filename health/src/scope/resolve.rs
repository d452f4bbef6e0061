//! [`Resolved`]: the states that the first request finds, and the engine for their checks.

use std::sync::{Arc, atomic::Ordering};

use super::config::ScopeSources;
use crate::{
    check::Check,
    discovery::{
        missing::{misplaced_states, missing_step},
        state::{self, AppData, ResolvedState, StateHandle},
    },
    engine::{self, CheckEntry, Engine, EngineConfig, EngineKey, Sources},
    process::GRPC_WITHOUT_STATE,
    redact::label,
    registry::{Registry, registry},
};

/// The engine of a scope and its states. The engine is dropped first, because its key contains the addresses of the states.
pub(super) struct Resolved {
    pub(super) engine: Arc<Engine>,
    pub(super) states: Vec<ResolvedState>,
}

impl Resolved {
    pub(super) fn new(config: &ScopeSources, app_data: AppData<'_>) -> Self {
        let states = state::find(&config.states, app_data);
        let registries: Vec<_> = config.registries.iter().chain([registry()]).cloned().collect();
        let missing_state = if is_empty(config, &states) { missing_step(app_data) } else { None };
        let if_empty = config.engine.if_empty.map(|message| if states.is_empty() { message } else { EMPTY_STATE });
        let state_types = states.iter().map(|state| state.type_name().to_owned());
        let key = EngineKey {
            states: states.iter().map(ResolvedState::address).collect(),
            checks: config.checks.iter().map(Check::identity).collect(),
            names: state_types.chain(config.checks.iter().map(Check::to_string)).collect(),
            registries: registries.iter().map(Registry::identity).collect(),
            config: EngineConfig { if_empty, ..config.engine },
            filter: config.filter.clone(),
            missing_state: missing_state.clone(),
        };
        let missing_state = missing_state.as_deref();
        let (engine, is_new) = engine::get_or_create(key, || Sources {
            fixed: static_checks(config, &states, missing_state),
            registries,
            filter: config.filter.clone(),
        });
        if is_new {
            log_checks(config, &engine, &states, app_data);
            if missing_state.is_none() {
                // The scope has other checks, so only this line says that resources of these states are not probed.
                for state in misplaced_states(app_data) {
                    tracing::warn!("health scope: {state}");
                }
            }
        }
        if !states.is_empty() && GRPC_WITHOUT_STATE.swap(false, Ordering::Relaxed) {
            let states = states.iter().map(ResolvedState::type_name).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                "health scope: health::grpc serves a scope without a state, so its status does not include that of {states}: add \
                 `.state(&data)` to that scope, because app_data is read only for requests over HTTP"
            );
        }
        Self { engine, states }
    }
}

/// An engine that is kept as long as its states, without keeping these.
pub(super) struct KeptEngine {
    engine: Arc<Engine>,
    states: Vec<StateHandle>,
}

impl KeptEngine {
    pub(super) fn of(resolved: &Resolved) -> Self {
        let states = resolved.states.iter().map(ResolvedState::downgrade).collect();
        Self { engine: Arc::clone(&resolved.engine), states }
    }

    pub(super) fn is(&self, engine: &Arc<Engine>) -> bool {
        Arc::ptr_eq(&self.engine, engine)
    }

    /// Whether all states are alive.
    pub(super) fn is_needed(&self) -> bool {
        self.states.iter().all(StateHandle::is_alive)
    }
}

/// The message of a scope whose states have no check.
const EMPTY_STATE: &str = "the state was found and has no checks now, because its resources are `None` or empty: if that is \
                           intended, add `.allow_empty()` to health::scope()";

/// Whether the scope has no state, check or registry of its own, and is not meant to have none. If a type derives `HealthCheck`
/// nevertheless, a step is missing, and resources are not probed.
fn is_empty(config: &ScopeSources, states: &[ResolvedState]) -> bool {
    states.is_empty() && config.checks.is_empty() && config.registries.is_empty() && config.engine.if_empty.is_some()
}

/// The checks of the states and of the scope itself.
fn static_checks(config: &ScopeSources, states: &[ResolvedState], missing_state: Option<&str>) -> Vec<CheckEntry> {
    let checks = states.iter().flat_map(|state| state.checks().iter()).chain(&config.checks);
    let mut entries: Vec<_> = checks.cloned().map(CheckEntry::Check).collect();
    if states.iter().any(|state| state.checks().has_panicked()) {
        entries.push(CheckEntry::misconfigured("health", "state", "`health_checks` of a state panicked"));
    }
    if let Some(message) = missing_state {
        entries.push(CheckEntry::misconfigured("health", "state", message));
    }
    entries
}

/// Logs what is probed, what is left out, and what is ignored.
fn log_checks(config: &ScopeSources, engine: &Engine, states: &[ResolvedState], app_data: AppData<'_>) {
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let ignored = list(states.iter().flat_map(|state| state.checks().ignored().to_vec()).collect());
    let elsewhere = list(state::unused_state_types(states, app_data));
    let (probed, excluded) = engine.check_names();
    let excluded = if excluded.is_empty() { String::new() } else { format!("; excluded: {}", excluded.join(", ")) };
    let (path, probed) = (label(&config.path), list(probed));
    tracing::info!(
        "health scope at {path} probes: {probed}{excluded}; ignored fields: {ignored}; types that derive HealthCheck and are not in \
         this application: {elsewhere}"
    );
}
