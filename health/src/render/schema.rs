//! The JSON Schema of the default body.

pub(crate) const SCHEMA: &str =
    r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["status","checks"]}"#;
