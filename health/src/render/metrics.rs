//! The metrics of an [`Overview`], as Prometheus text and as OpenMetrics. Both are written from what is known at one time, so a check
//! that was removed has no series.

use std::{
    fmt::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    error::ProbeErrorKind,
    observe::Observation,
    report::{Counters, DURATION_BUCKETS, Details, Entry, Overview},
    status::Status,
};

/// Renders in the text format of Prometheus, version 0.0.4. It has no end mark, so other metrics may follow.
pub(crate) fn prometheus(overview: &Overview) -> String {
    render(overview, Format::Prometheus)
}

/// Renders as OpenMetrics 1.0.0.
pub(crate) fn openmetrics(overview: &Overview) -> String {
    render(overview, Format::OpenMetrics) + "# EOF\n"
}

fn render(overview: &Overview, format: Format) -> String {
    let checks: Vec<_> =
        overview.health.checks().iter().filter(|entry| entry.group() != "health").map(Check::of).collect();
    let mut metrics = Metrics { text: String::with_capacity(2048 * (checks.len() + 1)), format };
    service(overview, &mut metrics);
    for_each_check(&checks, &mut metrics);
    process(overview, &mut metrics);
    metrics.text
}

/// The endpoints.
fn service(overview: &Overview, metrics: &mut Metrics) {
    let status = overview.health.status();
    let mut up = metrics.family(Kind::Gauge, "health_up", "Whether the endpoint responds with 200 (1) or 503 (0).");
    for (endpoint, status) in
        [("health", status), ("ready", overview.ready), ("live", overview.live), ("startup", overview.startup)]
    {
        up.sample("", format_args!("endpoint=\"{endpoint}\""), is_up(status));
    }
    metrics.family(Kind::Gauge, "health_degraded", "Whether the overall status is DEGRADED (1) or not (0).").sample(
        "",
        format_args!(""),
        is_degraded(status),
    );
}

/// One family after the other, each with the samples of all checks: a family must not be interrupted by another one.
fn for_each_check(checks: &[Check<'_>], metrics: &mut Metrics) {
    let help = "Whether the check is UP or DEGRADED (1) or DOWN (0), after rise and fall.";
    let mut family = metrics.family(Kind::Gauge, "health_check_up", help);
    for Check { labels, entry, .. } in checks {
        family.sample("", format_args!("{labels},role=\"{}\"", entry.role()), is_up(entry.status()));
    }

    let help = "Whether the check is DEGRADED (1) or not (0).";
    let mut family = metrics.family(Kind::Gauge, "health_check_degraded", help);
    for Check { labels, entry, .. } in checks {
        family.sample("", format_args!("{labels}"), is_degraded(entry.status()));
    }

    let help = "Completed runs of the check by result, before rise and fall.";
    let mut family = metrics.family(Kind::Counter, "health_check_runs", help);
    for Check { labels, counters, .. } in checks {
        for (result, count) in ["up", "degraded", "down"].iter().zip(counters.results) {
            family.sample("_total", format_args!("{labels},result=\"{result}\""), count);
        }
    }

    let help = "Runs that were not UP, by kind of failure.";
    let mut family = metrics.family(Kind::Counter, "health_check_failures", help);
    for Check { labels, counters, .. } in checks {
        for (kind, count) in &counters.failures {
            family.sample("_total", format_args!("{labels},kind=\"{}\"", kind_label(*kind)), count);
        }
    }

    let help = "Changes of the reported status of the check.";
    let mut family = metrics.family(Kind::Counter, "health_check_transitions", help);
    for Check { labels, counters, .. } in checks {
        family.sample("_total", format_args!("{labels}"), counters.transitions);
    }

    let help = "Duration of runs of the check. A run past its limit counts with its limit.";
    let mut family = metrics.family(Kind::Histogram, "health_check_duration_seconds", help);
    for Check { labels, counters, .. } in checks {
        let mut count = 0;
        for (limit, durations) in DURATION_BUCKETS.map(Some).into_iter().chain([None]).zip(counters.durations) {
            count += durations;
            family.sample("_bucket", format_args!("{labels},le=\"{}\"", BucketLimit(limit)), count);
        }
        family.sample("_sum", format_args!("{labels}"), counters.total_duration.as_secs_f64());
        family.sample("_count", format_args!("{labels}"), count);
    }

    let help = "Unix time of the latest result of the check.";
    let family = metrics.family(Kind::Gauge, "health_check_last_run_timestamp_seconds", help);
    times(checks, family, |details| Some(details.last_run));

    let help = "Unix time of the latest UP result of the check.";
    let family = metrics.family(Kind::Gauge, "health_check_last_success_timestamp_seconds", help);
    times(checks, family, |details| details.last_success);

    let help = "Unix time since which the check has its reported status.";
    let family = metrics.family(Kind::Gauge, "health_check_last_transition_timestamp_seconds", help);
    times(checks, family, |details| Some(details.since));

    let help = "Value observed by the latest run of the check.";
    let mut family = metrics.family(Kind::Gauge, "health_check_observation", help);
    for Check { labels, entry, .. } in checks {
        for (key, value) in entry.details().into_iter().flat_map(Details::data) {
            if let Some(value) = number(value, family.metrics.format) {
                family.sample("", format_args!("{labels},key=\"{key}\""), value);
            }
        }
    }
}

/// A time of each check that has one.
fn times(checks: &[Check<'_>], mut family: Family<'_>, time: impl Fn(&Details) -> Option<SystemTime>) {
    for Check { labels, entry, .. } in checks {
        if let Some(time) = entry.details().and_then(&time) {
            family.sample("", format_args!("{labels}"), unix_seconds(time));
        }
    }
}

/// What is not of a check.
fn process(overview: &Overview, metrics: &mut Metrics) {
    let help = "Time since the event loop of the worker last ran.";
    let mut family = metrics.family(Kind::Gauge, "health_worker_blocked_seconds", help);
    for worker in &overview.workers {
        let blocked = worker.blocked.as_secs_f64();
        family.sample("", format_args!("worker=\"{}\"", worker.number), format_args!("{blocked:.3}"));
    }
    metrics
        .family(Kind::Gauge, "health_draining", "Whether the process is draining before it stops (1) or not (0).")
        .sample("", format_args!(""), u8::from(overview.is_draining));
    metrics.family(Kind::Gauge, "health_holds", "Active holds on readiness.").sample(
        "",
        format_args!(""),
        overview.holds,
    );
    metrics.family(Kind::Counter, "health_access_denied", "Requests to health endpoints that were denied.").sample(
        "_total",
        format_args!(""),
        overview.denied,
    );
    if let Some(release) = &overview.release {
        let (service, version) = (Escaped(&release.service), Escaped(&release.version));
        metrics.family(Kind::Info, "health_service", "Service and version as set by the application.").sample(
            "_info",
            format_args!("service=\"{service}\",version=\"{version}\""),
            1,
        );
    }
}

/// A check, with what each of its samples needs.
struct Check<'a> {
    entry: &'a Entry,
    /// `group="…",name="…"`
    labels: String,
    counters: Counters,
}

impl<'a> Check<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            entry,
            labels: format!("group=\"{}\",name=\"{}\"", Escaped(entry.group()), Escaped(entry.name())),
            counters: entry.details().map(|details| details.counters.clone()).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Prometheus,
    OpenMetrics,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

struct Metrics {
    text: String,
    format: Format,
}

impl Metrics {
    /// `name` is that of OpenMetrics: samples add a suffix to it.
    fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> Family<'_> {
        Family { metrics: self, kind, name, help, is_described: false }
    }
}

