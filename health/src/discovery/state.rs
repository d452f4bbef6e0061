//! Finds the states of an application: those that the scope was given, and those in its `app_data` whose types derive
//! `HealthCheck`.

use std::{
    any::{TypeId, type_name},
    rc::Rc,
    sync::Arc,
};

use actix_web::{HttpRequest, guard::GuardContext, web::Data};

use super::{
    checks::{Checks, HealthCheck},
    missing::{Elsewhere, find_elsewhere},
};
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
    pub(super) fn get<T: 'static>(self) -> Option<&'a T> {
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

    /// The name without the path.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit("::").next().unwrap_or(self.path)
    }

    pub(super) fn is_generic(&self) -> bool {
        self.lookup.is_none()
    }

    pub(super) fn find_elsewhere(&self, app_data: AppData<'_>) -> Option<Elsewhere> {
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

/// A type whose `web::Data` is a state: one that derives `HealthCheck`, or an `Arc` of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `HealthCheck`",
    label = "expected a struct that derives `HealthCheck`",
    note = "for a struct of resources, add `#[derive(health::HealthCheck)]` to `{Self}`; for a resource itself, such as a pool, call `health::scope().probe(\"db\", pool)`"
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
    is_alive: Rc<dyn Fn() -> bool>,
}

impl FoundState {
    fn of<S: HealthCheck + 'static>(state: Arc<S>) -> Self {
        Self {
            address: (TypeId::of::<S>(), Arc::as_ptr(&state).addr()),
            type_name: type_name::<S>(),
            is_alive: {
                let state = Arc::downgrade(&state);
                Rc::new(move || state.strong_count() > 0)
            },
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

    pub(crate) fn type_name(&self) -> &'static str {
        self.state.type_name
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Returns the checks, and keeps the address of the state unique until the process ends, for a holder that is sent to other threads,
    /// which a [`StateHandle`] cannot be. The state is dropped as ever; only its own memory is not used again.
    #[cfg(feature = "tonic")]
    pub(crate) fn pin(&self) -> Arc<Checks> {
        use std::collections::BTreeSet;

        use parking_lot::Mutex;

        /// The addresses of states of which a handle was forgotten, once for each.
        static PINNED: Mutex<BTreeSet<Address>> = Mutex::new(BTreeSet::new());

        if PINNED.lock().insert(self.state.address) {
            std::mem::forget(Rc::clone(&self.state.is_alive));
        }
        Arc::clone(&self.checks)
    }

    pub(crate) fn downgrade(&self) -> StateHandle {
        StateHandle { _checks: Arc::clone(&self.checks), is_alive: Rc::clone(&self.state.is_alive) }
    }
}

/// Keeps the checks of a state, and its address unique, but not the state alive.
pub(crate) struct StateHandle {
    _checks: Arc<Checks>,
    /// Holds a `Weak` of the state, whose memory is therefore not used for another one.
    is_alive: Rc<dyn Fn() -> bool>,
}

impl StateHandle {
    pub(crate) fn is_alive(&self) -> bool {
        (self.is_alive)()
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

/// Sorted by path, because `inventory` iterates in the order of the linker.
pub(super) fn state_types() -> impl Iterator<Item = &'static StateType> {
    let mut types: Vec<_> = inventory::iter::<StateType>().collect();
    types.sort_by_key(|state_type| state_type.path);
    types.into_iter()
}

#[cfg(test)]
pub(super) mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::check::{Check, tests::check};

    /// A state that is found in `app_data`.
    pub(in crate::discovery) struct Shop;

    /// A state with a type parameter, which is only given.
    pub(in crate::discovery) struct Tenant<T>(pub(in crate::discovery) T);

    const SHOP: &str = concat!(module_path!(), "::Shop");
    const TENANT: &str = concat!(module_path!(), "::Tenant");

    inventory::submit! { StateType::of::<Shop>(SHOP) }
    inventory::submit! { StateType::generic(TENANT) }

    impl HealthCheck for Shop {
        fn health_checks(&self, checks: &mut Checks) {
            checks.add(check("database", "shop"));
        }
    }

    impl<T> HealthCheck for Tenant<T> {
        fn health_checks(&self, checks: &mut Checks) {
            checks.nested("nested", &Shop);
        }
    }

    fn names(states: &[ResolvedState]) -> Vec<&str> {
        states.iter().flat_map(|state| state.checks().iter().map(Check::name)).collect()
    }

    #[test]
    fn states_are_found_in_data_and_in_data_of_an_arc_once() {
        let data = Data::new(Shop);
        let request = TestRequest::default().app_data(data.clone()).to_http_request();
        assert_eq!(names(&find(&[], AppData::Request(&request))), ["shop"]);
        // The same state is also given.
        assert_eq!(names(&find(&[Shop::found(&data)], AppData::Request(&request))), ["shop"]);
        // Another one of its type.
        assert_eq!(names(&find(&[Shop::found(&Data::new(Shop))], AppData::Request(&request))), ["shop", "shop"]);

        let data_of_arc = Data::new(Arc::new(Shop));
        let request = TestRequest::default().app_data(data_of_arc.clone()).to_http_request();
        assert_eq!(names(&find(&[State::found(&data_of_arc)], AppData::Request(&request))), ["shop"]);
        assert_eq!(names(&find(&[], AppData::None)), [""; 0]);
    }

    #[test]
    fn handles_to_one_state_share_an_address_and_checks_while_it_is_alive() {
        let data = Data::new(Tenant(Box::new(1)));
        let [first, second] = [(); 2].map(|()| ResolvedState::new(State::found(&data)));
        assert_eq!(first.address(), second.address());
        assert!(std::ptr::eq(first.checks(), second.checks()));
        let other = ResolvedState::new(State::found(&Data::new(Tenant(Box::new(1)))));
        assert_ne!(other.address(), first.address());

        let handle = first.downgrade();
        drop((first, second));
        assert!(handle.is_alive());
        drop(data);
        assert!(!handle.is_alive());
    }

    #[test]
    fn unused_types_are_those_of_no_state_and_of_no_nested_state() {
        let unused = |states: &[FoundState]| unused_state_types(&find(states, AppData::None), AppData::None);
        assert_eq!(unused(&[]), [SHOP, TENANT]);
        assert_eq!(unused(&[State::found(&Data::new(Shop))]), [TENANT]);
        assert_eq!(unused(&[State::found(&Data::new(Tenant(1)))]), [""; 0]);

        let request = TestRequest::default().app_data(Shop).to_http_request();
        let elsewhere = unused_state_types(&[], AppData::Request(&request));
        assert_eq!(elsewhere, [format!("{SHOP} (without `web::Data`)"), TENANT.to_owned()]);
    }

    #[test]
    fn types_are_named_without_their_path() {
        assert_eq!(StateType::generic(TENANT).name(), "Tenant");
        assert_eq!(StateType::of::<Shop>("Shop").name(), "Shop");
    }
}
