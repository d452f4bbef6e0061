//! [`Check`]: a named probe with its options. Clones share one identity, and so one run and one state.
//!
//! `inner` is what the clones share, `state` the state machine of results, `run` a single run, `log` the log lines, `facade` the metrics of
//! the crate of that name, `resource` the checks that clones of a resource share.

mod facade;
mod inner;
mod log;
mod resource;
mod run;
mod state;

#[cfg(test)]
mod model;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use derive_more::{Display, Error};

use crate::{
    error::{BoxError, ProbeError},
    options::{CheckOptions, Role},
    probe::{DynProbe, Probe, Session},
    redact::{MAX_LABEL_LEN, REDACTED, label},
    report::{MAX_DURATION, Sample},
};

pub(crate) use self::{inner::CheckInner, run::Pending};

/// Reserved group names: paths of the scope, those to come, and the group of its own entries.
pub(crate) const RESERVED: [&str; 11] =
    ["health", "live", "ready", "startup", "metrics", "page", "schema", "history", "events", "status", "openapi.json"];

const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// A named probe with its options.
///
/// Cloning a `Check` is cheap, and all clones are the same check: it has one state, and runs once for all workers. So create it
/// once, outside the factory of the `HttpServer`, and clone it into the factory; a check that is created inside runs once per
/// worker. A setter that is called on one of several clones returns a new check.
///
/// By default a check is critical, is limited by the deadline of the scope, and changes its status with every result.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use health::Check;
///
/// let orders = Check::new("queue", "orders", || async {
///     // The error may be an `std::error::Error`, an `anyhow::Error`, or a string.
///     tokio::net::TcpStream::connect("127.0.0.1:5672").await.map(drop)
/// })
/// .optional()
/// .timeout(Duration::from_millis(250));
/// assert_eq!(orders.to_string(), "queue.orders");
/// ```
#[derive(Clone)]
#[must_use = "a check does nothing until it is registered or added to a scope"]
pub struct Check {
    inner: Arc<CheckInner>,
}

impl Check {
    /// Creates a check that runs an async function.
    ///
    /// `group` is the kind of resource: `database`, `cache`, `queue`, `service`, `system`, or a word of your own. `name` is unique
    /// within the group. Both are segments of the path `/health/{group}/{name}`, percent-encoded where needed: the path of a check
    /// with the name `eu/1` ends in `/eu%2F1`. They are validated by [`register`](crate::register) or at the start of the scope.
    /// Credentials in them are redacted in responses, log lines and paths: a check with the name `bob:secret@db` is shown as
    /// `***@db`, and its path ends in `/***@db`.
    ///
    /// # Errors of the function
    ///
    /// The error may be an [`std::error::Error`], an `anyhow::Error`, a `String` or a `&str`. A [`ProbeError`] in its chain of sources
    /// keeps its kind and message. The text of any other error is only logged, and the response says `the check failed`.
    ///
    /// # Where it runs
    ///
    /// Each run is polled on a thread of a pool, so a run that blocks or deadlocks affects no other check. It is `DOWN` once its
    /// limit has passed, and does not run again before its thread returns. Up to 128 runs are polled at a time; one that gets no
    /// thread within its limit is recorded as a failure.
    ///
    /// I/O, timers and spawned tasks run on a runtime that belongs to the check and lives as long as the process, so connections
    /// that a run opens stay usable. The first 32 checks have a runtime each; further checks share these. The clock of the runtime is
    /// not paused by `tokio::time::pause`. While a spawned task blocks its thread, the check does not run again.
    ///
    /// Use `actix_web::web::block` or `tokio::task::spawn_blocking` for blocking work, because a pending future can be dropped and
    /// a blocked thread cannot. While four blocking calls of a check have not returned, it does not run again.
    ///
    /// # Panics of the function
    ///
    /// A panic is recorded as the failure `the check panicked`. With `panic = "abort"` it ends the process, as any panic does.
    pub fn new<F, Fut, E>(group: impl Into<String>, name: impl Into<String>, f: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        struct Function<F>(F);

        impl<F, Fut, E> DynProbe for Function<F>
        where
            F: Fn() -> Fut + Send + Sync,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<BoxError>,
        {
            fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
                let result = (self.0)();
                Box::pin(async { result.await.map_err(ProbeError::from_error) })
            }
        }

