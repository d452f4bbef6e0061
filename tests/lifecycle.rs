//! Readiness, liveness, startup and drain, over real HTTP.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::StreamExt as _;
use health::{
    Check, HealthCheck,
    ProbeErrorKind::Failed,
    Status::{Down, Up},
};
use sqlx::PgPool;
use tokio::net::TcpStream;

use crate::common::{
    eventually, http, logs,
    servers::{Kind, Server},
    test_server::TestServer,
};

/// A check that is up while the switch is on.
fn switched(group: &str, name: &str) -> (Arc<AtomicBool>, Check) {
    let switch = Arc::new(AtomicBool::new(true));
    let on = Arc::clone(&switch);
    let check = Check::new(group, name, move || {
        let up = on.load(Ordering::SeqCst);
        async move { if up { Ok(()) } else { Err("switched off") } }
    });
    (switch, check)
}

/// A `max_age` of zero, so that each request runs the checks.
fn scope() -> health::Scope {
    health::scope().max_age(Duration::ZERO)
}

#[actix_web::test]
async fn liveness_depends_on_workers_and_live_checks_and_not_on_dependencies() {
    let (database, dependency) = switched("database", "db");
    let (disk, live) = switched("system", "disk");
    let live = live.live();
    let server = TestServer::start(2, move |app| {
        app.service(scope().check(dependency.clone()).check(live.clone()));
    });
    database.store(false, Ordering::SeqCst);
    assert_eq!(server.health().await.status, 503);
    let up = r#"{"status":"UP","checks":{"health":{"worker.0":"UP","worker.1":"UP"},"system":{"disk":"UP"}}}"#;
    let response = server.get("/health/live").await;
    assert_eq!((response.status, &*response.body), (200, up));
    disk.store(false, Ordering::SeqCst);
    let response = server.get("/health/live/").await;
    let down = r#"{"status":"DOWN","errors":{"system":{"disk":"the check failed"}},"checks":{"health":{"worker.0":"UP","worker.1":"UP"},"system":{"disk":"DOWN"}}}"#;
    assert_eq!((response.status, &*response.body), (503, down));
}

#[actix_web::test]
async fn startup_is_up_permanently_once_each_critical_check_has_been_up() {
    let (first, one) = switched("database", "one");
    let (second, two) = switched("database", "two");
    let (third, optional) = switched("cache", "three");
    let optional = optional.optional();
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(one.clone()).check(two.clone()).check(optional.clone()));
    });
    for switch in [&second, &third] {
        switch.store(false, Ordering::SeqCst);
    }
    let waiting = r#"{"status":"DOWN","errors":{"database":{"two":"the check failed"}},"checks":{"database":{"one":"UP","two":"DOWN"}}}"#;
    let response = server.get("/health/startup").await;
    assert_eq!((response.status, &*response.body), (503, waiting));
    let ready = server.get("/health/ready").await;
    let message = ready.json()["errors"]["health"]["startup"].as_str().unwrap().to_owned();
    assert_eq!((ready.status, &*message), (503, "not started: database.two has not been up yet"));

    // Each has been up once, though never both at once.
    first.store(false, Ordering::SeqCst);
    second.store(true, Ordering::SeqCst);
    assert_eq!(server.get("/health/startup").await.status, 200);
    second.store(false, Ordering::SeqCst);
    assert_eq!(server.get("/health/startup").await.status, 200);
    assert_eq!(server.get("/health/ready").await.status, 503);
    for switch in [&first, &second] {
        switch.store(true, Ordering::SeqCst);
    }
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &"DEGRADED".into()));
}

#[derive(HealthCheck)]
struct State {
    db: PgPool,
}

async fn block(time: web::Path<u64>) -> HttpResponse {
    thread::sleep(Duration::from_millis(*time));
    HttpResponse::Ok().finish()
}

/// Opens a connection of the pool on the runtime of the worker that responds.
async fn open(state: web::Data<State>) -> HttpResponse {
    let connection = state.db.acquire().await.unwrap();
    // Long enough that the other worker needs a second connection.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(connection);
    HttpResponse::Ok().finish()
}

