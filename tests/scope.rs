//! The scope over real HTTP: paths, methods, headers, states, registries, and what workers share.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{App, http::StatusCode, test, web};
use health::{Check, HealthCheck, RegisterErrorKind, Registry};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::common::{counted::Counted, eventually, http, logs, test_server::TestServer};

#[derive(HealthCheck)]
struct State {
    mail: Counted,
    #[health(optional)]
    search: Counted,
}

#[derive(HealthCheck)]
struct OtherState {
    other: Counted,
}

fn ok(group: &str, name: &str) -> Check {
    Check::new(group, name, || async { Ok::<_, String>(()) })
}

/// A `max_age` of an hour, so that each check runs once.
fn scope() -> health::Scope {
    health::scope().max_age(Duration::from_hours(1))
}

#[actix_web::test]
async fn groups_and_checks_have_their_own_paths() {
    let state = web::Data::new(State { mail: Counted::default(), search: Counted::broken() });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(scope().check(ok("queue", "a b ü")));
    });
    let all = r#"{"status":"DEGRADED","errors":{"service":{"search":"it is broken"}},"checks":{"service":{"mail":"UP","search":"DOWN"},"queue":{"a b ü":"UP"}}}"#;
    for (path, status, body) in [
        ("/health", 200, all),
        ("/health/", 200, all),
        ("/health?any=query", 200, all),
        ("/health/service/mail", 200, r#"{"status":"UP","checks":{"service":{"mail":"UP"}}}"#),
        ("/health/service/mail/", 200, r#"{"status":"UP","checks":{"service":{"mail":"UP"}}}"#),
        ("/health/queue", 200, r#"{"status":"UP","checks":{"queue":{"a b ü":"UP"}}}"#),
        ("/health/queue/a%20b%20%C3%BC", 200, r#"{"status":"UP","checks":{"queue":{"a b ü":"UP"}}}"#),
        ("/health/nothing", 404, ""),
        ("/health/service/nothing", 404, ""),
        ("/health/mail", 404, ""),
        ("/health/service/mail/more", 404, ""),
        ("/healthy", 404, ""),
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (status, body), "{path}");
    }
}

#[actix_web::test]
async fn head_responds_as_get_without_the_body_and_other_methods_are_not_allowed() {
    for broken in [false, true] {
        let state = web::Data::new(OtherState { other: Counted { broken, ..Counted::default() } });
        let server = TestServer::start(1, move |app| {
            app.app_data(state.clone()).service(scope());
        });
        for path in ["/health", "/health/service/other/", "/health/startup"] {
            let get = http::request(server.address, "GET", path).await;
            let head = http::request(server.address, "HEAD", path).await;
            let without_date =
                |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
            assert_eq!(without_date(&get.head), without_date(&head.head), "{path}");
            assert_eq!(head.body, "");
            assert_eq!(get.header("cache-control"), Some("no-store"));
        }
        assert_eq!(server.health().await.header("content-type"), Some("application/json"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let response = http::request(server.address, method, "/health").await;
            assert_eq!(
                (response.status, response.header("allow"), &*response.body),
                (405, Some("GET, HEAD"), ""),
                "{method}"
            );
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
}

#[actix_web::test]
async fn clients_of_three_workers_share_one_run() {
    let state = web::Data::new(State { mail: Counted::default(), search: Counted::default() });
    let own = Counted::default();
    let check = Check::probe("own", own.clone());
    let shared = state.clone();
    let server = TestServer::start(3, move |app| {
        app.app_data(shared.clone()).service(scope().check(check.clone()));
    });
    // The server distributes connections to its workers in turn.
    for _ in 0..12 {
        assert_eq!(server.health().await.status, 200);
    }
    assert_eq!((state.mail.runs(), state.search.runs(), own.runs()), (1, 1, 1));
    let found = logs::lines().iter().filter(|line| line.contains("health scope at /health probes:")).count();
    assert_eq!(found, 1, "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_check_that_is_created_in_each_worker_is_warned_of() {
    let server = TestServer::start(2, |app| {
        app.service(scope().check(ok("queue", "made inside")));
    });
    for _ in 0..4 {
        assert_eq!(server.health().await.status, 200);
    }
    assert_eq!(logs::warnings("queue.made inside").len(), 1, "{:#?}", logs::lines());
}

#[actix_web::test]
async fn two_applications_with_different_states_report_on_their_own() {
    let [up, down] = [Counted::default(), Counted::broken()].map(|other| {
        let state = web::Data::new(OtherState { other });
        TestServer::start(2, move |app| {
            app.app_data(state.clone()).service(scope());
        })
    });
    for _ in 0..4 {
        assert_eq!(up.health().await.status, 200);
        assert_eq!(down.health().await.status, 503);
    }
}

#[actix_web::test]
async fn the_results_of_a_stopped_application_are_not_served_by_a_new_one() {
    for broken in [false, true, false, true] {
        let state = web::Data::new(OtherState { other: Counted { broken, ..Counted::default() } });
        let app = test::init_service(App::new().app_data(state).service(scope())).await;
        let request = test::TestRequest::get().uri("/health").peer_addr("127.0.0.1:1".parse().unwrap()).to_request();
        let expected = if broken { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        assert_eq!(test::call_service(&app, request).await.status(), expected);
    }
}

#[actix_web::test]
async fn two_states_of_one_application_are_both_checked() {
    let first = web::Data::new(State { mail: Counted::default(), search: Counted::default() });
    let second = web::Data::new(OtherState { other: Counted::broken() });
    let server = TestServer::start(1, move |app| {
        // The second state is both configured and found, and is one state.
        app.app_data(first.clone()).app_data(second.clone()).service(scope().state(&second));
    });
    let response = server.health().await;
    let checks = serde_json::json!({"service": {"mail": "UP", "search": "UP", "other": "DOWN"}});
    assert_eq!((response.status, &response.json()["checks"]), (503, &checks));
}

#[actix_web::test]
async fn a_missing_state_is_down_and_the_message_names_the_missing_step() {
    let server = TestServer::start(1, |app| {
        app.service(scope());
    });
    let response = server.health().await;
    assert_eq!(response.status, 503);
    let message = response.json()["errors"]["health"]["state"].as_str().unwrap().to_owned();
    assert!(message.contains(".app_data(web::Data::new(state))") && message.contains(".state(&data)"), "{message}");
    let lines_with = |parts: [&str; 2]| {
        let lines = logs::lines();
        lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };
    eventually("the step is logged", || async { lines_with(["ERROR", "no state was found"]) == 1 }).await;
    assert_eq!(lines_with(["are not in this application", "scope::OtherState"]), 1, "{:#?}", logs::lines());
}

#[actix_web::test]
async fn checks_can_be_registered_and_unregistered_while_the_server_runs() {
    let plugins = Registry::new();
    let registry = plugins.clone();
    let server = TestServer::start(2, move |app| {
        app.service(scope().check(ok("a", "own")).registry(&registry));
    });
    let checks = async || server.health().await.json()["checks"].clone();
    assert_eq!(checks().await, serde_json::json!({"a": {"own": "UP"}}));

    plugins.register(ok("plugin", "search")).unwrap();
    std::thread::spawn(|| health::register(ok("process", "wide"))).join().unwrap().unwrap();
    let all = serde_json::json!({"a": {"own": "UP"}, "plugin": {"search": "UP"}, "process": {"wide": "UP"}});
    assert_eq!(checks().await, all);
    let other = TestServer::start(1, |app| {
        app.service(scope().path("other").check(ok("b", "own")));
    });
    let others = other.get("/other").await.json()["checks"].clone();
    assert_eq!(others, serde_json::json!({"b": {"own": "UP"}, "process": {"wide": "UP"}}));

    assert!(plugins.unregister("plugin", "search") && health::unregister("process", "wide"));
    assert_eq!(checks().await, serde_json::json!({"a": {"own": "UP"}}));
    assert_eq!(server.get("/health/plugin").await.status, 404);
}

#[derive(HealthCheck)]
struct Clashing {
    #[health(flatten)]
    primary: BTreeMap<String, Counted>,
    #[health(flatten)]
    replica: BTreeMap<&'static str, Counted>,
}

#[actix_web::test]
async fn a_duplicate_name_found_at_run_time_is_down_and_the_message_names_it() {
    let state = web::Data::new(Clashing {
        primary: BTreeMap::from([("eu".to_owned(), Counted::default()), ("us/1".to_owned(), Counted::default())]),
        replica: BTreeMap::from([("eu", Counted::default()), ("asia", Counted::default())]),
    });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(scope());
    });
    let response = server.health().await;
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["checks"]["service"], serde_json::json!({"eu": "DOWN", "us/1": "UP", "asia": "UP"}));
    let errors = &response.json()["errors"]["service"];
    assert!(errors["eu"].as_str().unwrap().starts_with("two checks are named service.eu"), "{errors}");
}

#[actix_web::test]
async fn a_scope_works_inside_another_scope_and_at_any_path() {
    let state = web::Data::new(OtherState { other: Counted::default() });
    let server = TestServer::start(1, move |app| {
        app.service(web::scope("/api").app_data(state.clone()).service(scope()))
            .service(scope().path("/internal/status/").state(&state));
    });
    for path in ["/api/health", "/api/health/service/other", "/internal/status", "/internal/status/service/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/health").await.status, 404);
    for path in ["/api/health", "/internal/status"] {
        let document = server.get(&format!("{path}/openapi.json/")).await.json();
        assert_eq!(document, health::openapi(path));
    }
}

#[actix_web::test]
async fn four_hung_checks_run_concurrently() {
    let hung = ["a", "b", "c", "d"].map(|name| Check::new("service", name, std::future::pending::<Result<(), String>>));
    let server = TestServer::start(1, move |app| {
        app.service(hung.iter().cloned().fold(scope(), health::Scope::check));
    });
    let response = server.health().await;
    assert_eq!(response.status, 503);
    assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
}

#[actix_web::test]
async fn a_panic_is_down_and_its_message_is_only_in_the_log() {
    let panicking = Check::new("service", "a", || async {
        if true { panic!("canary-5ecret payload") } else { Ok::<_, String>(()) }
    });
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(panicking.clone()).check(ok("service", "b")));
    });
    let response = server.health().await;
    let body = r#"{"status":"DOWN","errors":{"service":{"a":"the check panicked"}},"checks":{"service":{"a":"DOWN","b":"UP"}}}"#;
    assert_eq!((response.status, &*response.body), (503, body));
    eventually("the payload is in the log", || async {
        logs::lines().iter().any(|line| line.contains("canary-5ecret payload"))
    })
    .await;
}

