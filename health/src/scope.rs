//! [`Scope`], the builder of the service that answers; `service` is what it becomes in each worker.

use std::{
    collections::HashSet,
    error::Error,
    fmt, mem,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use actix_web::{
    dev::{AppService, HttpServiceFactory},
    guard::GuardContext,
    web::Data,
};
use ipnet::IpNet;

use crate::{
    access::{Allow, AllowList, Header, ListError, Networks, Policy, Proxies},
    check::{Check, InvalidCheck},
    discovery::{HealthCheck, state::FoundState},
    door::{Deny, Door, Predicate},
    engine::Settings,
    registry::Registry,
    report::MAX_DURATION,
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
/// A trailing slash changes nothing, and no answer may be cached. `?details` (or `?details=true`) adds what is known of each check beside its
/// status: latencies in milliseconds, ages, since when, how often. Who is not allowed to ask is refused before anything is looked
/// up: with 403 and an empty body, unless [`Scope::deny`] says otherwise.
///
/// # Errors
///
/// The server does not start, and the log says why, if `HEALTHCHECK_IPS`, [`Scope::allow`] or the trusted proxies have an entry
/// that is no network, if both headers of proxies are to be believed, if two checks of the scope have one name or one has a name
/// that can't be part of a path, or if the deadline is zero.
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
    trust: Trust,
    authorize: Option<Predicate>,
    deny: Deny,
    pub(crate) settings: Settings,
    /// The deadline that was given, if it was too long.
    shortened: Option<Duration>,
    pub(crate) stall: Duration,
    pub(crate) states: Vec<FoundState>,
    pub(crate) checks: Vec<Check>,
    pub(crate) registries: Vec<Registry>,
}

/// Whose word is believed on who asked them.
#[derive(Debug, Default)]
struct Trust {
    proxies: Option<Vec<IpNet>>,
    forwarded: Option<Vec<IpNet>>,
    unix: bool,
}

impl Trust {
    fn settled(self) -> Result<Option<Proxies>, StartError> {
        let (header, method, networks) = match (self.proxies, self.forwarded) {
            (Some(_), Some(_)) => return Err(StartError::TwoHeaders),
            (None, Some(networks)) => (Header::Forwarded, ".trust_forwarded", networks),
            (Some(networks), None) => (Header::XForwardedFor, ".trust_proxies", networks),
            (None, None) if self.unix => (Header::XForwardedFor, ".trust_unix", Vec::new()),
            (None, None) => return Ok(None),
        };
        let networks = Networks::new(method, networks)?;
        if let Some(all) = networks.of_every_client() {
            return Err(StartError::TrustsAll(method, all));
        }
        Ok(Some(Proxies { header, networks, unix: self.unix }))
    }
}

/// The longest deadline. A client that has left can't be seen before the response is written: actix keeps an HTTP/1 connection
/// whose client has closed it, for the client may have closed only its own half. So a deadline of hours would keep the
/// descriptors of all clients that came and left while a check hangs.
const MAX_DEADLINE: Duration = Duration::from_secs(10);

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
        trust: Trust::default(),
        authorize: None,
        deny: Deny::default(),
        settings: Settings { deadline: Duration::from_millis(800), max_age: Duration::from_secs(1), refresh: None },
        shortened: None,
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

    /// The networks that may ask, instead of the default list; of several calls of this, [`Scope::allow_list`] and
    /// [`Scope::allow_any`], the last one counts.
    ///
    /// Default is what the environment variable `HEALTHCHECK_IPS` says, a list of addresses and networks separated by commas;
    /// if that is not set, or blank, loopback. An `IpAddr` becomes a network of one by `into()`. An IPv4-mapped IPv6 address is
    /// the IPv4 address, in the list and as a peer: so `::/0` holds every IPv6 address and no IPv4 one.
    pub fn allow(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.allow = Allow::Networks(networks.into_iter().collect());
        self
    }

    /// The networks that may ask, as a list that can be changed while the server runs.
    pub fn allow_list(mut self, list: &AllowList) -> Self {
        self.allow = Allow::List(list.clone());
        self
    }

    /// Lets everybody ask. What is up and what is down is of use to who attacks you: say this only behind something that
    /// lets nobody else through.
    pub fn allow_any(mut self) -> Self {
        self.allow = Allow::Any;
        self
    }

    /// Allows clients on Unix sockets. Defaults to denying them. If such a client is a proxy, use [`Scope::trust_unix`] instead,
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
    /// HttpServer::new(|| App::new().service(health::scope().allow_unix()))
    ///     .on_connect(health::on_connect)
    ///     .listen_uds(socket)?
    ///     .run()
    ///     .await
    /// # }
    /// ```
    pub fn allow_unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Proxies whose `X-Forwarded-For` is believed: if the peer is in one of these networks, the address is judged that the
    /// header names. Default is none, and the header means nothing: behind a proxy on the same machine, which the default list
    /// lets in, everybody may ask.
    ///
    /// The header, whose lines are one list, is read from the right, where each proxy appends who asked it, to the first address
    /// that is not of these networks; what stands left of that is not looked at. If it is missing, or has on the way what is no
    /// address (with or without a port), the request is refused. At most 64 proxies one behind the other are believed.
    ///
    /// The server does not start if the networks trust every client, alone or together: `0.0.0.0/0`, `::ffff:0.0.0.0/96`,
    /// `0.0.0.0/1` with `128.0.0.0/1`, `::/0`, `2000::/3`.
    ///
    /// Name only addresses that nobody but your proxies has, and let the proxies append (nginx: `$proxy_add_x_forwarded_for`,
    /// HAProxy: `option forwardfor`).
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
        self.trust.proxies = Some(networks.into_iter().collect());
        self
    }

    /// As [`Scope::trust_proxies`], for proxies that write `Forwarded`
    /// ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)): the `for` of its elements is read. One that is `unknown` or
    /// hidden (`_secret`) refuses. A scope believes one of the two headers: with both methods it does not start.
    ///
    /// Let the outermost of several proxies drop what clients send (HAProxy: `http-request del-header Forwarded`). nginx before
    /// 1.23 reads only the first of several `Forwarded` lines: behind a proxy that adds a line of its own it would hand on the
    /// client's word in place of that proxy's.
    pub fn trust_forwarded(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.trust.forwarded = Some(networks.into_iter().collect());
        self
    }

    /// Trusts the header of proxies that connect by a Unix socket, as [`Scope::trust_proxies`] or [`Scope::trust_forwarded`] does
    /// for networks. Without either, the header is `X-Forwarded-For`. Off by default.
    ///
    /// As for [`Scope::allow_unix`], the server has to mark such connections with [`health::on_connect`](crate::on_connect).
    pub fn trust_unix(mut self) -> Self {
        self.trust.unix = true;
        self
    }

    /// A test of your own that a request must pass besides being let in by its address: a token, a header. To have it decide
    /// alone, [`Scope::allow_any`] lets in all addresses.
    ///
    /// It is asked as a guard of actix is, so that under [`Deny::NotFound`] there is no route for whom it turns away. It is run on
    /// the worker, so it must not block. If it panics the request is refused.
    ///
    /// # Examples
    ///
    /// A bearer token, compared in constant time by the crate [`subtle`](https://docs.rs/subtle), so that how long it takes says
    /// nothing of how much of it was guessed:
    ///
    /// ```
    /// use actix_web::http::header::AUTHORIZATION;
    /// use subtle::ConstantTimeEq as _;
    ///
    /// let token = std::env::var("HEALTH_TOKEN").unwrap_or_default();
    /// let scope = health::scope().allow_any().authorize(move |request| {
    ///     let given = request.head().headers().get(AUTHORIZATION);
    ///     let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    ///     // No token is set: nobody is let in.
    ///     given.is_some_and(|given| !token.is_empty() && given.ct_eq(token.as_bytes()).into())
    /// });
    /// ```
    pub fn authorize(mut self, predicate: impl Fn(&GuardContext<'_>) -> bool + 'static) -> Self {
        self.authorize = Some(Box::new(predicate));
        self
    }

    /// What is answered to who may not ask. Default is [`Deny::Forbidden`].
    pub fn deny(mut self, deny: Deny) -> Self {
        self.deny = deny;
        self
    }

    /// The time within which the whole answer leaves, whatever hangs; a check without an answer by then is down.
    /// Default is 800 ms, which is under the second that a kubelet waits.
    ///
    /// It is at most 10 s, and a warning is logged for a longer one. Until the response is written, the connection of a client that
    /// has left is not closed: HTTP/1 allows clients to close their half of a connection early, and actix waits for the response.
    /// With [`HttpServer::h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed) it closes such connections
    /// at once.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline.min(MAX_DEADLINE);
        self.shortened = (deadline > MAX_DEADLINE).then_some(deadline);
        self
    }

    /// A result younger than this is served as it is. Default is 1 s.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = max_age.min(MAX_DURATION);
        self
    }

    /// Runs all checks in the background, about every so often (a tenth sooner or later), instead of when a request finds
    /// their results too old: requests only read. A result that is three times as old as that says nothing any more, and its
    /// check is down. Default is off. Begins with the first request.
    pub fn refresh(mut self, every: Duration) -> Self {
        self.settings.refresh = Some(every.min(MAX_DURATION));
        self
    }

    /// How long a worker's event loop may stand still before `/health/live` is down: a handler that blocks its thread that
    /// long stops every request that the worker has. Default is 10 s.
    pub fn stall(mut self, stall: Duration) -> Self {
        self.stall = stall.min(MAX_DURATION);
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

    fn start(mut self) -> Result<Settled, StartError> {
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
        let policy = Policy::new(&self.allow, self.unix, mem::take(&mut self.trust).settled()?)?;
        if let Some(deadline) = self.shortened {
            warn_of_a_long_deadline(deadline);
        }
        let door = Rc::new(Door { policy, authorize: self.authorize.take(), deny: self.deny });
        Ok(Settled { door, scope: self })
    }
}