#[actix_web::test]
async fn a_blocked_worker_neither_delays_nor_changes_the_responses_of_the_others() {
    let server = Server::start(Kind::Postgres);
    let state = web::Data::new(State { db: PgPool::connect_lazy(&server.url()).unwrap() });
    let app = TestServer::start(2, move |app| {
        app.app_data(state.clone())
            .route("/block/{ms}", web::get().to(block))
            .route("/open", web::get().to(open))
            .service(scope().stall(Duration::from_secs(1)));
    });
    // Each worker owns a connection of the pool, so the blocked one does, too.
    let opened = [http::get(app.address, "/open"), http::get(app.address, "/open")].map(actix_web::rt::spawn);
    for response in opened {
        assert_eq!(response.await.unwrap().status, 200);
    }
    assert_eq!(app.get("/health/live").await.status, 200);

    let address = app.address;
    let blocked = actix_web::rt::spawn(async move { http::get(address, "/block/20000").await });
    eventually("a worker is reported as blocked", || async {
        // A request to the blocked worker gets no response in time.
        let polled = tokio::time::timeout(Duration::from_secs(3), http::get(address, "/health/live")).await;
        polled.is_ok_and(|response| {
            let errors = response.json()["errors"]["health"].clone();
            let error = errors.as_object().and_then(|errors| errors.values().next()).and_then(|error| error.as_str());
            response.status == 503 && error.is_some_and(|error| error.contains("event loop blocked for"))
        })
    })
    .await;
    // One of two connections goes to the other worker, which responds in time that the database is up. Runs use the idle
    // connections of the pool in turn, so they also use the one of the blocked worker.
    for _ in 0..3 {
        let both = [http::get(address, "/health"), http::get(address, "/health")].map(actix_web::rt::spawn);
        let mut in_time = 0;
        for response in both {
            if let Ok(response) = tokio::time::timeout(Duration::from_secs(2), response).await {
                assert_eq!(response.unwrap().status, 200, "{}", logs::text());
                in_time += 1;
            }
        }
        assert!(in_time >= 1, "no worker responded in time");
    }
    assert!(!blocked.is_finished(), "the worker is no longer blocked");
    blocked.abort();
}

#[actix_web::test]
async fn workers_that_stopped_gracefully_are_not_reported() {
    let (_, check) = switched("service", "fine");
    let other = check.clone();
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(check.clone()));
    });
    let stopped = TestServer::start(2, move |app| {
        app.service(scope().check(other.clone()));
    });
    let workers = async || server.get("/health/live").await.json()["checks"]["health"].as_object().unwrap().len();
    assert_eq!(workers().await, 3);
    drop(stopped);
    eventually("the stopped workers are removed", || async { workers().await == 1 }).await;
    assert_eq!(server.get("/health/live").await.status, 200);
}

/// The behaviour of a draining server, however its drain starts.
async fn assert_drains(start: impl FnOnce(&health::Drain), cause: &str) {
    logs::keep();
    let (_, check) = switched("service", "fine");
    let worked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&worked);
    let server = HttpServer::new(move || {
        let counted = Arc::clone(&counted);
        let work = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { "done" }
        };
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "done"
        };
        // Cached responses must not outlive the start of the drain.
        App::new()
            .route("/work", web::get().to(work))
            .route("/slow", web::get().to(slow))
            .service(health::scope().check(check.clone()).max_age(Duration::from_hours(1)))
    })
    .workers(2)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let address: SocketAddr = server.addrs()[0];
    let server = server.run();
    let drain = health::drain(server.handle(), Duration::from_secs(2));
    let stopped = actix_web::rt::spawn(server);
    for path in ["/health", "/health/ready", "/health/live"] {
        // Often enough that both workers have cached a response.
        for _ in 0..8 {
            assert_eq!(http::get(address, path).await.status, 200, "{path}");
        }
    }

    let open = actix_web::rt::spawn(http::get(address, "/slow"));
    start(&drain);
    eventually("the drain has started", || async { http::get(address, "/health").await.status == 503 }).await;
    let ready = http::get(address, "/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["errors"]["health"]["drain"], "server is draining");
    assert_eq!(http::get(address, "/health/live").await.status, 200);
    assert_eq!(http::get(address, "/health/service/fine").await.status, 200);
    assert_eq!(http::get(address, "/work").await.body, "done");
    assert_eq!(open.await.unwrap().body, "done");
    assert!(!stopped.is_finished());

    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("the server stops").unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(worked.load(Ordering::SeqCst), 1);
    assert!(!logs::text().contains("ERROR"), "{}", logs::text());
    let line = logs::lines().into_iter().find(|line| line.contains("draining"));
    assert!(line.is_some_and(|line| line.contains("INFO") && line.contains(cause)), "{}", logs::text());
}

fn sigterm() {
    assert!(Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap().success());
}

#[actix_web::test]
async fn drain_start_takes_the_server_out_of_rotation_before_it_stops() {
    assert_drains(health::Drain::start, "Drain::start").await;
}

#[actix_web::test]
async fn sigterm_starts_a_drain_under_actix_main() {
    assert_drains(|_| sigterm(), "SIGTERM").await;
}

#[test]
fn sigterm_starts_a_drain_under_tokio_main() {
    // As `#[tokio::main]` builds it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(assert_drains(|_| sigterm(), "SIGTERM")));
}

#[actix_web::test]
async fn a_second_sigterm_stops_a_draining_server_at_once() {
    logs::keep();
    let server = HttpServer::new(App::new).workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap().run();
    health::drain(server.handle(), Duration::from_hours(1));
    let stopped = actix_web::rt::spawn(server);
    sigterm();
    eventually("the drain has started", || async { logs::text().contains("draining") }).await;
    sigterm();
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("the server stops").unwrap().unwrap();
    eventually("the second signal is logged", || async { logs::text().contains("second SIGTERM") }).await;
}

