//! What a scope without a state says: where in `app_data` the state is, and the line to write.

use std::{cell::RefCell, sync::Arc};

use actix_web::web::{Data, ThinData};

use super::state::{AppData, state_types};

/// The step that is missing if no state was found. `None` if no type derives `HealthCheck`, so that none is missing.
pub(crate) fn missing_step(app_data: AppData<'_>) -> Option<String> {
    if matches!(app_data, AppData::None) {
        let step = "no state was found: add `.state(&data)` to health::scope(), because app_data is read only for requests over \
                    HTTP, `.probe(\"db\", pool.clone())` for a pool without a state, or `.registry(health::registry())` for \
                    registered checks only";
        return state_types().next().map(|_| step.to_owned());
    }
    let misplaced = misplaced_states(app_data);
    if !misplaced.is_empty() {
        return Some(misplaced.join("; "));
    }
    let (generic, concrete): (Vec<_>, Vec<_>) = state_types().partition(|state_type| state_type.is_generic());
    let mut steps = Vec::new();
    if !concrete.is_empty() {
        steps.push(
            "add `.app_data(web::Data::new(state))` to the App, or to health::scope() `.state(&data)` for a state that is kept \
             elsewhere (in health::serve, for every state), `.probe(\"db\", pool.clone())` for a pool without a state, or \
             `.registry(health::registry())` for registered checks only"
                .to_owned(),
        );
    }
    if !generic.is_empty() {
        let names: Vec<_> = generic.iter().map(|state_type| format!("`{}`", state_type.name())).collect();
        steps.push(format!(
            "{} cannot be found in app_data because of generic parameters: add `.state(&data)` to health::scope()",
            names.join(", ")
        ));
    }
    (!steps.is_empty()).then(|| format!("no state was found: {}", steps.join("; ")))
}

/// The states that are in `app_data` where a scope cannot read them, each with the line to write.
pub(crate) fn misplaced_states(app_data: AppData<'_>) -> Vec<String> {
    let misplaced = state_types().filter_map(|state_type| {
        let Elsewhere { place, step } = state_type.find_elsewhere(app_data)?;
        Some(format!("`{}` is in app_data {place}: {step}", state_type.name()))
    });
    misplaced.collect()
}

/// Where in `app_data` a state is that a scope cannot read there, and what to do.
pub(super) struct Elsewhere {
    pub(super) place: &'static str,
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
pub(super) fn find_elsewhere<S: 'static>(app_data: AppData<'_>) -> Option<Elsewhere> {
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

#[cfg(test)]
mod tests {
    use std::sync;

    use actix_web::test::TestRequest;

    use super::{
        super::state::tests::{Shop, Tenant},
        *,
    };

    /// Where a value in `app_data` is found, and the step to take.
    fn found(request: TestRequest) -> Option<(&'static str, &'static str)> {
        let request = request.to_http_request();
        find_elsewhere::<Shop>(AppData::Request(&request)).map(|elsewhere| (elsewhere.place, elsewhere.step))
    }

    fn place_of<T: 'static>(value: T) -> &'static str {
        found(TestRequest::default().app_data(value)).expect("it is found").0
    }

    #[test]
    fn a_state_in_a_lock_is_found_however_the_lock_is_kept() {
        assert_eq!(place_of(sync::Mutex::new(Shop)), "in a `Mutex`");
        assert_eq!(place_of(Arc::new(sync::Mutex::new(Shop))), "in a `Mutex`");
        assert_eq!(place_of(Data::new(sync::Mutex::new(Shop))), "in a `Mutex`");
        assert_eq!(place_of(Data::new(Arc::new(sync::Mutex::new(Shop)))), "in a `Mutex`");
        assert_eq!(place_of(tokio::sync::Mutex::new(Shop)), "in a `Mutex`");
        assert_eq!(place_of(parking_lot::Mutex::new(Shop)), "in a `Mutex`");
        assert_eq!(place_of(sync::RwLock::new(Shop)), "in a `RwLock`");
        assert_eq!(place_of(tokio::sync::RwLock::new(Shop)), "in a `RwLock`");
        assert_eq!(place_of(parking_lot::RwLock::new(Shop)), "in a `RwLock`");
        assert_eq!(place_of(RefCell::new(Shop)), "in a `RefCell`");
    }

    #[test]
    fn a_state_that_no_data_holds_is_found_with_the_line_to_write() {
        let step = |request| found(request).expect("it is found");
        assert_eq!(
            step(TestRequest::default().app_data(Shop)),
            ("without `web::Data`", "write `.app_data(web::Data::new(state))`")
        );
        assert_eq!(
            step(TestRequest::default().app_data(Arc::new(Shop))),
            ("as an `Arc`, without `web::Data`", "write `.app_data(web::Data::from(state))`")
        );
        assert_eq!(place_of(ThinData(Shop)), "as `web::ThinData`");
        assert_eq!(found(TestRequest::default().app_data(Data::new(Shop))), None);
        assert_eq!(found(TestRequest::default()), None);
    }

    #[test]
    fn the_missing_step_is_that_of_the_misplaced_state_or_of_each_kind_of_type() {
        let request = TestRequest::default().app_data(Shop).to_http_request();
        let misplaced = "`Shop` is in app_data without `web::Data`: write `.app_data(web::Data::new(state))`";
        assert_eq!(misplaced_states(AppData::Request(&request)), [misplaced]);
        assert_eq!(missing_step(AppData::Request(&request)).unwrap(), misplaced);

        let request = TestRequest::default().app_data(Tenant(1)).to_http_request();
        assert_eq!(misplaced_states(AppData::Request(&request)), [""; 0]);
        let step = missing_step(AppData::Request(&request)).unwrap();
        assert!(
            step.starts_with("no state was found: add `.app_data(web::Data::new(state))` to the App, or"),
            "{step}"
        );
        let generic = "; `Tenant` cannot be found in app_data because of generic parameters: add `.state(&data)` to health::scope()";
        assert!(step.ends_with(generic), "{step}");

        let step = missing_step(AppData::None).unwrap();
        assert!(step.starts_with("no state was found: add `.state(&data)` to health::scope(), because"), "{step}");
    }
}
