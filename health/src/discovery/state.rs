//! Finds the states of an application: those that the scope was given, and those in its `app_data` whose types derive
//! `HealthCheck`.

use std::{
    any::{TypeId, type_name},
    cell::RefCell,
    rc::Rc,
    sync::Arc,
};

use actix_web::{
    HttpRequest,
    guard::GuardContext,
    web::{Data, ThinData},
};

use super::checks::{Checks, HealthCheck};
use crate::weak_map::WeakMap;

/// A type that derives `HealthCheck`. The derive submits one for each type.
pub struct StateType {
    /// Its path in the source.
    path: &'static str,
    /// `None` for a type with generic parameters: only the application knows its type arguments.
    lookup: Option<Lookup>,
}

/// How to find the value of a type.
struct Lookup {
    type_name: fn() -> &'static str,
    find: fn(AppData<'_>) -> Option<FoundState>,
    find_elsewhere: fn(AppData<'_>) -> Option<Elsewhere>,
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
    /// The entry of the type `S`, whose path in the source is `path`.
    pub const fn of<S: HealthCheck + 'static>(path: &'static str) -> Self {
        let lookup =
            Lookup { type_name: type_name::<S>, find: find_in_app_data::<S>, find_elsewhere: find_elsewhere::<S> };
        Self { path, lookup: Some(lookup) }
    }

    /// The entry of a type with generic parameters.
    pub const fn generic(path: &'static str) -> Self {
        Self { path, lookup: None }
    }

    fn name(&self) -> &'static str {
        self.path.rsplit("::").next().unwrap_or(self.path)
    }

    fn find_elsewhere(&self, app_data: AppData<'_>) -> Option<Elsewhere> {
        (self.lookup.as_ref()?.find_elsewhere)(app_data)
    }

    /// Whether it is one of these types, of which `type_name` returned the names.
    fn is_any_of<'a>(&self, mut type_names: impl Iterator<Item = &'a str>) -> bool {
        match &self.lookup {
            Some(lookup) => type_names.any(|name| name == (lookup.type_name)()),
            None => type_names.any(|name| name.split('<').next() == Some(self.path)),
        }
    }
}

fn find_in_app_data<S: HealthCheck + 'static>(app_data: AppData<'_>) -> Option<FoundState> {
    let data = || app_data.get::<Data<S>>().map(S::found);
    // An application that calls `web::Data::new` with an `Arc` extracts this type.
    let data_of_arc = || app_data.get::<Data<Arc<S>>>().map(State::found);
    data().or_else(data_of_arc)
}

/// Where in `app_data` a state is that a scope cannot read there, and what to do.
struct Elsewhere {
    place: &'static str,
    step: &'static str,
}

impl Elsewhere {
    const fn in_lock(place: &'static str) -> Self {
        let step = "move its pools, which need no lock, to a struct of their own that derives HealthCheck, and add \
                    `.app_data(web::Data::new(pools))`";
        Self { place, step }
    }
}

/// Finds a state in `app_data` where it cannot be read, or where the workers have different copies of it.
fn find_elsewhere<S: 'static>(app_data: AppData<'_>) -> Option<Elsewhere> {
    fn has_lock<L: 'static>(app_data: AppData<'_>) -> bool {
        app_data.get::<Data<L>>().is_some()
            || app_data.get::<Data<Arc<L>>>().is_some()
            || app_data.get::<Arc<L>>().is_some()
            || app_data.get::<L>().is_some()
    }

    let mutex = has_lock::<std::sync::Mutex<S>>(app_data)
        || has_lock::<tokio::sync::Mutex<S>>(app_data)
        || has_lock::<parking_lot::Mutex<S>>(app_data);
    let rw_lock = has_lock::<std::sync::RwLock<S>>(app_data)
        || has_lock::<tokio::sync::RwLock<S>>(app_data)
        || has_lock::<parking_lot::RwLock<S>>(app_data);
    if mutex {
        Some(Elsewhere::in_lock("in a `Mutex`"))
    } else if rw_lock {
        Some(Elsewhere::in_lock("in a `RwLock`"))
    } else if has_lock::<RefCell<S>>(app_data) {
        Some(Elsewhere::in_lock("in a `RefCell`"))
    } else if app_data.get::<ThinData<S>>().is_some() {
        // Each worker has a copy, and nothing shows that they are copies of one state, so each would have its own checks.
        let step = "write `let data = web::Data::new(state.clone());` before HttpServer::new, and add `.state(&data)` to health::scope()";
        Some(Elsewhere { place: "as `web::ThinData`", step })
    } else if app_data.get::<Arc<S>>().is_some() {
        let step = "write `.app_data(web::Data::from(state))`";
        Some(Elsewhere { place: "as an `Arc`, without `web::Data`", step })
    } else if app_data.get::<S>().is_some() {
        Some(Elsewhere { place: "without `web::Data`", step: "write `.app_data(web::Data::new(state))`" })
    } else {
        None
    }
}

