//! What is hostile in the text of an error breaks no format and forges no line of the log; and what is private is in no
//! answer. That the answers of each backend keep its secrets stands with its failures: `answers::assert_secret`.

use std::{collections::HashMap, sync::Arc};

use actix_web::web;
use health::{Check, HealthCheck, Probe, ProbeError, ProbeErrorKind};

use crate::common::{PASSWORD, answers::every_answer, eventually, logs, rig::Rig};

const PAYLOAD: &str = "canary-payload";
const STATEMENT: &str = "SELECT canary FROM secrets";

/// Text that would be something else in HTML, JSON, a log, a terminal or a line of metrics.
const HOSTILE: &str = "</td><script>alert(1)</script>\",\"status\":\"UP\"}\u{0}\u{1b}[2J\r\n\
                       2026-01-01T00:00:00Z  INFO health::runs: health check database.db is UP again \u{2028} # TYPE x\\";

fn answers(checks: Vec<Check>) -> Rig {
    Rig::start(1, move |app| {
        app.service(checks.iter().cloned().fold(health::scope(), health::Scope::check));
    })
}

#[actix_web::test]
async fn a_hostile_sentence_breaks_no_answer_and_forges_no_line_of_the_log() {
    let failing =
        Check::new("service", "hostile", || async { Err::<(), _>(ProbeError::new(ProbeErrorKind::Failed, HOSTILE)) });
    let driver = Check::new("service", "driver", || async { Err::<(), _>(HOSTILE) });
    let rig = answers(vec![failing.live(), driver.live()]);
    for answer in every_answer(&rig, "service", "hostile").await {
        if !answer.body.is_empty() {
            let json = answer.json();
            assert_eq!(json["status"], "DOWN", "{answer:?}");
            let told = json["errors"]["service"]["hostile"].as_str().unwrap();
            assert!(!told.contains(|c: char| c.is_control() || c == '\u{2028}'), "{told:?}");
            if let Some(told) = json["errors"]["service"]["driver"].as_str() {
                assert_eq!(told, "the check failed");
            }
        }
        assert!(!answer.head.contains("script"), "{answer:?}");
    }
    eventually("both are logged", || async { logs::text().matches(" is DOWN").count() == 2 }).await;
    let logged = logs::text();
    for line in logged.lines() {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}

#[actix_web::test]
async fn the_payload_of_a_panic_the_text_of_a_statement_and_a_url_are_in_no_answer() {
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
    let rig = answers(vec![panics.live(), fails.live()]);
    for name in ["panics", "fails"] {
        for answer in every_answer(&rig, "service", name).await {
            for secret in [PAYLOAD, STATEMENT, "canaryuser", PASSWORD, "db.internal", "canarybase"] {
                assert!(!answer.body.contains(secret) && !answer.head.contains(secret), "{secret} is told: {answer:?}");
            }
        }
    }
    eventually("the statement is for the log", || async { logs::text().contains(STATEMENT) }).await;
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
    resources: HashMap<String, Arc<Resource>>,
}

/// Serves resources under the given keys.
fn keyed<const N: usize>(keys: [&str; N]) -> Rig {
    let resources = keys.into_iter().map(|key| (key.to_owned(), Arc::new(Resource))).collect();
    let state = web::Data::new(ByKey { resources });
    Rig::start(1, move |app| {
        app.service(health::scope().state(&state));
    })
}

#[actix_web::test]
async fn a_map_whose_keys_are_urls_with_passwords_leaks_none_of_them() {
    let url = |password: &str| format!("postgres://canaryuser:{password}@db:5432/app");
    let dsn = format!("host=db password={PASSWORD}");
    let rig = keyed([&*url(PASSWORD), &dsn, &*url("other")]);
    for answer in every_answer(&rig, "service", "any").await {
        for secret in ["canaryuser", PASSWORD] {
            assert!(!answer.body.contains(secret) && !answer.head.contains(secret), "{secret}: {answer:?}");
        }
    }
    let answer = rig.health().await.json();
    // Both keys are one name without their passwords.
    assert_eq!(answer["checks"]["service"]["postgres://***@db:5432/app"], "DOWN", "{answer}");
    let message = answer["errors"]["service"]["postgres://***@db:5432/app"].as_str().unwrap();
    assert!(message.starts_with("two checks are named"), "{message}");
    assert_eq!(answer["checks"]["service"]["host=db password=***"], "UP", "{answer}");
    let logged = logs::text();
    assert!(!logged.contains(PASSWORD) && !logged.contains("canaryuser"), "{logged}");
    assert!(logged.contains("postgres://***@db:5432/app"), "{logged}");
}

#[actix_web::test]
async fn a_key_that_is_a_url_with_a_password_is_down_and_the_message_says_what_was_redacted() {
    let rig = keyed([&format!("postgres://canaryuser:{PASSWORD}@db:5432/app")]);
    let answer = rig.health().await.json();
    let message = answer["errors"]["service"]["postgres://***@db:5432/app"].as_str().unwrap();
    assert!(message.contains("credentials") && message.contains("redacted"), "{message}");
    assert!(!logs::text().contains(PASSWORD), "{}", logs::text());
}

#[actix_web::test]
async fn a_name_with_a_line_break_or_an_escape_sequence_forges_no_line_of_the_log() {
    let hostile = "eu\n2026-01-01T00:00:00Z  INFO health::runs: forged\u{1b}[2J\u{202e}";
    let rig = keyed([hostile]);
    let checks = |name: &str| Check::new("queue", name, || async { Ok::<_, String>(()) });
    let refused = health::register(checks(hostile)).unwrap_err().to_string();
    let other = answers(vec![checks("fine")]);
    for rig in [&rig, &other] {
        for answer in every_answer(rig, "service", "any").await {
            assert!(!answer.body.contains(|c: char| c.is_control() || c == '\u{202e}'), "{answer:?}");
            if !answer.body.is_empty() {
                let json = answer.json().to_string();
                assert!(!json.contains("\\n") && !json.contains("\\u001b"), "{json}");
            }
        }
    }
    for line in logs::text().lines().chain([&*refused]) {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}
