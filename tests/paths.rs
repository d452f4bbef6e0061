//! Which paths are the scope's and which are the application's, which checks a scope has, and reports in code.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpResponse, web};
use health::{Check, Deny, HealthCheck, Observation, Probe, ProbeError, Role, Status};

use crate::common::{counted::Counted, http, logs, test_server::TestServer};

const DENIED: &str = "127.0.0.2";

fn check(group: &str, name: &str) -> Check {
    Check::new(group, name, || async { Ok::<_, String>(()) })
}

/// A scope with the check `database.db`, for 127.0.0.1 only.
fn scope() -> health::Scope {
    health::scope().check(check("database", "db")).allow(["127.0.0.1/32".parse().unwrap()])
}

fn own(text: &'static str) -> actix_web::Route {
    web::get().to(move || async move { text })
}

#[actix_web::test]
async fn a_path_that_names_no_check_belongs_to_the_application_in_any_order_of_registration() {
    for is_scope_first in [true, false] {
        let server = TestServer::start(1, move |app| {
            if is_scope_first {
                app.service(scope());
            }
            app.route("/health/version", own("1.4.2"))
                .route("/health/database/size", own("12 GB"))
                .route("/health/a/b/c", own("deep"))
                .default_service(own("default"));
            if !is_scope_first {
                app.service(scope());
            }
        });
        for (path, body) in [
            ("/health/version", "1.4.2"),
            ("/health/database/size", "12 GB"),
            ("/health/a/b/c", "deep"),
            ("/health/nothing", "default"),
            ("/health/database/nothing", "default"),
            ("/health/database/db", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
            ("/health/database/", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
        ] {
            let response = server.get(path).await;
            assert_eq!((response.status, &*response.body), (200, body), "{path}, scope first: {is_scope_first}");
        }
    }
}

#[actix_web::test]
async fn a_scope_at_the_root_leaves_the_rest_to_the_application() {
    let server = TestServer::start(1, |app| {
        app.service(scope().path("/")).route("/orders", own("orders")).route("/orders/7", own("order 7"));
    });
    for (path, body) in [
        ("/", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
        ("/ready", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
        ("/database", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
        ("/orders", "orders"),
        ("/orders/7", "order 7"),
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (200, body), "{path}");
    }
    assert_eq!(server.get("/customers").await.status, 404);
    // A denied client uses the application as if there were no scope.
    let from: IpAddr = DENIED.parse().unwrap();
    let orders = http::request_from(from, server.address, "GET", "/orders").await;
    assert_eq!((orders.status, &*orders.body), (200, "orders"));
    assert!(!logs::text().contains("denied"), "{}", logs::text());
}

#[actix_web::test]
async fn one_scope_can_be_below_another() {
    let server = TestServer::start(1, |app| {
        app.service(scope()).service(scope().path("/health/detailed").check(check("queue", "orders")));
    });
    for (path, body) in [
        ("/health", r#"{"status":"UP","checks":{"database":{"db":"UP"}}}"#),
        ("/health/detailed", r#"{"status":"UP","checks":{"database":{"db":"UP"},"queue":{"orders":"UP"}}}"#),
        ("/health/detailed/ready", r#"{"status":"UP","checks":{"database":{"db":"UP"},"queue":{"orders":"UP"}}}"#),
        ("/health/detailed/queue/orders", r#"{"status":"UP","checks":{"queue":{"orders":"UP"}}}"#),
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (200, body), "{path}");
    }
    assert_eq!(server.get("/health/queue").await.status, 404);
}

#[actix_web::test]
async fn a_denied_client_cannot_distinguish_a_group_from_a_path_that_does_not_exist() {
    for deny in [Deny::Forbidden, Deny::NotFound, Deny::StatusOnly] {
        let server = TestServer::start(1, move |app| {
            app.service(scope().deny(deny));
        });
        assert_eq!(server.get("/health/database").await.status, 200);
        let from: IpAddr = DENIED.parse().unwrap();
        for method in ["GET", "HEAD", "POST"] {
            let responses = ["/health/database", "/health/missing", "/health/database/db", "/health/database/missing"];
            let mut responses =
                responses.map(|path| http::request_from(from, server.address, method, path)).into_iter();
            let without_date = |response: http::Response| {
                let head: Vec<_> =
                    response.head.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
                (head.join("\n"), response.body)
            };
            let first = without_date(responses.next().unwrap().await);
            assert!(first.0.starts_with("HTTP/1.1 404"), "{deny:?} {method}: {first:?}");
            for response in responses {
                assert_eq!(without_date(response.await), first, "{deny:?} {method}");
            }
        }
    }
}

#[actix_web::test]
async fn the_paths_of_kubernetes_are_served_on_request() {
    let without = TestServer::start(1, |app| {
        app.service(scope());
    });
    let with = TestServer::start(1, |app| {
        app.service(scope().kubernetes_paths());
    });
    for (path, own_path) in [("/healthz", "/health"), ("/readyz", "/health/ready"), ("/livez/", "/health/live")] {
        assert_eq!(without.get(path).await.status, 404, "{path}");
        let (response, expected) = (with.get(path).await, with.get(own_path).await);
        assert_eq!((response.status, &response.body), (200, &expected.body), "{path}");
        let denied = http::request_from(DENIED.parse().unwrap(), with.address, "GET", path).await;
        assert_eq!((denied.status, &*denied.body), (403, ""), "{path}");
    }
}

#[actix_web::test]
async fn a_scope_serves_only_included_checks_and_runs_no_others() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let expensive = Check::new("queue", "orders", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err("down") }
    });
    let server = TestServer::start(1, move |app| {
        let base =
            || health::scope().check(expensive.clone()).check(check("database", "db")).check(check("cache", "a"));
        app.service(base().path("/included").include(["database", "cache.a"]))
            .service(base().path("/excluded").exclude(["queue.orders", "cach"]))
            .service(base().path("/none").exclude(["queue", "database", "cache"]));
    });
    let rest = r#"{"status":"UP","checks":{"database":{"db":"UP"},"cache":{"a":"UP"}}}"#;
    for (path, status, body) in [
        ("/included", 200, rest),
        ("/included/startup", 200, rest),
        ("/included/queue", 404, ""),
        ("/excluded", 200, rest),
        ("/excluded/queue/orders", 404, ""),
        ("/none", 200, r#"{"status":"UP","checks":{}}"#),
        ("/none/ready", 200, r#"{"status":"UP","checks":{}}"#),
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, &*response.body), (status, body), "{path}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let line = |text: &str| logs::lines().iter().any(|line| line.contains("WARN") && line.contains(text));
    assert!(line(".exclude names cach, which matches no check; the checks are: queue.orders, database.db, cache.a"));
    assert!(line("all checks are excluded, so it is UP"));
}

#[actix_web::test]
async fn a_request_can_exclude_checks_except_from_startup() {
    let down = Check::new("queue", "orders", || async { Err::<(), _>("down") });
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(down.clone()).max_age(Duration::from_hours(1)));
    });
    let all = server.get("/health").await;
    assert_eq!(all.status, 503);
    for query in ["exclude=queue", "exclude=queue.orders", "exclude=nothing&exclude=queue%2Eorders"] {
        let response = server.get(&format!("/health?{query}")).await;
        let body = r#"{"status":"UP","checks":{"database":{"db":"UP"}},"excluded":["queue.orders"]}"#;
        assert_eq!((response.status, &*response.body), (200, body), "{query}");
    }
    assert_eq!(server.get("/health/startup?exclude=queue").await.status, 503);
    assert_eq!(server.get("/health/ready?exclude=queue").await.status, 503, "not started");
    // It is not cached.
    assert_eq!(server.get("/health").await.body, all.body);
}

#[actix_web::test]
async fn values_that_a_run_observes_are_in_the_details() {
    let check = Check::new("queue", "orders", || async {
        health::observe("depth", 1204);
        health::observe("oldest_s", 1.5);
        health::observe("leader", "amqp://bob:hunter2@queue-1");
        Err("too deep")
    });
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(check.clone()));
    });
    let details = server.get("/health?details").await;
    let orders = &details.json()["details"]["queue"]["orders"];
    // In the body, because a parsed object is sorted or not by a feature of serde_json.
    let data = r#""data":{"depth":1204,"oldest_s":1.5,"leader":"amqp://***@queue-1"}"#;
    assert!(details.body.contains(data), "{}", details.body);
    assert_eq!(orders["last_error"]["message"], "the check failed");
    assert_eq!(orders["last_error"]["time"], orders["since"]);
    assert_eq!(orders["last_success"], serde_json::Value::Null);
    assert!(!details.body.contains("hunter2"));
}

