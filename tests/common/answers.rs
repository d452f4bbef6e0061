//! Assertions on responses.

use std::time::Duration;

use super::{
    DATABASE, PASSWORD, USER, eventually,
    http::{self, Response},
    logs,
    rig::Rig,
};

/// The `max_age` of the scopes under test.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(500);

/// Requests `/health`, and asserts that the check is up.
pub(crate) async fn up(rig: &Rig, group: &str, name: &str) -> Response {
    let response = rig.health().await;
    assert_eq!(response.status, 200, "{response:?}\n{}", logs::text());
    assert_eq!(response.json(), serde_json::json!({"status": "UP", "checks": {group: {name: "UP"}}}));
    response
}

/// Requests `/health`, and asserts that the check is down with that message.
pub(crate) async fn down(rig: &Rig, group: &str, name: &str, message: &str) -> Response {
    failing(rig, group, name, message, 503, "DOWN").await
}

/// Requests `/health`, and asserts that the check is degraded with that message.
pub(crate) async fn degraded(rig: &Rig, group: &str, name: &str, message: &str) -> Response {
    failing(rig, group, name, message, 200, "DEGRADED").await
}

async fn failing(rig: &Rig, group: &str, name: &str, message: &str, code: u16, status: &str) -> Response {
    let response = rig.health().await;
    assert_eq!(
        response.json(),
        serde_json::json!({"status": status, "errors": {group: {name: message}}, "checks": {group: {name: status}}}),
        "{}",
        logs::text()
    );
    assert_eq!(response.status, code);
    response
}

/// Asserts that a check that was down is up within one poll and `max_age`.
pub(crate) async fn back_up(rig: &Rig, group: &str, name: &str) {
    rig.health().await;
    tokio::time::sleep(MAX_AGE).await;
    up(rig, group, name).await;
}

/// Asserts that neither this response nor any other one contains a canary value or the driver's text, that the log has the driver's
/// text, and that the log has no password.
pub(crate) async fn assert_secret(rig: &Rig, response: &Response, driver: &[&str]) {
    let secrets: Vec<_> = [USER, PASSWORD, DATABASE, "SELECT 1"].iter().chain(driver).collect();
    let assert_none = |response: &Response| {
        for secret in &secrets {
            assert!(
                !response.body.contains(**secret) && !response.head.contains(**secret),
                "{secret:?} is in a response: {response:?}"
            );
        }
    };
    assert_none(response);
    let checks = response.json()["checks"].clone();
    let (group, names) = checks.as_object().and_then(|checks| checks.iter().next()).expect("there is a check");
    let name = names.as_object().and_then(|names| names.keys().next()).expect("it has a name");
    every_answer(rig, group, name).await.iter().for_each(assert_none);
    for text in driver {
        // The response does not wait for the log.
        eventually(&format!("{text:?} is in the log"), || async {
            logs::lines().iter().any(|line| line.contains(text))
        })
        .await;
    }
    assert!(!logs::text().contains(PASSWORD), "the password is in the log: {}", logs::text());
}

/// The responses of every path of the scope and the check, to every method.
pub(crate) async fn every_answer(rig: &Rig, group: &str, name: &str) -> Vec<Response> {
    let of_check = [format!("/health/{group}"), format!("/health/{group}/{name}")];
    let of_all = ["/health", "/health/ready", "/health/live", "/health/startup"].map(str::to_owned);
    let mut responses = Vec::new();
    for path in of_all.iter().chain(&of_check) {
        for (method, query) in [("GET", ""), ("GET", "?details"), ("HEAD", ""), ("POST", "")] {
            responses.push(http::request(rig.address, method, &format!("{path}{query}")).await);
        }
    }
    responses
}
