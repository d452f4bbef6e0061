//! [`Scope`]: the builder of the health endpoints, and the actix service that it registers.

mod assess;
mod cache;
mod config;
mod connection;
mod endpoint;
#[cfg(feature = "tonic")]
mod grpc;
mod guard;
mod overview;
mod query;
mod resolve;
mod response;
mod service;
mod worker;

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    dev::{AppService, HttpServiceFactory},
    guard::GuardContext,
    web::Data,
};
use ipnet::IpNet;

#[cfg(feature = "tonic")]
pub use self::grpc::{GrpcHealth, grpc};
use self::{
    assess::{ProcessState, assess},
    config::{ScopeOptions, ServerKind},
    endpoint::Endpoint,
    resolve::{KeptEngine, Resolved},
};
pub use self::{
    config::{ConfigError, ConfigErrorKind},
    connection::on_connect,
    guard::Deny,
};
use crate::{
    access::{AllowList, AllowSource, ForwardingHeader},
    check::Check,
    discovery::state::{AppData, State},
    engine::{Engine, Selection},
    lifecycle,
    probe::Probe,
    registry::Registry,
    render::metrics,
    report::{Entry, Overview, Release, Report},
};

/// The health endpoints of an application: a builder that is passed to `App::service`.
///
/// | path | reports on |
/// | --- | --- |
/// | `/health` | all checks |
/// | `/health/ready` | all checks: whether the application should receive requests |
/// | `/health/live` | the workers and the checks marked [`live`](Check::live): whether the process needs a restart |
/// | `/health/startup` | the critical and shared checks: 200 permanently once each of them has been up |
/// | `/health/{group}` | the checks of a group |
/// | `/health/{group}/{name}` | one check |
///
/// Any other path belongs to the application, also below the path of the scope, and whatever the order of registration.
///
/// The response to `GET` and `HEAD` is 200 if the status is `UP` or `DEGRADED`, and 503 if it is `DOWN`. Other methods get 405. A
/// trailing slash is ignored. Responses have `Cache-Control: no-store`. Denied clients get 403 with an empty body before any check
/// runs; see [`Scope::allow`] and [`Scope::deny`].
///
/// # Details
///
/// `?details`, `?details=1` and `?details=true` (in any case) add an object `details` with the latency (in milliseconds), the age
/// and the number of runs of each check, the times of its latest success, failure and change of status, and the values that the
/// latest run has passed to [`observe`](crate::observe). Any other value adds nothing. If the parameter is repeated, the last value
/// wins.
///
/// `?exclude=database` and `?exclude=cache.sessions` leave out a group or a check, and can be repeated. Checks that are left out do
/// not run, and are listed in `excluded`. The parameter has no effect on `/health/startup`.
///
/// # Names in paths
///
/// A group or a name is one segment of a path, percent-encoded where needed: the path of a check for the key `eu/1` of a map is
/// `/health/database/eu%2F1`.
///
/// Credentials in the group or name of a check are redacted wherever it is shown, so they are redacted in its path, too: a check
/// for the key `postgres://bob:hunter2@db` is named `postgres://***@db`, and its path is
/// `/health/database/postgres:%2F%2F***@db`.
///
/// # Errors
///
/// The server does not start, and the reason is logged, if
///
/// - `HEALTHCHECK_IPS`, [`Scope::allow`] or [`Scope::trust_proxies`] has an invalid entry,
/// - the trusted proxies include all clients,
/// - two checks of the scope have the same group and name, or one cannot be part of a path,
/// - the path contains `?` or `#`,
/// - the deadline, the refresh interval or the stall time is zero.
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
#[must_use = "a scope has no effect until it is passed to `App::service`"]
pub struct Scope {
    options: ScopeOptions,
    /// What the latest report used, which keeps the results.
    reported: RefCell<Option<Rc<Resolved>>>,
}

/// Creates a scope at `/health` that reports on the states in `app_data`, for clients on the default allow-list.
///
/// # Examples
///
/// ```
/// # use actix_web::App;
/// let app = App::new().service(health::scope());
/// ```
pub fn scope() -> Scope {
    Scope { options: ScopeOptions::default(), reported: RefCell::default() }
}

