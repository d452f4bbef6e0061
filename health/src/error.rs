//! [`ProbeError`], what a probe answers when its resource doesn't, and the [`ProbeErrorKind`] of the failure.
//!
//! The split that keeps answers clean is made here: `Display` is the public message, made of the kind and of
//! what may be shown; `source()` is the driver's own error, for the log alone.

use std::{borrow::Cow, error::Error, fmt, io};

use crate::{
    probes,
    redact::{is_unprintable, one_line, redact},
    status::Status,
};

/// Any error, as the ecosystem boxes it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What kind of failure it was. Told from typed errors, never from an error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeErrorKind {
    /// No connection: refused, reset, no route, no such name.
    Unreachable,
    /// The resource is there and does not let us in: credentials, permissions, TLS.
    Rejected,
    /// No answer in time.
    TimedOut,
    /// All connections are in use: busy, not dead. A check that fails so is [`Status::Degraded`].
    Saturated,
    /// It answers, but takes no writes: a replica, a full disk, memory used up.
    ReadOnly,
    /// It answered something else than what was asked.
    Failed,
    /// The probe panicked. With `panic = "abort"` there is no such failure: the process ends.
    Panicked,
}

impl ProbeErrorKind {
    /// The kind as one lower-case word, e.g. for a log's field: `timed out`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed out",
            Self::Saturated => "saturated",
            Self::ReadOnly => "read-only",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
        }
    }

    /// The public message of this kind for a resource, by a name that everybody may see: what it is, and at most its
    /// `host:port`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use health::ProbeErrorKind;
    /// assert_eq!(ProbeErrorKind::TimedOut.message("kafka at 10.0.0.7:9092"), "no response from kafka at 10.0.0.7:9092");
    /// ```
    pub fn message(self, resource: &str) -> String {
        match self {
            Self::Unreachable => format!("unable to connect to {resource}"),
            Self::Rejected => format!("{resource} denied access"),
            Self::TimedOut => format!("no response from {resource}"),
            Self::Saturated => format!("{resource} accepts no more connections"),
            Self::ReadOnly => format!("{resource} is read-only"),
            Self::Failed => format!("unexpected response from {resource}"),
            Self::Panicked => format!("the check of {resource} panicked"),
        }
    }

    /// The public message where nothing is known of the resource.
    const fn default_message(self) -> &'static str {
        match self {
            Self::Unreachable => "unable to connect",
            Self::Rejected => "access denied",
            Self::TimedOut => "timed out",
            Self::Saturated => "connection pool exhausted",
            Self::ReadOnly => "read-only",
            Self::Failed => "the check failed",
            Self::Panicked => "the check panicked",
        }
    }
}

impl fmt::Display for ProbeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a probe failed: a [`ProbeErrorKind`], a message for everybody who may see the health check, and the driver's error for the log.
///
/// `Display` is the public message; nothing else of it ever reaches an answer. [`Error::source`] leads to the driver's error.
///
/// # Examples
///
/// ```
/// use health::{ProbeErrorKind, ProbeError};
///
/// // The message is yours, and public: no names, no URLs.
/// let error = ProbeError::new(ProbeErrorKind::Failed, "the queue holds more than 10000 jobs");
/// assert_eq!(error.to_string(), "the queue holds more than 10000 jobs");
///
/// // Any other error: the kind is told from its type, and its text stays out of the answer.
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = ProbeError::from_error(refused);
/// assert_eq!(error.kind(), ProbeErrorKind::Unreachable);
/// assert_eq!(error.to_string(), "unable to connect");
/// ```
pub struct ProbeError(Box<Failure>);

/// The inside of a [`ProbeError`], and the first link of its `source()` chain.
///
/// It is a link of its own because wrappers such as `anyhow::Error` hide the type they wrap when they become a
/// `Box<dyn Error>`, but pass its `source()` on: so the kind and the message are found again (see [`ProbeError::from_error`]).
struct Failure {
    kind: ProbeErrorKind,
    status: Status,
    message: Cow<'static, str>,
    source: Option<BoxError>,
    /// Struck out of the driver's text before it is logged.
    secret: Option<String>,
}

