//! `application/health+json`, as draft-inadarei-api-health-check-06 describes it.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::json::{fractional_milliseconds, timestamp};
use crate::{
    observe::Observation,
    report::{Entry, Release, Report},
    status::Status,
};

/// Renders a report, which has details.
pub(crate) fn body(report: &Report, release: Option<&Release>) -> String {
    serde_json::to_string(&Body { report, release }).expect("maps with text as keys can always be serialized")
}

struct Body<'a> {
    report: &'a Report,
    release: Option<&'a Release>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (report, entries) = (self.report, self.report.checks());
        let (notes, output) = (notes(report), output(report));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", word(report.status()))?;
        if let Some(release) = self.release {
            map.serialize_entry("serviceId", &release.service)?;
            map.serialize_entry("releaseId", &release.version)?;
        }
        if !notes.is_empty() {
            map.serialize_entry("notes", &notes)?;
        }
        if !output.is_empty() {
            map.serialize_entry("output", &output)?;
        }
        map.serialize_entry("checks", &entries.iter().flat_map(measurements).collect::<ByKey<'_>>())?;
        map.end()
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "pass",
        Status::Degraded => "warn",
        Status::Down => "fail",
    }
}

/// Why the service is out of rotation, and which checks the request has excluded.
fn notes(report: &Report) -> Vec<String> {
    let of_rotation =
        |entry: &&Entry| entry.group() == "health" && matches!(entry.name(), "drain" | "hold" | "startup");
    let messages = report.checks().iter().filter(of_rotation).filter_map(Entry::error).map(ToOwned::to_owned);
    messages.chain(report.excluded.iter().map(|name| format!("excluded: {name}"))).collect()
}

fn output(report: &Report) -> String {
    if report.status() == Status::Up {
        return String::new();
    }
    report.checks().iter().filter_map(Entry::error).collect::<Vec<_>>().join("; ")
}

/// A value of a check, under the key `group.name:measurement`.
struct Measurement<'a> {
    entry: &'a Entry,
    /// `None` for what the process says of itself, which measures nothing.
    name: Option<&'a str>,
    value: Option<Value<'a>>,
}

enum Value<'a> {
    Milliseconds(f64),
    Observation(&'a Observation),
}

/// The duration of the latest run, then its observations.
fn measurements(entry: &Entry) -> impl Iterator<Item = Measurement<'_>> {
    let details = entry.details();
    let latency = details.map(|details| Value::Milliseconds(fractional_milliseconds(details.latency)));
    let observations = details.into_iter().flat_map(|details| details.data.iter());
    let observed = move |(key, value)| Measurement { entry, name: Some(key), value: Some(Value::Observation(value)) };
    let time = Measurement { entry, name: entry.options().map(|_| "responseTime"), value: latency };
    std::iter::once(time).chain(observations.map(observed))
}

impl Measurement<'_> {
    fn component(&self) -> String {
        format!("{}.{}", self.entry.group(), self.entry.name())
    }
}

impl Serialize for Measurement<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match self.entry.group() {
            "database" | "cache" => "datastore",
            "system" => "system",
            _ => "component",
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("componentId", &self.component())?;
        map.serialize_entry("componentType", kind)?;
        match &self.value {
            Some(Value::Milliseconds(latency)) => {
                map.serialize_entry("observedValue", latency)?;
                map.serialize_entry("observedUnit", "ms")?;
            }
            Some(Value::Observation(value)) => map.serialize_entry("observedValue", value)?,
            None => {}
        }
        map.serialize_entry("status", word(self.entry.status()))?;
        if let Some(details) = self.entry.details() {
            map.serialize_entry("time", &timestamp(details.last_run))?;
        }
        map.end()
    }
}

/// `{key:[measurement]}` in the order of the first of each key. The components of two checks may have the same text: the name of a check
/// may contain a dot, and so may its group.
#[derive(Default)]
struct ByKey<'a>(Vec<(String, Vec<Measurement<'a>>)>);

impl<'a> FromIterator<Measurement<'a>> for ByKey<'a> {
    fn from_iter<I: IntoIterator<Item = Measurement<'a>>>(measurements: I) -> Self {
        let mut indices = HashMap::new();
        let mut keys: Vec<(String, Vec<_>)> = Vec::new();
        for measurement in measurements {
            let component = measurement.component();
            let key = measurement.name.map_or_else(|| component.clone(), |name| format!("{component}:{name}"));
            let index = *indices.entry(key.clone()).or_insert(keys.len());
            if index == keys.len() {
                keys.push((key, Vec::new()));
            }
            keys[index].1.push(measurement);
        }
        Self(keys)
    }
}

impl Serialize for ByKey<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, measurements)| (key, measurements)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::render::examples::{entry, overview};

    fn rendered(report: &Report, release: Option<&Release>) -> Value {
        serde_json::from_str(&body(report, release)).unwrap()
    }

    #[test]
    fn a_report_is_rendered_as_the_draft_describes_it() {
        let overview = overview();
        assert_eq!(
            body(&overview.health, overview.release.as_ref()),
            r#"{"status":"warn","serviceId":"orders","releaseId":"1.4.2","output":"unable to connect to redis at 127.0.0.1:6379","checks":{"database.db:responseTime":[{"componentId":"database.db","componentType":"datastore","observedValue":1.204,"observedUnit":"ms","status":"pass","time":"2026-11-26T10:53:58.120Z"}],"database.db:connections_in_use":[{"componentId":"database.db","componentType":"datastore","observedValue":3,"status":"pass","time":"2026-11-26T10:53:58.120Z"}],"database.db:primary":[{"componentId":"database.db","componentType":"datastore","observedValue":true,"status":"pass","time":"2026-11-26T10:53:58.120Z"}],"database.db:version":[{"componentId":"database.db","componentType":"datastore","observedValue":"16.4","status":"pass","time":"2026-11-26T10:53:58.120Z"}],"cache.sessions:responseTime":[{"componentId":"cache.sessions","componentType":"datastore","status":"fail"}]}}"#
        );
    }

    #[test]
    fn a_report_that_is_up_has_no_output_and_one_out_of_rotation_has_notes() {
        let up = rendered(&Report::of(vec![entry("system", "disk")]), None);
        assert_eq!(
            up,
            json!({
                "status": "pass",
                "checks": {"system.disk:responseTime": [{"componentId": "system.disk", "componentType": "system", "status": "pass"}]},
            })
        );
        let mut report = Report::of(vec![
            Entry::down("health", "drain", "server is draining"),
            Entry::down("health", "worker.2", "event loop blocked for 12 s"),
            entry("queue", "orders"),
        ]);
        report.excluded = vec!["mail.smtp".to_owned()];
        let down = rendered(&report, None);
        assert_eq!(down["status"], "fail");
        assert_eq!(down["notes"], json!(["server is draining", "excluded: mail.smtp"]));
        assert_eq!(down["output"], "server is draining; event loop blocked for 12 s");
        assert_eq!(down["checks"]["health.worker.2"][0]["status"], "fail");
        assert_eq!(down["checks"]["queue.orders:responseTime"][0]["componentType"], "component");
    }

    #[test]
    fn checks_whose_names_have_the_same_text_share_a_key() {
        let report = rendered(&Report::of(vec![entry("a", "b.c"), entry("a.b", "c"), entry("a", "\"\\\n{}")]), None);
        assert_eq!(report["checks"]["a.b.c:responseTime"].as_array().unwrap().len(), 2);
        assert_eq!(report["checks"]["a.\"\\\n{}:responseTime"].as_array().unwrap().len(), 1);
    }
}
