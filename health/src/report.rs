//! [`Status`] and the report of a round: plain data, without HTTP and without the engine.

use std::{fmt, sync::Arc};

use crate::runs::Outcome;

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

/// The outcome of a round, in the order of registration.
pub(crate) struct Report {
    pub(crate) entries: Vec<Entry>,
}

/// What a report says of one check.
pub(crate) struct Entry {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) critical: bool,
    pub(crate) outcome: Outcome,
}

impl Entry {
    /// The public sentence of what is wrong.
    pub(crate) fn error(&self) -> Option<&str> {
        self.outcome.error.as_deref()
    }
}

impl Report {
    /// Down if a critical check is, degraded if anything else is not up. A report of nothing is down: nobody was asked.
    pub(crate) fn status(&self) -> Status {
        let entries = || self.entries.iter();
        if self.entries.is_empty() || entries().any(|entry| entry.critical && entry.outcome.status == Status::Down) {
            Status::Down
        } else if entries().any(|entry| entry.outcome.status != Status::Up) {
            Status::Degraded
        } else {
            Status::Up
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(entries: &[(bool, Status)]) -> Status {
        let entry = |&(critical, status): &(bool, Status)| Entry {
            group: "g".into(),
            name: "n".into(),
            critical,
            outcome: Outcome { status, error: None },
        };
        Report { entries: entries.iter().map(entry).collect() }.status()
    }

    #[test]
    fn only_a_critical_check_takes_the_service_down() {
        use Status::{Degraded, Down, Up};
        assert_eq!(report(&[(true, Up), (false, Up)]), Up);
        assert_eq!(report(&[(true, Up), (false, Down)]), Degraded);
        assert_eq!(report(&[(true, Degraded), (false, Up)]), Degraded);
        assert_eq!(report(&[(true, Down), (false, Up)]), Down);
        assert_eq!(report(&[]), Down);
    }
}
