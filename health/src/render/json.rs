//! The JSON body of a report: `{"status":…,"errors":{group:{name:…}},"checks":{group:{name:…}}}`, in the order of registration.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::{
    report::{Details, Entry, Report, milliseconds},
    status::Status,
};

/// Renders a report. `errors` is present only if there are any, `details` only if requested.
pub(crate) fn body(report: &Report, details: bool) -> String {
    body_at(report, details, SystemTime::now())
}

fn body_at(report: &Report, details: bool, now: SystemTime) -> String {
    serde_json::to_string(&Body { report, details, now }).expect("maps with text as keys can always be serialized")
}

/// The body that contains only the status.
pub(crate) fn status_body(status: Status) -> &'static str {
    match status {
        Status::Up => r#"{"status":"UP"}"#,
        Status::Degraded => r#"{"status":"DEGRADED"}"#,
        Status::Down => r#"{"status":"DOWN"}"#,
    }
}

struct Body<'a> {
    report: &'a Report,
    details: bool,
    now: SystemTime,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Report { status, entries } = self.report;
        let errors: ByGroup<'_, _> = entries.iter().filter_map(|entry| Some((entry, entry.error()?))).collect();
        let checks: ByGroup<'_, _> = entries.iter().map(|entry| (entry, entry.outcome.status.as_str())).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", status.as_str())?;
        if !errors.0.is_empty() {
            map.serialize_entry("errors", &errors)?;
        }
        map.serialize_entry("checks", &checks)?;
        if self.details {
            let details: ByGroup<'_, _> = entries
                .iter()
                .filter_map(|e| Some((e, DetailsAt { details: e.details.as_ref()?, now: self.now })))
                .collect();
            map.serialize_entry("details", &details)?;
        }
        map.end()
    }
}

/// The details of a check, with timestamps computed from `now`.
struct DetailsAt<'a> {
    details: &'a Details,
    now: SystemTime,
}

impl Serialize for DetailsAt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { details, now } = self;
        let ago = |time: Duration| timestamp(now.checked_sub(time));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("latency_ms", &fractional_milliseconds(details.latency))?;
        map.serialize_entry("age_ms", &milliseconds(details.age))?;
        map.serialize_entry("since", &ago(details.since))?;
        map.serialize_entry("last_success", &details.last_success.map(ago))?;
        map.serialize_entry("runs", &details.runs)?;
        map.serialize_entry("consecutive_failures", &details.failures)?;
        map.serialize_entry("raw", details.raw.as_str())?;
        map.end()
    }
}

/// Formats a time as RFC 3339, clamped to the years 1970 to 9999, because the clock of a machine may be wrong.
fn timestamp(time: Option<SystemTime>) -> String {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);

    let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch.min(LAST)).to_string()
}

/// Milliseconds with three decimals.
fn fractional_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// `{group:{name:value}}`, the groups in the order of their first entries.
struct ByGroup<'a, V>(Vec<(&'a str, ByName<'a, V>)>);

struct ByName<'a, V>(Vec<(&'a str, V)>);

impl<'a, V> FromIterator<(&'a Entry, V)> for ByGroup<'a, V> {
    fn from_iter<I: IntoIterator<Item = (&'a Entry, V)>>(entries: I) -> Self {
        let mut indices = HashMap::new();
        let mut groups: Vec<(&str, ByName<'_, V>)> = Vec::new();
        for (entry, value) in entries {
            let index = *indices.entry(&*entry.group).or_insert(groups.len());
            if index == groups.len() {
                groups.push((&entry.group, ByName(Vec::new())));
            }
            groups[index].1.0.push((&entry.name, value));
        }
        Self(groups)
    }
}

impl<V: Serialize> Serialize for ByGroup<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(group, names)| (group, names)))
    }
}

impl<V: Serialize> Serialize for ByName<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: &str, name: &str, error: Option<&str>) -> Entry {
        Entry::plain(group, name, error.map(Into::into))
    }

    #[test]
    fn the_bodies_of_an_up_and_a_down_report_are_exact() {
        let up = Report::of(vec![entry("database", "default", None), entry("cache", "default", None)]);
        assert_eq!(
            body(&up, false),
            r#"{"status":"UP","checks":{"database":{"default":"UP"},"cache":{"default":"UP"}}}"#
        );
        let message = "unable to connect to redis at 127.0.0.1:6379";
        let down = Report::of(vec![entry("database", "default", None), entry("cache", "default", Some(message))]);
        assert_eq!(
            body(&down, false),
            r#"{"status":"DOWN","errors":{"cache":{"default":"unable to connect to redis at 127.0.0.1:6379"}},"checks":{"database":{"default":"UP"},"cache":{"default":"DOWN"}}}"#
        );
    }

    #[test]
    fn a_clock_that_is_wrong_by_centuries_does_not_break_the_response() {
        let day = Duration::from_hours(24);
        let details = Details {
            latency: Duration::from_millis(1),
            age: day,
            since: day,
            last_success: Some(day * 365),
            runs: 1,
            failures: 0,
            raw: Status::Up,
        };
        let mut detailed = entry("a", "b", None);
        detailed.details = Some(details);
        let report = Report::of(vec![detailed]);
        let epoch = SystemTime::UNIX_EPOCH;
        for (now, since) in [
            (epoch, "1970-01-01T00:00:00.000Z"),
            (epoch - day * 365_000, "1970-01-01T00:00:00.000Z"),
            (epoch + day * 2, "1970-01-02T00:00:00.000Z"),
            (epoch + day * 3_650_000, "9999-12-31T23:59:59.999Z"),
        ] {
            let body = body_at(&report, true, now);
            assert!(body.contains(&format!(r#""since":"{since}""#)), "{body}");
        }
    }

    #[test]
    fn groups_are_in_the_order_of_their_first_entries_and_names_are_escaped() {
        let report = Report::of(vec![entry("b", "1", None), entry("a", "\"<\n", None), entry("b", "2", None)]);
        assert_eq!(body(&report, false), r#"{"status":"UP","checks":{"b":{"1":"UP","2":"UP"},"a":{"\"<\n":"UP"}}}"#);
    }
}
