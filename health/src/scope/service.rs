//! The actix service of a scope: access control, then a cached response, else the report of the engine, rendered.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::{self, AppService, ServiceRequest, ServiceResponse},
    guard::Guard,
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web::Bytes,
};
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use percent_encoding::percent_decode_str;

use super::{
    cache::{CachedResponse, ResponseCache},
    config::{ConfigError, ScopeConfig},
    connection::UnixSocket,
    endpoint::{Endpoint, patterns},
    guard::{AccessGuard, Deny},
    resolve::Resolved,
};
use crate::{
    engine::Engine,
    lifecycle::{self, Heartbeat, MissingWorkers},
    process::METHOD_WARNING,
    redact::label,
    render::json,
    report::{Entry, Report},
    status::Status,
};

/// Registers the service for all paths of a scope. An invalid configuration keeps the server from starting.
pub(super) fn register(path: &str, config: Result<ScopeConfig, ConfigError>, app: &mut AppService) {
    let hidden = config.as_ref().ok().map(|config| &config.access).filter(|access| access.deny == Deny::NotFound);
    let hidden = hidden.map(Rc::clone);
    let guards = || hidden.clone().map(|access| vec![Box::new(AccessGuard(access)) as Box<dyn Guard>]);
    let factory = ServiceFactory {
        config: config.map(Rc::new).map_err(Rc::new),
        started: Rc::default(),
        is_error_logged: Rc::default(),
    };
    for pattern in patterns(path) {
        app.register_service(pattern, guards(), factory.clone(), None);
    }
}

/// Creates the service of a worker, which all patterns of the scope share.
#[derive(Clone)]
struct ServiceFactory {
    config: Result<Rc<ScopeConfig>, Rc<ConfigError>>,
    started: Rc<RefCell<Weak<WorkerScope>>>,
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
                    tracing::error!("health scope: invalid configuration: {error}");
                    if !tracing::dispatcher::has_been_set() {
                        // Without a subscriber, the reason would be lost.
                        eprintln!("health scope: invalid configuration: {error}");
                    }
                }
                return ready(Err(()));
            }
        };
        let mut started = self.started.borrow_mut();
        let worker = started.upgrade().unwrap_or_else(|| WorkerScope::start(Rc::clone(config)));
        *started = Rc::downgrade(&worker);
        ready(Ok(HealthService(worker)))
    }
}

/// The service of one pattern.
struct HealthService(Rc<WorkerScope>);

impl dev::Service<ServiceRequest> for HealthService {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Either<Ready<ServiceResult>, LocalBoxFuture<'static, ServiceResult>>;

    dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        if !self.0.authorize_and_log(&request) {
            let response = self.0.denied(request.request());
            return Either::Left(ready(Ok(request.into_response(response))));
        }
        let (request, _) = request.into_parts();
        match self.0.immediate_response(&request) {
            Some(response) => Either::Left(ready(Ok(ServiceResponse::new(request, response)))),
            None => {
                let worker = Rc::clone(&self.0);
                Either::Right(Box::pin(async move {
                    let response = worker.respond(&request).await;
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
        let heartbeat = if config.is_management {
            Heartbeat::of_management_server(config.stall)
        } else {
            Heartbeat::of_this_worker(config.stall)
        };
        Rc::new(Self { config, heartbeat, resolved: OnceCell::new(), cache: ResponseCache::default() })
    }

    fn authorize_and_log(&self, request: &ServiceRequest) -> bool {
        let access = &self.config.access;
        // Under `NotFound`, the guard has allowed the request, except where it could not decide.
        let is_guarded = access.deny == Deny::NotFound;
        let is_undecided = || request.head().peer_addr.is_none() && access.policy.distinguishes_unix();
        (is_guarded && !is_undecided())
            || access.authorize_and_log(&request.guard_ctx(), request.conn_data::<UnixSocket>().is_some())
    }

    /// The response, if it needs no wait: to a method that is not allowed, or from the cache.
    fn immediate_response(&self, request: &HttpRequest) -> Option<HttpResponse> {
        if !is_method_allowed(request) {
            return Some(method_not_allowed(request));
        }
        if wants_details(request) {
            return None;
        }
        let (code, body) = self.cache.response(&Endpoint::of(request))?;
        Some(json_response(code, body))
    }

    /// The response to a denied client, which must not reveal which groups and checks exist.
    fn denied(&self, request: &HttpRequest) -> HttpResponse {
        let endpoint = Endpoint::of(request);
        let deny = self.config.access.deny;
        if deny == Deny::NotFound {
            return response(StatusCode::NOT_FOUND).finish();
        }
        if deny != Deny::StatusOnly || matches!(endpoint, Endpoint::Group(_) | Endpoint::Check(..)) {
            return response(StatusCode::FORBIDDEN).finish();
        }
        if !is_method_allowed(request) {
            return method_not_allowed(request);
        }
        let status = self.cache.status(&endpoint, || {
            let engine = &self.resolved(request).engine;
            let mut report = engine.cached_report(endpoint.selection());
            self.add_process_entries(&mut report, &endpoint, engine);
            report.status
        });
        json_response(status_code(status), json::status_body(status).into())
    }

    async fn respond(&self, request: &HttpRequest) -> HttpResponse {
        let endpoint = Endpoint::of(request);
        let details = wants_details(request);
        let engine = &self.resolved(request).engine;
        let Some((mut report, valid_until, generation)) = engine.report(endpoint.selection(), details).await else {
            return response(StatusCode::NOT_FOUND).finish();
        };
        self.add_process_entries(&mut report, &endpoint, engine);
        let code = status_code(report.status);
        let body = Bytes::from(json::body(&report, details));
        if let (Some(valid_until), false) = (valid_until, details) {
            self.cache.store(&endpoint, CachedResponse { valid_until, generation, code, body: body.clone() });
        }
        json_response(code, body)
    }

    fn resolved(&self, request: &HttpRequest) -> &Resolved {
        self.resolved.get_or_init(|| Resolved::new(&self.config, request))
    }

    /// Adds what an endpoint reports about the process itself, before the checks.
    fn add_process_entries(&self, report: &mut Report, endpoint: &Endpoint<'_>, engine: &Engine) {
        let mut entries = Vec::new();
        // A drain ends with workers that stop.
        let is_draining = lifecycle::is_draining();
        let missing_workers = self.heartbeat.missing_workers().filter(|_| !is_draining);
        match endpoint {
            Endpoint::Health | Endpoint::Ready => {
                if is_draining {
                    entries.push(Entry::plain("health", "drain", Some("server is draining".into())));
                }
                entries.extend(missing_workers.map(MissingWorkers::entry));
            }
            Endpoint::Live => {
                entries = self.heartbeat.entries(self.config.stall);
                entries.extend(missing_workers.map(MissingWorkers::entry));
            }
            Endpoint::Startup => {
                let not_registered = missing_workers.filter(|missing| *missing == MissingWorkers::NotRegistered);
                // Permanently UP once started, whatever the results of the checks are now.
                let is_started = not_registered.is_none() && engine.pending_startup().is_empty();
                report.status = if is_started { Status::Up } else { Status::Down };
                report.entries.splice(0..0, not_registered.map(MissingWorkers::entry));
                return;
            }
            Endpoint::Group(_) | Endpoint::Check(..) => {}
        }
        if let Endpoint::Ready = endpoint
            && let pending @ [_, ..] = &*engine.pending_startup()
        {
            let message = format!("not started: {} has not been up yet", pending.join(", "));
            entries.push(Entry::plain("health", "startup", Some(message.into())));
        }
        if !entries.is_empty() {
            entries.append(&mut report.entries);
            *report = Report::of(entries);
        }
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

/// Whether the last `details` of the query is empty, `1` or `true`.
fn wants_details(request: &HttpRequest) -> bool {
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let mut pairs = request.query_string().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.rfind(|(name, _)| decoded(name) == "details").map(|(_, value)| decoded(value));
    value.is_some_and(|value| matches!(&*value, "" | "1") || value.eq_ignore_ascii_case("true"))
}

fn json_response(code: StatusCode, body: Bytes) -> HttpResponse {
    response(code).insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(body)
}

/// A response with the headers that every response has.
fn response(code: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(code);
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response
}