/// A type whose `web::Data` is a state: one that derives `HealthCheck`, or an `Arc` of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `HealthCheck`",
    label = "expected a struct that derives `HealthCheck`",
    note = "add `#[derive(health::HealthCheck)]` to a struct of yours",
    note = "for a pool, a connection or a client, write `.probe(\"name\", data.clone())` instead of `.state(&data)`"
)]
pub trait State: Sized {
    /// Returns a handle to the state.
    fn found(data: &Data<Self>) -> FoundState;
}

#[diagnostic::do_not_recommend]
impl<S: HealthCheck + 'static> State for S {
    fn found(data: &Data<Self>) -> FoundState {
        FoundState::of(Data::clone(data).into_inner())
    }
}

#[diagnostic::do_not_recommend]
impl<S: HealthCheck + 'static> State for Arc<S> {
    fn found(data: &Data<Self>) -> FoundState {
        FoundState::of(Arc::clone(data.get_ref()))
    }
}

/// The address of a state and its type. It identifies the state while the state is alive.
type Address = (TypeId, usize);

/// A handle to a state, which keeps the state alive and so its address unique.
#[derive(Clone)]
pub struct FoundState {
    address: Address,
    type_name: &'static str,
    collect: Rc<dyn Fn() -> Checks>,
}

impl FoundState {
    fn of<S: HealthCheck + 'static>(state: Arc<S>) -> Self {
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
    let in_app_data = state_types().filter_map(|state_type| (state_type.lookup.as_ref()?.find)(app_data));
    for state in given.iter().cloned().chain(in_app_data) {
        if found.iter().all(|other| other.address != state.address) {
            found.push(state);
        }
    }
    found.into_iter().map(ResolvedState::new).collect()
}

/// The paths of all types that derive `HealthCheck`.
pub(crate) fn type_paths() -> Vec<&'static str> {
    state_types().map(|state_type| state_type.path).collect()
}

/// The paths of the types that derive `HealthCheck`, except those of the given states and their nested states, with the place where
/// a state of the type is nevertheless.
pub(crate) fn unused_state_types(states: &[ResolvedState], app_data: AppData<'_>) -> Vec<String> {
    let used = || {
        states
            .iter()
            .flat_map(|state| [state.state.type_name].into_iter().chain(state.checks.state_types().iter().copied()))
    };
    let unused = state_types().filter(|state_type| !state_type.is_any_of(used()));
    let describe = |state_type: &StateType| match state_type.find_elsewhere(app_data) {
        Some(Elsewhere { place, .. }) => format!("{} ({place})", state_type.path),
        None => state_type.path.to_owned(),
    };
    unused.map(describe).collect()
}

/// What to do if the application has no state that can be found. `None` if no type derives `HealthCheck`, so that there is none.
pub(crate) fn missing_step(app_data: AppData<'_>) -> Option<String> {
    let describe = |state_type: &StateType| {
        let Elsewhere { place, step } = state_type.find_elsewhere(app_data)?;
        Some(format!("`{}` is in app_data {place}: {step}", state_type.name()))
    };
    let elsewhere: Vec<_> = state_types().filter_map(describe).collect();
    if !elsewhere.is_empty() {
        return Some(elsewhere.join("; "));
    }
    let (concrete, generic): (Vec<_>, Vec<_>) = state_types().partition(|state_type| state_type.lookup.is_some());
    let generic = generic.iter().map(|state_type| format!("`{}`", state_type.name())).collect::<Vec<_>>().join(", ");
    let for_generic = || {
        format!(
            "{generic} cannot be found in app_data because of generic parameters: add `.state(&data)` to health::scope()"
        )
    };
    match (concrete.is_empty(), generic.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("no state was found: {}", for_generic())),
        (false, _) => {
            let for_generic = if generic.is_empty() { String::new() } else { format!("; {}", for_generic()) };
            Some(format!("{MISSING_STATE}{for_generic}"))
        }
    }
}

const MISSING_STATE: &str = "no state was found: add `.app_data(web::Data::new(state))` to the App, or to health::scope() \
                             `.state(&data)` for a state that is kept elsewhere, `.probe(\"db\", pool.clone())` for a pool without \
                             a state, or `.registry(health::registry())` for registered checks only";

/// Sorted by path, because `inventory` iterates in the order of the linker.
fn state_types() -> impl Iterator<Item = &'static StateType> {
    let mut types: Vec<_> = inventory::iter::<StateType>().collect();
    types.sort_by_key(|state_type| state_type.path);
    types.into_iter()
}