/// Runs the checks of a state that are due, and those of the process-wide registry, and returns the report, as
/// [`Scope::report`] does for a scope with default settings.
///
/// The results are those of all scopes that serve the state. Without such a scope, the thread that calls this function keeps them as
/// long as the state.
///
/// # Examples
///
/// ```
/// # #[derive(Clone)] struct Mailer;
/// # impl health::Probe for Mailer {
/// #     const GROUP: &'static str = "service";
/// #     async fn probe(&self) -> Result<(), health::ProbeError> { Ok(()) }
/// # }
/// use actix_web::web;
/// use health::HealthCheck;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     mailer: Mailer,
/// }
///
/// # #[actix_web::main] async fn main() {
/// let data = web::Data::new(AppState { mailer: Mailer });
/// let report = health::report(&data).await;
/// for check in report.checks() {
///     println!("{}.{} is {}", check.group(), check.name(), check.status());
/// }
/// # assert_eq!(report.status(), health::Status::Up);
/// # }
/// ```
pub fn report<S: State + 'static>(data: &Data<S>) -> impl Future<Output = Report> + use<S> {
    // The state is alive until the end, because its address is part of the engine's key.
    let (data, resolved) = (Data::clone(data), resolve_kept(data));
    async move {
        let report = match resolved {
            Ok(engine) => health_report(&engine).await,
            Err(report) => report,
        };
        drop(data);
        report
    }
}

/// Returns the latest results of a state's checks, and of those of the process-wide registry, and runs none. See [`report`] and
/// [`Scope::snapshot`].
pub fn snapshot<S: State>(data: &Data<S>) -> Report {
    resolve_kept(data).map_or_else(|report| report, |engine| health_snapshot(&engine))
}

/// Returns the metrics of a state's checks, with the latest results, in the text format of Prometheus, for an application that
/// already serves its own `/metrics`. It runs no check, and has no mark of its end.
///
/// # Examples
///
/// ```
/// # #[derive(Clone)] struct Mailer;
/// # impl health::Probe for Mailer {
/// #     const GROUP: &'static str = "service";
/// #     async fn probe(&self) -> Result<(), health::ProbeError> { Ok(()) }
/// # }
/// # #[derive(health::HealthCheck)] struct AppState { mailer: Mailer }
/// use actix_web::{HttpResponse, Responder, web};
///
/// async fn metrics(state: web::Data<AppState>) -> impl Responder {
///     let own = "orders_total 7\n";
///     HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(own.to_owned() + &health::metrics_text(&state))
/// }
/// ```
pub fn metrics_text<S: State>(data: &Data<S>) -> String {
    // The settings are the defaults. Only a variable of the environment can be invalid, and a server with it does not start.
    resolve_kept(data).map(|engine| metrics::prometheus(&engine_overview(&engine))).unwrap_or_default()
}

/// The engine of the default scope for a state. This thread keeps it as long as the state, and so the results of its checks.
fn resolve_kept<S: State>(data: &Data<S>) -> Result<Arc<Engine>, Report> {
    thread_local! {
        static KEPT: RefCell<Vec<KeptEngine>> = const { RefCell::new(Vec::new()) };
    }

    let resolved = scope().state(data).resolve()?;
    let engine = Arc::clone(&resolved.engine);
    // Dropped after the borrow: destructors of checks are user code.
    let ended: Vec<_> = KEPT.with_borrow_mut(|kept| {
        let ended = kept.extract_if(.., |kept| !kept.is_needed()).collect();
        if !kept.iter().any(|kept| kept.is(&engine)) {
            kept.push(KeptEngine::of(&resolved));
        }
        ended
    });
    drop(ended);
    Ok(engine)
}

async fn health_report(engine: &Engine) -> Report {
    let results = engine.results(Selection::All, &[], true).await;
    assess(&Endpoint::Health, results.entries, &ProcessState::now(engine), Vec::new)
}