        Self::from_dyn(group, name, Arc::new(Function(f)))
    }

    /// Creates a check of a resource. Its group is [`Probe::GROUP`], and its options are [`Probe::OPTIONS`].
    ///
    /// # Examples
    ///
    /// ```
    /// use health::{Check, Probe, ProbeError};
    ///
    /// struct License;
    ///
    /// impl Probe for License {
    ///     const GROUP: &'static str = "system";
    ///
    ///     async fn probe(&self) -> Result<(), ProbeError> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// assert_eq!(Check::probe("license", License).to_string(), "system.license");
    /// ```
    pub fn probe<P: Probe>(name: impl Into<String>, resource: P) -> Self {
        let options = CheckOptions {
            timeout: P::OPTIONS.timeout.map(|timeout| timeout.min(MAX_TIMEOUT)),
            max_age: P::OPTIONS.max_age.map(|max_age| max_age.min(MAX_DURATION)),
            rise: P::OPTIONS.rise.max(1),
            fall: P::OPTIONS.fall.max(1),
            ..P::OPTIONS
        };
        Self::from_dyn(P::GROUP, name, Session::open(resource).into_inner()).modify(|inner| inner.options = options)
    }

    fn from_dyn(group: impl Into<String>, name: impl Into<String>, probe: Arc<dyn DynProbe>) -> Self {
        Self {
            inner: Arc::new(CheckInner::new(
                label(&group.into()).into(),
                label(&name.into()).into(),
                CheckOptions::default(),
                probe,
            )),
        }
    }

    /// Makes the check critical: while it is down, the service is `DOWN` (503). The default, unless the [`Probe::OPTIONS`] of a resource
    /// are others. Of this method, [`Check::optional`] and [`Check::shared`], the last call counts.
    pub fn critical(self) -> Self {
        self.modify(|inner| inner.options.role = Role::Critical)
    }

    /// Makes the check optional: while it is down, the service is `DEGRADED` (200) instead of `DOWN` (503). Off by default. Of
    /// this method, [`Check::critical`] and [`Check::shared`], the last call counts.
    pub fn optional(self) -> Self {
        self.modify(|inner| inner.options.role = Role::Optional)
    }

    /// Marks a resource that all replicas share, such as the one database of a service. Off by default.
    ///
    /// While it is down, `/health` is `DOWN` (503). `/health/ready` is 503 only until the service has started once, which means
    /// that each critical and shared check has been up. From then on it is `DEGRADED` (200): otherwise an outage of the resource
    /// would take all replicas out of rotation together, and clients would get the load balancer's error instead of the
    /// application's. Of this method, [`Check::critical`] and [`Check::optional`], the last call counts.
    pub fn shared(self) -> Self {
        self.modify(|inner| inner.options.role = Role::Shared)
    }

    /// Sets the limit of a run. Defaults to the longest deadline of the scopes that show the check.
    ///
    /// A run that takes longer is recorded as timed out. If the timeout is longer than the deadline of a scope, responses that the
    /// scope sends before the run has ended show the check as `DOWN`; [`Scope::refresh`](crate::Scope::refresh) avoids that. A
    /// timeout of more than 10 minutes is reduced to 10 minutes, so that a check that hangs is recorded and logged.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.modify(|inner| inner.options.timeout = Some(timeout.min(MAX_TIMEOUT)))
    }

    /// Sets the maximum age of a result of this check. Defaults to [`Scope::max_age`](crate::Scope::max_age), or to the interval of
    /// [`Scope::refresh`](crate::Scope::refresh) if the scope has one. Use it for a check that is expensive for its resource, or
    /// billed. With `refresh`, the check runs at this interval.
    pub fn max_age(self, max_age: Duration) -> Self {
        self.modify(|inner| inner.options.max_age = Some(max_age.min(MAX_DURATION)))
    }

    /// Includes this check in liveness. Use it only for faults that a restart of the process fixes, never for dependencies: an
    /// outage of one would restart every replica. Off by default.
    pub fn live(self) -> Self {
        self.modify(|inner| inner.options.live = true)
    }

    /// Sets how many successes in a row bring a check that is down up again. Defaults to 1; 0 counts as 1.
    pub fn rise(self, successes: u32) -> Self {
        self.modify(|inner| inner.options.rise = successes.max(1))
    }

    /// Sets how many failures in a row take a check that is up down. Defaults to 1; 0 counts as 1. The first result always
    /// counts at once.
    pub fn fall(self, failures: u32) -> Self {
        self.modify(|inner| inner.options.fall = failures.max(1))
    }

    /// The kind of resource, and the first part of the full name `group.name`. Credentials are redacted.
    pub fn group(&self) -> &str {
        &self.inner.group
    }

    /// The second part of the full name `group.name`. Credentials are redacted.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The options that were set.
    ///
    /// # Examples
    ///
    /// ```
    /// use health::{Check, Role};
    ///
    /// let check = Check::new("queue", "orders", || async { Ok::<_, String>(()) }).optional().fall(3);
    /// assert_eq!(check.options().role, Role::Optional);
    /// assert_eq!(check.options().fall, 3);
    /// ```
    pub fn options(&self) -> CheckOptions {
        self.inner.options
    }

    /// The latest results, up to 60, the oldest first.
    pub fn history(&self) -> Vec<Sample> {
        self.inner.history()
    }

    pub(crate) fn renamed(self, name: &str) -> Self {
        self.modify(|inner| inner.name = label(name).into())
    }

    pub(crate) fn in_group(self, group: &str) -> Self {
        self.modify(|inner| inner.group = label(group).into())
    }

    pub(crate) fn inner(&self) -> &Arc<CheckInner> {
        &self.inner
    }

    /// Equal only for clones of one check, while one of them is alive.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// # Errors
    ///
    /// The check cannot be run: its group or name cannot be part of a path, or its timeout is zero.
    pub(crate) fn validate(&self) -> Result<(), InvalidCheck> {
        let (group, name) = (self.group(), self.name());
        if RESERVED.contains(&group) {
            return Err(InvalidCheck::Reserved(group.to_owned()));
        }
        for part in [group, name] {
            if part.is_empty() {
                return Err(InvalidCheck::Empty);
            }
            if part.len() > MAX_LABEL_LEN {
                return Err(InvalidCheck::TooLong);
            }
            // `label` has escaped a control character.
            if part.contains("\\u{") {
                return Err(InvalidCheck::Unprintable(part.to_owned()));
            }
            // Clients remove these segments from a path, even if they are percent-encoded.
            if part == "." || part == ".." {
                return Err(InvalidCheck::DotSegment(part.to_owned()));
            }
        }
        if self.inner.options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(InvalidCheck::ZeroTimeout);
        }
        Ok(())
    }

    fn modify(mut self, set: impl FnOnce(&mut CheckInner)) -> Self {
        if Arc::get_mut(&mut self.inner).is_none() {
            let CheckInner { group, name, options, probe, .. } = &*self.inner;
            self.inner = Arc::new(CheckInner::new(Arc::clone(group), Arc::clone(name), *options, Arc::clone(probe)));
        }
        set(Arc::get_mut(&mut self.inner).expect("this handle is the only one"));
        self
    }
}

