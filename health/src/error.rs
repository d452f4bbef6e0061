//! [`ProbeError`], the error of a probe, and its [`ProbeErrorKind`].
//!
//! An error has two texts. `Display` is the public message, which responses show: it is made of the kind and of `host:port`.
//! `source()` is the driver's own error, whose text is only logged.
//!
//! This module knows the errors of the standard library. Those of drivers are classified by a function of `probes`, which passes
//! it to [`ProbeError::classified`].

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    io,
};

use derive_more::Display;

use crate::{
    redact::{MAX_INPUT_LEN, redact},
    status::Status,
};

/// The number of errors that are read of a chain of sources, because an error may be its own source.
const MAX_CAUSES: usize = 64;

/// A boxed error of any type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The kind of a failure. It is determined by the types and codes of errors, never by their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeErrorKind {
    /// There is no connection: refused, reset, no route, or the host name does not resolve.
    Unreachable,
    /// The resource denies access: credentials, permissions, TLS.
    Rejected,
    /// There was no response in time.
    TimedOut,
    /// All connections are in use. The check is [`Status::Degraded`], because the resource works.
    Saturated,
    /// The resource responds, but rejects writes: a replica, a full disk, or no memory left.
    ReadOnly,
    /// The response is an error or unexpected, or the kind of the failure is not known.
    Failed,
    /// The probe panicked. With `panic = "abort"` the process ends instead.
    Panicked,
}

impl ProbeErrorKind {
    /// The kind in lower case, for example `timed out`. It is a field of log lines.
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

    /// The public message of this kind. `resource` is shown in responses, so it should be the kind of resource and at most its
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

    /// The public message without a resource.
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

/// The error of a probe: a [`ProbeErrorKind`], a public message, and the driver's error for the log.
///
/// `Display` is the public message. It is the only part that responses show. [`Error::source`] leads to the driver's error, which
/// is logged with credentials redacted.
///
/// # Examples
///
/// ```
/// use health::{ProbeErrorKind, ProbeError};
///
/// // The message is public: it should contain no user names and no URLs.
/// let error = ProbeError::new(ProbeErrorKind::Failed, "the queue holds more than 10000 jobs");
/// assert_eq!(error.to_string(), "the queue holds more than 10000 jobs");
///
/// // The kind of any other error is determined by its type, and its text is only logged.
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = ProbeError::from_error(refused);
/// assert_eq!(error.kind(), ProbeErrorKind::Unreachable);
/// assert_eq!(error.to_string(), "unable to connect");
/// ```
#[derive(Display)]
#[display("{}", _0.message)]
pub struct ProbeError(Box<Inner>);

/// The content of a [`ProbeError`], and the first link of its chain of sources.
///
/// Wrappers such as `anyhow::Error` hide the type that they wrap when they become a `Box<dyn Error>`, but return its `source()`.
/// `Inner` is part of the source chain, so `classified` can find a `ProbeError` that a wrapper hides.
#[derive(Display)]
#[display("{kind}")]
struct Inner {
    kind: ProbeErrorKind,
    status: Status,
    message: Cow<'static, str>,
    source: Option<BoxError>,
    /// A password to redact from the driver's text.
    secret: Option<String>,
}

impl ProbeError {
    /// Creates an error with a public message. Control characters in it are escaped, and credentials are redacted: passwords in URLs,
    /// and what follows words such as `password=`. More than 4 KiB is truncated.
    ///
    /// The status of the check is [`Status::Degraded`] for [`ProbeErrorKind::Saturated`], else [`Status::Down`].
    pub fn new(kind: ProbeErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            status: if kind == ProbeErrorKind::Saturated { Status::Degraded } else { Status::Down },
            message: public(message.into()),
            source: None,
            secret: None,
        }))
    }

    /// Converts any error, as [`ProbeError::from_error`] does. `classify` determines the kind of a driver's error by its type.
    pub(crate) fn classified(
        error: BoxError,
        classify: impl Fn(&(dyn Error + 'static)) -> Option<ProbeErrorKind>,
    ) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(ours) => return *ours,
            Err(other) => other,
        };
        let wrapped = chain(&*error).find_map(|link| link.downcast_ref::<Inner>());
        let mut converted = match wrapped {
            Some(inner) => {
                let mut converted = Self::new(inner.kind, inner.message.clone());
                converted.0.status = inner.status;
                converted.0.secret.clone_from(&inner.secret);
                converted
            }
            None => {
                let kind = chain(&*error).find_map(|link| match link.downcast_ref::<io::Error>() {
                    Some(io) => classify_unknown_io(io),
                    None => classify(link),
                });
                let kind = kind.unwrap_or(ProbeErrorKind::Failed);
                Self::new(kind, kind.default_message())
            }
        };
        converted.0.source = Some(error);
        converted
    }

    /// Makes the check [`Status::Degraded`] instead of [`Status::Down`]: the resource works, but not as it should.
    #[must_use]
    pub fn degraded(mut self) -> Self {
        self.0.status = Status::Degraded;
        self
    }

    /// Sets the driver's error, which is only logged. None by default.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets a password to redact from the driver's text in the log. None by default; passwords in URLs and behind words such as
    /// `password=` are always redacted.
    #[must_use]
    pub fn with_secret(mut self, secret: Option<String>) -> Self {
        self.0.secret = secret.filter(|secret| !secret.is_empty());
        self
    }

    /// The kind of the failure.
    pub fn kind(&self) -> ProbeErrorKind {
        self.0.kind
    }

    /// The status of the check: [`Status::Down`] or [`Status::Degraded`].
    pub fn status(&self) -> Status {
        self.0.status
    }

    pub(crate) fn take_source(&mut self) -> Option<BoxError> {
        self.0.source.take()
    }

    pub(crate) fn message(&self) -> &Cow<'static, str> {
        &self.0.message
    }

    /// The text of the driver's error and its sources for the log: one line, with credentials redacted.
    pub(crate) fn log_text(&self) -> String {
        let secret = self.0.secret.as_deref();
        let max_len = MAX_INPUT_LEN + secret.map_or(0, str::len);
        let mut text = String::new();
        let first = self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static));
        for error in std::iter::successors(first, |&error| error.source()).take(MAX_CAUSES) {
            let own = printed(error, max_len);
            // Many errors print their source themselves.
            if !text.contains(&own) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&own);
            }
            if text.len() > max_len {
                break;
            }
        }
        redact(&text, secret)
    }
}

