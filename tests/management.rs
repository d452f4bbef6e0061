//! The management server: its own threads and listeners, and the workers of other servers that it reports.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt::System, web};
use health::{Check, HealthCheck, ManagementServer};
use tokio::net::TcpStream;

use crate::common::{
    counted::Counted,
    eventually,
    http::{self, Response},
    logs,
    test_server::TestServer,
};

const NOT_REGISTERED: &str =
    "no worker has registered: add `.service(health::heartbeat())` to the App of the main server";

/// A scope with one check, which is up.
fn scope() -> health::Scope {
    health::scope().check(Check::new("service", "fine", || async { Ok::<_, String>(()) }))
}

fn serve() -> (SocketAddr, ManagementServer) {
    logs::keep();
    let server = health::serve("127.0.0.1:0", scope).unwrap();
    (server.addrs()[0], server)
}

/// The entry `health.{name}` of the errors in a response.
fn error<'a>(response: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    response["errors"]["health"][name].as_str()
}

fn assert_error(response: &Response, code: u16, name: &str, message: &str) {
    assert_eq!((response.status, error(&response.json(), name)), (code, Some(message)), "{response:?}");
}

#[test]
fn it_serves_all_of_its_addresses_and_needs_no_runtime() {
    let addrs: Vec<SocketAddr> = ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"].map(|addr| addr.parse().unwrap()).into();
    let server = health::serve(&*addrs, scope).unwrap();
    assert_eq!(server.addrs().len(), 3);
    System::new().block_on(async {
        for (address, requested) in server.addrs().iter().zip(addrs) {
            assert!(address.ip() == requested.ip() && address.port() != 0, "{address}");
            assert_eq!(http::get(*address, "/health/service/fine").await.status, 200);
        }
    });
}

#[test]
fn an_address_that_cannot_be_bound_is_an_error_that_names_it_and_no_other_stays_bound() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = (in_use.local_addr().unwrap(), in_use);
    let error = health::serve(&[used, in_use.0][..], scope).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&format!("unable to listen on {}", in_use.0)), "{error}");
    TcpListener::bind(used).unwrap();
}

