//! The JSON body of a report: `{"status":…,"errors":{group:{name:…}},"checks":{group:{name:…}}}`, in the order of registration.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::{
    observe::Observations,
    report::{Details, Entry, LastError, Report, milliseconds},
    status::Status,
};

/// Renders a report. `errors` and `excluded` are present only if they have content, `details` only if requested.
pub(crate) fn body(report: &Report, details: bool) -> String {
    serde_json::to_string(&Body { report, details }).expect("maps with text as keys can always be serialized")
}

/// The body that contains only the status.
pub(crate) fn status_body(status: Status) -> &'static str {
    match status {
        Status::Up => r#"{"status":"UP"}"#,
        Status::Degraded => r#"{"status":"DEGRADED"}"#,
        Status::Down => r#"{"status":"DOWN"}"#,
    }
}

/// Serializes as the JSON body of `/health`, without details.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Body { report: self, details: false }.serialize(serializer)
    }
}

struct Body<'a> {
    report: &'a Report,
    details: bool,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (report, entries) = (self.report, self.report.checks());
        let errors: ByGroup<'_, _> = entries.iter().filter_map(|entry| Some((entry, entry.error()?))).collect();
        let checks: ByGroup<'_, _> = entries.iter().map(|entry| (entry, entry.status())).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &report.status())?;
        if !errors.0.is_empty() {
            map.serialize_entry("errors", &errors)?;
        }
        map.serialize_entry("checks", &checks)?;
        if !report.excluded.is_empty() {
            map.serialize_entry("excluded", &report.excluded)?;
        }
        if self.details {
            let details: ByGroup<'_, _> = entries.iter().filter_map(|entry| Some((entry, entry.details()?))).collect();
            map.serialize_entry("details", &details)?;
        }
        map.end()
    }
}

/// Serializes as in `?details`, without the history.
impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("latency_ms", &fractional_milliseconds(self.latency))?;
        map.serialize_entry("age_ms", &milliseconds(self.age))?;
        map.serialize_entry("since", &timestamp(self.since))?;
        map.serialize_entry("last_success", &self.last_success.map(timestamp))?;
        map.serialize_entry("last_error", &self.last_error)?;
        map.serialize_entry("runs", &self.runs)?;
        map.serialize_entry("consecutive_failures", &self.consecutive_failures)?;
        map.serialize_entry("raw", &self.raw)?;
        map.serialize_entry("data", &self.data)?;
        map.end()
    }
}

impl Serialize for LastError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("message", &*self.message)?;
        map.serialize_entry("time", &timestamp(self.time))?;
        map.end()
    }
}

/// `{key:value}`
impl Serialize for Observations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Formats a time as RFC 3339, clamped to the years 1970 to 9999, because the clock of a machine may be wrong.
pub(super) fn timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);

    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch.min(LAST)).to_string()
}

/// Milliseconds with three decimals.
pub(super) fn fractional_milliseconds(time: Duration) -> f64 {
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
        let (epoch, day) = (SystemTime::UNIX_EPOCH, Duration::from_hours(24));
        for (time, text) in [
            (epoch, "1970-01-01T00:00:00.000Z"),
            (epoch - day * 365_000, "1970-01-01T00:00:00.000Z"),
            (epoch + day, "1970-01-02T00:00:00.000Z"),
            (epoch + day * 3_650_000, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(time), text);
        }
    }

    #[test]
    fn groups_are_in_the_order_of_their_first_entries_and_names_are_escaped() {
        let report = Report::of(vec![entry("b", "1", None), entry("a", "\"<\n", None), entry("b", "2", None)]);
        assert_eq!(body(&report, false), r#"{"status":"UP","checks":{"b":{"1":"UP","2":"UP"},"a":{"\"<\n":"UP"}}}"#);
    }
}
