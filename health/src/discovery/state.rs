//! Finds the states of an application: those that the scope was given, and those in its `app_data` whose types derive
//! `HealthCheck`.

use std::{
    any::{TypeId, type_name},
    rc::Rc,
    sync::Arc,
};

use actix_web::{HttpRequest, guard::GuardContext, web::Data};

use super::checks::{Checks, HealthCheck};
use crate::weak_map::WeakMap;

/// A type that derives `HealthCheck`, and how to find its value in `app_data`. The derive submits one for each type without
/// generic parameters.
pub struct StateType {
    name: &'static str,
    type_name: fn() -> &'static str,
    find: fn(AppData<'_>) -> Option<FoundState>,
}

inventory::collect!(StateType);

/// Where states are looked up.
#[derive(Clone, Copy)]
pub(crate) enum AppData<'a> {
    Request(&'a HttpRequest),
    /// A request that is being routed.
    Routing(&'a GuardContext<'a>),
    /// There is no request.
    None,
}

impl<'a> AppData<'a> {
    fn get<T: 'static>(self) -> Option<&'a T> {
        match self {
            Self::Request(request) => request.app_data(),
            Self::Routing(request) => request.app_data(),
            Self::None => None,
        }
    }
}

impl StateType {
    /// The entry of the type `S`, where `name` is its path in the source.
    pub const fn of<S: HealthCheck + 'static>(name: &'static str) -> Self {
        Self { name, type_name: type_name::<S>, find: find_in_app_data::<S> }
    }
}

fn find_in_app_data<S: HealthCheck + 'static>(app_data: AppData<'_>) -> Option<FoundState> {
    let data = || app_data.get::<Data<S>>().map(FoundState::of);
    // An application that calls `web::Data::new` with an `Arc` extracts this type.
    let data_of_arc = || app_data.get::<Data<Arc<S>>>().map(|data| FoundState::of_arc(Arc::clone(data.get_ref())));
    data().or_else(data_of_arc)
}

/// The address of a state and its type. It identifies the state while the state is alive.
type Address = (TypeId, usize);

/// A handle to a state, which keeps the state alive and so its address unique.
#[derive(Clone)]
pub(crate) struct FoundState {
    address: Address,
    type_name: &'static str,
    collect: Rc<dyn Fn() -> Checks>,
}

impl FoundState {
    pub(crate) fn of<S: HealthCheck + 'static>(data: &Data<S>) -> Self {
        Self::of_arc(Data::clone(data).into_inner())
    }

    fn of_arc<S: HealthCheck + 'static>(state: Arc<S>) -> Self {
        Self {
            address: (TypeId::of::<S>(), Arc::as_ptr(&state).addr()),
            type_name: type_name::<S>(),
            collect: Rc::new(move || Checks::of(&*state)),
        }
    }
}

/// A state and its checks. All scopes of the process that find the state share the checks.
pub(crate) struct ResolvedState {
    // Dropped before the state, so that no entry of `CHECKS` is alive with the address of a dropped state.
    checks: Arc<Checks>,
    state: FoundState,
}

/// The checks of all states that are in use.
static CHECKS: WeakMap<Address, Checks> = WeakMap::new();

impl ResolvedState {
    fn new(state: FoundState) -> Self {
        let checks = CHECKS.get(&state.address).unwrap_or_else(|| {
            // Runs the user's code, so before the map is locked.
            let collected = Arc::new((state.collect)());
            CHECKS.get_or_insert_with(state.address, |_, _| collected)
        });
        Self { checks, state }
    }

    /// Equal for all handles to one state. Unique among the states that are alive.
    pub(crate) fn address(&self) -> (TypeId, usize) {
        self.state.address
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }
}

/// The given states and those in `app_data`, without duplicates.
pub(crate) fn find(given: &[FoundState], app_data: AppData<'_>) -> Vec<ResolvedState> {
    let mut found: Vec<FoundState> = Vec::new();
    let in_app_data = state_types().filter_map(|state_type| (state_type.find)(app_data));
    for state in given.iter().cloned().chain(in_app_data) {
        if found.iter().all(|other| other.address != state.address) {
            found.push(state);
        }
    }
    found.into_iter().map(ResolvedState::new).collect()
}

/// The names of all types that [`find`] looks for in `app_data`.
pub(crate) fn type_names() -> Vec<&'static str> {
    state_types().map(|state_type| state_type.name).collect()
}

/// The names of the types that derive `HealthCheck`, except those of the given states and their nested states.
pub(crate) fn unused_state_types(states: &[ResolvedState]) -> Vec<String> {
    let is_used = |type_name| {
        let mut states = states.iter();
        states.any(|state| state.state.type_name == type_name || state.checks.state_types().contains(&type_name))
    };
    let unused = state_types().filter(|state_type| !is_used((state_type.type_name)()));
    unused.map(|state_type| state_type.name.to_owned()).collect()
}

/// Sorted by name, because `inventory` iterates in the order of the linker.
fn state_types() -> impl Iterator<Item = &'static StateType> {
    let mut types: Vec<_> = inventory::iter::<StateType>().collect();
    types.sort_by_key(|state_type| state_type.name);
    types.into_iter()
}
