//! [`Report`]: the results of all selected checks. Plain data, without HTTP and without the engine.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    observe::{Observation, Observations},
    options::{CheckOptions, Role},
    status::Status,
};

/// The maximum of `max_age`, `refresh` and `stall`, a year: longer than any client waits, and short enough to be added to any time.
pub(crate) const MAX_DURATION: Duration = Duration::from_hours(8_760);

/// The results of checks at one time, in the order of registration.
///
/// It is returned by [`report`](crate::report), [`snapshot`](crate::snapshot), [`Scope::report`](crate::Scope::report) and
/// [`Scope::snapshot`](crate::Scope::snapshot). It serializes as the JSON body of `/health`, and displays as lines for people.
///
/// # Examples
///
/// ```
/// # #[actix_web::main] async fn main() -> Result<(), serde_json::Error> {
/// use health::{Check, Status};
///
/// let registry = health::Registry::new();
/// registry.register(Check::new("queue", "orders", || async { Ok::<_, String>(()) })).unwrap();
/// let report = health::scope().registry(&registry).report().await;
/// assert_eq!(report.status(), Status::Up);
/// assert_eq!(serde_json::to_string(&report)?, r#"{"status":"UP","checks":{"queue":{"orders":"UP"}}}"#);
/// assert_eq!(report.to_string(), "[+]queue.orders ok\nhealth check passed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    status: Status,
    entries: Vec<Entry>,
    /// The checks that the request has excluded, as `group.name`.
    pub(crate) excluded: Vec<String>,
}

/// A check in a [`Report`], or what the process says of itself, such as `health.drain`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) group: Arc<str>,
    pub(crate) name: Arc<str>,
    /// `None` for what is not a check.
    pub(crate) options: Option<CheckOptions>,
    pub(crate) outcome: Outcome,
    /// `None` if they were not requested, or if the check has no result yet.
    pub(crate) details: Option<Details>,
}

/// The result of a run as responses show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// The public message; `None` if the check is up.
    pub(crate) error: Option<Arc<str>>,
}

/// What `?details` shows of a check, and its history.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Details {
    /// The duration of the latest run.
    pub latency: Duration,
    /// The time since the latest result.
    pub age: Duration,
    /// When the status changed to the one that is shown.
    pub since: SystemTime,
    /// The latest result that was up; `None` if there was none.
    pub last_success: Option<SystemTime>,
    /// The latest failure; `None` if there was none.
    pub last_error: Option<LastError>,
    /// How many runs were started.
    pub runs: u64,
    /// How many results in a row were down.
    pub consecutive_failures: u32,
    /// The status of the latest result, before `rise` and `fall` are applied.
    pub raw: Status,
    pub(crate) data: Observations,
    /// When the latest result was recorded.
    pub(crate) last_run: SystemTime,
    pub(crate) counters: Counters,
    /// The latest results, up to 60, the oldest first.
    pub history: Vec<Sample>,
}

/// What the metrics and the page show.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "page"), allow(dead_code, reason = "only the page shows all of it"))]
pub(crate) struct Overview {
    /// The report of `/health`, with details.
    pub(crate) health: Report,
    /// The status of `/health/ready`, `/health/live` and `/health/startup`.
    pub(crate) ready: Status,
    pub(crate) live: Status,
    pub(crate) startup: Status,
    /// The workers of the process, by number.
    pub(crate) workers: Vec<Worker>,
    pub(crate) is_draining: bool,
    /// The number of active holds, and their reasons with the times left.
    pub(crate) holds: usize,
    pub(crate) held: Option<String>,
    /// The checks that have not been up yet, without which the service has not started.
    pub(crate) pending: Vec<String>,
    /// The requests that the scopes of the process have denied.
    pub(crate) denied: u64,
    /// The name and the version that the application has set.
    pub(crate) release: Option<Release>,
    pub(crate) time: SystemTime,
}

/// The event loop of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) number: usize,
    /// The time since it ran last.
    pub(crate) blocked: Duration,
    /// It has been blocked for longer than `stall`.
    pub(crate) is_blocked: bool,
}

