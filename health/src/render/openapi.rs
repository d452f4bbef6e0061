//! The OpenAPI document of a scope.

use serde_json::{Map, Value, json};

use super::schema::SCHEMA;

/// Returns the OpenAPI 3.1 document of a scope at `path`: each path, with its parameters and formats. `/health/openapi.json` responds
/// with it.
///
/// # Examples
///
/// ```
/// let document = health::openapi("/internal/health");
/// assert!(document["paths"]["/internal/health/ready"]["get"]["responses"]["503"].is_object());
/// ```
pub fn openapi(path: &str) -> Value {
    let path = match path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    };
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("the schema is valid JSON");
    // A schema of OpenAPI 3.1 is of this version unless it says otherwise.
    schema.as_object_mut().expect("the schema is an object").remove("$schema");
    let paths: Map<_, _> = report_paths()
        .into_iter()
        .chain(machine_paths())
        .map(|(below, operation)| {
            let full = format!("{path}{below}");
            (if full.is_empty() { "/".to_owned() } else { full }, json!({"get": operation}))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Health",
            "description": "The health of the service. `HEAD` is allowed wherever `GET` is.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "tags": [{"name": "health", "description": "Health checks"}],
        "paths": paths,
        "components": {"schemas": {"Health": schema, "HealthJson": health_json()}},
    })
}

/// The paths that respond with a report.
fn report_paths() -> Vec<(&'static str, Value)> {
    let group = || path_parameter("group", "The group of the checks, such as `database`.");
    let name = || path_parameter("name", "The name of the check in its group.");
    let excludable = report_parameters(true);
    vec![
        (
            "",
            report(
                "health",
                "All checks",
                "503 while a check is down that is not optional, and out of rotation.",
                &excludable,
            ),
        ),
        (
            "/ready",
            report(
                "health_ready",
                "Readiness",
                "503 until the service has started, while a critical check is down, and out of rotation.",
                &excludable,
            ),
        ),
        (
            "/live",
            report(
                "health_live",
                "Liveness",
                "503 while the event loop of a worker is blocked, or a check is down that counts for liveness.",
                &excludable,
            ),
        ),
        (
            "/startup",
            report(
                "health_startup",
                "Startup",
                "503 until each check that is not optional has been up once.",
                &report_parameters(false),
            ),
        ),
        (
            "/{group}",
            report(
                "health_group",
                "The checks of a group",
                "503 while one of them is down that is not optional.",
                &[vec![group()], excludable.clone()].concat(),
            ),
        ),
        (
            "/{group}/{name}",
            report(
                "health_check",
                "One check",
                "503 while it is down, unless it is optional.",
                &[vec![group(), name()], excludable.clone()].concat(),
            ),
        ),
    ]
}

/// The paths that always respond with 200.
fn machine_paths() -> Vec<(&'static str, Value)> {
    let text = || json!({"schema": {"type": "string"}});
    let page = (
        "/page",
        operation(
            "health_page",
            "The page for people",
            "Complete without script.",
            &[query_parameter(
                "refresh",
                "Reloads the page at this interval in seconds, for browsers without script.",
                &json!({"type": "integer", "minimum": 1}),
            )],
            json!({"200": {"description": "The page.", "content": {"text/html": text()}}}),
        ),
    );
    let others = [
        (
            "/metrics",
            operation(
                "health_metrics",
                "Metrics",
                "The text format of Prometheus, or OpenMetrics if `Accept` names it.",
                &[query_parameter(
                    "format",
                    "The format, whatever `Accept` names.",
                    &json!({"type": "string", "enum": ["prometheus", "openmetrics"]}),
                )],
                json!({
                    "200": {
                        "description": "The metrics, whatever is down.",
                        "content": {
                            "text/plain; version=0.0.4; charset=utf-8": text(),
                            "application/openmetrics-text; version=1.0.0; charset=utf-8": text(),
                        },
                    },
                    "400": unknown_format(),
                }),
            ),
        ),
        (
            "/schema",
            operation(
                "health_schema",
                "The JSON Schema of the default body",
                "JSON Schema 2020-12.",
                &[],
                json!({"200": {"description": "The schema.", "content": {"application/schema+json": {"schema": {"type": "object"}}}}}),
            ),
        ),
        (
            "/openapi.json",
            operation(
                "health_openapi",
                "This document",
                "OpenAPI 3.1.",
                &[],
                json!({"200": {"description": "The document.", "content": {"application/json": {"schema": {"type": "object"}}}}}),
            ),
        ),
    ];
    cfg!(feature = "page").then_some(page).into_iter().chain(others).collect()
}

