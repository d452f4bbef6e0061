//! [`Scope`], the builder, and the actix service that it is: access, then the engine's report, then its rendering.

use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    collections::HashSet,
    error::Error,
    fmt,
    net::IpAddr,
    rc::{Rc, Weak},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web::{Bytes, Data},
};
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::{
    access::{Allow, ListError, Policy, Refusals, VARIABLE},
    change,
    check::{Check, InvalidCheck},
    discover::{
        Checks, HealthCheck,
        state::{self, FoundState},
    },
    engine::{self, Engine, Key, Selection, Settings, Slot, Sources},
    lifecycle::{self, Heartbeat},
    registry::{Registry, registry},
    render::json,
    report::{Entry, Report, Status},
};

/// The service that answers health checks: a builder, and what `App::service` takes, in one.
///
/// | path | answered |
/// | --- | --- |
/// | `/health` | all checks |
/// | `/health/ready` | all checks: whether requests should be sent here |
/// | `/health/live` | the workers and the checks marked `live`: whether only a restart helps |
/// | `/health/startup` | the critical checks: 200 once each has been up, and then for good |
/// | `/health/{group}` | the checks of a group; 404 if there is none |
/// | `/health/{group}/{name}` | one check; 404 if there is none |
///
/// `GET` and `HEAD` are answered with 200 if the service is `UP` or `DEGRADED`, with 503 if it is `DOWN`; other methods with 405.
/// A trailing slash changes nothing, and no answer may be cached. `?details` adds what is known of each check beside its
/// status: latencies in milliseconds, ages, since when, how often. Who is not allowed to ask is refused with 403 and an empty
/// body, before anything is looked up.
///
/// # Errors
///
/// The server does not start, and the log says why, if `HEALTHCHECK_IPS` or [`Scope::allow`] has an entry that is no network,
/// if two checks of the scope have one name or one has a name that can't be part of a path, or if the deadline is zero.
///
/// # Examples
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
///
/// # #[derive(Clone)] struct Mailer;
/// # impl health::Probe for Mailer {
/// #     const GROUP: &'static str = "service";
/// #     async fn probe(&self) -> Result<(), health::ProbeError> { Ok(()) }
/// # }
/// #[derive(health::HealthCheck)]
/// struct AppState {
///     mailer: Mailer,
/// }
///
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// let state = web::Data::new(AppState { mailer: Mailer });
/// HttpServer::new(move || {
///     App::new()
///         .app_data(state.clone())
///         .service(health::scope().allow(["10.0.0.0/8".parse().unwrap()]))
/// })
/// .bind(("0.0.0.0", 8080))?
/// .run()
/// .await
/// # }
/// ```
#[must_use = "a scope does nothing until it is given to `App::service`"]
pub struct Scope {
    path: String,
    allow: Allow,
    unix: bool,
    settings: Settings,
    stall: Duration,
    states: Vec<FoundState>,
    checks: Vec<Check>,
    registries: Vec<Registry>,
}

/// Longer than anybody waits, and short enough for clocks to reckon with.
pub(crate) const LONGEST: Duration = Duration::from_hours(24 * 365);

/// A scope at `/health`, for who may ask by default, which finds the state by itself.
///
/// # Examples
///
/// ```
/// # use actix_web::App;
/// let app = App::new().service(health::scope());
/// ```
pub fn scope() -> Scope {
    Scope {
        path: "/health".to_owned(),
        allow: Allow::Default,
        unix: false,
        settings: Settings { deadline: Duration::from_millis(800), max_age: Duration::from_secs(1), refresh: None },
        stall: Duration::from_secs(10),
        states: Vec::new(),
        checks: Vec::new(),
        registries: Vec::new(),
    }
}

impl Scope {
    /// Where the scope answers. Default is `/health`.
    pub fn path(mut self, path: &str) -> Self {
        self.path = format!("/{}", path.trim_matches('/'));
        self
    }

    /// The networks that may ask, instead of the default list; called again, the last list counts.
    ///
    /// Default is what the environment variable `HEALTHCHECK_IPS` says, a list of addresses and networks separated by commas;
    /// if that is not set, or blank, loopback. An `IpAddr` becomes a network of one by `into()`. An IPv4-mapped IPv6 address is the IPv4 address, in the list and as a peer.
    pub fn allow(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.allow = Allow::Networks(networks.into_iter().collect());
        self
    }

