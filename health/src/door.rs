//! The door of a scope: which HTTP requests are let in, what the others are answered, and the log of them.

use std::{
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{
    dev::RequestHead,
    guard::{Guard, GuardContext},
    http::header::{self, HeaderName, HeaderValue},
};
use tokio::time::Instant;

use crate::access::{Header, News, Peer, Policy, REMEMBERED, Refusals};

/// What is answered to who may not ask. Default is [`Deny::Forbidden`].
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
    /// 403 and an empty body.
    #[default]
    Forbidden,
    /// As if there were no such route: the request goes on to later routes, and to the application's default service.
    NotFound,
    /// The status alone, `{"status":"UP"}` with 200 or 503 (`DEGRADED` is 200 too), at the paths of the whole service
    /// (`/health`, `/ready`, `/live`, `/startup`); at those of single groups and checks, 403 as with [`Deny::Forbidden`]. For
    /// load balancers outside.
    ///
    /// It never asks a check: it says what was found when somebody last asked who is let in, and `DOWN` if nobody has for
    /// a minute (or `max_age`, if that is longer). So set [`Scope::refresh`](crate::Scope::refresh) beside it, which looks in
    /// the background; then who comes first starts that, be it who is not let in, and is told `DOWN` until the first round is over.
    StatusOnly,
}

/// A user's own test of a request.
pub(crate) type Predicate = Box<dyn Fn(&GuardContext<'_>) -> bool>;

/// Lets in whom the policy and then the predicate do.
pub(crate) struct Door {
    pub(crate) policy: Policy,
    pub(crate) authorize: Option<Predicate>,
    pub(crate) deny: Deny,
}

impl Door {
    /// Whether a request is let in. If not, the log is told. `is_unix` says whether a request without an address came by a Unix
    /// socket.
    pub(crate) fn lets_in(&self, request: &GuardContext<'_>, is_unix: bool) -> bool {
        let head = request.head();
        let peer = match head.peer_addr {
            Some(peer) => Peer::Address(peer.ip()),
            None if is_unix => Peer::Unix,
            None => Peer::Unknown,
        };
        let values = |header: Header| head.headers().get_all(header_name(header)).map(HeaderValue::as_bytes).collect();
        match self.policy.judge(peer, values) {
            Ok(client) => {
                self.warn_of_a_proxy(client.address(), head);
                self.authorizes(client, request)
            }
            Err(refusal) => {
                log(refusal.client(), Reason::Refused, &refusal);
                false
            }
        }
    }

    fn authorizes(&self, client: Peer, request: &GuardContext<'_>) -> bool {
        let Some(authorize) = &self.authorize else { return true };
        // A panic is no permission. Its text went where the panics of the process go.
        let (reason, because) = match catch_unwind(AssertUnwindSafe(|| authorize(request))) {
            Ok(true) => return true,
            Ok(false) => (Reason::Refused, "says no"),
            Err(_) => (Reason::Panicked, "panicked"),
        };
        let refusal = format_args!("refused {client}, because the predicate of Scope::authorize {because}");
        log(client, reason, &refusal);
        false
    }

    /// By default this machine may ask, and behind a proxy that runs on it everybody comes from there. A header of proxies says
    /// so; it decides nothing, for anybody can send one.
    fn warn_of_a_proxy(&self, address: Option<IpAddr>, head: &RequestHead) {
        static WARNED: AtomicBool = AtomicBool::new(false);

        if !self.policy.is_for_this_machine_alone() || WARNED.load(Ordering::Relaxed) {
            return;
        }
        let headers = [Header::XForwardedFor, Header::Forwarded];
        let forwarded = headers.into_iter().find(|header| head.headers().contains_key(header_name(*header)));
        if let (Some(header), Some(address)) = (forwarded, address)
            && !WARNED.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "health scope let in {address} with a header {}: a proxy on this machine asks for others, and this machine may \
                 ask; name it in Scope::trust_proxies or Scope::trust_forwarded, and the others are judged",
                header.name()
            );
        }
    }
}

/// Made once: of a text it would be made at each request.
fn header_name(header: Header) -> HeaderName {
    match header {
        Header::XForwardedFor => header::X_FORWARDED_FOR,
        Header::Forwarded => header::FORWARDED,
    }
}

/// Lets requests that are not let in pass by the route, as if it were not there.
///
/// A guard does not see the data of the connection, so it can't tell whether a request without an address came by a Unix socket.
/// Where that matters it assumes so, and the service looks again.
pub(crate) struct PassBy(pub(crate) Rc<Door>);

impl Guard for PassBy {
    fn check(&self, request: &GuardContext<'_>) -> bool {
        self.0.lets_in(request, self.0.policy.distinguishes_unix())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reason {
    Refused,
    /// A fault of the application, which must not stay unseen behind an ordinary refusal.
    Panicked,
}

/// Once an address and period, however many scopes refuse it.
fn log(client: Peer, reason: Reason, refusal: &dyn fmt::Display) {
    type Key = (Peer, Reason);

    static REFUSALS: LazyLock<Mutex<Refusals<Key>>> = LazyLock::new(Mutex::default);

    let news = REFUSALS.lock().unwrap_or_else(PoisonError::into_inner).news((client, reason), Instant::now());
    let address = client.address().map(tracing::field::display);
    match (news, reason) {
        (News::Refused, Reason::Refused) => tracing::warn!(address, "health scope {refusal}"),
        (News::Refused, Reason::Panicked) => tracing::error!(address, "health scope {refusal}"),
        (News::Flooded, _) => tracing::warn!(
            "health scope refuses more than {} addresses a minute; those beyond are not told",
            REMEMBERED
        ),
        (News::Nothing, _) => {}
    }
}
