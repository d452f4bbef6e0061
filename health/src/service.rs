//! The actix service that a scope becomes in each worker: access, then the engine's report, then its rendering.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::{self, AppService, ResourceDef, ServiceRequest, ServiceResponse},
    guard::Guard,
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web::Bytes,
};
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::{
    access::UnixSocket,
    change,
    check::Check,
    discovery::{
        Checks,
        state::{self, ResolvedState},
    },
    door::{Deny, PassBy},
    engine::{self, Engine, Key, Selection, Slot, Sources},
    lifecycle::{self, Heartbeat},
    redact::label,
    registry::{Registry, registry},
    render::json,
    report::{Entry, Report, Status},
    scope::{Scope, Settled, StartError},
};

/// Registers a scope's service for all its paths. One that can't start keeps the server from starting.
pub(crate) fn register(path: &str, settled: Result<Settled, StartError>, config: &mut AppService) {
    let hidden = settled.as_ref().ok().map(|settled| &settled.door).filter(|door| door.deny == Deny::NotFound);
    let hidden = hidden.map(Rc::clone);
    let guards = || hidden.clone().map(|door| vec![Box::new(PassBy(door)) as Box<dyn Guard>]);
    let factory =
        ServiceFactory { settled: settled.map(Rc::new).map_err(Rc::new), started: Rc::default(), told: Rc::default() };
    let (group, name) = (format!("{{{GROUP}}}"), format!("{{{NAME}}}"));
    let tails = [
        "/".to_owned(),
        format!("/{group}"),
        format!("/{group}/"),
        format!("/{group}/{name}"),
        format!("/{group}/{name}/"),
    ];
    // The path that is asked for most is a pattern of its own, which is matched as a plain text. At the root, `/` is it.
    let (first, tails) = if path.is_empty() { ("/", &tails[1..]) } else { (path, &tails[..]) };
    let tails: Vec<_> = tails.iter().map(|tail| format!("{path}{tail}")).collect();
    config.register_service(ResourceDef::new(first), guards(), factory.clone(), None);
    config.register_service(ResourceDef::new(tails), guards(), factory, None);
}

/// The segments of a path. Names that no scope around this one has.
const GROUP: &str = "health_group_of_check";
const NAME: &str = "health_name_of_check";

/// Makes the one service of a worker, for all patterns of the scope.
#[derive(Clone)]
struct ServiceFactory {
    settled: Result<Rc<Settled>, Rc<StartError>>,
    started: Rc<RefCell<Weak<Service>>>,
    /// The log was told why there is none.
    told: Rc<Cell<bool>>,
}

type Answer = Result<ServiceResponse, actix_web::Error>;

impl dev::ServiceFactory<ServiceRequest> for ServiceFactory {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = Handle;
    type InitError = ();
    type Future = Ready<Result<Handle, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let settled = match &self.settled {
            Ok(settled) => settled,
            Err(error) => {
                if !self.told.replace(true) {
                    tracing::error!("health scope can't start: {error}");
                    if !tracing::dispatcher::has_been_set() {
                        // A server that does not start for a reason that nobody sees helps nobody.
                        eprintln!("health scope can't start: {error}");
                    }
                }
                return ready(Err(()));
            }
        };
        let mut started = self.started.borrow_mut();
        let service = started.upgrade().unwrap_or_else(|| Service::start(Rc::clone(settled)));
        *started = Rc::downgrade(&service);
        ready(Ok(Handle(service)))
    }
}

/// A scope in one worker.
struct Service {
    settled: Rc<Settled>,
    heartbeat: Rc<Heartbeat>,
    resolved: OnceCell<Resolved>,
    /// The latest answers at `/health` and `/health/ready`.
    kept: [RefCell<Option<Kept>>; 2],
    /// The latest statuses that clients were told who are not let in: there, and at `/health/live` and `/health/startup`.
    told: [Cell<Option<Told>>; 4],
}

/// A status that is told again for a moment, or until something changes: to tell strangers must not cost more than to tell
/// who may ask.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    changes: u64,
    status: Status,
}

impl Told {
    const MOMENT: Duration = Duration::from_millis(100);

    fn holds(&self) -> bool {
        self.changes == change::count() && self.at.elapsed() < Self::MOMENT
    }
}

/// What the first request found. The engine is dropped before the states, whose addresses it is found by.
struct Resolved {
    engine: Arc<Engine>,
    _states: Vec<ResolvedState>,
}

/// An answer that was rendered, and is served again until then, or until something changes.
struct Kept {
    until: Instant,
    changes: u64,
    status: StatusCode,
    body: Bytes,
}

/// The service as actix holds it.
struct Handle(Rc<Service>);

impl dev::Service<ServiceRequest> for Handle {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Either<Ready<Answer>, LocalBoxFuture<'static, Answer>>;

    dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        if !self.0.lets_in(&request) {
            let response = self.0.refuse(request.request());
            return Either::Left(ready(Ok(request.into_response(response))));
        }
        let (request, _) = request.into_parts();
        match self.0.at_once(&request) {
            Some(response) => Either::Left(ready(Ok(ServiceResponse::new(request, response)))),
            None => {
                let service = Rc::clone(&self.0);
                Either::Right(Box::pin(async move {
                    let response = service.answer(&request).await;
                    Ok(ServiceResponse::new(request, response))
                }))
            }
        }
    }
}