/// A metric with the samples of its label sets. Without a sample, nothing is written.
struct Family<'a> {
    metrics: &'a mut Metrics,
    kind: Kind,
    name: &'static str,
    help: &'static str,
    is_described: bool,
}

impl Family<'_> {
    fn sample(&mut self, suffix: &str, labels: fmt::Arguments<'_>, value: impl fmt::Display) {
        if !self.is_described {
            self.is_described = true;
            self.describe(suffix);
        }
        let (name, text) = (self.name, &mut self.metrics.text);
        let written = match labels.as_str() {
            Some("") => writeln!(text, "{name}{suffix} {value}"),
            _ => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
        };
        written.expect("a string can always be written to");
    }

    fn describe(&mut self, suffix: &str) {
        let Self { kind, name, help, .. } = *self;
        let Metrics { text, format } = &mut *self.metrics;
        // To Prometheus a counter is named as its samples are, and an info is a gauge.
        let (name, kind) = match (*format, kind) {
            (Format::Prometheus, Kind::Counter) => (format!("{name}{suffix}"), "counter"),
            (Format::Prometheus, Kind::Info) => (format!("{name}{suffix}"), "gauge"),
            (Format::OpenMetrics, Kind::Counter) => (name.to_owned(), "counter"),
            (Format::OpenMetrics, Kind::Info) => (name.to_owned(), "info"),
            (_, Kind::Gauge) => (name.to_owned(), "gauge"),
            (_, Kind::Histogram) => (name.to_owned(), "histogram"),
        };
        let mut written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        if *format == Format::OpenMetrics && name.ends_with("_seconds") {
            written = written.and_then(|()| writeln!(text, "# UNIT {name} seconds"));
        }
        written.expect("a string can always be written to");
    }
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let (text, special) = match part.char_indices().next_back() {
                Some((at, '\\')) => (&part[..at], r"\\"),
                Some((at, '"')) => (&part[..at], "\\\""),
                Some((at, '\n')) => (&part[..at], r"\n"),
                _ => (part, ""),
            };
            write!(f, "{text}{special}")?;
        }
        Ok(())
    }
}