/// The text of an error, cut at the first character beyond `max_len` bytes. The rest is not formatted, because `Display` may not
/// end.
fn printed(error: &dyn Error, max_len: usize) -> String {
    struct Capped {
        text: String,
        max_len: usize,
    }

    impl fmt::Write for Capped {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            if self.text.len() > self.max_len {
                return Err(fmt::Error);
            }
            let room = self.max_len - self.text.len();
            self.text.push_str(&part[..part.ceil_char_boundary(room + 1)]);
            Ok(())
        }
    }

    let mut capped = Capped { text: String::new(), max_len };
    // `write!` fails at the cap, or if the error's `Display` does. The text before that counts.
    let _ = write!(capped, "{error}");
    capped.text
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

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for Inner {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// The message in one line, with credentials redacted.
fn public(message: Cow<'static, str>) -> Cow<'static, str> {
    let redacted = redact(&message, None);
    if redacted == *message { message } else { redacted.into() }
}

/// An error and its sources, also those that an [`io::Error`] wraps.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link| match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // `source` skips the error that an `io::Error` wraps.
        Some(inner) => Some(inner),
        None => link.source(),
    })
    .take(MAX_CAUSES)
}

/// The kind of an I/O error of any origin: a connection, a file, a child process. Only kinds that concern connections are
/// `Unreachable`. `None` if the kind is ambiguous; then the errors that it wraps decide.
fn classify_unknown_io(error: &io::Error) -> Option<ProbeErrorKind> {
    use io::ErrorKind as Kind;

    match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::BrokenPipe
        // The peer closed the connection before the end of its response.
        | Kind::UnexpectedEof
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        // There is no local address or port to connect from.
        | Kind::AddrNotAvailable => Some(ProbeErrorKind::Unreachable),
        Kind::TimedOut | Kind::WouldBlock => Some(ProbeErrorKind::TimedOut),
        Kind::PermissionDenied => Some(ProbeErrorKind::Rejected),
        Kind::ReadOnlyFilesystem | Kind::StorageFull | Kind::QuotaExceeded => Some(ProbeErrorKind::ReadOnly),
        // `NotFound` is ambiguous, because a missing file is rarely a Unix socket.
        _ if does_not_resolve(error) => Some(ProbeErrorKind::Unreachable),
        _ => None,
    }
}

/// Whether the standard library could not resolve a host name. It returns an error of a kind that is not public and, unlike other
/// errors of that kind, without a code of the operating system.
fn does_not_resolve(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && format!("{:?}", error.kind()) == "Uncategorized"
}