impl ProbeError {
    /// A failure of the given kind, with the message that answers show.
    ///
    /// Control characters in it are escaped: what is shown is one line in every format. The status is [`Status::Down`], or [`Status::Degraded`] for [`ProbeErrorKind::Saturated`].
    pub fn new(kind: ProbeErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Failure {
            kind,
            status: if kind == ProbeErrorKind::Saturated { Status::Degraded } else { Status::Down },
            message: printable(message.into()),
            source: None,
            secret: None,
        }))
    }

    /// Any error as a failure: a `ProbeError` anywhere in its chain of sources keeps its kind and its message;
    /// otherwise the kind is told from the types in the chain (of the standard library and of the backends that
    /// are switched on), else it is [`ProbeErrorKind::Failed`]. The error's own text goes to the log alone.
    pub fn from_error(error: impl Into<BoxError>) -> Self {
        let error = match error.into().downcast::<Self>() {
            Ok(ours) => return *ours,
            Err(other) => other,
        };
        let known = chain(&*error).find_map(|link| link.downcast_ref::<Failure>());
        let mut found = match known {
            Some(failure) => {
                let mut found = Self::new(failure.kind, failure.message.clone());
                found.0.status = failure.status;
                found.0.secret.clone_from(&failure.secret);
                found
            }
            None => {
                let kind = chain(&*error).find_map(classify).unwrap_or(ProbeErrorKind::Failed);
                Self::new(kind, kind.default_message())
            }
        };
        found.0.source = Some(error);
        found
    }

    /// Makes the check [`Status::Degraded`] instead of [`Status::Down`]: it works, but not as it should.
    #[must_use]
    pub fn degraded(mut self) -> Self {
        self.0.status = Status::Degraded;
        self
    }

    /// Adds the driver's error, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// A password that the driver's text might repeat: it is struck out of the log line. Passwords in URLs and after
    /// `password=` are struck out without that.
    #[must_use]
    pub fn with_secret(mut self, secret: Option<String>) -> Self {
        self.0.secret = secret.filter(|secret| !secret.is_empty());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ProbeErrorKind {
        self.0.kind
    }

    /// [`Status::Down`] or [`Status::Degraded`].
    pub fn status(&self) -> Status {
        self.0.status
    }

    pub(crate) fn message(&self) -> &Cow<'static, str> {
        &self.0.message
    }

    /// The driver's text and that of its causes, for the log, with credentials struck out and in one line.
    pub(crate) fn log_text(&self) -> String {
        let mut text = String::new();
        let mut link = self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static));
        while let Some(error) = link {
            let own = error.to_string();
            // Many errors print their cause themselves.
            if !text.contains(&own) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&own);
            }
            link = error.source();
        }
        redact(&text, self.0.secret.as_deref())
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeError")
            .field("kind", &self.0.kind)
            .field("status", &self.0.status)
            .field("message", &self.0.message)
            .field("source", &self.log_text())
            .finish()
    }
}

impl Error for ProbeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::from_error(error)
    }
}

/// The message as one line.
fn printable(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.contains(is_unprintable) { one_line(&message).into() } else { message }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link| match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // What it wraps, which `source` passes over.
        Some(inner) => Some(inner),
        None => link.source(),
    })
}

fn classify(error: &(dyn Error + 'static)) -> Option<ProbeErrorKind> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return classify_unknown_io(io);
    }
    probes::classify(error)
}

/// The kind of an error of the operating system's that may be of anything: a connection, a file, a child process. Only what
/// can't be but of a peer is `Unreachable`. `None` if its kind says nothing, and then what it wraps may.
fn classify_unknown_io(error: &io::Error) -> Option<ProbeErrorKind> {
    use io::ErrorKind as Kind;

    match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::BrokenPipe
        // The peer has closed the connection before the end of its response.
        | Kind::UnexpectedEof
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        // The system has no local address, or no port any more, to connect from.
        | Kind::AddrNotAvailable => Some(ProbeErrorKind::Unreachable),
        Kind::TimedOut | Kind::WouldBlock => Some(ProbeErrorKind::TimedOut),
        Kind::PermissionDenied => Some(ProbeErrorKind::Rejected),
        Kind::ReadOnlyFilesystem | Kind::StorageFull | Kind::QuotaExceeded => Some(ProbeErrorKind::ReadOnly),
        // Not `NotFound`: of a Unix socket it would mean an unreachable peer, but most files are not sockets.
        _ if does_not_resolve(error) => Some(ProbeErrorKind::Unreachable),
        _ => None,
    }
}

/// Whether it is the error with which the standard library says that a host name has no address. It has a kind that can't be
/// named outside of that, and no number, as every other error of that kind has.
fn does_not_resolve(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && format!("{:?}", error.kind()) == "Uncategorized"
}