/// The upper limit of a bucket in seconds, always with a decimal point: label values are compared as text.
struct BucketLimit(Option<u64>);

impl fmt::Display for BucketLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ms) => write!(f, "{:?}", Duration::from_millis(ms).as_secs_f64()),
            None => f.write_str("+Inf"),
        }
    }
}

/// The kind as the value of a label.
fn kind_label(kind: ProbeErrorKind) -> String {
    kind.as_str().replace([' ', '-'], "_")
}

fn is_up(status: Status) -> u8 {
    u8::from(status != Status::Down)
}

fn is_degraded(status: Status) -> u8 {
    u8::from(status == Status::Degraded)
}

/// To the millisecond.
fn unix_seconds(time: SystemTime) -> f64 {
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)).as_secs_f64()
}

/// The value of a sample; `None` if the observation is not a number.
fn number(observation: &Observation, format: Format) -> Option<String> {
    match (observation, format) {
        (Observation::Integer(value), Format::Prometheus) => Some(value.to_string()),
        (Observation::Integer(value), Format::OpenMetrics) => Some(format!("{value}.0")),
        (Observation::Float(value), _) if value.is_infinite() => {
            Some(format!("{}Inf", if *value > 0.0 { '+' } else { '-' }))
        }
        (Observation::Float(value), _) => Some(format!("{value:?}")),
        (Observation::Text(_) | Observation::Bool(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::render::examples::{cache, entry, overview, overview_of};

    const PROMETHEUS: &str = include_str!("examples/metrics.txt");
    const OPENMETRICS: &str = include_str!("examples/metrics.openmetrics");

    fn lines(text: &str) -> Vec<&str> {
        text.lines().collect()
    }

    #[test]
    fn both_formats_are_exact() {
        assert_eq!(lines(&prometheus(&overview())), lines(PROMETHEUS));
        assert_eq!(lines(&openmetrics(&overview())), lines(OPENMETRICS));
    }

    #[test]
    fn names_and_releases_are_escaped_and_no_label_set_has_two_samples() {
        let names = ["\"", "\\", "\n", "\\n", "{}", "a,b=\"c\"", "\u{202e}ü", ""];
        let mut overview = overview_of(names.map(|name| entry("a\"\\\n{}", name)).into());
        overview.release.as_mut().unwrap().version = "1\"\\\n2".to_owned();
        for text in [prometheus(&overview), openmetrics(&overview)] {
            assert!(text.contains(r#"health_check_up{group="a\"\\\n{}",name="\\n",role="critical"} 1"#), "{text}");
            assert!(text.contains(r#"health_check_up{group="a\"\\\n{}",name="\n",role="critical"} 1"#), "{text}");
            assert!(text.contains(r#"health_service_info{service="orders",version="1\"\\\n2"} 1"#), "{text}");
            let mut series = HashSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                assert!(series.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
            }
        }
    }

    #[test]
    fn a_check_without_a_result_counts_from_zero_and_has_no_times() {
        let text = prometheus(&overview_of(vec![cache()]));
        for line in [
            r#"health_check_up{group="cache",name="sessions",role="optional"} 0"#,
            r#"health_check_runs_total{group="cache",name="sessions",result="up"} 0"#,
            r#"health_check_transitions_total{group="cache",name="sessions"} 0"#,
            r#"health_check_duration_seconds_bucket{group="cache",name="sessions",le="+Inf"} 0"#,
            r#"health_check_duration_seconds_sum{group="cache",name="sessions"} 0"#,
        ] {
            assert!(lines(&text).contains(&line), "{line} is missing: {text}");
        }
        assert!(!text.contains("timestamp") && !text.contains("observation") && !text.contains("failures"), "{text}");
    }

    #[test]
    fn kinds_are_words_with_underscores() {
        assert_eq!(kind_label(ProbeErrorKind::TimedOut), "timed_out");
        assert_eq!(kind_label(ProbeErrorKind::ReadOnly), "read_only");
    }

    #[test]
    fn only_numbers_are_samples() {
        for (observation, prometheus, openmetrics) in [
            (Observation::from(-3), Some("-3"), Some("-3.0")),
            (Observation::from(i64::MAX), Some("9223372036854775807"), Some("9223372036854775807.0")),
            (Observation::from(0.5), Some("0.5"), Some("0.5")),
            (Observation::from(1e300), Some("1e300"), Some("1e300")),
            (Observation::from(f64::NAN), Some("NaN"), Some("NaN")),
            (Observation::from(f64::INFINITY), Some("+Inf"), Some("+Inf")),
            (Observation::from(f64::NEG_INFINITY), Some("-Inf"), Some("-Inf")),
            (Observation::from("text"), None, None),
            (Observation::from(true), None, None),
        ] {
            assert_eq!(number(&observation, Format::Prometheus).as_deref(), prometheus);
            assert_eq!(number(&observation, Format::OpenMetrics).as_deref(), openmetrics);
        }
    }
}
