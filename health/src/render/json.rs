//! The JSON of a report: `{"status":…,"errors":{group:{name:…}},"checks":{group:{name:…}}}`, in the order of registration.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::report::{Entry, Report};

/// The body of an answer. `errors` is there only when it has something to say.
pub(crate) fn body(report: &Report) -> String {
    serde_json::to_string(report).expect("text under text keys is always JSON")
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let error = |entry| Some((entry, Entry::error(entry)?));
        let errors: ByGroup<'_> = self.entries.iter().filter_map(error).collect();
        let checks: ByGroup<'_> = self.entries.iter().map(|entry| (entry, entry.outcome.status.as_str())).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", self.status().as_str())?;
        if !errors.0.is_empty() {
            map.serialize_entry("errors", &errors)?;
        }
        map.serialize_entry("checks", &checks)?;
        map.end()
    }
}

/// `{group:{name:text}}`, the groups in the order in which they come first.
struct ByGroup<'a>(Vec<(&'a str, ByName<'a>)>);

struct ByName<'a>(Vec<(&'a str, &'a str)>);

impl<'a> FromIterator<(&'a Entry, &'a str)> for ByGroup<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a Entry, &'a str)>>(entries: I) -> Self {
        let mut places = HashMap::new();
        let mut groups: Vec<(&str, ByName<'_>)> = Vec::new();
        for (entry, text) in entries {
            let place = *places.entry(&*entry.group).or_insert(groups.len());
            if place == groups.len() {
                groups.push((&entry.group, ByName(Vec::new())));
            }
            groups[place].1.0.push((&entry.name, text));
        }
        Self(groups)
    }
}

impl Serialize for ByGroup<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(group, names)| (group, names)))
    }
}

impl Serialize for ByName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::Status, runs::Outcome};

    fn entry(group: &str, name: &str, error: Option<&str>) -> Entry {
        Entry {
            group: group.into(),
            name: name.into(),
            critical: true,
            outcome: Outcome {
                status: if error.is_some() { Status::Down } else { Status::Up },
                error: error.map(Into::into),
            },
        }
    }

    #[test]
    fn the_two_shapes_are_to_the_letter() {
        let up = Report { entries: vec![entry("database", "default", None), entry("cache", "default", None)] };
        assert_eq!(body(&up), r#"{"status":"UP","checks":{"database":{"default":"UP"},"cache":{"default":"UP"}}}"#);
        let sentence = "unable to connect to redis at 127.0.0.1:6379";
        let down =
            Report { entries: vec![entry("database", "default", None), entry("cache", "default", Some(sentence))] };
        assert_eq!(
            body(&down),
            r#"{"status":"DOWN","errors":{"cache":{"default":"unable to connect to redis at 127.0.0.1:6379"}},"checks":{"database":{"default":"UP"},"cache":{"default":"DOWN"}}}"#
        );
    }

    #[test]
    fn groups_stand_where_they_came_first_and_names_are_escaped() {
        let report = Report { entries: vec![entry("b", "1", None), entry("a", "\"<\n", None), entry("b", "2", None)] };
        assert_eq!(body(&report), r#"{"status":"UP","checks":{"b":{"1":"UP","2":"UP"},"a":{"\"<\n":"UP"}}}"#);
    }
}