impl Worker {
    /// The entry of liveness: `DOWN` if the event loop is blocked.
    pub(crate) fn entry(&self) -> Entry {
        let blocked_ms = milliseconds(self.blocked);
        let time = if blocked_ms < 1_000 { format!("{blocked_ms} ms") } else { format!("{} s", blocked_ms / 1_000) };
        let error = || format!("event loop blocked for {time}").into();
        Entry::plain("health", format!("worker.{}", self.number), self.is_blocked.then(error))
    }
}

/// The name and the version of the application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub(crate) service: String,
    pub(crate) version: String,
}

/// What is counted of a check, for metrics. Results count before `rise` and `fall` are applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// The results that were up, degraded and down.
    pub(crate) results: [u64; 3],
    /// The results that were not up, by kind.
    pub(crate) failures: Vec<(ProbeErrorKind, u64)>,
    /// Changes of the shown status. The first result is none.
    pub(crate) transitions: u64,
    /// The durations, by the first of [`DURATION_BUCKETS`] that they do not exceed; the last element is for all longer ones.
    pub(crate) durations: [u64; DURATION_BUCKETS.len() + 1],
    pub(crate) total_duration: Duration,
}

/// The upper limits of the buckets of durations, in milliseconds.
pub(crate) const DURATION_BUCKETS: [u64; 6] = [1, 5, 25, 100, 500, 1_000];

impl Counters {
    /// Counts the result of a run.
    pub(crate) fn count(&mut self, result: &Result<(), ProbeError>, duration: Duration) {
        let status = result.as_ref().map_or_else(ProbeError::status, |()| Status::Up);
        self.results[status as usize] += 1;
        if let Err(error) = result {
            match self.failures.iter_mut().find(|(kind, _)| *kind == error.kind()) {
                Some((_, count)) => *count += 1,
                None => self.failures.push((error.kind(), 1)),
            }
        }
        let bucket = DURATION_BUCKETS.partition_point(|&limit| Duration::from_millis(limit) < duration);
        self.durations[bucket] += 1;
        self.total_duration += duration;
    }
}

/// The latest failure of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// The public message.
    pub message: Arc<str>,
    /// When it was recorded.
    pub time: SystemTime,
}

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

impl Report {
    /// A report of the entries: down if one that is not optional is down, degraded if any other is not up.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        Self::where_down(entries, |role| role != Role::Optional)
    }

    /// A report in which shared checks that are down only degrade the service, for readiness once it has started.
    pub(crate) fn of_started(entries: Vec<Entry>) -> Self {
        Self::where_down(entries, |role| role == Role::Critical)
    }

    fn where_down(entries: Vec<Entry>, takes_down: impl Fn(Role) -> bool) -> Self {
        let status = if entries.iter().any(|entry| entry.status() == Status::Down && takes_down(entry.role())) {
            Status::Down
        } else if entries.iter().any(|entry| entry.status() != Status::Up) {
            Status::Degraded
        } else {
            Status::Up
        };
        Self { status, entries, excluded: Vec::new() }
    }

    /// A report with a status that does not depend on the results of the entries.
    pub(crate) fn with_status(status: Status, entries: Vec<Entry>) -> Self {
        Self { status, entries, excluded: Vec::new() }
    }

    /// The status of the service: `DOWN` if a check is down that is not optional, `DEGRADED` if any other is not up.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The checks, in the order of registration. What the process says of itself stands first, in the group `health`.
    pub fn checks(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    /// An entry that is not a check: UP if `error` is `None`, else DOWN with this message.
    pub(crate) fn plain(group: impl Into<Arc<str>>, name: impl Into<Arc<str>>, error: Option<Arc<str>>) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            options: None,
            outcome: Outcome { status: if error.is_some() { Status::Down } else { Status::Up }, error },
            details: None,
        }
    }

    /// An entry that is not a check, with the message of a failure.
    pub(crate) fn down(group: &str, name: &str, message: &str) -> Self {
        Self::plain(group, name, Some(message.into()))
    }

    /// A copy without the details, which take most of the memory.
    pub(crate) fn without_details(&self) -> Self {
        let Self { group, name, options, outcome, .. } = self;
        let (group, name) = (Arc::clone(group), Arc::clone(name));
        Self { group, name, options: *options, outcome: outcome.clone(), details: None }
    }

    /// The group: the first part of the full name `group.name`.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The second part of the full name `group.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the check does to the service while it is down.
    pub fn role(&self) -> Role {
        self.options.map_or(Role::Critical, |options| options.role)
    }

    /// The options of the check; `None` for what is not a check.
    pub fn options(&self) -> Option<CheckOptions> {
        self.options
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.outcome.status
    }

    /// The public message of the failure; `None` if the status is `UP`.
    pub fn error(&self) -> Option<&str> {
        self.outcome.error.as_deref()
    }

    /// Latency, times, counters and history; `None` if the check has no result yet, and for what is not a check.
    pub fn details(&self) -> Option<&Details> {
        self.details.as_ref()
    }
}