fn health_snapshot(engine: &Engine) -> Report {
    assess(&Endpoint::Health, engine.latest_results(Selection::All, true), &ProcessState::now(engine), Vec::new)
}

fn engine_overview(engine: &Engine) -> Overview {
    let workers = lifecycle::unobserved_workers(ScopeOptions::default().stall);
    overview::overview(engine.latest_results(Selection::All, true), &ProcessState::now(engine), workers, None)
}

impl Scope {
    /// Sets the path of the scope. Defaults to `/health`. Slashes at its start and its end are ignored.
    pub fn path(mut self, path: &str) -> Self {
        self.options.path = format!("/{}", path.trim_matches('/'));
        self
    }

    /// Sets the networks of allowed clients, and replaces the default list. Of several calls of this method,
    /// [`Scope::allow_list`] and [`Scope::allow_any`], the last one counts.
    ///
    /// Defaults to the environment variable `HEALTHCHECK_IPS`, a list of addresses and networks separated by commas; if it is not
    /// set or blank, to loopback. Convert an `IpAddr` to a network of one address by `into()`. An IPv4-mapped IPv6 address is
    /// treated as the IPv4 address, in the list and as a peer, so `::/0` contains every IPv6 address and no IPv4 address.
    pub fn allow(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.options.allow = AllowSource::Networks(networks.into_iter().collect());
        self
    }

    /// Sets the networks of allowed clients as a list that can be changed while the server runs.
    pub fn allow_list(mut self, list: &AllowList) -> Self {
        self.options.allow = AllowSource::List(list.clone());
        self
    }

    /// Allows every client. The status of your resources helps an attacker, so use this only where another access control comes
    /// first, such as a firewall or [`Scope::authorize`].
    pub fn allow_any(mut self) -> Self {
        self.options.allow = AllowSource::Any;
        self
    }

    /// Allows clients on Unix sockets. Denied by default. If such a client is a proxy, use [`Scope::trust_unix`] instead,
    /// so that access is decided by the address that it forwards.
    ///
    /// The server has to mark such connections: [`HttpServer::on_connect`](actix_web::HttpServer::on_connect) with
    /// [`health::on_connect`](crate::on_connect), and then `listen_uds` (`bind_uds` calls no `on_connect`). A request without a
    /// peer address and without the mark is denied, because a TCP connection that its client has reset has no address either.
    ///
    /// A request of `actix_web::test` has neither: give it an address with `TestRequest::peer_addr`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use actix_web::{App, HttpServer};
    /// # #[actix_web::main] async fn main() -> std::io::Result<()> {
    /// let socket = std::os::unix::net::UnixListener::bind("/run/app.sock")?;
    /// HttpServer::new(|| App::new().service(health::scope().allow_empty().allow_unix()))
    ///     .on_connect(health::on_connect)
    ///     .listen_uds(socket)?
    ///     .run()
    ///     .await
    /// # }
    /// ```
    pub fn allow_unix(mut self) -> Self {
        self.options.allow_unix = true;
        self
    }

