//! [`Report`]: the results of all selected checks. Plain data, without HTTP and without the engine.

use std::{sync::Arc, time::Duration};

use crate::{error::ProbeError, status::Status};

/// The maximum of `max_age`, `refresh` and `stall`: longer than any client waits, and short enough to be added to any time.
pub(crate) const MAX_DURATION: Duration = Duration::from_hours(24 * 365);

/// A result in the history of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// The time since the result.
    pub age: Duration,
    /// The duration of the run; of a run that timed out, the time until it was recorded as such.
    pub latency: Duration,
    /// The status of the result, before `rise` and `fall` are applied.
    pub status: Status,
}

/// The result of a run as responses show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// The public message; `None` if the check is up.
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

/// What `?details` shows of a check. All times are durations until now.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) latency: Duration,
    /// The time since the latest result.
    pub(crate) age: Duration,
    /// The time since the status changed to the one that is shown.
    pub(crate) since: Duration,
    pub(crate) last_success: Option<Duration>,
    pub(crate) runs: u64,
    /// Consecutive results that were down.
    pub(crate) failures: u32,
    /// The status of the latest result, before `rise` and `fall` are applied.
    pub(crate) raw: Status,
}

/// The results of the selected checks, in the order of registration.
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) entries: Vec<Entry>,
}

/// The part of a report about one check.
pub(crate) struct Entry {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) critical: bool,
    pub(crate) outcome: Outcome,
    /// `None` if they were not requested, or if the check has no result yet.
    pub(crate) details: Option<Details>,
}

impl Entry {
    /// An entry that is not a check: UP if `error` is `None`, else DOWN with this message.
    pub(crate) fn plain(group: impl Into<Arc<str>>, name: impl Into<Arc<str>>, error: Option<Arc<str>>) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            critical: true,
            outcome: Outcome { status: if error.is_some() { Status::Down } else { Status::Up }, error },
            details: None,
        }
    }

    /// The public message, if the entry is not up.
    pub(crate) fn error(&self) -> Option<&str> {
        self.outcome.error.as_deref()
    }
}

/// The duration in whole milliseconds.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    /// A report of the entries: down if a critical one is down, degraded if any other is not up.
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
    fn the_service_is_down_only_if_a_critical_check_is_down() {
        use Status::{Degraded, Down, Up};
        assert_eq!(status(&[(true, Up), (false, Up)]), Up);
        assert_eq!(status(&[(true, Up), (false, Down)]), Degraded);
        assert_eq!(status(&[(true, Degraded), (false, Up)]), Degraded);
        assert_eq!(status(&[(true, Down), (false, Up)]), Down);
    }
}
