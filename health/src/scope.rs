//! [`Scope`], the builder of the service that answers; `service` is what it becomes in each worker.

use std::{collections::HashSet, error::Error, fmt, time::Duration};

use actix_web::{
    dev::{AppService, HttpServiceFactory},
    web::Data,
};
use ipnet::IpNet;

use crate::{
    access::{Allow, ListError, Policy},
    check::{Check, InvalidCheck},
    discover::{HealthCheck, state::FoundState},
    engine::Settings,
    registry::Registry,
    service,
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
    pub(crate) path: String,
    allow: Allow,
    unix: bool,
    pub(crate) settings: Settings,
    pub(crate) stall: Duration,
    pub(crate) states: Vec<FoundState>,
    pub(crate) checks: Vec<Check>,
    pub(crate) registries: Vec<Registry>,
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
        service::register(&path, self.start(), config);
    }
}

/// A scope whose settings hold.
pub(crate) struct Settled {
    pub(crate) policy: Policy,
    pub(crate) scope: Scope,
}

/// Why a scope does not start.
#[derive(Debug)]
pub(crate) enum StartError {
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
