//! The OpenAPI document of a scope.

use serde_json::{Value, json};

pub(crate) fn document(path: &str) -> Value {
    json!({ "openapi": "3.1.0", "info": { "title": "health", "version": "1" }, "paths": { path: {} } })
}
