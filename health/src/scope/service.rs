//! The actix service of a scope: access control, then a cached response, else the report of the engine, rendered.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::{self, AppService, ServiceRequest, ServiceResponse},
    guard::{Guard, GuardContext},
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web::Bytes,
};
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use tokio::time::Instant;

use super::{
    assess::{ProcessState, assess},
    cache::{CachedResponse, ResponseCache},
    config::{ConfigError, ScopeConfig, ServerKind},
    connection::UnixSocket,
    endpoint::{Endpoint, Route},
    guard::{AccessGuard, Deny},
    query::Query,
    resolve::Resolved,
};
use crate::{
    discovery::state::AppData,
    engine::{Engine, Results},
    lifecycle::Heartbeat,
    process::METHOD_WARNING,
    redact::label,
    render::json,
    report::Entry,
    status::Status,
};

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
            let endpoint = self.route.endpoint(request.head().uri.path());
            worker.resolved(AppData::Routing(request)).engine.contains(endpoint.selection())
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

/// A scope in one worker.
struct WorkerScope {
    config: Rc<ScopeConfig>,
    heartbeat: Rc<Heartbeat>,
    resolved: OnceCell<Resolved>,
    cache: ResponseCache,
}

impl WorkerScope {
    fn start(config: Rc<ScopeConfig>) -> Rc<Self> {
        let heartbeat = match config.server {
            ServerKind::Main => Heartbeat::of_this_worker(config.stall),
            ServerKind::Management => Heartbeat::of_management_server(config.stall),
        };
        Rc::new(Self { config, heartbeat, resolved: OnceCell::new(), cache: ResponseCache::default() })
    }

    fn authorize_and_log(&self, route: Route, request: &ServiceRequest) -> bool {
        let access = &self.config.access;
        // A guard has allowed the request, except where it could not decide.
        let is_guarded = access.deny == Deny::NotFound || route.is_named();
        let is_undecided = || request.head().peer_addr.is_none() && access.policy.distinguishes_unix();
        (is_guarded && !is_undecided())
            || access.authorize_and_log(&request.guard_ctx(), request.conn_data::<UnixSocket>().is_some())
    }

    /// The response, if it needs no wait: to a method that is not allowed, or from the cache.
    fn immediate_response(&self, route: Route, request: &HttpRequest) -> Option<HttpResponse> {
        if !is_method_allowed(request) {
            return Some(method_not_allowed(request));
        }
        if !request.query_string().is_empty() {
            return None;
        }
        let (code, body) = self.cache.response(&route.endpoint(request.path()))?;
        Some(json_response(code, body))
    }

    /// The response to a denied client, which must not reveal which groups and checks exist.
    fn denied(&self, route: Route, request: &HttpRequest) -> HttpResponse {
        let deny = self.config.access.deny;
        if deny == Deny::NotFound || route.is_named() {
            return not_found();
        }
        if deny != Deny::StatusOnly {
            return response(StatusCode::FORBIDDEN).finish();
        }
        if !is_method_allowed(request) {
            return method_not_allowed(request);
        }
        let endpoint = route.endpoint(request.path());
        let status = self.cache.status(&endpoint, || {
            let engine = &self.resolved(AppData::Request(request)).engine;
            let results = engine.latest_results(endpoint.selection(), false);
            assess(&endpoint, results, &self.process_state(engine), || self.workers()).status()
        });
        json_response(status_code(status), json::status_body(status).into())
    }

    async fn respond(&self, route: Route, request: &HttpRequest) -> HttpResponse {
        let endpoint = route.endpoint(request.path());
        let Query { details, exclude } = Query::of(request);
        // A service that has not started must not seem to.
        let exclude = if endpoint == Endpoint::Startup { &[][..] } else { &exclude };
        let engine = &self.resolved(AppData::Request(request)).engine;
        let Results { entries, valid_until, generation, excluded } =
            engine.results(endpoint.selection(), exclude, details).await;
        if entries.is_empty() && excluded.is_empty() && route.is_named() {
            // The check was removed meanwhile.
            return not_found();
        }
        let process = self.process_state(engine);
        let mut report = assess(&endpoint, entries, &process, || self.workers());
        report.excluded = excluded;
        let code = status_code(report.status());
        let body = Bytes::from(json::body(&report, details));
        if let Some(mut valid_until) = valid_until.filter(|_| !details && exclude.is_empty()) {
            if process.held.is_some() {
                // The body has the time that is left.
                valid_until = valid_until.min(Instant::now() + Duration::from_secs(1));
            }
            self.cache.store(&endpoint, CachedResponse { valid_until, generation, code, body: body.clone() });
        }
        json_response(code, body)
    }

    fn resolved(&self, app_data: AppData<'_>) -> &Resolved {
        self.resolved.get_or_init(|| Resolved::new(&self.config.sources, app_data))
    }

    fn process_state(&self, engine: &Engine) -> ProcessState {
        ProcessState { missing_workers: self.heartbeat.missing_workers(), ..ProcessState::now(engine) }
    }

    fn workers(&self) -> Vec<Entry> {
        self.heartbeat.entries(self.config.stall)
    }
}

fn is_method_allowed(request: &HttpRequest) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn method_not_allowed(request: &HttpRequest) -> HttpResponse {
    // A health check with such a method fails without a visible reason.
    if METHOD_WARNING.claim() {
        let (method, path) = (label(request.method().as_str()), label(request.path()));
        tracing::warn!(
            "health scope responded with 405 to {method} {path}: only GET and HEAD are allowed; in HAProxy, `option httpchk` sends \
             OPTIONS by default; use `http-check send meth GET uri /health/ready`"
        );
    }
    response(StatusCode::METHOD_NOT_ALLOWED).insert_header((ALLOW, HeaderValue::from_static("GET, HEAD"))).finish()
}

fn status_code(status: Status) -> StatusCode {
    if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

fn json_response(code: StatusCode, body: Bytes) -> HttpResponse {
    response(code).insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(body)
}

/// The response of an application without such a path.
fn not_found() -> HttpResponse {
    HttpResponse::NotFound().finish()
}

/// A response with the headers that every response has.
fn response(code: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(code);
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response
}