/// The kind of an error of the operating system's that is known to be of a connection.
#[allow(dead_code, reason = "what opens connections is behind features")]
pub(crate) fn classify_io(error: &io::Error) -> ProbeErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ProbeErrorKind::TimedOut,
        io::ErrorKind::PermissionDenied => ProbeErrorKind::Rejected,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => ProbeErrorKind::ReadOnly,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => ProbeErrorKind::Failed,
        // Refused, reset, aborted, unreachable, broken pipe, end of file, a name that doesn't resolve.
        _ => ProbeErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_error_behind_anyhow_keeps_its_class_and_sentence() {
        let error = ProbeError::new(ProbeErrorKind::ReadOnly, "takes no orders").with_source("driver text");
        let wrapped = anyhow::Error::from(error).context("while asking");
        let found = ProbeError::from_error(wrapped);
        assert_eq!(found.kind(), ProbeErrorKind::ReadOnly);
        assert_eq!(found.to_string(), "takes no orders");
        assert!(found.log_text().contains("driver text"), "{}", found.log_text());
    }

    #[test]
    fn text_of_a_foreign_error_is_for_the_log_alone() {
        let error = ProbeError::from_error("relation \"users\" does not exist");
        assert_eq!(error.kind(), ProbeErrorKind::Failed);
        assert_eq!(error.to_string(), "the check failed");
        assert_eq!(error.log_text(), "relation \"users\" does not exist");
    }

    #[test]
    fn the_class_is_told_from_a_type_deep_in_the_chain() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)).context("queue");
        assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
    }

    #[test]
    fn an_error_of_io_is_unreachable_only_if_its_kind_says_so_of_a_connection() {
        use io::ErrorKind as Kind;

        let kind = |error: io::Error| ProbeError::from_error(error).kind();
        let table = [
            (
                ProbeErrorKind::Unreachable,
                &[
                    Kind::ConnectionRefused,
                    Kind::ConnectionReset,
                    Kind::ConnectionAborted,
                    Kind::NotConnected,
                    Kind::BrokenPipe,
                    Kind::UnexpectedEof,
                    Kind::HostUnreachable,
                    Kind::NetworkUnreachable,
                    Kind::NetworkDown,
                    Kind::AddrNotAvailable,
                ][..],
            ),
            (ProbeErrorKind::TimedOut, &[Kind::TimedOut, Kind::WouldBlock]),
            (ProbeErrorKind::Rejected, &[Kind::PermissionDenied]),
            (ProbeErrorKind::ReadOnly, &[Kind::ReadOnlyFilesystem, Kind::StorageFull, Kind::QuotaExceeded]),
            (
                ProbeErrorKind::Failed,
                &[
                    Kind::Other,
                    Kind::NotFound,
                    Kind::AlreadyExists,
                    Kind::InvalidInput,
                    Kind::InvalidData,
                    Kind::AddrInUse,
                    Kind::Interrupted,
                    Kind::OutOfMemory,
                    Kind::WriteZero,
                    Kind::Unsupported,
                    Kind::NotADirectory,
                    Kind::ResourceBusy,
                    Kind::Deadlock,
                ],
            ),
        ];
        for (expected, kinds) in table {
            for &of_io in kinds {
                assert_eq!(kind(of_io.into()), expected, "{of_io}");
                assert_eq!(kind(io::Error::new(of_io, "text")), expected, "{of_io}");
            }
        }
        assert_eq!(ProbeError::from_error(io::Error::other("text")).to_string(), "the check failed");
        // EMFILE has no kind of its own: no file descriptor is left, and the peer is not to blame.
        assert_eq!(kind(io::Error::from_raw_os_error(24)), ProbeErrorKind::Failed);
    }

    #[test]
    fn a_host_name_that_does_not_resolve_is_unreachable() {
        use std::net::ToSocketAddrs as _;

        let error = "health.invalid:80".to_socket_addrs().unwrap_err();
        assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
    }

    #[test]
    fn what_an_error_of_io_wraps_is_seen() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for error in [io::Error::other(refused()), io::Error::new(io::ErrorKind::InvalidData, refused())] {
            assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
        }
        let ours = ProbeError::new(ProbeErrorKind::Saturated, "busy");
        let found = ProbeError::from_error(io::Error::other(ours));
        assert_eq!((found.kind(), &*found.to_string()), (ProbeErrorKind::Saturated, "busy"));
    }

    #[test]
    fn a_saturated_resource_is_degraded_and_any_probe_can_say_so() {
        assert_eq!(ProbeError::new(ProbeErrorKind::Saturated, "").status(), Status::Degraded);
        assert_eq!(ProbeError::new(ProbeErrorKind::Failed, "").status(), Status::Down);
        assert_eq!(ProbeError::new(ProbeErrorKind::Failed, "").degraded().status(), Status::Degraded);
    }
}