#[actix_web::test]
async fn a_server_that_stops_at_sigterm_by_itself_is_warned_of() {
    logs::keep();
    let app = || App::new().service(health::heartbeat());
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    health::drain(server.handle(), Duration::from_hours(1));
    let stopped = actix_web::rt::spawn(server);
    // The server handles signals once it runs.
    http::get(address, "/").await;
    sigterm();
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("the server stops").unwrap().unwrap();
    let is_warned =
        || async { logs::lines().iter().any(|line| line.contains("WARN") && line.contains(".disable_signals()")) };
    eventually("the log has the missing call", is_warned).await;
}

#[actix_web::test]
async fn details_do_not_change_the_rest_of_the_body() {
    let (switch, check) = switched("service", "fine");
    let with_fall = check.fall(2);
    let own = with_fall.clone();
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(with_fall.clone()));
    });
    let plain = server.health().await.json();
    switch.store(false, Ordering::SeqCst);
    let response = server.get("/health?details").await;
    let mut detailed = response.json();
    let details = detailed.as_object_mut().unwrap().remove("details").unwrap();
    assert_eq!((response.status, &detailed), (200, &plain));
    let fine = &details["service"]["fine"];
    assert_eq!((&fine["runs"], &fine["consecutive_failures"], &fine["raw"]), (&2.into(), &1.into(), &"DOWN".into()));
    assert!(fine["latency_ms"].as_f64().unwrap() >= 0.0 && fine["age_ms"].as_u64().is_some(), "{fine}");
    for time in ["since", "last_success"] {
        let text = fine[time].as_str().unwrap();
        assert!(text.starts_with("20") && text.ends_with('Z') && text.contains('T'), "{fine}");
    }
    let raw: Vec<_> = own.history().iter().map(|sample| sample.status).collect();
    assert_eq!(raw, [Up, Down]);
}

#[actix_web::test]
async fn transitions_of_all_checks_or_of_a_registry_can_be_subscribed_to() {
    let (switch, check) = switched("service", "fine");
    let plugins = health::Registry::new();
    let (_, plugin) = switched("plugin", "search");
    let guard = plugins.register_guarded(plugin).unwrap();
    let registry = plugins.clone();
    let server = TestServer::start(1, move |app| {
        app.service(scope().check(check.clone()).registry(&registry));
    });
    let mut all = health::transitions();
    let mut of_plugins = plugins.subscribe();
    server.health().await;
    switch.store(false, Ordering::SeqCst);
    server.health().await;
    server.health().await;
    switch.store(true, Ordering::SeqCst);
    server.health().await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let next = all.next().await.unwrap();
        seen.push((next.name.to_string(), next.from, next.to, next.kind, next.error.map(|error| error.to_string())));
    }
    // The first two may come in either order.
    seen[..2].sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        seen,
        [
            ("fine".to_owned(), None, Up, None, None),
            ("search".to_owned(), None, Up, None, None),
            ("fine".to_owned(), Some(Up), Down, Some(Failed), Some("the check failed".to_owned())),
            ("fine".to_owned(), Some(Down), Up, None, None),
        ]
    );
    assert_eq!(&*of_plugins.next().await.unwrap().name, "search");
    // Transitions of a check of that name in another registry, and of an unregistered check, are not delivered.
    let others = health::Registry::new();
    let (other, same_name) = switched("plugin", "search");
    others.register(same_name.clone()).unwrap();
    let mut of_others = others.subscribe();
    let server_of_others = TestServer::start(1, move |app| {
        app.service(scope().registry(&others));
    });
    other.store(false, Ordering::SeqCst);
    server_of_others.health().await;
    assert_eq!(of_others.next().await.unwrap().to, Down);
    assert!(tokio::time::timeout(Duration::from_millis(100), of_plugins.next()).await.is_err());
    drop(guard);
    assert_eq!(server.get("/health/plugin").await.status, 404);
}

#[actix_web::test]
async fn with_refresh_requests_run_no_check_and_background_runs_end_with_the_scopes() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("service", "counted", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    let server = TestServer::start(2, move |app| {
        app.service(scope().check(check.clone()).refresh(Duration::from_millis(200)));
    });
    assert_eq!(server.health().await.status, 200);
    eventually("the check runs in the background", || async { runs.load(Ordering::SeqCst) >= 5 }).await;
    let before = runs.load(Ordering::SeqCst);
    for _ in 0..50 {
        assert_eq!(server.health().await.status, 200);
    }
    // Fifty requests cause fewer than fifty runs, however slow the machine is.
    assert!(runs.load(Ordering::SeqCst) < before + 50);
    drop(server);
    let mut last = usize::MAX;
    eventually("the check is no longer run", || {
        let still = runs.load(Ordering::SeqCst);
        let stopped = std::mem::replace(&mut last, still) == still;
        async move {
            // More than twice the longest time between two runs.
            tokio::time::sleep(Duration::from_millis(500)).await;
            stopped
        }
    })
    .await;
}
