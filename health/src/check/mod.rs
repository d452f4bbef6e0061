//! [`Check`]: a named probe with its options, and the identity that makes it one check however often it is cloned.
//!
//! `inner` is what the clones share, `state` what is known of the check, `run` one run of it, `log` its log lines.

mod inner;
mod log;
mod run;
mod state;

#[cfg(test)]
mod model;

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    error::{BoxError, ProbeError},
    probe::{self, DynProbe, Probe},
    redact::{MAX_LABEL_LEN, REDACTED, label},
    report::{MAX_DURATION, Sample},
};

pub(crate) use self::{
    inner::{CheckInner, Options},
    run::Pending,
};

/// Words that are paths of the scope, or what it says of itself, and so can't be groups.
pub(crate) const RESERVED: [&str; 11] =
    ["health", "live", "ready", "startup", "metrics", "page", "schema", "history", "events", "status", "openapi.json"];

/// A named probe with its options.
///
/// A check is a cheap clone with an identity: made once and cloned into the factory of the workers, it is one check,
/// which is run once for all of them. Made inside the factory it would be one check a worker.
/// A setter that is called on one of several clones makes a check of its own.
///
/// A check is critical, has no limit but the deadline of the scope, and goes up and down with every single result,
/// unless a setter says otherwise.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use health::Check;
///
/// let orders = Check::new("queue", "orders", || async {
///     // Any error of the standard library, of anyhow, or a text.
///     tokio::net::TcpStream::connect("127.0.0.1:5672").await.map(drop)
/// })
/// .optional()
/// .timeout(Duration::from_millis(250));
/// assert_eq!(orders.to_string(), "queue.orders");
/// ```
#[derive(Clone)]
#[must_use = "a check does nothing until it is registered or given to a scope"]
pub struct Check {
    inner: Arc<CheckInner>,
}

impl Check {
    /// A check that runs a function of your own.
    ///
    /// `group` is the kind of resource (`database`, `cache`, `queue`, `service`, `system`, or a word of your own), `name`
    /// tells it from the others of its group. Both are validated when the check is registered, or when the scope starts.
    ///
    /// The error may be any of the standard library, of anyhow, a `String` or a `&str`; a [`ProbeError`] inside keeps its
    /// kind and its message. The text of any other goes to the log alone, and the answer says `the check failed`.
    ///
    /// Each run is polled on one thread of a pool of the library, so a run that blocks or deadlocks hurts no other check: it is
    /// `DOWN` when its limit has passed, and is not run again before its thread returns. Use `actix_web::web::block` or
    /// `tokio::task::spawn_blocking` for blocking work all the same: a future that waits can be dropped, a blocked thread
    /// cannot. A check whose blocking calls do not return is not run again while there are four of them. At most 128 runs are
    /// polled at a time; a run that gets no thread within its limit is recorded as a failure.
    ///
    /// A panic is a failure of the check, `the check panicked`. With `panic = "abort"` it ends the process, as any panic does.
    ///
    /// Connections and tasks that the function opens belong to a runtime that lives as long as the process. A clock that a test
    /// has paused does not reach it.
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
            fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
                let asked = (self.0)();
                Box::pin(async { asked.await.map_err(ProbeError::from_error) })
            }
        }

        Self::erased(group, name, Arc::new(Function(f)))
    }

    /// A check that probes a resource; its group is the probe's.
    pub fn probe<P: Probe>(name: impl Into<String>, resource: P) -> Self {
        Self::erased(P::GROUP, name, probe::erase(resource))
    }

    fn erased(group: impl Into<String>, name: impl Into<String>, probe: Arc<dyn DynProbe>) -> Self {
        Self {
            inner: Arc::new(CheckInner::new(
                label(&group.into()).into(),
                label(&name.into()).into(),
                Options { critical: true, timeout: None, live: false, rise: 1, fall: 1 },
                probe,
            )),
        }
    }

    /// Optional instead of critical: when it is down, the service is `DEGRADED` (200) and not `DOWN` (503).
    pub fn optional(self) -> Self {
        self.modify(|inner| inner.options.critical = false)
    }

    /// Sets the limit of a run. A run that takes longer is recorded as timed out. Defaults to the longest deadline of the scopes
    /// that show the check. With a timeout longer than a scope's deadline, responses of that scope that have to leave before
    /// the run has ended show the check as `DOWN`; [`Scope::refresh`](crate::Scope::refresh) avoids that.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.modify(|inner| inner.options.timeout = Some(timeout.min(MAX_DURATION)))
    }

    /// Counts for liveness too: only for what a restart of the process mends, and never for a dependency, or an outage of
    /// that one restarts every replica. Default is not.
    pub fn live(self) -> Self {
        self.modify(|inner| inner.options.live = true)
    }

    /// How many successes in a row bring a check that is down up again. Default is 1; 0 counts as 1.
    pub fn rise(self, successes: u32) -> Self {
        self.modify(|inner| inner.options.rise = successes.max(1))
    }

    /// How many failures in a row take a check that is up down. Default is 1; 0 counts as 1. The first result of all
    /// counts at once, whatever it is.
    pub fn fall(self, failures: u32) -> Self {
        self.modify(|inner| inner.options.fall = failures.max(1))
    }

    /// The first part of the check's name, the kind of resource.
    pub fn group(&self) -> &str {
        &self.inner.group
    }

    /// The second part of the check's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The check's latest results, 60 at most, the oldest first: for a page that draws them.
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

    /// Equal for clones of one check, and for nothing else as long as one of them lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// # Errors
    ///
    /// The group or the name can't be part of a path.
    pub(crate) fn valid(&self) -> Result<(), InvalidCheck> {
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
            // As `label` has escaped it.
            if part.contains("\\u{") {
                return Err(InvalidCheck::Unprintable(part.to_owned()));
            }
            if part == "." || part == ".." || part.contains('/') {
                return Err(InvalidCheck::NoPathSegment(part.to_owned()));
            }
        }
        if self.inner.options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(InvalidCheck::NoTime);
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
        let Options { critical, timeout, live, rise, fall } = self.inner.options;
        f.debug_struct("Check")
            .field("group", &self.group())
            .field("name", &self.name())
            .field("critical", &critical)
            .field("timeout", &timeout)
            .field("live", &live)
            .field("rise", &rise)
            .field("fall", &fall)
            .finish_non_exhaustive()
    }
}

