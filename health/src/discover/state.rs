//! Finds the states of an application: those that the scope was given, and those in its `app_data` whose types derive.

use std::{
    any::{TypeId, type_name},
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use actix_web::{HttpRequest, web::Data};

use super::{Checks, HealthCheck};

/// A type that derives `HealthCheck`. The derive submits one for each type that has no generic parameters; only the scope
/// knows where to look for it.
pub struct StateType {
    name: &'static str,
    type_name: fn() -> &'static str,
    find: fn(&HttpRequest) -> Option<FoundState>,
}

inventory::collect!(StateType);

impl StateType {
    /// The entry of a type, named as in the source.
    pub const fn of<S: HealthCheck + 'static>(name: &'static str) -> Self {
        Self { name, type_name: type_name::<S>, find: find_in::<S> }
    }
}

fn find_in<S: HealthCheck + 'static>(request: &HttpRequest) -> Option<FoundState> {
    let own = || request.app_data::<Data<S>>().map(FoundState::of);
    // `web::Data::new` of an `Arc`, which handlers then take out by that type.
    let shared = || request.app_data::<Data<Arc<S>>>().map(|data| FoundState::shared(Arc::clone(data.get_ref())));
    own().or_else(shared)
}

/// A state, held for as long as its address is part of an engine's key.
#[derive(Clone)]
pub(crate) struct FoundState {
    address: (TypeId, usize),
    type_name: &'static str,
    collect: Rc<dyn Fn() -> Checks>,
}

impl FoundState {
    pub(crate) fn of<S: HealthCheck + 'static>(data: &Data<S>) -> Self {
        Self::shared(Data::clone(data).into_inner())
    }

    fn shared<S: HealthCheck + 'static>(state: Arc<S>) -> Self {
        Self {
            address: (TypeId::of::<S>(), Arc::as_ptr(&state).addr()),
            type_name: type_name::<S>(),
            collect: Rc::new(move || Checks::of(&*state)),
        }
    }
}

/// A state and its checks, which are the same for all scopes of the process that meet it. The checks are dropped before the
/// state, by whose address they are found.
pub(crate) struct Met {
    checks: Arc<Checks>,
    state: FoundState,
}

/// The checks of all states that are met, by the addresses of those. An address says nothing once its state is gone: so the
/// checks are found only while somebody has them together with the state.
static MET: Mutex<BTreeMap<(TypeId, usize), Weak<Checks>>> = Mutex::new(BTreeMap::new());

impl Met {
    fn new(state: FoundState) -> Self {
        let known = || met().get(&state.address).and_then(Weak::upgrade);
        let checks = known().unwrap_or_else(|| {
            // Somebody's own code, so not under the lock; of two workers that are here at once, the first one's checks count.
            let collected = Arc::new((state.collect)());
            let mut met = met();
            met.retain(|_, checks| checks.strong_count() > 0);
            let entry = met.entry(state.address).or_default();
            entry.upgrade().unwrap_or_else(|| {
                *entry = Arc::downgrade(&collected);
                collected
            })
        });
        Self { checks, state }
    }

    /// Equal for handles of one state, and for nothing else as long as one of them lives.
    pub(crate) fn address(&self) -> (TypeId, usize) {
        self.state.address
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }
}

fn met() -> MutexGuard<'static, BTreeMap<(TypeId, usize), Weak<Checks>>> {
    MET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The given states, and those that the application holds, each once.
pub(crate) fn find(given: &[FoundState], request: &HttpRequest) -> Vec<Met> {
    let mut found: Vec<FoundState> = Vec::new();
    let held = types().filter_map(|state| (state.find)(request));
    for state in given.iter().cloned().chain(held) {
        if found.iter().all(|known| known.address != state.address) {
            found.push(state);
        }
    }
    found.into_iter().map(Met::new).collect()
}

/// The names of all types that derive and could have been found.
pub(crate) fn type_names() -> Vec<&'static str> {
    types().map(|state| state.name).collect()
}

/// The types that derive and are neither among those states nor a part of them.
pub(crate) fn types_elsewhere(states: &[Met]) -> Vec<String> {
    let met = |name| states.iter().any(|met| met.state.type_name == name || met.checks.parts().contains(&name));
    types().filter(|state| !met((state.type_name)())).map(|state| state.name.to_owned()).collect()
}

/// In the order of their names: that in which the linker lays them out is no order to show.
fn types() -> impl Iterator<Item = &'static StateType> {
    let mut types: Vec<_> = inventory::iter::<StateType>().collect();
    types.sort_by_key(|state| state.name);
    types.into_iter()
}