#[actix_web::test]
async fn a_handler_of_the_application_can_return_a_report() {
    let check = check("database", "db");
    let own = check.clone();
    let server = TestServer::start(1, move |app| {
        let own = own.clone();
        let status = move || {
            let report = health::scope().check(own.clone()).snapshot();
            async { HttpResponse::Ok().json(report) }
        };
        app.service(health::scope().check(check.clone())).route("/status", web::get().to(status));
    });
    let before =
        r#"{"status":"DOWN","errors":{"database":{"db":"no result yet"}},"checks":{"database":{"db":"DOWN"}}}"#;
    assert_eq!(server.get("/status").await.body, before);
    let after = server.health().await;
    assert_eq!(server.get("/status").await.body, after.body);
}

#[derive(Clone)]
struct Mailer;

impl Probe for Mailer {
    const GROUP: &'static str = "mail";

    async fn probe(&self) -> Result<(), ProbeError> {
        health::observe("queued", 3);
        Ok(())
    }
}

#[derive(HealthCheck)]
struct State {
    #[health(optional, rise = 2)]
    mailer: Mailer,
}

#[actix_web::test]
async fn the_report_of_a_state_has_the_details_and_the_history_of_its_checks() {
    let data = web::Data::new(State { mailer: Mailer });
    let served = data.clone();
    let server = TestServer::start(1, move |app| {
        app.app_data(served.clone()).service(health::scope());
    });
    assert_eq!(health::snapshot(&data).checks()[0].error(), Some("no result yet"));
    assert_eq!(server.health().await.status, 200);
    let (report, snapshot) = (health::report(&data).await, health::snapshot(&data));
    for report in [report, snapshot] {
        let [check] = report.checks() else { panic!("{report}") };
        assert_eq!(
            (check.group(), check.name(), check.status(), check.role()),
            ("mail", "mailer", Status::Up, Role::Optional)
        );
        assert_eq!(check.options().map(|options| options.rise), Some(2));
        // The run of the server, whose results all reports share.
        let details = check.details().unwrap();
        assert_eq!((details.runs, details.history.len()), (1, 1));
        assert_eq!(details.data().collect::<Vec<_>>(), [("queued", &Observation::Integer(3))]);
        assert_eq!(details.last_success, Some(details.since));
        assert_eq!(details.last_error, None);
    }
}

