//! The JSON Schema of the default body, which is written by hand.

/// A document of `application/schema+json`.
pub(crate) const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{examples::overview, json};

    /// The schema at a pointer into the body.
    fn at<'a>(schema: &'a serde_json::Value, path: &[&str]) -> &'a serde_json::Value {
        path.iter().fold(schema, |schema, key| match &schema["properties"][key] {
            serde_json::Value::Null => &schema["additionalProperties"],
            found => found,
        })
    }

    /// The tests of the whole crate validate every body that they receive. They do not notice a member without a description.
    #[test]
    fn every_member_of_a_body_with_details_is_described() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let body: serde_json::Value = serde_json::from_str(&json::body(&overview().health, true)).unwrap();
        let described = |path: &[&str]| assert!(at(&schema, path)["description"].is_string(), "{path:?}");
        for member in body.as_object().unwrap().keys() {
            described(&[member]);
        }
        for member in body["details"]["database"]["db"].as_object().unwrap().keys() {
            described(&["details", "database", "db", member]);
        }
    }
}
