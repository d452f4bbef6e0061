//! Assertions on responses.

use std::time::Duration;

use super::{
    DATABASE, PASSWORD, USER, eventually,
    http::{self, Response},
    logs,
    test_server::TestServer,
};

/// The `max_age` of the scopes under test.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(500);

/// Polls, and asserts that the only check is up.
pub(crate) async fn assert_up(server: &TestServer, group: &str, name: &str) -> Response {
    let response = server.health().await;
    assert_eq!(response.status, 200, "{response:?}\n{}", logs::text());
    assert_eq!(response.json(), serde_json::json!({"status": "UP", "checks": {group: {name: "UP"}}}));
    response
}

/// Polls, and asserts that the only check is down with the message.
pub(crate) async fn assert_down(server: &TestServer, group: &str, name: &str, message: &str) -> Response {
    failing(server, group, name, message, 503, "DOWN").await
}

/// Polls, and asserts that the only check is degraded with the message.
pub(crate) async fn assert_degraded(server: &TestServer, group: &str, name: &str, message: &str) -> Response {
    failing(server, group, name, message, 200, "DEGRADED").await
}

async fn failing(server: &TestServer, group: &str, name: &str, message: &str, code: u16, status: &str) -> Response {
    let response = server.health().await;
    assert_eq!(
        response.json(),
        serde_json::json!({"status": status, "errors": {group: {name: message}}, "checks": {group: {name: status}}}),
        "{}",
        logs::text()
    );
    assert_eq!(response.status, code);
    response
}

/// Asserts that the check is up again within one poll and `max_age`.
pub(crate) async fn assert_recovers(server: &TestServer, group: &str, name: &str) {
    server.health().await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(server, group, name).await;
}

/// Asserts that no response about the failure contains a user name, a database name or the text of the driver, that the log contains
/// that text, and that it does not contain the password.
pub(crate) async fn assert_not_leaked(server: &TestServer, response: &Response, driver: &[&str]) {
    let secrets: Vec<_> = [USER, PASSWORD, DATABASE, "SELECT 1"].iter().chain(driver).collect();
    let assert_hidden = |response: &Response| {
        for secret in &secrets {
            assert!(
                !response.body.contains(**secret) && !response.head.contains(**secret),
                "{secret:?} is leaked: {response:?}"
            );
        }
    };
    assert_hidden(response);
    let checks = response.json()["checks"].clone();
    let (group, names) = checks.as_object().and_then(|checks| checks.iter().next()).expect("there is a check");
    let name = names.as_object().and_then(|names| names.keys().next()).expect("it has a name");
    every_response(server, group, name).await.iter().for_each(assert_hidden);
    every_format(server).await.iter().for_each(assert_hidden);
    for text in driver {
        // The response may be sent before the line is logged.
        eventually(&format!("{text:?} is in the log"), || async {
            logs::lines().iter().any(|line| line.contains(text))
        })
        .await;
    }
    assert!(!logs::text().contains(PASSWORD), "the password is in the log: {}", logs::text());
}

/// The responses in every format other than JSON.
pub(crate) async fn every_format(server: &TestServer) -> Vec<Response> {
    let mut responses = Vec::new();
    for path in [
        "/health?verbose",
        "/health?format=health%2Bjson",
        "/health/metrics",
        "/health/metrics?format=openmetrics",
        "/health/page",
        "/health/schema",
        "/health/openapi.json",
        "/health?format=unknown",
    ] {
        responses.push(http::get(server.address, path).await);
    }
    responses
}

/// The responses of every path that reports a check, for several methods.
pub(crate) async fn every_response(server: &TestServer, group: &str, name: &str) -> Vec<Response> {
    let of_check = [format!("/health/{group}"), format!("/health/{group}/{name}")];
    let of_all = ["/health", "/health/ready", "/health/live", "/health/startup"].map(str::to_owned);
    let mut responses = Vec::new();
    for path in of_all.iter().chain(&of_check) {
        for (method, query) in [("GET", ""), ("GET", "?details"), ("HEAD", ""), ("POST", "")] {
            responses.push(http::request(server.address, method, &format!("{path}{query}")).await);
        }
    }
    responses
}