#[test]
fn an_invalid_scope_is_an_error_that_names_the_setting() {
    let error = health::serve("127.0.0.1:0", || scope().deadline(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "health scope: invalid configuration: deadline must be greater than zero");
    let error = health::serve(&[][..], scope).unwrap_err();
    assert_eq!(error.to_string(), "management server: there is no address to listen on");
}

#[actix_web::test]
async fn stop_closes_the_listeners_before_it_returns() {
    let (mut address, mut server) = serve();
    for _ in 0..3 {
        let open = TcpStream::connect(address).await.unwrap();
        assert_eq!(http::get(address, "/health/service").await.status, 200);
        server.stop();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        server = health::serve(address, scope).unwrap();
        address = server.addrs()[0];
        drop(open);
    }
    assert_eq!(http::get(address, "/health/service").await.status, 200);
}

#[actix_web::test]
async fn dropping_the_handle_does_not_stop_the_server() {
    let (address, server) = serve();
    drop(server);
    assert_eq!(http::get(address, "/health/service").await.status, 200);
    assert!(TcpListener::bind(address).is_err());
}

#[actix_web::test]
async fn it_is_down_and_names_the_step_until_a_worker_has_registered() {
    let (management, _server) = serve();
    let paths = ["/health", "/health/ready", "/health/live", "/health/startup"];
    for path in paths {
        assert_error(&http::get(management, path).await, 503, "workers", NOT_REGISTERED);
    }
    let main = TestServer::start(2, |app| {
        app.service(health::heartbeat());
    });
    for path in paths {
        eventually(path, || async { http::get(management, path).await.status == 200 }).await;
    }
    let up = r#"{"status":"UP","checks":{"health":{"worker.0":"UP","worker.1":"UP"}}}"#;
    assert_eq!(http::get(management, "/health/live").await.body, up);

    // Without a drain, a main server that has stopped is a fault. The start is over all the same.
    main.stop().await;
    eventually("the workers have stopped", || async { http::get(management, "/health/live").await.status == 503 })
        .await;
    for path in &paths[..3] {
        let response = http::get(management, path).await;
        assert_error(&response, 503, "workers", "all workers have stopped: the main server does not run any more");
    }
    assert_eq!(http::get(management, "/health/startup").await.status, 200);
}

#[actix_web::test]
async fn a_heartbeat_adds_no_route() {
    async fn other(request: HttpRequest) -> HttpResponse {
        HttpResponse::ImATeapot().body(request.match_pattern().unwrap_or_default())
    }
    let main = TestServer::start(1, |app| {
        app.service(health::heartbeat())
            .service(web::scope("/inner").service(health::heartbeat()).default_service(web::to(other)))
            .default_service(web::to(other));
    });
    for path in ["/", "/health", "/health-heartbeat", "/inner", "/inner/", "/inner/health-heartbeat"] {
        let response = main.get(path).await;
        assert_eq!((response.status, &*response.body), (418, ""), "{path}");
    }
}

/// Blocks the threads of handlers until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

#[actix_web::test]
async fn blocked_workers_are_reported_in_time_by_the_management_server_and_by_every_other_server() {
    let stall = Duration::from_secs(3);
    let gate = Arc::new(Gate::default());
    let blocks = Arc::clone(&gate);
    let main = TestServer::start(2, move |app| {
        let gate = Arc::clone(&blocks);
        let block = move || {
            gate.wait();
            async { HttpResponse::Ok().finish() }
        };
        app.service(health::heartbeat()).route("/block", web::get().to(block));
    });
    let other = TestServer::start(1, move |app| {
        app.service(scope().stall(stall));
    });
    let server = health::serve("127.0.0.1:0", move || scope().stall(stall)).unwrap();
    let observers = [server.addrs()[0], other.address];
    // Whatever starts first has the first number.
    for observer in observers {
        let response = http::get(observer, "/health/live").await;
        assert_eq!(
            response.body,
            r#"{"status":"UP","checks":{"health":{"worker.0":"UP","worker.1":"UP","worker.2":"UP"}}}"#
        );
    }

    // The server gives connections to its workers in turn.
    let blocked = [http::get(main.address, "/block"), http::get(main.address, "/block")].map(actix_web::rt::spawn);
    eventually("both workers are blocked", || async { gate.waiting.load(Ordering::SeqCst) == 2 }).await;
    for observer in observers {
        let response = http::get(observer, "/health/live").await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    for observer in observers {
        eventually("the blocked workers are reported", || async {
            let response = http::get(observer, "/health/live").await;
            assert!(response.took < Duration::from_secs(1), "{response:?}");
            let json = response.json();
            let is_blocked =
                |name| error(&json, name).is_some_and(|error| error.starts_with("event loop blocked for "));
            response.status == 503 && is_blocked("worker.0") && is_blocked("worker.1") && !is_blocked("worker.2")
        })
        .await;
        // Only liveness depends on the workers.
        assert_eq!(http::get(observer, "/health/ready").await.status, 200);
    }
    gate.open();
    for blocked in blocked {
        assert_eq!(blocked.await.unwrap().status, 200);
    }
    for observer in observers {
        eventually("the workers are up", || async { http::get(observer, "/health/live").await.status == 200 }).await;
    }
}

#[actix_web::test]
async fn a_paused_process_is_not_reported_as_blocked_workers() {
    // Enough that some of them run again only after the management server has responded.
    let _main = TestServer::start(16, |app| {
        app.service(health::heartbeat());
    });
    let server = health::serve("127.0.0.1:0", || scope().stall(Duration::from_secs(2))).unwrap();
    eventually("all workers have registered", || async {
        http::get(server.addrs()[0], "/health/live").await.body.contains("worker.15")
    })
    .await;
    // Another process pauses this one for longer than `stall`, and has sent a request when it resumes it. The connection is older, so
    // that the management server does not have to accept it first.
    let script = r"
        exec 3<>/dev/tcp/127.0.0.1/$1
        printf 'GET /health/service HTTP/1.1\r\nHost: localhost\r\n\r\n' >&3
        read -r first <&3
        kill -STOP $0
        printf 'GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        sleep 4
        kill -CONT $0
        cat <&3
    ";
    let (pid, port) = (std::process::id().to_string(), server.addrs()[0].port().to_string());
    let output = web::block(move || Command::new("bash").args(["-c", script, &pid, &port]).output().unwrap());
    let printed = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(printed.contains("HTTP/1.1 200 OK") && printed.contains(r#""worker.15":"UP""#), "{printed}");
    assert!(!printed.contains("503"), "{printed}");
}

#[actix_web::test]
async fn it_serves_through_a_drain_and_reports_it_until_the_process_ends() {
    let (management, _server) = serve();
    let get = async |path| http::get(management, path).await;
    let main = HttpServer::new(|| App::new().service(health::heartbeat()))
        .workers(2)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = main.addrs()[0];
    let main = main.run();
    let drain = health::drain(main.handle(), Duration::from_secs(1));
    let stopped = actix_web::rt::spawn(main);
    for path in ["/health", "/health/ready", "/health/live"] {
        eventually(path, || async { get(path).await.status == 200 }).await;
    }

    drain.start();
    eventually("the drain has started", || async { get("/health/ready").await.status == 503 }).await;
    let mut after = 0;
    // While it drains, while it stops, and when it has stopped.
    while after < 20 {
        for path in ["/health", "/health/ready"] {
            assert_error(&get(path).await, 503, "drain", "server is draining");
        }
        let live = get("/health/live").await;
        assert_eq!(live.status, 200, "{live:?}");
        after += usize::from(stopped.is_finished());
    }
    stopped.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(get("/health/live").await.body, r#"{"status":"UP","checks":{}}"#);

    // The application starts another server, for example with a new configuration.
    let _main = TestServer::start(1, |app| {
        app.service(health::heartbeat());
    });
    for path in ["/health", "/health/ready", "/health/live"] {
        eventually(path, || async { get(path).await.status == 200 }).await;
    }
}

#[derive(HealthCheck)]
struct State {
    counted: Counted,
}

#[actix_web::test]
async fn it_shares_runs_with_a_scope_of_the_main_server_that_has_the_same_state_and_settings() {
    let runs = Counted::default();
    let state = web::Data::new(State { counted: runs.clone() });
    let hour = Duration::from_hours(1);
    let managed = state.clone();
    let server = health::serve("127.0.0.1:0", move || health::scope().state(&managed).max_age(hour)).unwrap();
    let main = TestServer::start(2, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(hour));
    });
    let up = r#"{"status":"UP","checks":{"service":{"counted":"UP"}}}"#;
    for address in [main.address, server.addrs()[0], main.address, server.addrs()[0]] {
        assert_eq!(http::get(address, "/health").await.body, up);
    }
    assert_eq!(runs.runs(), 1);
}

#[actix_web::test]
async fn a_missing_state_names_the_step_of_a_management_server() {
    let server = health::serve("127.0.0.1:0", health::scope).unwrap();
    let response = http::get(server.addrs()[0], "/health").await.json();
    let message = error(&response, "state").unwrap();
    assert!(
        message.contains("`.state(&data)` for a state that is kept elsewhere (in health::serve, for every state)"),
        "{message}"
    );
}