#[actix_web::test]
async fn a_scope_keeps_the_results_of_its_reports() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("queue", "orders", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    let scope = health::scope().check(check).max_age(Duration::from_hours(1));
    for _ in 0..3 {
        assert_eq!(scope.report().await.status(), Status::Up);
        assert_eq!(scope.snapshot().status(), Status::Up);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let invalid = scope.deadline(Duration::ZERO);
    let message = "invalid configuration: deadline must be greater than zero";
    assert_eq!(invalid.validate().unwrap_err().to_string(), message);
    assert_eq!(invalid.report().await.checks()[0].error(), Some(message));
}

#[test]
fn a_path_that_no_request_can_have_is_an_error() {
    for path in ["/status?full", "health#all"] {
        let error = health::scope().path(path).validate().unwrap_err();
        assert_eq!(error.kind(), health::ConfigErrorKind::Path);
        assert!(error.to_string().contains(path), "{error}");
    }
    health::scope().path("/{tenant}/health").validate().unwrap();
}

#[derive(HealthCheck)]
struct CountedState {
    resource: Counted,
}

#[actix_web::test]
async fn the_results_of_a_report_are_kept_as_long_as_the_state() {
    logs::keep();
    let resource = Counted::default();
    let data = web::Data::new(CountedState { resource: resource.clone() });
    for _ in 0..3 {
        assert_eq!(health::report(&data).await.status(), Status::Up);
        assert_eq!(health::snapshot(&data).status(), Status::Up);
        let sample = r#"health_check_up{group="service",name="resource",role="critical"} 1"#;
        assert!(health::metrics_text(&data).contains(sample));
    }
    assert_eq!(resource.runs(), 1);
    assert_eq!(logs::lines().iter().filter(|line| line.contains("health scope at /health probes")).count(), 1);
    drop(data);
    // The next call of this thread drops the checks of states that have ended.
    let other = web::Data::new(CountedState { resource: Counted::default() });
    assert_eq!(health::snapshot(&other).status(), Status::Down);
    assert_eq!(Arc::strong_count(&resource.runs), 1);
}

#[test]
fn the_futures_of_reports_can_be_spawned() {
    fn assert_send<F: Future + Send>(_: &F) {}

    let data = web::Data::new(CountedState { resource: Counted::default() });
    let scope = health::scope().state(&data);
    assert_send(&scope.report());
    assert_send(&health::report(&data));
}