    /// Lets everybody ask. What is up and what is down is of use to who attacks you: say this only behind something that
    /// lets nobody else through.
    pub fn allow_any(mut self) -> Self {
        self.allow = Allow::Any;
        self
    }

    /// Lets peers ask that have no address: those on a Unix socket. Default is to refuse them.
    ///
    /// A request of `actix_web::test` has none either, unless it is given one: `TestRequest::get().peer_addr(…)`.
    pub fn allow_unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// The time within which the whole answer leaves, whatever hangs; a check without an answer by then is down.
    /// Default is 800 ms, which is under the second that a kubelet waits.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline.min(LONGEST);
        self
    }

    /// A result younger than this is served as it is. Default is 1 s.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = max_age.min(LONGEST);
        self
    }

    /// Runs all checks in the background, about every so often (a tenth sooner or later), instead of when a request finds
    /// their results too old: requests only read. A result that is three times as old as that says nothing any more, and its
    /// check is down. Default is off. Begins with the first request.
    pub fn refresh(mut self, every: Duration) -> Self {
        self.settings.refresh = Some(every.min(LONGEST));
        self
    }

    /// How long a worker's event loop may stand still before `/health/live` is down: a handler that blocks its thread that
    /// long stops every request that the worker has. Default is 10 s.
    pub fn stall(mut self, stall: Duration) -> Self {
        self.stall = stall.min(LONGEST);
        self
    }

    /// Adds a check of this scope alone. Make it once, outside the factory of `HttpServer`, and clone it into the factory:
    /// made inside, it is another check in every worker, and each worker runs its own.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds a state that is not in `app_data`, or whose type has generic parameters and so is not found by itself.
    pub fn state<S: HealthCheck + 'static>(mut self, data: &Data<S>) -> Self {
        self.states.push(FoundState::of(data));
        self
    }

    /// Adds a registry of your own; that of the process is shown by every scope.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registries.push(registry.clone());
        self
    }

    fn start(self) -> Result<Settled, StartError> {
        let Settings { deadline, refresh, .. } = self.settings;
        for (name, time) in [("deadline", Some(deadline)), ("refresh", refresh), ("stall", Some(self.stall))] {
            if time.is_some_and(|time| time.is_zero()) {
                return Err(StartError::NoTime(name));
            }
        }
        let mut names = HashSet::new();
        for check in &self.checks {
            check.valid()?;
            if !names.insert((check.group(), check.name())) {
                return Err(StartError::Duplicate(check.to_string()));
            }
        }
        let policy = Policy::new(&self.allow, self.unix)?;
        Ok(Settled { policy, scope: self })
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("path", &self.path)
            .field("allow", &self.allow)
            .field("unix", &self.unix)
            .field("deadline", &self.settings.deadline)
            .field("max_age", &self.settings.max_age)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl HttpServiceFactory for Scope {
    fn register(self, config: &mut AppService) {
        let path = self.path.trim_end_matches('/').to_owned();
        let factory = ServiceFactory { settled: Rc::new(self.start()), started: Rc::default() };
        let (group, name) = (format!("{{{GROUP}}}"), format!("{{{NAME}}}"));
        let tails = [
            "/".to_owned(),
            format!("/{group}"),
            format!("/{group}/"),
            format!("/{group}/{name}"),
            format!("/{group}/{name}/"),
        ];
        // The path that is asked for most is a pattern of its own, which is matched as a plain text. At the root, `/` is it.
        let (first, tails) = if path.is_empty() { ("/", &tails[1..]) } else { (&*path, &tails[..]) };
        let tails: Vec<_> = tails.iter().map(|tail| format!("{path}{tail}")).collect();
        config.register_service(ResourceDef::new(first), None, factory.clone(), None);
        config.register_service(ResourceDef::new(tails), None, factory, None);
    }
}

/// The segments of a path. Names that no scope around this one has.
const GROUP: &str = "health_group_of_check";
const NAME: &str = "health_name_of_check";

/// A scope whose settings hold.
struct Settled {
    policy: Policy,
    scope: Scope,
}

/// Makes the one service of a worker, for all patterns of the scope.
#[derive(Clone)]
struct ServiceFactory {
    settled: Rc<Result<Settled, StartError>>,
    started: Rc<RefCell<Weak<Service>>>,
}

impl actix_web::dev::ServiceFactory<ServiceRequest> for ServiceFactory {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = Handle;
    type InitError = ();
    type Future = Ready<Result<Handle, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        if let Err(error) = &*self.settled {
            tracing::error!("health scope can't start: {error}");
            if !tracing::dispatcher::has_been_set() {
                // A server that does not start for a reason that nobody sees helps nobody.
                eprintln!("health scope can't start: {error}");
            }
            return ready(Err(()));
        }
        let mut started = self.started.borrow_mut();
        let service = started.upgrade().or_else(|| Service::start(Rc::clone(&self.settled))).ok_or(());
        if let Ok(service) = &service {
            *started = Rc::downgrade(service);
        }
        ready(service.map(Handle))
    }
}

