//! [`ProbeError`], what a probe answers when its resource doesn't, and the [`Class`] of the failure.
//!
//! The split that keeps answers clean is made here: `Display` is the public sentence, made of the class and of
//! what may be shown; `source()` is the driver's own error, for the log alone.

use std::{borrow::Cow, error::Error, fmt, io};

use crate::{
    probes,
    redact::{is_unprintable, one_line, redact},
    report::Status,
};

/// Any error, as the ecosystem boxes it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What kind of failure it was. Told from typed errors, never from an error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
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
    /// The probe panicked.
    Panicked,
}

impl Class {
    /// The class as one lower-case word, e.g. for a log's field: `timed out`.
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

    /// The public sentence of this class for a resource, by a name that everybody may see: what it is, and at most its
    /// `host:port`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use health::Class;
    /// assert_eq!(Class::TimedOut.sentence("kafka at 10.0.0.7:9092"), "no answer from kafka at 10.0.0.7:9092");
    /// ```
    pub fn sentence(self, resource: &str) -> String {
        match self {
            Self::Unreachable => format!("unable to connect to {resource}"),
            Self::Rejected => format!("{resource} refused access"),
            Self::TimedOut => format!("no answer from {resource}"),
            Self::Saturated => format!("{resource} has no connection to spare"),
            Self::ReadOnly => format!("{resource} takes no writes"),
            Self::Failed => format!("{resource} did not answer as expected"),
            Self::Panicked => format!("the check of {resource} panicked"),
        }
    }

    /// The public sentence where nothing is known of the resource.
    const fn sentence_alone(self) -> &'static str {
        match self {
            Self::Unreachable => "unable to connect",
            Self::Rejected => "access refused",
            Self::TimedOut => "no answer in time",
            Self::Saturated => "all connections are in use",
            Self::ReadOnly => "takes no writes",
            Self::Failed => "the check failed",
            Self::Panicked => "the check panicked",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a probe failed: a [`Class`], a sentence for everybody who may see the health check, and the driver's error for the log.
///
/// `Display` is the public sentence; nothing else of it ever reaches an answer. [`Error::source`] leads to the driver's error.
///
/// # Examples
///
/// ```
/// use health::{Class, ProbeError};
///
/// // The sentence is yours, and public: no names, no URLs.
/// let error = ProbeError::new(Class::Failed, "the queue holds more than 10000 jobs");
/// assert_eq!(error.to_string(), "the queue holds more than 10000 jobs");
///
/// // Any other error: the class is told from its type, and its text stays out of the answer.
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = ProbeError::from_error(refused);
/// assert_eq!(error.class(), Class::Unreachable);
/// assert_eq!(error.to_string(), "unable to connect");
/// ```
pub struct ProbeError(Box<Failure>);

/// The inside of a [`ProbeError`], and the first link of its `source()` chain.
///
/// It is a link of its own because wrappers such as `anyhow::Error` hide the type they wrap when they become a
/// `Box<dyn Error>`, but pass its `source()` on: so the class and the sentence are found again (see [`ProbeError::from_error`]).
struct Failure {
    class: Class,
    status: Status,
    sentence: Cow<'static, str>,
    source: Option<BoxError>,
    /// Struck out of the driver's text before it is logged.
    secret: Option<String>,
}

impl ProbeError {
    /// A failure of the given class, with the sentence that answers show.
    ///
    /// Control characters in it are escaped: what is shown is one line in every format. The status is [`Status::Down`], or [`Status::Degraded`] for [`Class::Saturated`].
    pub fn new(class: Class, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Failure {
            class,
            status: if class == Class::Saturated { Status::Degraded } else { Status::Down },
            sentence: printable(sentence.into()),
            source: None,
            secret: None,
        }))
    }

    /// Any error as a failure: a `ProbeError` anywhere in its chain of sources keeps its class and its sentence;
    /// otherwise the class is told from the types in the chain (of the standard library and of the backends that
    /// are switched on), else it is [`Class::Failed`]. The error's own text goes to the log alone.
    pub fn from_error(error: impl Into<BoxError>) -> Self {
        let error = match error.into().downcast::<Self>() {
            Ok(ours) => return *ours,
            Err(other) => other,
        };
        let known = chain(&*error).find_map(|link| link.downcast_ref::<Failure>());
        let mut found = match known {
            Some(failure) => {
                let mut found = Self::new(failure.class, failure.sentence.clone());
                found.0.status = failure.status;
                found.0.secret.clone_from(&failure.secret);
                found
            }
            None => {
                let class = chain(&*error).find_map(class_of).unwrap_or(Class::Failed);
                Self::new(class, class.sentence_alone())
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
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// [`Status::Down`] or [`Status::Degraded`].
    pub fn status(&self) -> Status {
        self.0.status
    }

    pub(crate) fn sentence(&self) -> &Cow<'static, str> {
        &self.0.sentence
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
        f.write_str(&self.0.sentence)
    }
}

impl fmt::Debug for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeError")
            .field("class", &self.0.class)
            .field("status", &self.0.status)
            .field("sentence", &self.0.sentence)
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
        self.class.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.class.fmt(f)
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

/// The sentence as one line.
fn printable(sentence: Cow<'static, str>) -> Cow<'static, str> {
    if sentence.contains(is_unprintable) { one_line(&sentence).into() } else { sentence }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link| link.source())
}

fn class_of(error: &(dyn Error + 'static)) -> Option<Class> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return Some(class_of_io(io));
    }
    probes::class_of(error)
}

/// The class of an error of the operating system's.
pub(crate) fn class_of_io(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Class::TimedOut,
        io::ErrorKind::PermissionDenied => Class::Rejected,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => Class::ReadOnly,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Class::Failed,
        // Refused, reset, aborted, unreachable, broken pipe, end of file, a name that doesn't resolve.
        _ => Class::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_error_behind_anyhow_keeps_its_class_and_sentence() {
        let error = ProbeError::new(Class::ReadOnly, "takes no orders").with_source("driver text");
        let wrapped = anyhow::Error::from(error).context("while asking");
        let found = ProbeError::from_error(wrapped);
        assert_eq!(found.class(), Class::ReadOnly);
        assert_eq!(found.to_string(), "takes no orders");
        assert!(found.log_text().contains("driver text"), "{}", found.log_text());
    }

    #[test]
    fn text_of_a_foreign_error_is_for_the_log_alone() {
        let error = ProbeError::from_error("relation \"users\" does not exist");
        assert_eq!(error.class(), Class::Failed);
        assert_eq!(error.to_string(), "the check failed");
        assert_eq!(error.log_text(), "relation \"users\" does not exist");
    }

    #[test]
    fn the_class_is_told_from_a_type_deep_in_the_chain() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)).context("queue");
        assert_eq!(ProbeError::from_error(error).class(), Class::Unreachable);
    }

    #[test]
    fn a_saturated_resource_is_degraded_and_any_probe_can_say_so() {
        assert_eq!(ProbeError::new(Class::Saturated, "").status(), Status::Degraded);
        assert_eq!(ProbeError::new(Class::Failed, "").status(), Status::Down);
        assert_eq!(ProbeError::new(Class::Failed, "").degraded().status(), Status::Degraded);
    }
}
