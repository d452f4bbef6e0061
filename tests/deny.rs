//! What is answered to who is not let in, the second door, and the list that changes while the server runs.

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

use crate::common::{eventually, logs, rig::Rig};

/// Whom these scopes let in, and whom not.
const INSIDE: &str = "127.0.0.1";
const OUTSIDE: &str = "127.0.0.2";

fn inside(scope: Scope) -> Scope {
    scope.allow([format!("{INSIDE}/32").parse().unwrap()])
}

/// A check whose runs are counted, and that fails when told.
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

/// The whole answer but for the date.
async fn ask(address: SocketAddr, from: &str, request: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split("\r\n").filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

async fn status(address: SocketAddr, from: &str, request: &str) -> u16 {
    ask(address, from, request).await.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Asks from outside for all that a scope has, and for what no application has: the answers are the same to the byte.
async fn assert_like_no_route(address: SocketAddr, prefix: &str) {
    for path in
        ["", "/", "/ready", "/live", "/startup", "/service", "/service/counted", "/service/nothing/", "?details"]
    {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let refused = ask(address, OUTSIDE, &format!("{method} {prefix}/health{path}")).await;
            let unknown = ask(address, OUTSIDE, &format!("{method} {prefix}/nothing{path}")).await;
            assert_eq!(refused, unknown, "{method} {path}");
        }
    }
    assert_eq!(status(address, INSIDE, &format!("GET {prefix}/health")).await, 200);
}

/// In applications of several shapes, with a scope that lets in who is inside.
async fn assert_not_found_hides(door: fn(Scope) -> Scope) {
    let counted = Counted::default();
    let check = counted.check();
    let keeps = Duration::from_secs(3600);
    let hidden = move || door(health::scope().check(check.clone()).max_age(keeps)).deny(Deny::NotFound);
    let (plain, custom, later, nested) = (hidden.clone(), hidden.clone(), hidden.clone(), hidden);
    let teapot = || async { HttpResponse::ImATeapot().insert_header(("X-Shop", "open")).body("short and stout") };
    // As what serves files does, it tells what is left of the path.
    let told = |request: HttpRequest| async move { request.match_info().unprocessed().len().to_string() };

    let rig = Rig::start(1, move |app| {
        app.service(plain());
    });
    assert_like_no_route(rig.address, "").await;
    let rig = Rig::start(1, move |app| {
        app.service(custom().path("/nothing2")).default_service(web::to(told));
    });
    assert_eq!(
        ask(rig.address, OUTSIDE, "GET /nothing2/service").await,
        ask(rig.address, OUTSIDE, "GET /nothing1/service").await
    );
    let rig = Rig::start(1, move |app| {
        app.service(later()).route("/{any:.*}", web::to(teapot));
    });
    assert_like_no_route(rig.address, "").await;
    let rig = Rig::start(1, move |app| {
        app.service(web::scope("/inner").service(nested()).default_service(web::to(teapot)));
    });
    assert_like_no_route(rig.address, "/inner").await;
    assert_eq!(counted.runs(), 1, "only who is inside asked, and once for all");
}

#[actix_web::test]
async fn not_found_is_to_the_byte_what_the_application_answers_for_an_unknown_path() {
    assert_not_found_hides(inside).await;
}

#[actix_web::test]
async fn whom_the_second_door_turns_away_sees_no_route_either() {
    assert_not_found_hides(|scope| {
        scope.allow_any().authorize(|request| request.head().peer_addr.unwrap().ip().to_string() == INSIDE)
    })
    .await;
}

#[actix_web::test]
async fn who_is_refused_causes_no_lookup_no_probe_and_no_rendering() {
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
        let rig = Rig::start(1, move |app| {
            app.service(inside(health::scope().state(&state)).deny(deny));
        });
        for path in ["/health", "/health/ready?details", "/health/live", "/health/service/counted", "/health/x"] {
            assert!(ask(rig.address, OUTSIDE, &format!("GET {path}")).await.ends_with("\n\n"), "the body is empty");
        }
        assert_eq!((lookups.load(Ordering::SeqCst), counted.runs()), (0, 0), "{deny:?}");
        assert_eq!(status(rig.address, INSIDE, "GET /health").await, 200);
        assert_eq!((lookups.load(Ordering::SeqCst), counted.runs()), (1, 1), "{deny:?}");
    }
}

#[actix_web::test]
async fn status_only_tells_the_status_and_never_asks() {
    let counted = Counted::default();
    let check = counted.check();
    let rig = Rig::start(2, move |app| {
        app.service(inside(health::scope().check(check.clone()).max_age(Duration::ZERO)).deny(Deny::StatusOnly));
    });
    let outside = async |request: &str| {
        let answer = ask(rig.address, OUTSIDE, request).await;
        let (head, body) = answer.split_once("\n\n").unwrap();
        assert!(head.contains("cache-control: no-store"), "{head}");
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body.to_owned())
    };
    let (up, down) = ((200, r#"{"status":"UP"}"#.to_owned()), (503, r#"{"status":"DOWN"}"#.to_owned()));
    assert_eq!(outside("GET /health").await, down, "nobody knows yet");
    assert_eq!(counted.runs(), 0);
    assert_eq!(status(rig.address, INSIDE, "GET /health").await, 200);
    for path in ["/health", "/health/", "/health/ready", "/health/live", "/health/startup", "/health?details"] {
        assert_eq!(outside(&format!("GET {path}")).await, up, "{path}");
        assert_eq!(outside(&format!("HEAD {path}")).await, (200, String::new()), "{path}");
    }
    assert_eq!(outside("POST /health").await, (405, String::new()));
    for path in ["/health/service", "/health/service/counted", "/health/nothing", "/health/service/nothing"] {
        assert_eq!(outside(&format!("GET {path}")).await, (403, String::new()), "{path}");
    }
    assert_eq!(counted.runs(), 1);
    counted.fails.store(true, Ordering::SeqCst);
    assert_eq!(outside("GET /health").await, up, "it says what was found last");
    assert_eq!(status(rig.address, INSIDE, "GET /health").await, 503);
    assert_eq!(outside("GET /health").await, down);
    assert_eq!(outside("GET /health/live").await, up);
    assert_eq!(counted.runs(), 2);
}

#[actix_web::test]
async fn status_only_of_a_degraded_service_is_200() {
    let check = Check::new("service", "slow", || async { Err::<(), _>("broken") }).optional();
    let rig = Rig::start(1, move |app| {
        app.service(inside(health::scope().check(check.clone())).deny(Deny::StatusOnly));
    });
    assert_eq!(status(rig.address, INSIDE, "GET /health").await, 200);
    let answer = ask(rig.address, OUTSIDE, "GET /health").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"status":"DEGRADED"}"#), "{answer}");
}