    /// Sets the networks of proxies whose forwarding header is trusted. If the peer is one of them, access is decided by the
    /// address in the header. Defaults to none, so headers are ignored. Behind a proxy on the same machine, the default list then
    /// allows every client.
    ///
    /// The header is read from the right, because each proxy appends the address of its own client. The first address that is not
    /// a trusted proxy is the client; everything left of it is ignored. Several lines of the header are one list. A request is
    /// denied if the header is missing, has an element that is not an address (with or without a port) before the client, or
    /// has more than 64 addresses of which the last 64 are trusted proxies.
    ///
    /// The server does not start if the networks trust every client, individually or combined: `0.0.0.0/0`,
    /// `::ffff:0.0.0.0/96`, `0.0.0.0/1` with `128.0.0.0/1`, `::/0`, `2000::/3`.
    ///
    /// List only addresses that no client can have, and let the proxies append to the header (nginx:
    /// `$proxy_add_x_forwarded_for`, HAProxy: `option forwardfor`).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let scope = health::scope()
    ///     .allow(["192.0.2.0/24".parse()?])
    ///     .trust_proxies(["10.0.0.1/32".parse()?, "10.0.0.2/32".parse()?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trust_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.options.proxies.networks = Some(networks.into_iter().collect());
        self
    }

    /// Sets the header that the proxies of [`Scope::trust_proxies`] and [`Scope::trust_unix`] write. Defaults to
    /// [`ForwardingHeader::XForwardedFor`]. The other header is ignored, because a proxy that does not write it passes it on as
    /// the client sent it.
    ///
    /// With [`ForwardingHeader::Forwarded`], the `for` parameter of each element is read; `unknown` and obfuscated identifiers
    /// (`_secret`) deny the request. If there are several proxies, let the outermost one remove the header of the client
    /// (HAProxy: `http-request del-header Forwarded`): nginx before 1.23 reads only the first of several `Forwarded` lines, so
    /// behind a proxy that adds a line it passes on the line of the client instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use health::ForwardingHeader;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let scope = health::scope()
    ///     .trust_proxies(["10.0.0.1/32".parse()?])
    ///     .forwarding_header(ForwardingHeader::Forwarded);
    /// # Ok(())
    /// # }
    /// ```
    pub fn forwarding_header(mut self, header: ForwardingHeader) -> Self {
        self.options.proxies.header = header;
        self
    }

    /// Trusts the forwarding header of proxies that connect by a Unix socket, as [`Scope::trust_proxies`] does for networks. Off
    /// by default.
    ///
    /// As for [`Scope::allow_unix`], the server has to mark such connections with [`health::on_connect`](crate::on_connect).
    pub fn trust_unix(mut self) -> Self {
        self.options.proxies.unix = true;
        self
    }

    /// Adds a predicate that a request has to pass in addition to the allow-list, such as a check of a token. Defaults to none.
    /// With [`Scope::allow_any`], the predicate is the only access control.
    ///
    /// It runs on the worker for each request whose client is on the allow-list, so it must not block. A panic in it denies the
    /// request. With [`Deny::NotFound`] it works as a guard of the route.
    ///
    /// # Examples
    ///
    /// A bearer token, compared in constant time by the crate [`subtle`](https://docs.rs/subtle), so that the time of a response
    /// does not reveal how much of a guess is right:
    ///
    /// ```
    /// use actix_web::http::header::AUTHORIZATION;
    /// use subtle::ConstantTimeEq as _;
    ///
    /// let token = std::env::var("HEALTH_TOKEN").unwrap_or_default();
    /// let scope = health::scope().allow_any().authorize(move |request| {
    ///     let given = request.head().headers().get(AUTHORIZATION);
    ///     let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    ///     // Without a configured token, every request is denied.
    ///     given.is_some_and(|given| !token.is_empty() && given.ct_eq(token.as_bytes()).into())
    /// });
    /// ```
    pub fn authorize(mut self, predicate: impl Fn(&GuardContext<'_>) -> bool + 'static) -> Self {
        self.options.authorize = Some(Rc::new(predicate));
        self
    }

    /// Sets the response to denied clients. Defaults to [`Deny::Forbidden`].
    pub fn deny(mut self, deny: Deny) -> Self {
        self.options.deny = deny;
        self
    }

    /// Sets the response deadline. Defaults to 800 ms, which is below the timeout of a kubelet (1 s). A check without a result by
    /// then is `DOWN` in the response.
    ///
    /// The maximum is 10 s; a longer deadline is shortened, and a warning is logged. The reason is that the connection of a client
    /// that has disconnected is closed only after the response is written: HTTP/1 allows clients to close their half of a
    /// connection early, so actix waits for the response. With
    /// [`HttpServer::h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed) it closes such connections at
    /// once.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline;
        self
    }

    /// Sets the maximum age of a result. Defaults to 1 s. A younger result is served without running the check again.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.options.max_age = max_age;
        self
    }

    /// Runs all checks in the background at this interval, up to a tenth earlier or later. Off by default: checks then run when
    /// a request finds their results older than [`Scope::max_age`].
    ///
    /// With background runs, requests only read results, except that a request runs a check that has no result yet. A check whose
    /// last result is older than three intervals plus the deadline is reported as `DOWN`. The first request starts the background
    /// runs.
    pub fn refresh(mut self, interval: Duration) -> Self {
        self.options.refresh = Some(interval);
        self
    }

    /// Sets how long the event loop of a worker may be blocked before `/health/live` is `DOWN`. Defaults to 10 s. A handler that
    /// blocks its thread delays all requests of its worker.
    pub fn stall(mut self, stall: Duration) -> Self {
        self.options.stall = stall;
        self
    }

    /// Adds a check of a resource that is not in a state, such as a pool that handlers extract as `web::Data<PgPool>`. The check is
    /// critical, and its group is [`Probe::GROUP`]. For other options, use [`Scope::check`] with [`Check::probe`].
    ///
    /// Clones of one resource have one check, in all workers and scopes. These are recognized: clones of an `Arc`, a `web::Data`, and a
    /// pool of sqlx or deadpool (also of crates that contain one, such as sea-orm). Of another type, each call adds a check of its own, so
    /// that the factory of `HttpServer` creates one for each worker, which runs it; a warning is logged. Put such a resource into an
    /// `Arc` outside the factory.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use actix_web::{App, web};
    ///
    /// # struct Mailer;
    /// # impl health::Probe for Mailer {
    /// #     const GROUP: &'static str = "mail";
    /// #     async fn probe(&self) -> Result<(), health::ProbeError> { Ok(()) }
    /// # }
    /// let mailer = Arc::new(Mailer);
    /// let app = move || {
    ///     App::new()
    ///         .app_data(web::Data::from(Arc::clone(&mailer)))
    ///         .service(health::scope().probe("mailer", Arc::clone(&mailer))) // mail.mailer
    /// };
    /// # drop(app);
    /// ```
    pub fn probe(self, name: &str, resource: impl Probe) -> Self {
        self.check(Check::of_resource(name, resource))
    }

    /// Adds a check to this scope only. Create it once, outside the factory of `HttpServer`, and clone it into the factory: a
    /// check that is created inside is a separate check in each worker, so each worker runs its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use actix_web::App;
    /// use health::Check;
    ///
    /// let orders = Check::new("queue", "orders", || async { Ok::<_, String>(()) });
    /// let app = move || App::new().service(health::scope().check(orders.clone()));
    /// # drop(app);
    /// ```
    pub fn check(mut self, check: Check) -> Self {
        self.options.checks.push(check);
        self
    }

    /// Adds a state that is not in `app_data`, or whose type has generic parameters and therefore cannot be found there. Takes the
    /// `web::Data<S>` or `web::Data<Arc<S>>` of an `S` that implements [`HealthCheck`](trait@crate::HealthCheck).
    pub fn state<S: State>(mut self, data: &Data<S>) -> Self {
        self.options.states.push(S::found(data));
        self
    }

    /// Makes this a scope of the management server, whose thread is not one of the workers.
    pub(crate) fn on_management_server(mut self) -> Self {
        self.options.server = ServerKind::Management;
        self
    }

    /// Adds a registry of your own. The registry of the process is part of every scope.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.options.registries.push(registry.clone());
        self
    }

    /// Allows the scope to have no checks, for a service without dependencies: it is then `UP`. By default it is `DOWN`, and the
    /// response names the missing step.
    ///
    /// # Examples
    ///
    /// ```
    /// # use actix_web::App;
    /// let app = App::new().service(health::scope().allow_empty());
    /// ```
    pub fn allow_empty(mut self) -> Self {
        self.options.allow_empty = true;
        self
    }

    /// Also serves `/healthz`, `/readyz` and `/livez`, the names of the Kubernetes API server, outside of the scope's path. Off by
    /// default.
    pub fn kubernetes_paths(mut self) -> Self {
        self.options.kubernetes_paths = true;
        self
    }

    /// Serves only these groups and checks. A name is that of a group, such as `database`, or the full name of a check, such as
    /// `cache.sessions`. Defaults to all. Of several calls, the last one counts.
    ///
    /// Other checks do not run in this scope, and do not count for any of its paths. A name that matches nothing at the first
    /// request is logged as a warning. While no name matches a check, the scope is `DOWN`.
    pub fn include<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.include = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Leaves out these groups and checks, named as in [`Scope::include`], and those that the environment variable
    /// `HEALTHCHECK_EXCLUDE` lists, separated by commas, with which an operator switches a check off without a release. Defaults to
    /// none.
    ///
    /// An excluded check does not run. A scope whose checks are all excluded is `UP`.
    pub fn exclude<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.exclude.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the name and the version of the application, for the page, the metrics and `application/health+json`. Defaults to none.
    ///
    /// # Examples
    ///
    /// ```
    /// let scope = health::scope().release(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn release(mut self, service: impl Into<String>, version: impl Into<String>) -> Self {
        self.options.release = Some(Release { service: service.into(), version: version.into() });
        self
    }

    /// Checks the settings without starting a server.
    ///
    /// # Errors
    ///
    /// The reason for which the server would not start; see [Errors](Self#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let error = health::scope().deadline(Duration::ZERO).validate().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid configuration: deadline must be greater than zero");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.options.validate()?;
        Ok(())
    }

    /// Runs the checks that are due, and returns the report of `/health`, for code that needs it without HTTP: tests, a command, the
    /// application's own metrics. Access is not restricted.
    ///
    /// States are those of [`Scope::state`], because there is no `app_data`. Results are kept as long as this `Scope`, or while a
    /// server serves the same checks. If the settings are invalid, the report is `DOWN` and says why.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[actix_web::main] async fn main() {
    /// use health::{Check, Status};
    ///
    /// let scope = health::scope().check(Check::new("queue", "orders", || async { Err("the queue is gone") }));
    /// let report = scope.report().await;
    /// assert_eq!(report.status(), Status::Down);
    /// assert_eq!(report.checks()[0].error(), Some("the check failed"));
    /// # }
    /// ```
    pub fn report(&self) -> impl Future<Output = Report> + Send + use<'_> {
        // Not the states, which need not be `Send`: this scope, which the future borrows, keeps them.
        let engine = self.resolve().map(|resolved| Arc::clone(&resolved.engine));
        async move {
            match engine {
                Ok(engine) => health_report(&engine).await,
                Err(report) => report,
            }
        }
    }

    /// Returns the report of `/health` with the latest results, and runs no check. A check without a result, or with one that is older
    /// than a minute (or than its maximum age, if that is longer), is `DOWN`. See [`Scope::report`].
    pub fn snapshot(&self) -> Report {
        self.resolve().map_or_else(|report| report, |resolved| health_snapshot(&resolved.engine))
    }

    fn resolve(&self) -> Result<Rc<Resolved>, Report> {
        let config = self.options.validate().map_err(|invalid| {
            let message = ConfigError::from(invalid).to_string();
            Report::of(vec![Entry::down("health", "scope", &message)])
        })?;
        // The previous one is alive meanwhile, so its engine is found again unless a setting has changed.
        let resolved = Rc::new(Resolved::new(&config.sources, AppData::None));
        self.reported.replace(Some(Rc::clone(&resolved)));
        Ok(resolved)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScopeOptions { path, allow, allow_unix, proxies, deny, deadline, max_age, checks, .. } = &self.options;
        f.debug_struct("Scope")
            .field("path", path)
            .field("allow", allow)
            .field("allow_unix", allow_unix)
            .field("proxies", proxies)
            .field("deny", deny)
            .field("deadline", deadline)
            .field("max_age", max_age)
            .field("checks", checks)
            .finish_non_exhaustive()
    }
}

impl HttpServiceFactory for Scope {
    fn register(self, app: &mut AppService) {
        let ScopeOptions { path, kubernetes_paths, .. } = &self.options;
        let config = self.options.validate().map_err(ConfigError::from);
        service::register(path.trim_end_matches('/'), *kubernetes_paths, config, app);
    }
}
