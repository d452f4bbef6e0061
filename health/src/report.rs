//! [`Status`] and the report of a round: plain data, without HTTP and without the engine.

use std::{fmt, sync::Arc, time::Duration};

use crate::error::ProbeError;

/// Longer times are cut to this one: longer than any client waits, and short enough to be added to any time.
pub(crate) const MAX_DURATION: Duration = Duration::from_hours(24 * 365);

/// Whether a check, or the service as a whole, can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It works.
    Up,
    /// It works, but not as it should: an optional check is down, or a resource is saturated. Answered with 200.
    Degraded,
    /// It does not work. Answered with 503.
    Down,
}

impl Status {
    /// `UP`, `DEGRADED` or `DOWN`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Degraded => "DEGRADED",
            Self::Down => "DOWN",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A result in the history of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// How long ago it was.
    pub age: Duration,
    /// How long the probe took; of one without an answer in time, how long it was waited for.
    pub latency: Duration,
    /// The result itself, before `rise` and `fall`.
    pub status: Status,
}

/// What a run came to, as far as answers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// The public message; `None` when up.
    pub(crate) error: Option<Arc<str>>,
}

impl Outcome {
    pub(crate) fn down(message: impl Into<Arc<str>>) -> Self {
        Self { status: Status::Down, error: Some(message.into()) }
    }
}

impl From<&Result<(), ProbeError>> for Outcome {
    fn from(result: &Result<(), ProbeError>) -> Self {
        match result {
            Ok(()) => Self { status: Status::Up, error: None },
            Err(error) => Self { status: error.status(), error: Some(error.message().as_ref().into()) },
        }
    }
}

/// What is known of a check beside its status. All times are lengths of time until now.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) latency: Duration,
    /// Since the latest result.
    pub(crate) age: Duration,
    /// Since the status that is shown is shown.
    pub(crate) since: Duration,
    pub(crate) last_success: Option<Duration>,
    pub(crate) runs: u64,
    /// Results in a row that were down.
    pub(crate) failures: u32,
    /// The latest result, before `rise` and `fall`.
    pub(crate) raw: Status,
}

/// The outcome of a round, in the order of registration.
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) entries: Vec<Entry>,
}

/// What a report says of one check.
pub(crate) struct Entry {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) critical: bool,
    pub(crate) outcome: Outcome,
    /// There if they were asked for and there was a result.
    pub(crate) details: Option<Details>,
}

impl Entry {
    /// What is up, or down with that message, without being a check.
    pub(crate) fn plain(group: impl Into<Arc<str>>, name: impl Into<Arc<str>>, error: Option<Arc<str>>) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            critical: true,
            outcome: Outcome { status: if error.is_some() { Status::Down } else { Status::Up }, error },
            details: None,
        }
    }

    /// The public message of what is wrong.
    pub(crate) fn error(&self) -> Option<&str> {
        self.outcome.error.as_deref()
    }
}

/// Whole milliseconds of a time.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    /// Down if a critical check is, degraded if anything else is not up.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let status = if entries.iter().any(|entry| entry.critical && entry.outcome.status == Status::Down) {
            Status::Down
        } else if entries.iter().any(|entry| entry.outcome.status != Status::Up) {
            Status::Degraded
        } else {
            Status::Up
        };
        Self { status, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(entries: &[(bool, Status)]) -> Status {
        let entry = |&(critical, status): &(bool, Status)| Entry {
            group: "g".into(),
            name: "n".into(),
            critical,
            outcome: Outcome { status, error: None },
            details: None,
        };
        Report::of(entries.iter().map(entry).collect()).status
    }

    #[test]
    fn only_a_critical_check_takes_the_service_down() {
        use Status::{Degraded, Down, Up};
        assert_eq!(status(&[(true, Up), (false, Up)]), Up);
        assert_eq!(status(&[(true, Up), (false, Down)]), Degraded);
        assert_eq!(status(&[(true, Degraded), (false, Up)]), Degraded);
        assert_eq!(status(&[(true, Down), (false, Up)]), Down);
    }
}
