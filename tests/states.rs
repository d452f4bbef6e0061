//! States and resources as applications keep them, over real HTTP: which are found, which need a step that the message names, and
//! which runs workers share.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::web;
use health::{HealthCheck, Registry};
use sqlx::SqlitePool;

use crate::common::{counted::Counted, eventually, http::Response, logs, test_server::TestServer};

#[derive(HealthCheck)]
struct State {
    mail: Counted,
}

impl State {
    fn new() -> Self {
        Self { mail: Counted::default() }
    }
}

#[derive(HealthCheck)]
struct Generic<T> {
    #[health(probe)]
    resource: T,
}

#[derive(Clone, HealthCheck)]
struct Cloneable {
    mail: Counted,
}

fn memory() -> SqlitePool {
    SqlitePool::connect_lazy("sqlite::memory:").unwrap()
}

/// A scope whose checks run for each request.
fn scope() -> health::Scope {
    health::scope().max_age(Duration::ZERO)
}

/// A server with three workers that call this function.
fn with_scope(scope: impl Fn() -> health::Scope + Send + Sync + 'static) -> TestServer {
    TestServer::start(3, move |app| {
        app.service(scope());
    })
}

/// Requests every worker three times. Returns the last response.
async fn three_rounds(server: &TestServer) -> Response {
    for _ in 0..8 {
        assert_eq!(server.health().await.status, 200);
    }
    server.get("/health?details").await
}