/// Why a check can't be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InvalidCheck {
    Empty,
    TooLong,
    Unprintable(String),
    NoPathSegment(String),
    Reserved(String),
    NoTime,
}

impl fmt::Display for InvalidCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a group and a name can't be empty"),
            Self::TooLong => write!(f, "a group or a name can't be longer than {MAX_LABEL_LEN} bytes"),
            Self::Unprintable(part) => {
                write!(f, "`{part}` can't be a group or a name: it contains a control character, which is escaped here")
            }
            Self::NoPathSegment(part) => {
                write!(f, "`{part}` can't be a group or a name: it must be one segment of a path")?;
                if part.contains(REDACTED) { f.write_str("; credentials in it are redacted here") } else { Ok(()) }
            }
            Self::NoTime => f.write_str("timeout must be greater than zero"),
            Self::Reserved(word) => write!(f, "`{word}` can't be a group: the scope itself answers by it"),
        }
    }
}

impl Error for InvalidCheck {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: &str, name: &str) -> Check {
        Check::new(group, name, || async { Ok::<_, &str>(()) })
    }

    #[test]
    fn a_clone_is_the_same_check_until_a_setter_makes_it_another() {
        let one = check("queue", "orders");
        let clone = one.clone();
        assert_eq!(one.identity(), clone.identity());
        let other = clone.optional();
        assert_ne!(one.identity(), other.identity());
        assert!(one.inner().options.critical);
    }

    #[test]
    fn names_are_segments_of_a_path() {
        assert_eq!(check("queue", "orders.eu-1 ü").valid(), Ok(()));
        let long = &*"x".repeat(MAX_LABEL_LEN + 1);
        for (group, name) in [("", "a"), ("a", ""), ("a/b", "c"), ("a", "/"), ("a", "b\n"), ("a", ".."), ("a", long)] {
            assert!(check(group, name).valid().is_err(), "{group:?} {name:?}");
        }
        for word in RESERVED {
            assert_eq!(check(word, "a").valid(), Err(InvalidCheck::Reserved(word.to_owned())));
            assert_eq!(check("a", word).valid(), Ok(()));
        }
    }
}
