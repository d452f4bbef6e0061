//! The responses to denied clients, the predicate of the application, and lists that change while the server runs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, guard::GuardContext, http::header::AUTHORIZATION, test, web};
use health::{AllowList, Check, Deny, HealthCheck, Scope};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use crate::common::{eventually, logs, test_server::TestServer};

/// The address that these scopes allow, and one that they deny.
const ALLOWED: &str = "127.0.0.1";
const DENIED: &str = "127.0.0.2";

fn restricted(scope: Scope) -> Scope {
    scope.allow([format!("{ALLOWED}/32").parse().unwrap()])
}

/// A check that counts its runs, and fails when `fails` is set.
#[derive(Clone, Default)]
struct Counted {
    runs: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Counted {
    fn check(&self) -> Check {
        let Self { runs, fails } = self.clone();
        Check::new("service", "counted", move || {
            runs.fetch_add(1, Ordering::SeqCst);
            let fails = fails.load(Ordering::SeqCst);
            async move { if fails { Err("broken") } else { Ok(()) } }
        })
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// The whole response except for the date.
async fn exchange(address: SocketAddr, from: &str, request: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response.split("\r\n").filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

async fn status(address: SocketAddr, from: &str, request: &str) -> u16 {
    exchange(address, from, request).await.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Responses to a denied client at each path of a scope are equal, byte for byte, to those at an unknown path.
async fn assert_hidden(address: SocketAddr, prefix: &str) {
    for path in
        ["", "/", "/ready", "/live", "/startup", "/service", "/service/counted", "/service/nothing/", "?details"]
    {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let denied = exchange(address, DENIED, &format!("{method} {prefix}/health{path}")).await;
            let unknown = exchange(address, DENIED, &format!("{method} {prefix}/nothing{path}")).await;
            assert_eq!(denied, unknown, "{method} {path}");
        }
    }
    assert_eq!(status(address, ALLOWED, &format!("GET {prefix}/health")).await, 200);
}

/// In applications with different default services and routes.
async fn assert_not_found_hides(restrict: fn(Scope) -> Scope) {
    let counted = Counted::default();
    let check = counted.check();
    let max_age = Duration::from_hours(1);
    let hidden = move || restrict(health::scope().check(check.clone()).max_age(max_age)).deny(Deny::NotFound);
    let (plain, custom, later, nested) = (hidden.clone(), hidden.clone(), hidden.clone(), hidden);
    let teapot = || async { HttpResponse::ImATeapot().insert_header(("X-Shop", "open")).body("short and stout") };
    // Depends on the unprocessed part of the path, as a file server does.
    let unprocessed = |request: HttpRequest| async move { request.match_info().unprocessed().len().to_string() };

    let server = TestServer::start(1, move |app| {
        app.service(plain());
    });
    assert_hidden(server.address, "").await;
    let server = TestServer::start(1, move |app| {
        app.service(custom().path("/nothing2")).default_service(web::to(unprocessed));
    });
    assert_eq!(
        exchange(server.address, DENIED, "GET /nothing2/service").await,
        exchange(server.address, DENIED, "GET /nothing1/service").await
    );
    let server = TestServer::start(1, move |app| {
        app.service(later()).route("/{any:.*}", web::to(teapot));
    });
    assert_hidden(server.address, "").await;
    let server = TestServer::start(1, move |app| {
        app.service(web::scope("/inner").service(nested()).default_service(web::to(teapot)));
    });
    assert_hidden(server.address, "/inner").await;
    assert_eq!(counted.runs(), 1, "one run, caused by an allowed client");
}

#[actix_web::test]
async fn not_found_is_byte_for_byte_the_response_to_an_unknown_path() {
    assert_not_found_hides(restricted).await;
}

#[actix_web::test]
async fn not_found_hides_the_route_from_clients_that_the_predicate_denies() {
    assert_not_found_hides(|scope| {
        scope.allow_any().authorize(|request| request.head().peer_addr.unwrap().ip().to_string() == ALLOWED)
    })
    .await;
}

#[actix_web::test]
async fn a_denied_request_causes_no_lookup_and_no_run() {
    struct State(Arc<AtomicUsize>, Counted);

    impl HealthCheck for State {
        fn health_checks(&self, checks: &mut health::Checks) {
            self.0.fetch_add(1, Ordering::SeqCst);
            checks.add(self.1.check());
        }
    }

    for deny in [Deny::Forbidden, Deny::NotFound] {
        let (lookups, counted) = (Arc::<AtomicUsize>::default(), Counted::default());
        let state = web::Data::new(State(Arc::clone(&lookups), counted.clone()));
        let server = TestServer::start(1, move |app| {
            app.service(restricted(health::scope().state(&state)).deny(deny));
        });
        for path in ["/health", "/health/ready?details", "/health/live", "/health/service/counted", "/health/x"] {
            assert!(
                exchange(server.address, DENIED, &format!("GET {path}")).await.ends_with("\n\n"),
                "the body is empty"
            );
        }
        assert_eq!((lookups.load(Ordering::SeqCst), counted.runs()), (0, 0), "{deny:?}");
        assert_eq!(status(server.address, ALLOWED, "GET /health").await, 200);
        assert_eq!((lookups.load(Ordering::SeqCst), counted.runs()), (1, 1), "{deny:?}");
    }
}

#[actix_web::test]
async fn status_only_responds_with_the_status_and_never_runs_a_check() {
    let counted = Counted::default();
    let check = counted.check();
    let server = TestServer::start(2, move |app| {
        app.service(restricted(health::scope().check(check.clone()).max_age(Duration::ZERO)).deny(Deny::StatusOnly));
    });
    let denied = async |request: &str| {
        let response = exchange(server.address, DENIED, request).await;
        let (head, body) = response.split_once("\n\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body.to_owned())
    };
    let (up, down) = ((200, r#"{"status":"UP"}"#.to_owned()), (503, r#"{"status":"DOWN"}"#.to_owned()));
    assert_eq!(denied("GET /health").await, down, "there is no result yet");
    assert_eq!(counted.runs(), 0);
    assert_eq!(status(server.address, ALLOWED, "GET /health").await, 200);
    for path in ["/health", "/health/", "/health/ready", "/health/live", "/health/startup", "/health?details"] {
        assert_eq!(denied(&format!("GET {path}")).await, up, "{path}");
        assert_eq!(denied(&format!("HEAD {path}")).await, (200, String::new()), "{path}");
    }
    assert_eq!(denied("POST /health").await, (405, String::new()));
    for path in ["/health/service", "/health/service/counted", "/health/nothing", "/health/service/nothing"] {
        assert_eq!(denied(&format!("GET {path}")).await, (404, String::new()), "{path}");
    }
    assert_eq!(counted.runs(), 1);
    counted.fails.store(true, Ordering::SeqCst);
    assert_eq!(denied("GET /health").await, up, "the latest result is still up");
    assert_eq!(status(server.address, ALLOWED, "GET /health").await, 503);
    assert_eq!(denied("GET /health").await, down);
    assert_eq!(denied("GET /health/live").await, up);
    assert_eq!(counted.runs(), 2);
}

#[actix_web::test]
async fn status_only_of_a_degraded_service_is_200() {
    let check = Check::new("service", "slow", || async { Err::<(), _>("broken") }).optional();
    let server = TestServer::start(1, move |app| {
        app.service(restricted(health::scope().check(check.clone())).deny(Deny::StatusOnly));
    });
    assert_eq!(status(server.address, ALLOWED, "GET /health").await, 200);
    let response = exchange(server.address, DENIED, "GET /health").await;
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with(r#"{"status":"DEGRADED"}"#), "{response}");
}

#[actix_web::test]
async fn status_only_with_refresh_has_results_without_a_request_of_an_allowed_client() {
    let counted = Counted::default();
    let check = counted.check();
    let server = TestServer::start(1, move |app| {
        let scope = health::scope().check(check.clone()).refresh(Duration::from_millis(50));
        app.service(restricted(scope).deny(Deny::StatusOnly));
    });
    eventually("the status is that of a background run", || async {
        status(server.address, DENIED, "GET /health").await == 200
    })
    .await;
    counted.fails.store(true, Ordering::SeqCst);
    eventually("the status is that of the next background run", || async {
        status(server.address, DENIED, "GET /health").await == 503
    })
    .await;
}

#[actix_web::test]
async fn a_predicate_restricts_the_list_or_decides_on_its_own() {
    fn token(request: &GuardContext<'_>) -> bool {
        request.head().headers().get(AUTHORIZATION).is_some_and(|value| value == "Bearer opensesame")
    }

    let check = Counted::default().check();
    let both = check.clone();
    let both = TestServer::start(1, move |app| {
        app.service(restricted(health::scope().check(both.clone())).authorize(token));
    });
    let alone = TestServer::start(1, move |app| {
        app.service(health::scope().check(check.clone()).allow_any().authorize(token));
    });
    let (with, without) = ("GET /health\nAuthorization: Bearer opensesame\r\n", "GET /health");
    assert_eq!(status(both.address, ALLOWED, with).await, 200);
    assert_eq!(status(both.address, ALLOWED, without).await, 403);
    assert!(
        logs::lines().pop().unwrap().contains("denied 127.0.0.1: the predicate of Scope::authorize returned false")
    );
    assert_eq!(status(both.address, DENIED, with).await, 403);
    assert_eq!(status(alone.address, DENIED, with).await, 200);
    assert_eq!(status(alone.address, DENIED, without).await, 403);
}

#[actix_web::test]
async fn a_predicate_sees_only_clients_on_the_list_and_its_panic_denies() {
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    let check = Counted::default().check();
    let server = TestServer::start(1, move |app| {
        let seen = Arc::clone(&counted);
        app.service(restricted(health::scope().check(check.clone())).authorize(move |request| {
            seen.fetch_add(1, Ordering::SeqCst);
            assert!(request.head().uri.query() != Some("panic"), "on purpose");
            true
        }));
    });
    assert_eq!(status(server.address, DENIED, "GET /health").await, 403);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    assert_eq!(status(server.address, ALLOWED, "GET /health?panic").await, 403);
    assert!(logs::lines().pop().unwrap().contains("the predicate of Scope::authorize panicked"));
    assert_eq!(status(server.address, ALLOWED, "GET /health").await, 200);
}

#[actix_web::test]
async fn a_changed_list_applies_to_the_next_request_on_every_worker() {
    let list = AllowList::new([]).unwrap();
    let (served, check) = (list.clone(), Counted::default().check());
    let server = TestServer::start(3, move |app| {
        app.service(health::scope().check(check.clone()).allow_list(&served));
    });
    let all = async |expected: u16| {
        for _ in 0..9 {
            assert_eq!(status(server.address, DENIED, "GET /health").await, expected);
        }
    };
    all(403).await;
    list.insert("127.0.0.0/30".parse().unwrap()).unwrap();
    all(200).await;
    list.set(["127.0.0.3/32".parse().unwrap()]).unwrap();
    all(403).await;
}

#[actix_web::test]
async fn status_only_costs_about_the_same_at_each_path() {
    let registry = health::Registry::new();
    for number in 0..10_000 {
        registry.register(Check::new("service", number.to_string(), || async { Ok::<_, String>(()) })).unwrap();
    }
    let scope = restricted(health::scope().registry(&registry)).deny(Deny::StatusOnly);
    let app = test::init_service(App::new().service(scope)).await;
    let median = async |path: &str| {
        let mut times = Vec::new();
        for _ in 0..101 {
            let request = test::TestRequest::get().uri(path).peer_addr(format!("{DENIED}:1").parse().unwrap());
            let began = Instant::now();
            test::call_service(&app, request.to_request()).await;
            times.push(began.elapsed());
        }
        times.sort();
        times[50]
    };
    let baseline = median("/health").await;
    for path in ["/health/ready", "/health/live", "/health/startup"] {
        let time = median(path).await;
        assert!(time < baseline * 20, "{path}: {time:?}, and /health {baseline:?}");
    }
}
