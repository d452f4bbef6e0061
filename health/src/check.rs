//! [`Check`]: a named probe with its options, and the identity that makes it one check however often it is cloned.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    error::{BoxError, ProbeError},
    events::Watchers,
    probe::{self, DynProbe, Probe},
    redact::{MAX_LABEL_LEN, REDACTED, label},
    report::Sample,
    runs::Runs,
    scope::LONGEST,
};

/// Words that are paths of the scope, or what it says of itself, and so can't be groups.
pub(crate) const RESERVED: [&str; 4] = ["health", "live", "ready", "startup"];

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
    core: Arc<Core>,
}

/// What all clones of a check share.
pub(crate) struct Core {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) options: Options,
    pub(crate) probe: Arc<dyn DynProbe>,
    pub(crate) runs: Runs,
    pub(crate) watchers: Watchers,
}

#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) critical: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) live: bool,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
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
    /// The function runs on threads of the library's own, and must not block them: what blocks belongs into
    /// `tokio::task::spawn_blocking` or `actix_web::web::block`. A clock that a test has paused does not reach them.
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
            core: Arc::new(Core {
                group: label(&group.into()).into(),
                name: label(&name.into()).into(),
                options: Options { critical: true, timeout: None, live: false, rise: 1, fall: 1 },
                probe,
                runs: Runs::default(),
                watchers: Watchers::default(),
            }),
        }
    }

    /// Optional instead of critical: when it is down, the service is `DEGRADED` (200) and not `DOWN` (503).
    pub fn optional(self) -> Self {
        self.with(|core| core.options.critical = false)
    }

    /// A limit of the check's own: without an answer within it, the check is down. Default is the deadline of the scope,
    /// which also bounds this one.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|core| core.options.timeout = Some(timeout.min(LONGEST)))
    }

    /// Counts for liveness too: only for what a restart of the process mends, and never for a dependency, or an outage of
    /// that one restarts every replica. Default is not.
    pub fn live(self) -> Self {
        self.with(|core| core.options.live = true)
    }

    /// How many successes in a row bring a check that is down up again. Default is 1; 0 counts as 1.
    pub fn rise(self, successes: u32) -> Self {
        self.with(|core| core.options.rise = successes.max(1))
    }

    /// How many failures in a row take a check that is up down. Default is 1; 0 counts as 1. The first result of all
    /// counts at once, whatever it is.
    pub fn fall(self, failures: u32) -> Self {
        self.with(|core| core.options.fall = failures.max(1))
    }

    /// The first part of the check's name, the kind of resource.
    pub fn group(&self) -> &str {
        &self.core.group
    }

    /// The second part of the check's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The check's latest results, 60 at most, the oldest first: for a page that draws them.
    pub fn history(&self) -> Vec<Sample> {
        self.core.history()
    }

    pub(crate) fn renamed(self, name: &str) -> Self {
        self.with(|core| core.name = label(name).into())
    }

    pub(crate) fn in_group(self, group: &str) -> Self {
        self.with(|core| core.group = label(group).into())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Equal for clones of one check, and for nothing else as long as one of them lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
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
        if self.core.options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(InvalidCheck::NoTime);
        }
        Ok(())
    }

    fn with(mut self, set: impl FnOnce(&mut Core)) -> Self {
        if Arc::get_mut(&mut self.core).is_none() {
            let Core { group, name, options, probe, .. } = &*self.core;
            self.core = Arc::new(Core {
                group: Arc::clone(group),
                name: Arc::clone(name),
                options: *options,
                probe: Arc::clone(probe),
                runs: Runs::default(),
                watchers: Watchers::default(),
            });
        }
        set(Arc::get_mut(&mut self.core).expect("this handle is the only one"));
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
        let Options { critical, timeout, live, rise, fall } = self.core.options;
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
        assert!(one.core().options.critical);
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