/// A scope in one worker.
struct Service {
    settled: Rc<Result<Settled, StartError>>,
    heartbeat: Rc<Heartbeat>,
    resolved: OnceCell<Resolved>,
    /// The latest answers at `/health` and `/health/ready`.
    kept: [RefCell<Option<Kept>>; 2],
}

/// What the first request found. The engine is dropped before the states, whose addresses it is found by.
struct Resolved {
    engine: Arc<Engine>,
    _states: Vec<FoundState>,
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

impl actix_web::dev::Service<ServiceRequest> for Handle {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Either<
        Ready<Result<ServiceResponse, actix_web::Error>>,
        LocalBoxFuture<'static, Result<ServiceResponse, actix_web::Error>>,
    >;

    actix_web::dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
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
        match self {
            Self::Health => Some(0),
            Self::Ready => Some(1),
            _ => None,
        }
    }
}

impl Service {
    fn start(settled: Rc<Result<Settled, StartError>>) -> Option<Rc<Self>> {
        let heartbeat = Heartbeat::of_this_worker(settled.as_ref().as_ref().ok()?.scope.stall);
        Some(Rc::new(Self { settled, heartbeat, resolved: OnceCell::new(), kept: Default::default() }))
    }

    fn settled(&self) -> &Settled {
        self.settled.as_ref().as_ref().unwrap_or_else(|_| unreachable!("it has started"))
    }

