//! What answers must say.

use std::time::Duration;

use super::{
    DATABASE, PASSWORD, USER, eventually,
    http::{self, Response},
    logs,
    rig::Rig,
};

/// The `max_age` of the scopes under test.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(500);

/// Asks, and all is up.
pub(crate) async fn up(rig: &Rig, group: &str, name: &str) -> Response {
    let answer = rig.health().await;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", logs::text());
    assert_eq!(answer.json(), serde_json::json!({"status": "UP", "checks": {group: {name: "UP"}}}));
    answer
}

/// Asks, and the check is down with that message.
pub(crate) async fn down(rig: &Rig, group: &str, name: &str, message: &str) -> Response {
    failing(rig, group, name, message, 503, "DOWN").await
}

/// Asks, and the check is degraded with that message.
pub(crate) async fn degraded(rig: &Rig, group: &str, name: &str, message: &str) -> Response {
    failing(rig, group, name, message, 200, "DEGRADED").await
}

async fn failing(rig: &Rig, group: &str, name: &str, message: &str, code: u16, status: &str) -> Response {
    let answer = rig.health().await;
    assert_eq!(
        answer.json(),
        serde_json::json!({"status": status, "errors": {group: {name: message}}, "checks": {group: {name: status}}}),
        "{}",
        logs::text()
    );
    assert_eq!(answer.status, code);
    answer
}

/// What was down works again: up within one poll and `max_age`.
pub(crate) async fn back_up(rig: &Rig, group: &str, name: &str) {
    rig.health().await;
    tokio::time::sleep(MAX_AGE).await;
    up(rig, group, name).await;
}

/// The answer, and every other that tells of the failure, has no name and none of the driver's text, which the log has; and
/// the log has no password.
pub(crate) async fn assert_secret(rig: &Rig, answer: &Response, driver: &[&str]) {
    let secrets: Vec<_> = [USER, PASSWORD, DATABASE, "SELECT 1"].iter().chain(driver).collect();
    let keeps = |answer: &Response| {
        for secret in &secrets {
            assert!(
                !answer.body.contains(**secret) && !answer.head.contains(**secret),
                "{secret:?} is told: {answer:?}"
            );
        }
    };
    keeps(answer);
    let checks = answer.json()["checks"].clone();
    let (group, names) = checks.as_object().and_then(|checks| checks.iter().next()).expect("there is a check");
    let name = names.as_object().and_then(|names| names.keys().next()).expect("it has a name");
    every_answer(rig, group, name).await.iter().for_each(keeps);
    for text in driver {
        // The answer does not wait for the log.
        eventually(&format!("{text:?} is in the log"), || async {
            logs::lines().iter().any(|line| line.contains(text))
        })
        .await;
    }
    assert!(!logs::text().contains(PASSWORD), "the password is in the log: {}", logs::text());
}

/// What every path says that tells of a check, and every method.
pub(crate) async fn every_answer(rig: &Rig, group: &str, name: &str) -> Vec<Response> {
    let of_check = [format!("/health/{group}"), format!("/health/{group}/{name}")];
    let of_all = ["/health", "/health/ready", "/health/live", "/health/startup"].map(str::to_owned);
    let mut answers = Vec::new();
    for path in of_all.iter().chain(&of_check) {
        for (method, query) in [("GET", ""), ("GET", "?details"), ("HEAD", ""), ("POST", "")] {
            answers.push(http::request(rig.address, method, &format!("{path}{query}")).await);
        }
    }
    answers
}