#[actix_web::test]
async fn a_state_that_is_not_send_is_probed() {
    #[derive(HealthCheck)]
    struct PerWorker {
        mail: Counted,
        requests: std::cell::Cell<u32>,
    }
    let mail = Counted::default();
    let server = TestServer::start(2, move |app| {
        app.app_data(web::Data::new(PerWorker { mail: mail.clone(), requests: std::cell::Cell::new(0) }))
            .service(scope());
    });
    let response = server.health().await;
    assert_eq!((response.status, &*response.body), (200, r#"{"status":"UP","checks":{"service":{"mail":"UP"}}}"#));
}

#[actix_web::test]
async fn only_the_check_that_blocks_its_thread_is_down() {
    let blocking = Check::new("service", "blocking", || async {
        std::thread::sleep(Duration::from_secs(3));
        Ok::<_, String>(())
    });
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(blocking.clone().optional()).check(ok("service", "fine")));
    });
    for _ in 0..3 {
        let response = server.health().await;
        assert_eq!(response.json()["checks"]["service"], serde_json::json!({"blocking": "DOWN", "fine": "UP"}));
        assert_eq!(response.status, 200);
    }
    eventually("the timeout is in the log", || async {
        logs::lines().iter().any(|line| line.contains("service.blocking") && line.contains("timed out after 800 ms"))
    })
    .await;
}