/// The message of the scope about itself.
fn message(response: &Response, name: &str) -> String {
    assert_eq!(response.status, 503, "{response:?}");
    let json = response.json();
    json["errors"]["health"][name].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

#[actix_web::test]
async fn a_pool_that_each_worker_clones_runs_once_per_request() {
    let pool = memory();
    let server = with_scope(move || scope().probe("db", pool.clone()));
    let response = three_rounds(&server).await;
    assert_eq!(response.json()["checks"], serde_json::json!({"database": {"db": "UP"}}));
    assert_eq!(response.json()["details"]["database"]["db"]["runs"], 9, "{response:?}");
    assert!(logs::warnings("database.db").is_empty(), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_pool_in_app_data_runs_once_per_request_of_any_worker() {
    let pool = memory();
    let server = TestServer::start(3, move |app| {
        // Each worker has its own `Data`, of one pool.
        let data = web::Data::new(pool.clone());
        app.app_data(data.clone()).service(scope().probe("db", data));
    });
    let response = three_rounds(&server).await;
    assert_eq!(response.json()["details"]["database"]["db"]["runs"], 9, "{response:?}");
}

#[actix_web::test]
async fn a_resource_in_an_arc_runs_once_for_all_workers_and_scopes() {
    let (mail, search) = (Arc::new(Counted::default()), web::Data::new(Counted::default()));
    let runs = [Arc::clone(&mail.runs), Arc::clone(&search.runs)];
    let server = TestServer::start(3, move |app| {
        let scope = || health::scope().max_age(Duration::from_hours(1)).probe("mail", Arc::clone(&mail));
        app.service(scope().probe("search", search.clone())).service(scope().path("/mail"));
    });
    assert_eq!(three_rounds(&server).await.status, 200);
    for _ in 0..3 {
        assert_eq!(server.get("/mail").await.status, 200);
    }
    assert_eq!(runs.map(|runs| runs.load(Ordering::SeqCst)), [1, 1]);
    assert!(logs::warnings("service.mail").is_empty(), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn clones_that_cannot_be_recognized_run_in_each_worker_and_the_log_names_the_step() {
    let (pool, mail) = (memory(), Counted::default());
    let runs = Arc::clone(&mail.runs);
    let server = with_scope(move || {
        health::scope().max_age(Duration::from_hours(1)).probe("recognized", pool.clone()).probe("mail", mail.clone())
    });
    assert_eq!(three_rounds(&server).await.status, 200);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let warned = logs::warnings("service.mail");
    assert!(!warned.is_empty() && warned[0].contains("put the resource into an `Arc`"), "{:#?}", logs::lines());
    assert!(!warned[0].contains("database.recognized"), "it has one copy: {}", warned[0]);
}

#[actix_web::test]
async fn a_state_that_each_worker_creates_is_warned_of_once() {
    let server = TestServer::start(3, |app| {
        app.app_data(web::Data::new(State::new())).service(scope());
    });
    three_rounds(&server).await;
    let warned = logs::warnings("states::State");
    assert!(warned.len() == 1 && warned[0].contains("before HttpServer::new"), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn two_servers_with_resources_of_one_name_report_on_their_own() {
    let (open, closed) = (memory(), memory());
    closed.close().await;
    let pools = [open, closed].map(|pool| with_scope(move || scope().probe("main", pool.clone())));
    let pointers = [Counted::default(), Counted::broken()].map(|counted| {
        let counted = Arc::new(counted);
        with_scope(move || scope().probe("main", Arc::clone(&counted)))
    });
    let values = [Counted::default(), Counted::broken()]
        .map(|counted| with_scope(move || scope().probe("main", counted.clone())));
    for [up, down] in [pools, pointers, values] {
        for _ in 0..6 {
            assert_eq!(up.health().await.status, 200);
            assert_eq!(down.health().await.status, 503);
        }
    }
}

#[actix_web::test]
async fn a_resource_is_not_reported_after_its_server_has_stopped() {
    for broken in [false, true, false, true] {
        let counted = Arc::new(Counted { broken, ..Counted::default() });
        let server = with_scope(move || scope().probe("main", Arc::clone(&counted)));
        assert_eq!(server.health().await.status, if broken { 503 } else { 200 });
        server.stop().await;
    }
}

#[actix_web::test]
async fn a_derived_state_and_a_probed_pool_are_both_checked_and_logged() {
    let (state, pool) = (web::Data::new(State::new()), memory());
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(scope().probe("db", pool.clone()));
    });
    let response = server.health().await;
    assert_eq!(response.body, r#"{"status":"UP","checks":{"service":{"mail":"UP"},"database":{"db":"UP"}}}"#);
    let lines = logs::lines();
    assert!(lines.iter().any(|line| line.contains("probes: service.mail, database.db;")), "{lines:#?}");
}

#[actix_web::test]
async fn a_state_is_given_as_data_or_as_data_of_an_arc() {
    let (data, data_of_arc) = (web::Data::new(State::new()), web::Data::new(Arc::new(Generic { resource: memory() })));
    let server = with_scope(move || scope().state(&data).state(&data_of_arc));
    let response = three_rounds(&server).await;
    let runs = &response.json()["details"];
    assert_eq!((&runs["service"]["mail"]["runs"], &runs["database"]["resource"]["runs"]), (&9.into(), &9.into()));
}

/// The message of an application with this value in `app_data`, which is not a state that a scope can find.
async fn message_about<T: 'static>(value: impl Fn() -> T + Send + Sync + 'static) -> String {
    let server = TestServer::start(1, move |app| {
        app.app_data(value()).service(scope());
    });
    let message = message(&server.health().await, "state");
    let logged = format!("health check health.state cannot be run: {message}");
    let is_logged = |line: &String| line.contains("ERROR") && line.contains(&logged);
    eventually(&logged, || async { logs::lines().iter().any(is_logged) }).await;
    message
}

#[actix_web::test]
async fn a_state_in_a_lock_is_down_and_the_message_says_that_pools_need_no_lock() {
    let step = "move its pools, which need no lock, to a struct of their own that derives HealthCheck, and add \
                `.app_data(web::Data::new(pools))`";
    let mutex = format!("`State` is in app_data in a `Mutex`: {step}");
    let rw_lock = format!("`State` is in app_data in a `RwLock`: {step}");

    let std_mutex = web::Data::new(std::sync::Mutex::new(State::new()));
    assert_eq!(message_about(move || std_mutex.clone()).await, mutex);
    let of_arc = web::Data::new(Arc::new(tokio::sync::Mutex::new(State::new())));
    assert_eq!(message_about(move || of_arc.clone()).await, mutex);
    let std_lock = web::Data::new(std::sync::RwLock::new(State::new()));
    assert_eq!(message_about(move || std_lock.clone()).await, rw_lock);
    let tokio_lock = web::Data::new(tokio::sync::RwLock::new(State::new()));
    assert_eq!(message_about(move || tokio_lock.clone()).await, rw_lock);
    let cell = || web::Data::new(std::cell::RefCell::new(State::new()));
    assert_eq!(message_about(cell).await, format!("`State` is in app_data in a `RefCell`: {step}"));
}

#[actix_web::test]
async fn a_state_in_a_lock_next_to_other_checks_is_warned_of() {
    let state = web::Data::new(std::sync::Mutex::new(State::new()));
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().probe("own", Counted::default()));
    });
    assert_eq!(server.health().await.status, 200);
    let is_warning =
        |line: &String| line.contains("WARN") && line.contains("`State` is in app_data in a `Mutex`: move its pools");
    assert!(logs::lines().iter().any(is_warning), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_state_without_data_is_down_and_the_message_names_the_line_to_write() {
    let message = "`State` is in app_data without `web::Data`: write `.app_data(web::Data::new(state))`";
    assert_eq!(message_about(State::new).await, message);
    let message = "`State` is in app_data as an `Arc`, without `web::Data`: write `.app_data(web::Data::from(state))`";
    assert_eq!(message_about(|| Arc::new(State::new())).await, message);
}

#[actix_web::test]
async fn a_state_in_thin_data_is_down_and_the_message_names_the_line_to_write() {
    let state = Cloneable { mail: Counted::default() };
    let message = message_about(move || web::ThinData(state.clone())).await;
    assert!(message.starts_with("`Cloneable` is in app_data as `web::ThinData`: write `let data = "), "{message}");
    assert!(message.contains(".state(&data)"), "{message}");
}

#[actix_web::test]
async fn a_state_in_thin_data_is_up_once_it_is_also_given_as_data() {
    let state = Cloneable { mail: Counted::default() };
    let data = web::Data::new(state.clone());
    let server = TestServer::start(2, move |app| {
        app.app_data(web::ThinData(state.clone())).service(scope().state(&data));
    });
    assert_eq!(server.health().await.body, r#"{"status":"UP","checks":{"service":{"mail":"UP"}}}"#);
}

#[actix_web::test]
async fn a_generic_state_in_app_data_is_down_and_the_message_names_it_and_the_step() {
    let state = web::Data::new(Generic { resource: Counted::default() });
    let message = message_about(move || state.clone()).await;
    assert!(message.contains("`Generic`"), "{message}");
    assert!(message.contains("because of generic parameters: add `.state(&data)` to health::scope()"), "{message}");
}

#[actix_web::test]
async fn a_pool_in_app_data_without_a_state_is_down_and_the_message_names_the_step() {
    let data = web::Data::new(memory());
    let message = message_about(move || data.clone()).await;
    assert!(message.contains(r#"`.probe("db", pool.clone())` for a pool without a state"#), "{message}");
}

#[actix_web::test]
async fn a_state_that_is_elsewhere_is_logged_with_its_place_if_the_scope_has_other_checks() {
    let locked = web::Data::new(std::sync::Mutex::new(Cloneable { mail: Counted::default() }));
    let state = web::Data::new(State::new());
    let server = TestServer::start(1, move |app| {
        app.app_data(locked.clone()).app_data(state.clone()).service(scope());
    });
    assert_eq!(server.health().await.status, 200);
    let lines = logs::lines();
    assert!(lines.iter().any(|line| line.contains("states::Cloneable (in a `Mutex`)")), "{lines:#?}");
}

#[derive(Default, HealthCheck)]
struct Optional {
    cache: Option<SqlitePool>,
    tenants: BTreeMap<String, SqlitePool>,
}

#[actix_web::test]
async fn a_state_without_resources_is_down_and_the_message_says_that_it_was_found() {
    let state = web::Data::new(Optional::default());
    let served = state.clone();
    let server = TestServer::start(1, move |app| {
        app.app_data(served.clone()).service(scope()).service(scope().path("/empty").allow_empty());
    });
    let message = message(&server.health().await, "checks");
    assert_eq!(
        message,
        "the state was found and has no checks now, because its resources are `None` or empty: if that is intended, add \
         `.allow_empty()` to health::scope()"
    );
    let is_logged = || logs::lines().iter().any(|line| line.contains("ERROR") && line.contains(&message));
    eventually("it is logged", || async { is_logged() }).await;
    let response = server.get("/empty").await;
    assert_eq!((response.status, &*response.body), (200, r#"{"status":"UP","checks":{}}"#));
}

#[actix_web::test]
async fn a_scope_without_checks_is_down_by_default_and_up_if_that_is_allowed() {
    let registry = Registry::new();
    let served = registry.clone();
    let server = TestServer::start(2, move |app| {
        app.service(scope().registry(&served))
            .service(scope().registry(&served).path("/registered").allow_empty())
            .service(scope().path("/empty").allow_empty());
    });
    let message = message(&server.health().await, "checks");
    for step in [r#"`.probe("db", pool.clone())`"#, "derive HealthCheck", "register a check", "`.allow_empty()`"] {
        assert!(message.contains(step), "{message}");
    }
    for path in ["/empty", "/empty/ready", "/empty/startup", "/registered"] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (200, r#"{"status":"UP","checks":{}}"#), "{path}");
    }
    assert_eq!(server.get("/empty/live").await.status, 200);
    assert_eq!(server.get("/empty/database").await.status, 404);

    // A check that is registered later counts.
    registry.register(health::Check::probe("late", Counted::broken())).unwrap();
    for path in ["/health", "/registered"] {
        let response = server.get(path).await;
        assert_eq!(response.json()["checks"], serde_json::json!({"service": {"late": "DOWN"}}), "{path}");
    }
}

#[derive(HealthCheck)]
struct Tenants {
    tenants: BTreeMap<&'static str, Counted>,
}

#[actix_web::test]
async fn a_key_that_is_not_a_plain_segment_has_a_percent_encoded_path() {
    let keys = ["big corp/ä", "50%25 ?#", "a+b", "postgres://bob:hunter2@db/app"];
    let state = web::Data::new(Tenants { tenants: keys.map(|key| (key, Counted::default())).into() });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(scope());
    });
    let response = server.health().await;
    assert_eq!(response.status, 200, "{response:?}");
    let names: Vec<_> = response.json()["checks"]["service"].as_object().unwrap().keys().cloned().collect();
    for (key, path) in [
        ("big corp/ä", "big%20corp%2F%C3%A4"),
        ("50%25 ?#", "50%2525%20%3F%23"),
        ("a+b", "a+b"),
        ("postgres://***@db/app", "postgres:%2F%2F***@db%2Fapp"),
    ] {
        let name = names.iter().find(|name| name.ends_with(key)).unwrap_or_else(|| panic!("{key}: {names:?}"));
        // The name of the field, if it is part of the check's.
        let prefix = name.strip_suffix(key).unwrap();
        let response = server.get(&format!("/health/service/{prefix}{path}")).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        assert_eq!(response.json()["checks"], serde_json::json!({"service": {name: "UP"}}), "{path}");
    }
    assert_eq!(server.get("/health/service/big%20corp/%C3%A4").await.status, 404);
    assert!(!logs::text().contains("hunter2"), "{}", logs::text());
}