impl fmt::Display for Check {
    /// `group.name`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group(), self.name())
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("group", &self.group())
            .field("name", &self.name())
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

/// Why a check cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Display, Error)]
pub(crate) enum InvalidCheck {
    #[display("a group and a name cannot be empty")]
    Empty,
    #[display("a group or a name cannot be longer than {MAX_LABEL_LEN} bytes")]
    TooLong,
    #[display("`{_0}` cannot be a group or a name: it contains a control character, which is escaped here")]
    Unprintable(#[error(not(source))] String),
    #[display("`{_0}` cannot be a group or a name: clients remove it from a path")]
    DotSegment(#[error(not(source))] String),
    #[display("`{_0}` cannot be a group: it is reserved for paths of the scope")]
    Reserved(#[error(not(source))] String),
    #[display("timeout must be greater than zero")]
    ZeroTimeout,
}

/// What a message about a duplicate adds if the names may have differed before credentials were redacted.
pub(crate) fn redaction_hint(name: &str) -> &'static str {
    if name.contains(REDACTED) {
        "; names that differ only in credentials are equal once these are redacted: use names without credentials"
    } else {
        ""
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A check that is always up.
    pub(crate) fn check(group: &str, name: &str) -> Check {
        Check::new(group, name, || async { Ok::<_, &str>(()) })
    }

    #[test]
    fn a_clone_is_the_same_check_until_a_setter_is_called() {
        let one = check("queue", "orders");
        let clone = one.clone();
        assert_eq!(one.identity(), clone.identity());
        let other = clone.optional();
        assert_ne!(one.identity(), other.identity());
        assert_eq!(one.options().role, Role::Critical);
    }

    #[test]
    fn the_options_of_a_resource_are_those_of_its_checks_within_the_limits_of_the_setters() {
        struct Mailer;

        impl Probe for Mailer {
            const GROUP: &'static str = "mail";
            const OPTIONS: CheckOptions = CheckOptions {
                role: Role::Optional,
                timeout: Some(Duration::MAX),
                max_age: Some(Duration::from_secs(30)),
                live: true,
                rise: 0,
                fall: 2,
            };

            async fn probe(&self) -> Result<(), ProbeError> {
                Ok(())
            }
        }

        let expected = CheckOptions { timeout: Some(MAX_TIMEOUT), rise: 1, ..Mailer::OPTIONS };
        for check in [Check::probe("mailer", Mailer), Check::probe("mailer", Arc::new(Box::new(Mailer)))] {
            assert_eq!(check.options(), expected);
            assert_eq!(check.critical().options(), CheckOptions { role: Role::Critical, ..expected });
        }
    }

    #[test]
    fn a_timeout_is_ten_minutes_at_most() {
        let timeout = |timeout| check("a", "b").timeout(timeout).options().timeout;
        assert_eq!(timeout(Duration::MAX), Some(MAX_TIMEOUT));
        assert_eq!(timeout(Duration::from_millis(1)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn names_are_segments_of_a_path_once_they_are_percent_encoded() {
        for (group, name) in [("queue", "orders.eu-1 ü"), ("a/b", "c"), ("a", "/"), ("a", "50% ?#")] {
            assert_eq!(check(group, name).validate(), Ok(()));
        }
        let long = &*"x".repeat(MAX_LABEL_LEN + 1);
        for (group, name) in [("", "a"), ("a", ""), ("a", "."), ("a", "b\n"), ("a", ".."), ("..", "a"), ("a", long)] {
            assert!(check(group, name).validate().is_err(), "{group:?} {name:?}");
        }
        for word in RESERVED {
            assert_eq!(check(word, "a").validate(), Err(InvalidCheck::Reserved(word.to_owned())));
            assert_eq!(check("a", word).validate(), Ok(()));
        }
    }
}