/// Once for all workers, and all scopes.
fn warn_of_a_long_deadline(deadline: Duration) {
    static WARNED: AtomicBool = AtomicBool::new(false);

    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "health scope: a deadline of {} s is too long, and {} s is used: until a response is written, the connections of \
             clients that have left stay open",
            deadline.as_secs(),
            MAX_DEADLINE.as_secs()
        );
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("path", &self.path)
            .field("allow", &self.allow)
            .field("unix", &self.unix)
            .field("trust", &self.trust)
            .field("deny", &self.deny)
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
    pub(crate) door: Rc<Door>,
    pub(crate) scope: Scope,
}

/// Why a scope does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    List(ListError),
    Check(InvalidCheck),
    Duplicate(String),
    NoTime(&'static str),
    TwoHeaders,
    TrustsAll(&'static str, IpNet),
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
            Self::TwoHeaders => f.write_str(
                ".trust_proxies believes X-Forwarded-For and .trust_forwarded believes Forwarded: leave out the one that your \
                 proxies don't write, for then it is their clients who may",
            ),
            Self::TrustsAll(method, all) => write!(
                f,
                "{method}: the networks contain `{all}`, and so trust every client; list only the networks of your proxies"
            ),
            Self::NoTime(setting) => write!(f, "`{setting}` is zero, which nothing can keep"),
        }
    }
}

impl Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_together_trust_every_client_are_an_error() {
        let trust = |networks: &[&str]| {
            let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let both = [
                scope().trust_proxies(networks.iter().copied()).start().err(),
                scope().trust_forwarded(networks.iter().copied()).start().err(),
            ];
            both.map(|error| error.map(|error| error.to_string()))
        };
        for everyone in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["::ffff:0.0.0.0/96"],
            &["10.0.0.0/8", "::ffff:0.0.0.0/96"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["::ffff:0.0.0.0/97", "128.0.0.0/1"],
            &["::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"],
            &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1", "10.0.0.0/8"],
            &["::/1", "8000::/1"],
            &["2000::/3"],
            &["2000::/4", "3000::/4"],
        ] {
            for error in trust(everyone) {
                let error = error.unwrap_or_else(|| panic!("{everyone:?}"));
                assert!(error.contains("trust every client"), "{error}");
            }
        }
        for some in
            [&["10.0.0.0/8", "::ffff:192.0.2.0/120", "fd00::/8"][..], &["0.0.0.0/1"], &["::ffff:0.0.0.0/97"], &[]]
        {
            assert_eq!(trust(some), [None, None], "{some:?}");
        }
    }
}
