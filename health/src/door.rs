//! The door of a scope: which HTTP requests are let in, what the others are answered, and the log of them.

use std::{
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{LazyLock, Mutex, PoisonError},
};

use actix_web::{
    HttpRequest,
    dev::RequestHead,
    guard::{Guard, GuardContext},
    http::header::HeaderValue,
};
use tokio::time::Instant;

use crate::access::{News, Policy, Refusal, Refusals};

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
    /// As if there were no such route: whatever the application answers then, be it a later route that takes any path, or its
    /// default service. What [`Scope::authorize`](crate::Scope::authorize) turns away comes to the default service of the
    /// application, for then the route is taken.
    NotFound,
    /// `{"status":"UP"}` with 200 or 503 and nothing else, at the paths of the whole service (`/health`, `/ready`, `/live`,
    /// `/startup`); at those of single groups and checks, 403 as with [`Deny::Forbidden`]. For load balancers outside.
    ///
    /// It never asks a check: it says what was found when somebody last asked who is let in, and `DOWN` if nobody has for
    /// a minute (or `max_age`, if that is longer). So set [`Scope::refresh`](crate::Scope::refresh) beside it, which looks in
    /// the background; then who comes first starts that, be it who is not let in.
    StatusOnly,
}

/// A user's own test of a request.
pub(crate) type Predicate = Box<dyn Fn(&HttpRequest) -> bool>;

/// Lets in whom the policy and then the predicate do.
pub(crate) struct Door {
    pub(crate) policy: Policy,
    pub(crate) authorize: Option<Predicate>,
    pub(crate) deny: Deny,
}

impl Door {
    /// Whether a request is let in. If not, the log is told.
    pub(crate) fn lets_in(&self, request: &HttpRequest) -> bool {
        self.knows(request.head()) && self.authorizes(request)
    }

    /// Whether the address of who asks is let in.
    fn knows(&self, head: &RequestHead) -> bool {
        self.judge(head).map_err(|refusal| log(refusal.address(), &refusal)).is_ok()
    }

    fn judge(&self, head: &RequestHead) -> Result<Option<IpAddr>, Refusal> {
        let peer = head.peer_addr.map(|peer| peer.ip());
        self.policy.judge(peer, |header| head.headers().get_all(header.name()).map(HeaderValue::as_bytes).collect())
    }

    fn authorizes(&self, request: &HttpRequest) -> bool {
        let Some(authorize) = &self.authorize else { return true };
        // A panic is no permission. Its text went where the panics of the process go.
        let answer = catch_unwind(AssertUnwindSafe(|| authorize(request)));
        if let Ok(true) = answer {
            return true;
        }
        let address = self.judge(request.head()).ok().flatten();
        let because = if answer.is_ok() { "says no" } else { "panicked" };
        let whom = address.map_or("a peer without an address".to_owned(), |address| address.to_string());
        log(
            address,
            &format_args!("refused {whom}, whom the list lets in, because the predicate of Scope::authorize {because}"),
        );
        false
    }
}

/// Lets requests of unknown addresses pass by the route, as if it were not there.
pub(crate) struct KnownAddress(pub(crate) Rc<Door>);

impl Guard for KnownAddress {
    fn check(&self, context: &GuardContext<'_>) -> bool {
        self.0.knows(context.head())
    }
}

/// Once an address and period, however many scopes refuse it.
fn log(address: Option<IpAddr>, refusal: &dyn fmt::Display) {
    static REFUSALS: LazyLock<Mutex<Refusals>> = LazyLock::new(Mutex::default);

    let news = REFUSALS.lock().unwrap_or_else(PoisonError::into_inner).news(address, Instant::now());
    let address = address.map(tracing::field::display);
    match news {
        News::Refused => tracing::warn!(address, "health scope {refusal}"),
        News::Flooded => tracing::warn!(
            "health scope refuses more than {} addresses a minute; those beyond are not told",
            Refusals::ADDRESSES
        ),
        News::Nothing => {}
    }
}