    /// Everything that needs no wait: refusals, and the answer that is kept.
    fn at_once(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let peer = request.peer_addr().map(|peer| peer.ip());
        if !self.settled().policy.allows(peer) {
            log_refusal(peer);
            return Some(empty(StatusCode::FORBIDDEN).finish());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let allowed = (ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(empty(StatusCode::METHOD_NOT_ALLOWED).insert_header(allowed).finish());
        }
        if wants_details(request) {
            return None;
        }
        let kept = self.kept[View::of(request).kept()?].borrow();
        let Kept { status, body, .. } =
            kept.as_ref().filter(|kept| kept.changes == change::count() && Instant::now() < kept.until)?;
        Some(json(*status, body.clone()))
    }

    async fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let view = View::of(request);
        let details = wants_details(request);
        let resolved = self.resolved.get_or_init(|| self.resolve(request));
        let Some((mut report, until, changes)) = resolved.engine.report(view.selection(), details).await else {
            return empty(StatusCode::NOT_FOUND).finish();
        };
        self.adjust(&mut report, &view, &resolved.engine);
        let status = if report.status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
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
                    let sentence = "the service is about to stop".to_owned();
                    of_the_process.push(Entry::plain("health", "drain", Some(sentence)));
                }
            }
            View::Live => of_the_process = self.heartbeat.of_all_workers(self.settled().scope.stall),
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
            let sentence = format!("not started: {} has not been up yet", waited_for.join(", "));
            of_the_process.push(Entry::plain("health", "startup", Some(sentence)));
        }
        if !of_the_process.is_empty() {
            of_the_process.append(&mut report.entries);
            *report = Report::of(of_the_process);
        }
    }

    fn resolve(&self, request: &HttpRequest) -> Resolved {
        let Scope { checks, registries, settings, states, .. } = &self.settled().scope;
        let states = state::find(states, request);
        let registries: Vec<_> = registries.iter().chain([registry()]).cloned().collect();
        let key = Key {
            states: states.iter().map(FoundState::address).collect(),
            checks: checks.iter().map(Check::identity).collect(),
            names: checks.iter().map(Check::to_string).collect(),
            registries: registries.iter().map(Registry::identity).collect(),
            settings: *settings,
        };
        let engine = engine::shared(key, || Sources { fixed: self.fixed(&states), registries });
        Resolved { engine, _states: states }
    }

    /// The checks of the states and of the scope itself, and the line that tells what they are.
    fn fixed(&self, states: &[FoundState]) -> Vec<Slot> {
        let mut found = Checks::default();
        for state in states {
            found.append(state.checks());
        }
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let ignored = list(found.ignored());
        let elsewhere = list(&state::types_elsewhere(states, &found));
        let mut checks: Vec<_> = found.into_iter().collect();
        checks.extend(self.settled().scope.checks.iter().cloned());
        let probed = list(&checks.iter().map(Check::to_string).collect::<Vec<_>>());
        let path = &self.settled().scope.path;
        tracing::info!(
            "health scope at {path} probes: {probed}; fields that are ignored: {ignored}; types that derive HealthCheck and \
             are not in this application: {elsewhere}"
        );
        let mut fixed: Vec<_> = checks.into_iter().map(Slot::Check).collect();
        fixed.extend(self.missing_state(states));
        fixed
    }

    /// A scope that was given nothing is to find a state. Where it finds none though there are types that derive, somebody
    /// forgot a step, and resources are not probed that should be.
    fn missing_state(&self, states: &[FoundState]) -> Option<Slot> {
        let types = state::type_names();
        if !states.is_empty() || types.is_empty() {
            return None;
        }
        let types = types.join(", ");
        let Scope { checks, registries, .. } = &self.settled().scope;
        let given = !checks.is_empty() || !registries.is_empty();
        if given {
            return None;
        }
        let sentence = "no state was found: add `.app_data(web::Data::new(state))` to the App, or `.state(&data)` to \
                        health::scope(); if it is to show registered checks alone, say `.registry(health::registry())`";
        tracing::error!(types, "health scope: {sentence}; these types derive HealthCheck: {types}");
        Some(Slot::fault("health", "state", sentence))
    }
}

fn wants_details(request: &HttpRequest) -> bool {
    request.query_string().split('&').any(|pair| pair.split('=').next() == Some("details"))
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

fn log_refusal(peer: Option<IpAddr>) {
    static REFUSALS: LazyLock<Mutex<Refusals>> = LazyLock::new(Mutex::default);

    let peer = peer.map(|peer| peer.to_canonical());
    if !REFUSALS.lock().unwrap_or_else(PoisonError::into_inner).is_news(peer, Instant::now()) {
        return;
    }
    if let Some(peer) = peer {
        tracing::warn!(
            %peer,
            "health scope refused {peer}, which no network of its list holds; to let it in, add it to {VARIABLE} or to \
             Scope::allow"
        );
    } else {
        tracing::warn!(
            "health scope refused a peer without an address, as on a Unix socket or of a TestRequest; to let such in, call \
             Scope::allow_unix"
        );
    }
}

/// Why a scope does not start.
#[derive(Debug)]
enum StartError {
    List(ListError),
    Check(InvalidCheck),
    Duplicate(String),
    NoTime(&'static str),
}

impl From<ListError> for StartError {
    fn from(error: ListError) -> Self {
        Self::List(error)
    }
}

impl From<InvalidCheck> for StartError {
    fn from(error: InvalidCheck) -> Self {
        Self::Check(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => error.fmt(f),
            Self::Check(error) => error.fmt(f),
            Self::Duplicate(check) => write!(f, "two checks of the scope are named {check}"),
            Self::NoTime(setting) => write!(f, "`{setting}` is zero, which nothing can keep"),
        }
    }
}

impl Error for StartError {}