/// The kind of an I/O error that concerns a connection.
#[allow(dead_code, reason = "probes that open connections are behind features")]
pub(crate) fn classify_io(error: &io::Error) -> ProbeErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ProbeErrorKind::TimedOut,
        io::ErrorKind::PermissionDenied => ProbeErrorKind::Rejected,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => ProbeErrorKind::ReadOnly,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => ProbeErrorKind::Failed,
        // Refused, reset, aborted, unreachable, broken pipe, end of file, or a host name that does not resolve.
        _ => ProbeErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_probe_error_behind_anyhow_keeps_its_kind_and_message() {
        let error = ProbeError::new(ProbeErrorKind::ReadOnly, "rejects orders").with_source("driver text");
        let wrapped = anyhow::Error::from(error).context("in the probe");
        let found = ProbeError::from_error(wrapped);
        assert_eq!(found.kind(), ProbeErrorKind::ReadOnly);
        assert_eq!(found.to_string(), "rejects orders");
        assert!(found.log_text().contains("driver text"), "{}", found.log_text());
    }

    #[test]
    fn a_message_is_public_without_credentials_and_in_one_line() {
        let message = |text: &'static str| ProbeError::new(ProbeErrorKind::Failed, text).to_string();
        assert_eq!(message("no jobs in amqp://bob:pw@mq:5672/a"), "no jobs in amqp://***@mq:5672/a");
        assert_eq!(message("rejected password=pw"), "rejected password=***");
        for hidden in [
            "postgres://u:it's3same@db:5432/app",
            "redis://:pa\"s3same@db/0",
            "redis://u:<s3same>@db",
            "redis://u:a`s3same@db",
            "url \"redis://u:a>s3same@db\"",
            "password=p's3same",
            "password=a\"s3same",
            "password='it's3same'",
            "password=(a)s3same",
            r#"{"url":"postgres://u:a's3same@db","password":"a's3same"}"#,
        ] {
            assert!(!message(hidden).contains("s3same"), "{}", message(hidden));
        }
        let json = r#"{"url":"http://db:5432","password":"pw","host":"db"}"#;
        assert_eq!(message(json), r#"{"url":"http://db:5432","password":***,"host":"db"}"#);
        assert_eq!(message("two\nlines"), "two\\nlines");
        for unchanged in
            ["the queue at 10.0.0.7:5672 holds 10001 jobs", "unable to connect to https://shop.example:8443"]
        {
            assert_eq!(message(unchanged), unchanged);
        }
    }

    #[test]
    fn the_text_of_any_other_error_is_only_logged() {
        let error = ProbeError::from_error("relation \"users\" does not exist");
        assert_eq!(error.kind(), ProbeErrorKind::Failed);
        assert_eq!(error.to_string(), "the check failed");
        assert_eq!(error.log_text(), "relation \"users\" does not exist");
    }

    #[test]
    fn the_kind_is_found_deep_in_the_chain_of_sources() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)).context("queue");
        assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
    }

    #[test]
    fn an_io_error_is_unreachable_only_if_its_kind_concerns_a_connection() {
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
            for &io in kinds {
                assert_eq!(kind(io.into()), expected, "{io}");
                assert_eq!(kind(io::Error::new(io, "text")), expected, "{io}");
            }
        }
        assert_eq!(ProbeError::from_error(io::Error::other("text")).to_string(), "the check failed");
        // EMFILE, which has no kind of its own: no file descriptor is left, and the peer may be reachable.
        assert_eq!(kind(io::Error::from_raw_os_error(24)), ProbeErrorKind::Failed);
    }

    #[test]
    fn a_host_name_that_does_not_resolve_is_unreachable() {
        use std::net::ToSocketAddrs as _;

        let error = "health.invalid:80".to_socket_addrs().unwrap_err();
        assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
    }

    #[test]
    fn an_error_that_an_io_error_wraps_is_classified() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for error in [io::Error::other(refused()), io::Error::new(io::ErrorKind::InvalidData, refused())] {
            assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Unreachable);
        }
        let ours = ProbeError::new(ProbeErrorKind::Saturated, "busy");
        let found = ProbeError::from_error(io::Error::other(ours));
        assert_eq!((found.kind(), &*found.to_string()), (ProbeErrorKind::Saturated, "busy"));
    }

    #[test]
    fn an_endless_text_is_cut_while_it_is_formatted() {
        #[derive(Debug)]
        struct Endless;

        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("ünlimited ")?;
                }
            }
        }

        impl Error for Endless {}

        for secret in [None, Some("x".repeat(10_000))] {
            let text = ProbeError::from_error(Endless).with_secret(secret).log_text();
            assert!(text.len() < 4_200 && text.ends_with('…'), "{}", text.len());
        }
    }

    #[test]
    fn an_error_that_is_its_own_source_is_read_64_times() {
        #[derive(Debug)]
        struct Loop(AtomicU32);

        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "turn {}", self.0.fetch_add(1, Ordering::Relaxed))
            }
        }

        impl Error for Loop {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }

        let error = ProbeError::from_error(Loop(1.into()));
        assert_eq!(error.kind(), ProbeErrorKind::Failed);
        let text = error.log_text();
        assert!(text.ends_with(": turn 64"), "{text}");
    }

    #[test]
    fn a_saturated_resource_is_degraded_and_any_error_can_be() {
        assert_eq!(ProbeError::new(ProbeErrorKind::Saturated, "").status(), Status::Degraded);
        assert_eq!(ProbeError::new(ProbeErrorKind::Failed, "").status(), Status::Down);
        assert_eq!(ProbeError::new(ProbeErrorKind::Failed, "").degraded().status(), Status::Degraded);
    }
}
