//! Hostile text in an error breaks no format and forges no log line, and credentials are in no response. The tests of each
//! backend assert that its failures leak nothing: `responses::assert_not_leaked`.

use std::{collections::HashMap, sync::Arc};

use actix_web::web;
use health::{Check, HealthCheck, Probe, ProbeError, ProbeErrorKind};

use crate::common::{
    PASSWORD, eventually, logs,
    responses::{every_format, every_response},
    test_server::TestServer,
};

const PAYLOAD: &str = "canary-payload";
const STATEMENT: &str = "SELECT canary FROM secrets";

/// Text with a special meaning in HTML, JSON, logs, terminals and metrics.
const HOSTILE: &str = "</td><script>alert(1)</script>\",\"status\":\"UP\"}\u{0}\u{1b}[2J\r\n\
                       2026-01-01T00:00:00Z  INFO health::runs: health check database.db is UP again \u{2028} # TYPE x\\";

fn serve(checks: Vec<Check>) -> TestServer {
    TestServer::start(1, move |app| {
        app.service(checks.iter().cloned().fold(health::scope(), health::Scope::check));
    })
}

#[actix_web::test]
async fn a_hostile_error_message_breaks_no_response_and_forges_no_log_line() {
    let failing =
        Check::new("service", "hostile", || async { Err::<(), _>(ProbeError::new(ProbeErrorKind::Failed, HOSTILE)) });
    let driver = Check::new("service", "driver", || async { Err::<(), _>(HOSTILE) });
    let server = serve(vec![failing.live(), driver.live()]);
    for response in every_response(&server, "service", "hostile").await {
        if !response.body.is_empty() {
            let json = response.json();
            assert_eq!(json["status"], "DOWN", "{response:?}");
            let message = json["errors"]["service"]["hostile"].as_str().unwrap();
            assert!(!message.contains(|c: char| c.is_control() || c == '\u{2028}'), "{message:?}");
            if let Some(message) = json["errors"]["service"]["driver"].as_str() {
                assert_eq!(message, "the check failed");
            }
        }
        assert!(!response.head.contains("script"), "{response:?}");
    }
    for response in every_format(&server).await {
        assert!(!response.body.contains(|c: char| c != '\n' && c.is_control() || c == '\u{2028}'), "{response:?}");
        let is_html = response.header("content-type").is_some_and(|value| value.starts_with("text/html"));
        assert!(!is_html || !response.body.contains("<script>alert"), "{response:?}");
    }
    eventually("both are logged", || async { logs::text().matches(" is DOWN").count() == 2 }).await;
    let logged = logs::text();
    for line in logged.lines() {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}

#[actix_web::test]
async fn a_panic_payload_a_statement_and_a_url_are_in_no_response() {
    let url = format!("postgres://canaryuser:{PASSWORD}@db.internal:5432/canarybase?password={PASSWORD}");
    let panics = Check::new("service", "panics", || async {
        std::panic::panic_any(PAYLOAD.to_owned());
        #[allow(unreachable_code)]
        Ok::<_, String>(())
    });
    let fails = Check::new("service", "fails", move || {
        let text = format!("error in `{STATEMENT}` on {url}");
        async move { Err::<(), _>(std::io::Error::other(text)) }
    });
    let server = serve(vec![panics.live(), fails.live()]);
    for name in ["panics", "fails"] {
        let responses = every_response(&server, "service", name).await;
        for response in responses.into_iter().chain(every_format(&server).await) {
            for secret in [PAYLOAD, STATEMENT, "canaryuser", PASSWORD, "db.internal", "canarybase"] {
                assert!(
                    !response.body.contains(secret) && !response.head.contains(secret),
                    "{secret} is leaked: {response:?}"
                );
            }
        }
    }
    eventually("the statement is in the log", || async { logs::text().contains(STATEMENT) }).await;
    assert!(!logs::text().contains(PASSWORD), "{}", logs::text());
}

#[derive(Clone)]
struct Resource;

impl Probe for Resource {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(HealthCheck)]
struct ByKey {
    #[health(flatten)]
    resources: HashMap<String, Arc<Resource>>,
}

/// Serves a map of resources with the given keys.
fn keyed<const N: usize>(keys: [&str; N]) -> TestServer {
    let resources = keys.into_iter().map(|key| (key.to_owned(), Arc::new(Resource))).collect();
    let state = web::Data::new(ByKey { resources });
    TestServer::start(1, move |app| {
        app.service(health::scope().state(&state));
    })
}

#[actix_web::test]
async fn passwords_in_the_keys_of_a_map_are_redacted_in_responses_and_logs() {
    let url = |password: &str| format!("postgres://canaryuser:{password}@db:5432/app");
    let dsn = format!("host=db password={PASSWORD}");
    let server = keyed([&*url(PASSWORD), &dsn, &*url("other")]);
    let responses = every_response(&server, "service", "any").await;
    for response in responses.into_iter().chain(every_format(&server).await) {
        for secret in ["canaryuser", PASSWORD] {
            assert!(!response.body.contains(secret) && !response.head.contains(secret), "{secret}: {response:?}");
        }
    }
    let response = server.health().await.json();
    // Without their passwords, both keys are the same name.
    assert_eq!(response["checks"]["service"]["postgres://***@db:5432/app"], "DOWN", "{response}");
    let message = response["errors"]["service"]["postgres://***@db:5432/app"].as_str().unwrap();
    assert!(message.starts_with("two checks are named"), "{message}");
    assert_eq!(response["checks"]["service"]["host=db password=***"], "UP", "{response}");
    let logged = logs::text();
    assert!(!logged.contains(PASSWORD) && !logged.contains("canaryuser"), "{logged}");
    assert!(logged.contains("postgres://***@db:5432/app"), "{logged}");
}

#[actix_web::test]
async fn a_url_with_a_password_as_a_key_is_a_check_with_a_redacted_name() {
    let server = keyed([&format!("postgres://canaryuser:{PASSWORD}@db:5432/app")]);
    let response = server.health().await;
    assert_eq!(response.json()["checks"]["service"]["postgres://***@db:5432/app"], "UP", "{response:?}");
    assert!(!response.body.contains(PASSWORD), "{response:?}");
    assert!(!logs::text().contains(PASSWORD), "{}", logs::text());
}

#[actix_web::test]
async fn a_name_with_a_line_break_or_an_escape_sequence_forges_no_log_line() {
    let hostile = "eu\n2026-01-01T00:00:00Z  INFO health::runs: forged\u{1b}[2J\u{202e}";
    let server = keyed([hostile]);
    let checks = |name: &str| Check::new("queue", name, || async { Ok::<_, String>(()) });
    let error = health::register(checks(hostile)).unwrap_err().to_string();
    let other = serve(vec![checks("fine")]);
    for server in [&server, &other] {
        for response in every_response(server, "service", "any").await {
            assert!(!response.body.contains(|c: char| c.is_control() || c == '\u{202e}'), "{response:?}");
            if !response.body.is_empty() {
                let json = response.json().to_string();
                assert!(!json.contains("\\n") && !json.contains("\\u001b"), "{json}");
            }
        }
    }
    for line in logs::text().lines().chain([&*error]) {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}
