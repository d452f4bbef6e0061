//! Access control of a scope: evaluates each request, logs denials, and hides the route from denied clients if configured.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::atomic::Ordering,
};

use actix_web::{
    guard::{Guard, GuardContext},
    http::header::{self, HeaderName, HeaderValue},
};
use tokio::time::Instant;

use crate::{
    access::{AccessDenied, ForwardingHeader, LogDecision, MAX_TRACKED, Peer, Policy},
    process::{DENIALS, DENIED_REQUESTS, DenialKind, UNTRUSTED_PROXY_WARNING},
};

/// The response to denied clients, at the fixed paths of the scope. For a denied client, the paths of groups and checks belong to the
/// application. Defaults to [`Deny::Forbidden`].
///
/// # Examples
///
/// ```
/// use health::Deny;
///
/// let hidden = health::scope().deny(Deny::NotFound);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deny {
    /// 403 with an empty body.
    #[default]
    Forbidden,
    /// As if the route did not exist: the request is passed to later routes and to the application's default service.
    NotFound,
    /// Only the status, for external load balancers: `{"status":"UP"}` with 200, `{"status":"DEGRADED"}` with 200 or
    /// `{"status":"DOWN"}` with 503, at `/health`, `/health/ready`, `/health/live` and `/health/startup`.
    ///
    /// The request of a denied client runs no checks itself. The response has the status of the latest results, and `DOWN` if
    /// they are older than a minute (or than `max_age`, if that is longer).
    ///
    /// Combine it with [`Scope::refresh`](crate::Scope::refresh), which runs the checks in the background: without it, only
    /// requests of allowed clients run checks. The first request starts the background runs, even one of a denied client; until
    /// the first results, the status is `DOWN`. The age limit is then three intervals plus the deadline.
    StatusOnly,
}

/// The application's own access check.
pub(super) type Predicate = Rc<dyn Fn(&GuardContext<'_>) -> bool>;

/// Why a request is denied.
pub(super) enum Denial {
    ByPolicy(AccessDenied),
    ByPredicate(Peer, DenialKind),
}

impl Denial {
    pub(super) fn count_and_log(&self) {
        DENIED_REQUESTS.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::ByPolicy(denied) => log_denial(denied.client(), DenialKind::Ordinary, denied),
            Self::ByPredicate(client, kind) => {
                let reason = if *kind == DenialKind::Panicked { "panicked" } else { "returned false" };
                log_denial(
                    *client,
                    *kind,
                    &format_args!("denied {client}: the predicate of Scope::authorize {reason}"),
                );
            }
        }
    }
}

/// Allows requests that both the policy and the predicate allow.
pub(super) struct AccessControl {
    pub(super) policy: Policy,
    pub(super) authorize: Option<Predicate>,
    pub(super) deny: Deny,
}

impl AccessControl {
    /// Whether a request is allowed. Counts and logs a denial. `is_unix`: whether a request without a peer address arrived on a Unix
    /// socket.
    pub(super) fn authorize_and_log(&self, request: &GuardContext<'_>, is_unix: bool) -> bool {
        self.authorize(request, is_unix).map_err(|denial| denial.count_and_log()).is_ok()
    }

    /// Whether a request is allowed.
    pub(super) fn is_allowed(&self, request: &GuardContext<'_>, is_unix: bool) -> bool {
        self.authorize(request, is_unix).is_ok()
    }

    fn authorize(&self, request: &GuardContext<'_>, is_unix: bool) -> Result<(), Denial> {
        let head = request.head();
        let peer = match head.peer_addr {
            Some(peer) => Peer::Address(peer.ip()),
            None if is_unix => Peer::Unix,
            None => Peer::Unknown,
        };
        let values = |header| head.headers().get_all(header_name(header)).map(HeaderValue::as_bytes).collect();
        match self.policy.evaluate(peer, values) {
            Ok(client) => {
                let contains = |header| head.headers().contains_key(header_name(header));
                warn_untrusted_proxy_once(&self.policy, client, contains);
                self.apply_predicate(client, request)
            }
            Err(denied) => Err(Denial::ByPolicy(denied)),
        }
    }

    fn apply_predicate(&self, client: Peer, request: &GuardContext<'_>) -> Result<(), Denial> {
        let Some(predicate) = &self.authorize else { return Ok(()) };
        // A panic denies the request. Its message was printed by the panic hook of the process.
        match catch_unwind(AssertUnwindSafe(|| predicate(request))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::ByPredicate(client, DenialKind::Ordinary)),
            Err(_) => Err(Denial::ByPredicate(client, DenialKind::Panicked)),
        }
    }
}

/// Warns of a proxy on this machine: by default loopback is allowed, and all clients of such a proxy have a loopback address.
/// A forwarding header suggests such a proxy, but is not a reason to deny, because any client can send one. `contains`: whether the
/// request has the header.
pub(super) fn warn_untrusted_proxy_once(policy: &Policy, client: Peer, contains: impl Fn(ForwardingHeader) -> bool) {
    if !policy.is_default_loopback() || UNTRUSTED_PROXY_WARNING.is_logged() {
        return;
    }
    let headers = [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded];
    if let (Some(header), Some(address)) = (headers.into_iter().find(|header| contains(*header)), client.address())
        && UNTRUSTED_PROXY_WARNING.claim()
    {
        tracing::warn!(
            "health scope allowed {address} with a header {}: a proxy on this machine forwards requests, and every client of \
             the proxy is allowed because loopback is; add the proxy to Scope::trust_proxies",
            header.name()
        );
    }
}

/// The constant for a header: converting its name would allocate for each request.
fn header_name(header: ForwardingHeader) -> HeaderName {
    match header {
        ForwardingHeader::XForwardedFor => header::X_FORWARDED_FOR,
        ForwardingHeader::Forwarded => header::FORWARDED,
    }
}

/// Makes actix skip the route for denied requests.
///
/// A guard has no access to the data of the connection, so it cannot tell whether a request without an address arrived on a
/// Unix socket. Where that matters it assumes so, and the service evaluates the request again.
pub(super) struct AccessGuard(pub(super) Rc<AccessControl>);

impl Guard for AccessGuard {
    fn check(&self, request: &GuardContext<'_>) -> bool {
        self.0.authorize_and_log(request, self.0.policy.distinguishes_unix())
    }
}

/// Logs a denial once per client and minute, however many scopes deny it.
fn log_denial(client: Peer, kind: DenialKind, denial: &dyn fmt::Display) {
    let decision = DENIALS.lock().decide((client, kind), Instant::now());
    let address = client.address().map(tracing::field::display);
    match (decision, kind) {
        (LogDecision::Log, DenialKind::Ordinary) => tracing::warn!(address, "health scope {denial}"),
        (LogDecision::Log, DenialKind::Panicked) => tracing::error!(address, "health scope {denial}"),
        (LogDecision::Overflow, _) => {
            tracing::warn!(
                "health scope denied more than {MAX_TRACKED} clients in a minute; further ones are not logged"
            );
        }
        (LogDecision::Suppress, _) => {}
    }
}