#[actix_web::test]
async fn path_segments_of_an_outer_scope_are_not_names_of_checks() {
    let state = web::Data::new(OtherState { other: Counted::default() });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(web::scope("/{group}/{name}").service(scope()));
    });
    for (path, status) in [
        ("/a/b/health", 200),
        ("/service/other/health/", 200),
        ("/a/b/health/service", 200),
        ("/a/b/health/service/other", 200),
        ("/a/b/health/nothing", 404),
    ] {
        assert_eq!(server.get(path).await.status, status, "{path}");
    }
}

#[actix_web::test]
async fn the_longest_durations_do_not_overflow() {
    let check = ok("service", "fine").timeout(Duration::MAX);
    let server = TestServer::start(1, move |app| {
        let scope = health::scope().deadline(Duration::MAX).max_age(Duration::MAX).stall(Duration::MAX);
        app.service(scope.check(check.clone()))
            .service(health::scope().path("/refreshed").refresh(Duration::MAX).check(check.clone()));
    });
    for path in ["/health", "/health", "/health/live", "/refreshed"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[actix_web::test]
async fn a_state_in_an_arc_is_found_and_types_without_a_state_are_logged() {
    let state = web::Data::new(Arc::new(OtherState { other: Counted::default() }));
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(scope());
    });
    assert_eq!(server.health().await.body, r#"{"status":"UP","checks":{"service":{"other":"UP"}}}"#);
    let lines = logs::lines();
    let line = lines.iter().find(|line| line.contains("health scope at /health probes: service.other")).unwrap();
    assert!(line.contains("scope::State") && !line.contains("scope::OtherState"), "{line}");
}

#[actix_web::test]
async fn a_scope_with_the_registry_of_the_process_needs_no_state() {
    health::register(ok("process", "wide")).unwrap();
    health::register(ok("queue", "slow")).unwrap();
    let server = TestServer::start(1, |app| {
        let registered = scope().path("/registered").registry(health::registry()).exclude(["queue"]);
        app.service(scope()).service(registered);
    });
    assert_eq!(server.health().await.status, 503);
    let response = server.get("/registered").await;
    assert_eq!((response.status, &*response.body), (200, r#"{"status":"UP","checks":{"process":{"wide":"UP"}}}"#));
    let line = "health scope at /registered probes: process.wide; excluded: queue.slow; ignored fields: none;";
    assert!(logs::lines().iter().any(|logged| logged.contains(line)), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_state_whose_health_checks_panic_is_down_with_a_message() {
    struct Panicking;

    impl HealthCheck for Panicking {
        fn health_checks(&self, _: &mut health::Checks) {
            panic!("canary-5ecret payload");
        }
    }

    let state = web::Data::new(Panicking);
    let server = TestServer::start(1, move |app| {
        app.service(scope().state(&state).check(ok("service", "fine")));
    });
    for _ in 0..2 {
        let response = server.health().await;
        assert_eq!(response.status, 503);
        assert_eq!(response.json()["errors"]["health"]["state"], "`health_checks` of a state panicked");
        assert_eq!(response.json()["checks"]["service"]["fine"], "UP");
    }
}

#[actix_web::test]
async fn a_check_that_blocks_after_a_wait_does_not_affect_others() {
    let blocking = Check::new("service", "blocking", || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::thread::sleep(Duration::from_secs(3));
        Ok::<_, String>(())
    });
    let waiting = |name: &str, ms| {
        Check::new("service", name, move || async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        })
    };
    let checks = [blocking, waiting("a", 100), waiting("b", 200)];
    let server = TestServer::start(1, move |app| {
        app.service(checks.iter().cloned().fold(health::scope(), health::Scope::check));
    });
    for _ in 0..4 {
        let response = server.health().await;
        let expected = serde_json::json!({"blocking": "DOWN", "a": "UP", "b": "UP"});
        assert_eq!(response.json()["checks"]["service"], expected);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[actix_web::test]
async fn scopes_with_different_settings_share_the_checks_of_a_state() {
    let state = web::Data::new(OtherState { other: Counted::default() });
    let shared = state.clone();
    let server = TestServer::start(2, move |app| {
        app.app_data(shared.clone()).service(scope()).service(scope().path("/admin").deadline(Duration::from_secs(5)));
    });
    for path in ["/health", "/admin", "/health", "/admin"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    assert_eq!(state.other.runs(), 1);
}

#[actix_web::test]
async fn details_are_present_if_the_last_value_of_the_parameter_is_empty_1_or_true() {
    let server = TestServer::start(1, |app| {
        app.service(scope().registry(&{
            let registry = Registry::new();
            registry.register(ok("service", "fine")).unwrap();
            registry
        }));
    });
    for query in [
        "details",
        "details=",
        "details=true",
        "details=True",
        "details=1",
        "a=b&details",
        "%64etails=tru%65",
        "details=0&details",
    ] {
        let detailed = server.get(&format!("/health?{query}")).await.json();
        assert!(detailed.get("details").is_some(), "{query}: {detailed}");
    }
    for query in [
        "",
        "details=false",
        "details=0",
        "details=no",
        "detailsx",
        "a=details",
        "details&details=false",
        "details=1&details=2",
    ] {
        let plain = server.get(&format!("/health?{query}")).await.json();
        assert!(plain.get("details").is_none(), "{query}: {plain}");
    }
}

#[actix_web::test]
async fn a_method_that_is_not_allowed_is_logged_once_with_the_method_to_use() {
    let check = ok("service", "fine");
    let server = TestServer::start(2, move |app| {
        app.service(scope().check(check.clone()));
    });
    for _ in 0..2 {
        // As HAProxy's `option httpchk` does.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"OPTIONS /health/ready HTTP/1.0\r\n\r\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.0 405"), "{response}");
        assert_eq!(http::request(server.address, "POST", "/health").await.status, 405);
    }
    let logged: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("405")).collect();
    assert!(
        matches!(&*logged, [line] if line.contains("OPTIONS") && line.contains("/health/ready") && line.contains("GET")),
        "{logged:#?}"
    );
}

/// How many sockets this process has open.
fn open_sockets() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[actix_web::test]
async fn descriptors_of_clients_that_left_are_closed_within_ten_seconds() {
    let hung = Check::new("service", "hung", std::future::pending::<Result<(), String>>);
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().deadline(Duration::MAX).check(hung.clone()));
    });
    let before = open_sockets();
    let clients = 200;
    for _ in 0..clients {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    }
    let left = Instant::now();
    eventually("the server has accepted them", || async { open_sockets() >= before + clients / 2 }).await;
    eventually("their descriptors are closed", || async { open_sockets() < before + 10 }).await;
    assert!(left.elapsed() < Duration::from_secs(14), "{:?}", left.elapsed());
    let warned: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("deadline")).collect();
    assert!(matches!(&*warned, [line, ..] if line.contains("WARN") && line.contains("10 s")), "{warned:#?}");
}

#[actix_web::test]
async fn the_path_of_a_check_whose_name_contains_credentials_is_redacted() {
    let check = ok("database", "bob:hunter2@db");
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(check.clone()));
    });
    let body = r#"{"status":"UP","checks":{"database":{"***@db":"UP"}}}"#;
    for path in ["/health", "/health/database/***@db", "/health/database/%2A%2A%2A@db"] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (200, body), "{path}");
    }
    assert_eq!(server.get("/health/database/bob:hunter2@db").await.status, 404);
    assert!(!logs::text().contains("hunter2"), "{}", logs::text());
}

#[actix_web::test]
async fn the_path_words_of_a_scope_are_reserved_as_group_names() {
    for word in [
        "health",
        "live",
        "ready",
        "startup",
        "metrics",
        "page",
        "schema",
        "history",
        "events",
        "status",
        "openapi.json",
    ] {
        let registry = Registry::new();
        let error = registry.register(ok(word, "a")).expect_err(word);
        assert_eq!(error.kind(), RegisterErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&format!("`{word}`")), "{error}");
        registry.register(ok("a", word)).unwrap();
    }
}