#[actix_web::test]
async fn status_only_with_refresh_knows_though_nobody_inside_asks() {
    let counted = Counted::default();
    let check = counted.check();
    let rig = Rig::start(1, move |app| {
        let scope = health::scope().check(check.clone()).refresh(Duration::from_millis(50));
        app.service(inside(scope).deny(Deny::StatusOnly));
    });
    eventually("a round in the background is told", || async {
        status(rig.address, OUTSIDE, "GET /health").await == 200
    })
    .await;
    counted.fails.store(true, Ordering::SeqCst);
    eventually("so is the next", || async { status(rig.address, OUTSIDE, "GET /health").await == 503 }).await;
}

#[actix_web::test]
async fn a_predicate_stands_behind_the_list_or_alone() {
    fn token(request: &GuardContext<'_>) -> bool {
        request.head().headers().get(AUTHORIZATION).is_some_and(|value| value == "Bearer opensesame")
    }

    let check = Counted::default().check();
    let both = check.clone();
    let both = Rig::start(1, move |app| {
        app.service(inside(health::scope().check(both.clone())).authorize(token));
    });
    let alone = Rig::start(1, move |app| {
        app.service(health::scope().check(check.clone()).allow_any().authorize(token));
    });
    let (with, without) = ("GET /health\nAuthorization: Bearer opensesame\r\n", "GET /health");
    assert_eq!(status(both.address, INSIDE, with).await, 200);
    assert_eq!(status(both.address, INSIDE, without).await, 403);
    assert!(logs::lines().pop().unwrap().contains("refused 127.0.0.1, because the predicate"));
    assert_eq!(status(both.address, OUTSIDE, with).await, 403);
    assert_eq!(status(alone.address, OUTSIDE, with).await, 200);
    assert_eq!(status(alone.address, OUTSIDE, without).await, 403);
}

#[actix_web::test]
async fn a_predicate_sees_only_whom_the_list_lets_in_and_its_panic_is_no_permission() {
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    let check = Counted::default().check();
    let rig = Rig::start(1, move |app| {
        let seen = Arc::clone(&counted);
        app.service(inside(health::scope().check(check.clone())).authorize(move |request| {
            seen.fetch_add(1, Ordering::SeqCst);
            assert!(request.head().uri.query() != Some("panic"), "on purpose");
            true
        }));
    });
    assert_eq!(status(rig.address, OUTSIDE, "GET /health").await, 403);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    assert_eq!(status(rig.address, INSIDE, "GET /health?panic").await, 403);
    assert!(logs::lines().pop().unwrap().contains("because the predicate of Scope::authorize panicked"));
    assert_eq!(status(rig.address, INSIDE, "GET /health").await, 200);
}

#[actix_web::test]
async fn a_list_that_changes_counts_for_the_next_request_on_every_worker() {
    let list = AllowList::new([]).unwrap();
    let (served, check) = (list.clone(), Counted::default().check());
    let rig = Rig::start(3, move |app| {
        app.service(health::scope().check(check.clone()).allow_list(&served));
    });
    let all = async |expected: u16| {
        for _ in 0..9 {
            assert_eq!(status(rig.address, OUTSIDE, "GET /health").await, expected);
        }
    };
    all(403).await;
    list.insert("127.0.0.0/30".parse().unwrap()).unwrap();
    all(200).await;
    list.set(["127.0.0.3/32".parse().unwrap()]).unwrap();
    all(403).await;
}

#[actix_web::test]
async fn to_tell_the_status_alone_costs_no_more_at_one_path_than_at_another() {
    let registry = health::Registry::new();
    for number in 0..10_000 {
        registry.register(Check::new("service", number.to_string(), || async { Ok::<_, String>(()) })).unwrap();
    }
    let scope = inside(health::scope().registry(&registry)).deny(Deny::StatusOnly);
    let app = test::init_service(App::new().service(scope)).await;
    let median = async |path: &str| {
        let mut times = Vec::new();
        for _ in 0..101 {
            let request = test::TestRequest::get().uri(path).peer_addr(format!("{OUTSIDE}:1").parse().unwrap());
            let began = Instant::now();
            test::call_service(&app, request.to_request()).await;
            times.push(began.elapsed());
        }
        times.sort();
        times[50]
    };
    let known = median("/health").await;
    for path in ["/health/ready", "/health/live", "/health/startup"] {
        let time = median(path).await;
        assert!(time < known * 20, "{path}: {time:?}, and /health {known:?}");
    }
}