/// What a path asks for.
enum View<'a> {
    Health,
    Ready,
    Live,
    Startup,
    Group(Cow<'a, str>),
    Check(Cow<'a, str>, Cow<'a, str>),
}

impl<'a> View<'a> {
    fn of(request: &'a HttpRequest) -> Self {
        let segment = |name| request.match_info().get(name);
        let decoded = |raw| percent_decode_str(raw).decode_utf8_lossy();
        match (segment(GROUP), segment(NAME)) {
            (None, _) => Self::Health,
            (Some("ready"), None) => Self::Ready,
            (Some("live"), None) => Self::Live,
            (Some("startup"), None) => Self::Startup,
            (Some(group), None) => Self::Group(decoded(group)),
            (Some(group), Some(name)) => Self::Check(decoded(group), decoded(name)),
        }
    }

    fn selection(&self) -> Selection<'_> {
        match self {
            Self::Health | Self::Ready => Selection::All,
            Self::Live => Selection::Live,
            Self::Startup => Selection::Critical,
            Self::Group(group) => Selection::Group(group),
            Self::Check(group, name) => Selection::Check(group, name),
        }
    }

    /// The place of its answers among those that are kept.
    fn kept(&self) -> Option<usize> {
        self.told().filter(|&place| place < 2)
    }

    /// The place of its statuses among those that are told.
    fn told(&self) -> Option<usize> {
        match self {
            Self::Health => Some(0),
            Self::Ready => Some(1),
            Self::Live => Some(2),
            Self::Startup => Some(3),
            Self::Group(_) | Self::Check(..) => None,
        }
    }
}

impl Service {
    fn start(settled: Rc<Settled>) -> Rc<Self> {
        let heartbeat = Heartbeat::of_this_worker(settled.scope.stall);
        Rc::new(Self {
            settled,
            heartbeat,
            resolved: OnceCell::new(),
            kept: Default::default(),
            told: Default::default(),
        })
    }

    fn lets_in(&self, request: &ServiceRequest) -> bool {
        let door = &self.settled.door;
        // Under `NotFound` it was the guard who let the request in, but see there.
        let guarded = door.deny == Deny::NotFound;
        let is_unsure = || request.head().peer_addr.is_none() && door.policy.distinguishes_unix();
        (guarded && !is_unsure()) || door.lets_in(&request.guard_ctx(), request.conn_data::<UnixSocket>().is_some())
    }

    /// Everything that needs no wait: what is wrong with the request, and the answer that is kept.
    fn at_once(&self, request: &HttpRequest) -> Option<HttpResponse> {
        if !is_read(request) {
            return Some(not_allowed(request));
        }
        if wants_details(request) {
            return None;
        }
        let kept = self.kept[View::of(request).kept()?].borrow();
        let Kept { status, body, .. } =
            kept.as_ref().filter(|kept| kept.changes == change::count() && Instant::now() < kept.until)?;
        Some(json(*status, body.clone()))
    }

    /// What is answered to who is not let in.
    fn refuse(&self, request: &HttpRequest) -> HttpResponse {
        let view = View::of(request);
        // Which groups and checks there are is not told.
        if self.settled.door.deny == Deny::NotFound {
            return empty(StatusCode::NOT_FOUND).finish();
        }
        if self.settled.door.deny != Deny::StatusOnly || matches!(view, View::Group(_) | View::Check(..)) {
            return empty(StatusCode::FORBIDDEN).finish();
        }
        if !is_read(request) {
            return not_allowed(request);
        }
        let told = view.told().map(|place| &self.told[place]);
        let status = match told.and_then(Cell::get).filter(Told::holds) {
            Some(told) => told.status,
            None => {
                let (at, changes) = (Instant::now(), change::count());
                let resolved = self.resolved.get_or_init(|| self.resolve(request));
                let mut report = resolved.engine.known(view.selection());
                self.adjust(&mut report, &view, &resolved.engine);
                if let Some(told) = told {
                    told.set(Some(Told { at, changes, status: report.status }));
                }
                report.status
            }
        };
        json(code(status), json::status_body(status).into())
    }

