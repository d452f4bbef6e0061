//! [`Scope`], the actix service: access, then the engine's report, then its rendering.

use std::{
    cell::OnceCell,
    collections::HashSet,
    error::Error,
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse, fn_factory, fn_service},
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, HeaderValue},
    },
    web::Data,
};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use crate::{
    access::{Allow, ListError, Policy, Refusals, VARIABLE},
    check::{Check, InvalidName},
    discover::{
        HealthCheck,
        state::{self, FoundState},
    },
    engine::{self, Engine, Key, Selection, Settings, Slot, Sources},
    registry::{Registry, registry},
    render::json,
    report::Status,
};

/// The service that answers health checks: a builder, and what `App::service` takes, in one.
///
/// | path | answered |
/// | --- | --- |
/// | `/health` | all checks |
/// | `/health/{group}` | the checks of a group; 404 if there is none |
/// | `/health/{group}/{name}` | one check; 404 if there is none |
///
/// `GET` and `HEAD` are answered with 200 if the service is `UP` or `DEGRADED`, with 503 if it is `DOWN`; other methods with 405.
/// A trailing slash changes nothing, and no answer may be cached. Who is not allowed to ask is refused with 403 and an empty
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
    states: Vec<FoundState>,
    checks: Vec<Check>,
    registries: Vec<Registry>,
}

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
        settings: Settings { deadline: Duration::from_millis(800), max_age: Duration::from_secs(1) },
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
    /// if that is not set, or blank, loopback. An IPv4-mapped IPv6 address is the IPv4 address, in the list and as a peer.
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
    pub fn allow_unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// The time within which the whole answer leaves, whatever hangs; a check without an answer by then is down.
    /// Default is 800 ms, which is under the second that a kubelet waits.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// A result younger than this is served as it is. Default is 1 s.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = max_age;
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

    fn start(self) -> Result<Service, StartError> {
        if self.settings.deadline.is_zero() {
            return Err(StartError::NoTime);
        }
        let mut names = HashSet::new();
        for check in &self.checks {
            check.valid()?;
            if !names.insert((check.group(), check.name())) {
                return Err(StartError::Duplicate(check.to_string()));
            }
        }
        let policy = Policy::new(&self.allow, self.unix)?;
        Ok(Service { policy, scope: self, resolved: OnceCell::new() })
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
        let path = self.path.trim_end_matches('/');
        let patterns =
            ["", "/{group}", "/{group}/{name}"].map(|tail| [format!("{path}{tail}"), format!("{path}{tail}/")]);
        // What `new_service` of actix takes may be called once more when a worker is restarted.
        let started = Rc::new(self.start());
        let factory = fn_factory(move || {
            let started = Rc::clone(&started);
            async move {
                if let Err(error) = &*started {
                    tracing::error!("health scope can't start: {error}");
                    if !tracing::dispatcher::has_been_set() {
                        // A server that does not start for a reason that nobody sees helps nobody.
                        eprintln!("health scope can't start: {error}");
                    }
                    return Err(());
                }
                Ok(fn_service(move |request: ServiceRequest| {
                    let started = Rc::clone(&started);
                    async move {
                        let (request, _) = request.into_parts();
                        let response = match &*started {
                            Ok(service) => service.answer(&request).await,
                            Err(_) => HttpResponse::ServiceUnavailable().finish(),
                        };
                        Ok(ServiceResponse::new(request, response))
                    }
                }))
            }
        });
        config.register_service(ResourceDef::new(patterns.concat()), None, factory, None);
    }
}

/// A scope that has started, in one worker.
struct Service {
    policy: Policy,
    scope: Scope,
    resolved: OnceCell<Resolved>,
}

/// What the first request found. The engine is dropped before the states, whose addresses it is found by.
struct Resolved {
    engine: std::sync::Arc<Engine>,
    _states: Vec<FoundState>,
}

impl Service {
    async fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let peer = request.peer_addr().map(|peer| peer.ip());
        if !self.policy.allows(peer) {
            log_refusal(peer);
            return empty(StatusCode::FORBIDDEN).finish();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return empty(StatusCode::METHOD_NOT_ALLOWED)
                .insert_header((ALLOW, HeaderValue::from_static("GET, HEAD")))
                .finish();
        }
        let segment = |name| request.match_info().get(name).map(|raw| percent_decode_str(raw).decode_utf8_lossy());
        let (group, name) = (segment("group"), segment("name"));
        let selection = match (&group, &name) {
            (Some(group), Some(name)) => Selection::Check(group, name),
            (Some(group), None) => Selection::Group(group),
            (None, _) => Selection::All,
        };
        let resolved = self.resolved.get_or_init(|| self.resolve(request));
        match resolved.engine.report(selection).await {
            Some(report) => {
                let status =
                    if report.status() == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                empty(status).content_type("application/json").body(json::body(&report))
            }
            None => empty(StatusCode::NOT_FOUND).finish(),
        }
    }

    fn resolve(&self, request: &HttpRequest) -> Resolved {
        let Scope { checks, registries, settings, .. } = &self.scope;
        let states = state::find(&self.scope.states, request);
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
        let (mut checks, mut ignored) = (Vec::new(), Vec::new());
        for state in states {
            let found = state.checks();
            ignored.extend_from_slice(found.ignored());
            checks.extend(found);
        }
        checks.extend(self.scope.checks.iter().cloned());
        let path = &self.scope.path;
        let probed = checks.iter().map(Check::to_string).collect::<Vec<_>>().join(", ");
        let ignored = ignored.join(", ");
        tracing::info!(path, probed, ignored, "health scope at {path} probes: {probed}; ignored fields: {ignored}");
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
        let given = !self.scope.checks.is_empty() || !self.scope.registries.is_empty();
        if given {
            tracing::warn!(
                types,
                "health scope: no web::Data of a type that derives HealthCheck is in app_data; only the checks that the scope was given are run"
            );
            return None;
        }
        let sentence = "no state was found: add `.app_data(web::Data::new(state))` to the App, or `.state(&data)` to health::scope()";
        tracing::error!(types, "health scope: {sentence}; these types derive HealthCheck: {types}");
        Some(Slot::fault("health", "state", sentence))
    }
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
            "health scope refused a peer without an address, as on a Unix socket; to let such in, call Scope::allow_unix"
        );
    }
}

/// Why a scope does not start.
#[derive(Debug)]
enum StartError {
    List(ListError),
    Name(InvalidName),
    Duplicate(String),
    NoTime,
}

impl From<ListError> for StartError {
    fn from(error: ListError) -> Self {
        Self::List(error)
    }
}

impl From<InvalidName> for StartError {
    fn from(error: InvalidName) -> Self {
        Self::Name(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => error.fmt(f),
            Self::Name(error) => error.fmt(f),
            Self::Duplicate(check) => write!(f, "two checks of the scope are named {check}"),
            Self::NoTime => f.write_str("the deadline is zero, which no check can keep"),
        }
    }
}

impl Error for StartError {}