fn report(id: &str, summary: &str, description: &str, parameters: &[Value]) -> Value {
    let content = json!({
        "application/json": {"schema": {"$ref": "#/components/schemas/Health"}},
        "application/health+json": {"schema": {"$ref": "#/components/schemas/HealthJson"}},
        "text/plain": {"schema": {"type": "string"}},
    });
    let responses = json!({
        "200": {"description": "UP or DEGRADED.", "content": content},
        "400": unknown_format(),
        "503": {"description": "DOWN.", "content": content},
    });
    operation(id, summary, description, parameters, responses)
}

fn operation(id: &str, summary: &str, description: &str, parameters: &[Value], mut responses: Value) -> Value {
    responses["403"] = json!({"description": "The client is denied. The scope may be set to respond with 404, or with only the status, instead."});
    json!({
        "operationId": id,
        "tags": ["health"],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "responses": responses,
    })
}

fn unknown_format() -> Value {
    json!({"description": "The parameter `format` names none of the formats.", "content": {"text/plain": {"schema": {"type": "string"}}}})
}

fn report_parameters(is_excludable: bool) -> Vec<Value> {
    let flag = json!({"type": "string"});
    let exclude = || {
        let names = json!({"type": "array", "items": {"type": "string"}});
        query_parameter("exclude", "A group or `group.name` that the response leaves out. May be repeated.", &names)
    };
    let mut parameters = vec![
        query_parameter(
            "details",
            "Adds latency, times, counters and observations of each check to the JSON body.",
            &flag,
        ),
        query_parameter("verbose", "Responds with text, a line for each check.", &flag),
        query_parameter(
            "format",
            "The format, whatever `Accept` names.",
            &json!({"type": "string", "enum": ["json", "text", "health+json"]}),
        ),
    ];
    parameters.extend(is_excludable.then(exclude));
    parameters
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string"}})
}

fn query_parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
}

/// The schema of `application/health+json`.
fn health_json() -> Value {
    let status = json!({"type": "string", "enum": ["pass", "warn", "fail"]});
    json!({
        "title": "HealthJson",
        "description": "The health of a service, as draft-inadarei-api-health-check-06 describes it.",
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": status,
            "serviceId": {"type": "string"},
            "releaseId": {"type": "string"},
            "notes": {"type": "array", "items": {"type": "string"}},
            "output": {"type": "string"},
            "checks": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["componentId", "componentType", "status"],
                        "properties": {
                            "componentId": {"type": "string"},
                            "componentType": {"type": "string", "enum": ["datastore", "system", "component"]},
                            "observedValue": {"type": ["number", "string", "boolean", "null"]},
                            "observedUnit": {"type": "string", "enum": ["ms"]},
                            "status": status,
                            "time": {"type": "string", "format": "date-time"},
                        },
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_below_that_of_the_scope() {
        for (path, ready, root) in [
            ("/health", "/health/ready", "/health"),
            ("a/b/", "/a/b/ready", "/a/b"),
            ("/", "/ready", "/"),
            ("", "/ready", "/"),
        ] {
            let document = openapi(path);
            assert_eq!(document["paths"][ready]["get"]["operationId"], "health_ready", "{path}");
            assert_eq!(document["paths"][root]["get"]["operationId"], "health", "{path}");
        }
    }
}
