//! The actix service of a scope: its routes, their guards, and access control before everything else.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use actix_web::{
    dev::{self, AppService, ServiceRequest, ServiceResponse},
    guard::{Guard, GuardContext},
};
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};

use super::{
    config::{ConfigError, ScopeConfig},
    endpoint::Route,
    guard::{AccessGuard, Deny},
    worker::WorkerScope,
};
use crate::discovery::state::AppData;

/// Registers the service for all paths of a scope. An invalid configuration keeps the server from starting.
pub(super) fn register(
    path: &str,
    kubernetes_paths: bool,
    config: Result<ScopeConfig, ConfigError>,
    app: &mut AppService,
) {
    let hidden = config.as_ref().ok().map(|config| &config.access).filter(|access| access.deny == Deny::NotFound);
    let hidden = hidden.map(Rc::clone);
    let config = config.map(Rc::new).map_err(Rc::new);
    let (started, is_error_logged) = (Rc::default(), Rc::default());
    for (route, pattern) in Route::patterns(path, kubernetes_paths) {
        let factory = ServiceFactory {
            route,
            config: config.clone(),
            started: Rc::clone(&started),
            is_error_logged: Rc::clone(&is_error_logged),
        };
        let guard: Option<Box<dyn Guard>> = match &hidden {
            _ if route.is_named() => Some(Box::new(NameGuard { route, started: Rc::clone(&started) })),
            Some(access) => Some(Box::new(AccessGuard(Rc::clone(access)))),
            None => None,
        };
        app.register_service(pattern, guard.map(|guard| vec![guard]), factory, None);
    }
}

/// The scope of a worker, once it has started.
type Started = Rc<RefCell<Weak<WorkerScope>>>;

/// Makes actix skip the path of a group or a check that does not exist, and of all groups for denied clients: such a path belongs to
/// the application.
struct NameGuard {
    route: Route,
    started: Started,
}

impl Guard for NameGuard {
    fn check(&self, request: &GuardContext<'_>) -> bool {
        let Some(worker) = self.started.borrow().upgrade() else { return false };
        let access = &worker.config.access;
        // Denied first, so that a denied client cannot measure whether a group exists.
        access.is_allowed(request, access.policy.distinguishes_unix()) && {
            let engine = &worker.resolved(AppData::Routing(request)).engine;
            self.route.endpoint(request.head().uri.path()).is_some_and(|endpoint| engine.contains(endpoint.selection()))
        }
    }
}

/// Creates the service of a route. All routes of a worker's scope share the [`WorkerScope`].
struct ServiceFactory {
    route: Route,
    config: Result<Rc<ScopeConfig>, Rc<ConfigError>>,
    started: Started,
    is_error_logged: Rc<Cell<bool>>,
}

type ServiceResult = Result<ServiceResponse, actix_web::Error>;

impl dev::ServiceFactory<ServiceRequest> for ServiceFactory {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = HealthService;
    type InitError = ();
    type Future = Ready<Result<HealthService, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let config = match &self.config {
            Ok(config) => config,
            Err(error) => {
                if !self.is_error_logged.replace(true) {
                    tracing::error!("health scope: {error}");
                    if !tracing::dispatcher::has_been_set() {
                        // Without a subscriber, the reason would be lost.
                        eprintln!("health scope: {error}");
                    }
                }
                return ready(Err(()));
            }
        };
        let mut started = self.started.borrow_mut();
        let worker = started.upgrade().unwrap_or_else(|| WorkerScope::start(Rc::clone(config)));
        *started = Rc::downgrade(&worker);
        ready(Ok(HealthService { route: self.route, worker }))
    }
}

/// The service of a route.
struct HealthService {
    route: Route,
    worker: Rc<WorkerScope>,
}

impl dev::Service<ServiceRequest> for HealthService {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Either<Ready<ServiceResult>, LocalBoxFuture<'static, ServiceResult>>;

    dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let Self { route, worker } = self;
        if !worker.authorize_and_log(*route, &request) {
            let response = worker.denied(*route, request.request());
            return Either::Left(ready(Ok(request.into_response(response))));
        }
        let (request, _) = request.into_parts();
        match worker.immediate_response(*route, &request) {
            Some(response) => Either::Left(ready(Ok(ServiceResponse::new(request, response)))),
            None => {
                let (route, worker) = (*route, Rc::clone(worker));
                Either::Right(Box::pin(async move {
                    let response = worker.respond(route, &request).await;
                    Ok(ServiceResponse::new(request, response))
                }))
            }
        }
    }
}