impl Details {
    /// The values that the latest run has passed to [`observe`](crate::observe), in the order of their first observation.
    pub fn data(&self) -> impl Iterator<Item = (&str, &Observation)> {
        self.data.iter()
    }
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

/// The duration in whole milliseconds.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(entries: &[(Role, Status)]) -> Vec<Entry> {
        let entry = |&(role, status): &(Role, Status)| Entry {
            group: "g".into(),
            name: "n".into(),
            options: Some(CheckOptions { role, ..CheckOptions::default() }),
            outcome: Outcome { status, error: None },
            details: None,
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_blocked_worker_is_down_with_its_time_in_a_readable_unit() {
        let entry = |ms| Worker { number: 2, blocked: Duration::from_millis(ms), is_blocked: true }.entry();
        for (ms, time) in [(999, "999 ms"), (1_000, "1 s"), (12_900, "12 s")] {
            let Entry { name, outcome, .. } = entry(ms);
            let expected = format!("event loop blocked for {time}");
            assert_eq!(
                (&*name, outcome.status, outcome.error.as_deref()),
                ("worker.2", Status::Down, Some(&*expected))
            );
        }
        let runs = Worker { number: 0, blocked: Duration::ZERO, is_blocked: false };
        assert_eq!(runs.entry().outcome.status, Status::Up);
    }

    #[test]
    fn results_are_counted_by_status_kind_and_duration() {
        let failed = |kind| Err(ProbeError::new(kind, "it failed"));
        let mut counters = Counters::default();
        for (result, ms) in [
            (Ok(()), 0),
            (Ok(()), 1),
            (failed(ProbeErrorKind::Saturated), 2),
            (failed(ProbeErrorKind::TimedOut), 800),
            (failed(ProbeErrorKind::TimedOut), 1_001),
        ] {
            counters.count(&result, Duration::from_millis(ms));
        }
        assert_eq!(counters.results, [2, 1, 2]);
        assert_eq!(counters.failures, [(ProbeErrorKind::Saturated, 1), (ProbeErrorKind::TimedOut, 2)]);
        assert_eq!(counters.durations, [2, 1, 0, 0, 0, 1, 1]);
        assert_eq!(counters.total_duration, Duration::from_millis(1_804));
    }

    #[test]
    fn the_service_is_down_only_if_a_check_is_down_that_is_not_optional() {
        use Role::{Critical, Optional, Shared};
        use Status::{Degraded, Down, Up};
        let cases = [
            (vec![(Critical, Up), (Optional, Up)], Up, Up),
            (vec![(Critical, Up), (Optional, Down)], Degraded, Degraded),
            (vec![(Critical, Degraded), (Optional, Up)], Degraded, Degraded),
            (vec![(Critical, Down), (Optional, Up)], Down, Down),
            (vec![(Critical, Up), (Shared, Down)], Down, Degraded),
            (vec![(Critical, Down), (Shared, Down)], Down, Down),
        ];
        for (given, before, started) in cases {
            assert_eq!(Report::of(entries(&given)).status(), before, "{given:?}");
            assert_eq!(Report::of_started(entries(&given)).status(), started, "{given:?}");
        }
    }
}