    async fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let view = View::of(request);
        let details = wants_details(request);
        let resolved = self.resolved.get_or_init(|| self.resolve(request));
        let Some((mut report, until, changes)) = resolved.engine.report(view.selection(), details).await else {
            return empty(StatusCode::NOT_FOUND).finish();
        };
        self.adjust(&mut report, &view, &resolved.engine);
        let status = code(report.status);
        let body = Bytes::from(json::body(&report, details));
        if let (Some(place), Some(until), false) = (view.kept(), until, details) {
            *self.kept[place].borrow_mut() = Some(Kept { until, changes, status, body: body.clone() });
        }
        json(status, body)
    }

    /// What a view says beside the checks.
    fn adjust(&self, report: &mut Report, view: &View<'_>, engine: &Engine) {
        let mut of_the_process = Vec::new();
        match view {
            View::Health | View::Ready => {
                if lifecycle::is_draining() {
                    of_the_process.push(Entry::plain("health", "drain", Some("server is draining".into())));
                }
            }
            View::Live => of_the_process = self.heartbeat.of_all_workers(self.settled.scope.stall),
            View::Startup => {
                // Once started it stays so, whatever its checks are now.
                report.status = if engine.not_started().is_empty() { Status::Up } else { Status::Down };
                return;
            }
            View::Group(_) | View::Check(..) => {}
        }
        if let View::Ready = view
            && let waited_for @ [_, ..] = &*engine.not_started()
        {
            let message = format!("not started: {} has not been up yet", waited_for.join(", "));
            of_the_process.push(Entry::plain("health", "startup", Some(message.into())));
        }
        if !of_the_process.is_empty() {
            of_the_process.append(&mut report.entries);
            *report = Report::of(of_the_process);
        }
    }

    fn resolve(&self, request: &HttpRequest) -> Resolved {
        let Scope { checks, registries, settings, states, .. } = &self.settled.scope;
        let states = state::find(states, request);
        let registries: Vec<_> = registries.iter().chain([registry()]).cloned().collect();
        let key = Key {
            states: states.iter().map(ResolvedState::address).collect(),
            checks: checks.iter().map(Check::identity).collect(),
            names: checks.iter().map(Check::to_string).collect(),
            registries: registries.iter().map(Registry::identity).collect(),
            settings: *settings,
        };
        let engine = engine::shared(key, || Sources { fixed: self.fixed(&states), registries });
        Resolved { engine, _states: states }
    }

    /// The checks of the states and of the scope itself, and the line that tells what they are.
    fn fixed(&self, states: &[ResolvedState]) -> Vec<Slot> {
        let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let found = || states.iter().map(ResolvedState::checks);
        let ignored = list(found().flat_map(|found| found.ignored().to_vec()).collect());
        let elsewhere = list(state::unused_state_types(states));
        let mut checks: Vec<_> = found().flat_map(Checks::iter).cloned().collect();
        checks.extend(self.settled.scope.checks.iter().cloned());
        let probed = list(checks.iter().map(Check::to_string).collect());
        let path = label(&self.settled.scope.path);
        tracing::info!(
            "health scope at {path} probes: {probed}; fields that are ignored: {ignored}; types that derive HealthCheck and \
             are not in this application: {elsewhere}"
        );
        let mut fixed: Vec<_> = checks.into_iter().map(Slot::Check).collect();
        if found().any(Checks::has_panicked) {
            fixed.push(Slot::fault("health", "state", "a state's own `health_checks` panicked"));
        }
        fixed.extend(self.missing_state(states));
        fixed
    }

    /// A scope that was given nothing is to find a state. Where it finds none though there are types that derive, somebody
    /// forgot a step, and resources are not probed that should be.
    fn missing_state(&self, states: &[ResolvedState]) -> Option<Slot> {
        let types = state::type_names();
        if !states.is_empty() || types.is_empty() {
            return None;
        }
        let types = types.join(", ");
        let Scope { checks, registries, .. } = &self.settled.scope;
        let given = !checks.is_empty() || !registries.is_empty();
        if given {
            return None;
        }
        let message = "no state was found: add `.app_data(web::Data::new(state))` to the App, or `.state(&data)` to \
                        health::scope(); if it is to show registered checks alone, say `.registry(health::registry())`";
        tracing::error!(types, "health scope: {message}; these types derive HealthCheck: {types}");
        Some(Slot::fault("health", "state", message))
    }
}

fn is_read(request: &HttpRequest) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn not_allowed(request: &HttpRequest) -> HttpResponse {
    static LOGGED: AtomicBool = AtomicBool::new(false);

    // A health check with such a method would otherwise fail without a reason that can be found.
    if !LOGGED.swap(true, Ordering::Relaxed) {
        let (method, path) = (label(request.method().as_str()), label(request.path()));
        tracing::warn!(
            "health scope responded with 405 to {method} {path}: only GET and HEAD are allowed; in HAProxy, `option httpchk` sends \
             OPTIONS unless told otherwise: `http-check send meth GET uri /health/ready`"
        );
    }
    empty(StatusCode::METHOD_NOT_ALLOWED).insert_header((ALLOW, HeaderValue::from_static("GET, HEAD"))).finish()
}

fn code(status: Status) -> StatusCode {
    if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

fn wants_details(request: &HttpRequest) -> bool {
    let query = request.query_string();
    !query.is_empty() && says_details(query)
}

/// Whether a query has `details`, or `details=true`. Of several, the last one counts.
fn says_details(query: &str) -> bool {
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.rfind(|(name, _)| decoded(name) == "details").map(|(_, value)| decoded(value));
    value.is_some_and(|value| matches!(&*value, "" | "1") || value.eq_ignore_ascii_case("true"))
}

fn json(status: StatusCode, body: Bytes) -> HttpResponse {
    empty(status).insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(body)
}

/// The head that every answer has.
fn empty(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response
}
