//! Access control over real connections from listed and other addresses, and the configurations that keep a server from starting.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpServer, http::header::HeaderValue, test, web};
use health::{Check, Deny, ForwardingHeader, HealthCheck, Scope};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::common::{http, logs, test_server::TestServer};

fn check() -> Check {
    Check::new("service", "fine", || async { Ok::<_, String>(()) })
}

fn serve(scope: fn(Scope) -> Scope) -> TestServer {
    let check = check();
    TestServer::start(1, move |app| {
        app.service(scope(health::scope().check(check.clone())));
    })
}

async fn status_from(from: &str, server: &TestServer) -> u16 {
    http::request_from(from.parse::<IpAddr>().unwrap(), server.address, "GET", "/health").await.status
}

#[actix_web::test]
async fn only_listed_addresses_are_allowed() {
    let server = serve(|scope| scope.allow(["127.0.0.1/32".parse().unwrap(), "127.1.0.0/16".parse().unwrap()]));
    assert_eq!(status_from("127.0.0.1", &server).await, 200);
    assert_eq!(status_from("127.1.2.3", &server).await, 200);
    assert_eq!(status_from("127.0.0.2", &server).await, 403);
    let loopback = serve(|scope| scope);
    assert_eq!(status_from("127.0.0.2", &loopback).await, 200);
    let empty = serve(|scope| scope.allow([]));
    assert_eq!(status_from("127.0.0.1", &empty).await, 403);
    let any = serve(Scope::allow_any);
    assert_eq!(status_from("127.0.0.2", &any).await, 200);
}

#[actix_web::test]
async fn a_denied_request_gets_an_empty_response_runs_nothing_and_is_logged_once() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);

    struct State;

    impl HealthCheck for State {
        fn health_checks(&self, checks: &mut health::Checks) {
            CALLS.fetch_add(1, Ordering::SeqCst);
            checks.add(Check::new("service", "counted", || {
                CALLS.fetch_add(1, Ordering::SeqCst);
                async { Ok::<_, String>(()) }
            }));
        }
    }

    let state = web::Data::new(State);
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().allow(["10.0.0.0/8".parse().unwrap()]).state(&state));
    });
    for (method, path) in [("GET", "/health"), ("HEAD", "/health/"), ("POST", "/health"), ("GET", "/health/startup")] {
        let response = http::request(server.address, method, path).await;
        assert_eq!((response.status, &*response.body), (403, ""), "{method} {path}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("content-length"), Some("0"));
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
    let denials: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("denied")).collect();
    assert_eq!(denials.len(), 1, "{denials:#?}");
    for part in ["denied 127.0.0.1: the peer address is not on the allow-list", "HEALTHCHECK_IPS"] {
        assert!(denials[0].contains(part), "{denials:#?}");
    }
}

#[actix_web::test]
async fn an_ipv4_peer_of_a_dual_stack_socket_is_matched_as_ipv4() {
    let check = check();
    let server = HttpServer::new(move || App::new().service(health::scope().check(check.clone())))
        .workers(1)
        .disable_signals()
        .bind("[::]:0")
        .unwrap();
    let port = server.addrs()[0].port();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    // Seen by the server as ::ffff:127.0.0.1.
    assert_eq!(http::get(SocketAddr::from(([127, 0, 0, 1], port)), "/health").await.status, 200);
    assert_eq!(http::get(format!("[::1]:{port}").parse().unwrap(), "/health").await.status, 200);
    handle.stop(false).await;
}

#[actix_web::test]
async fn a_unix_socket_is_denied_unless_it_is_allowed_and_marked() {
    logs::keep();
    let folder = tempfile::tempdir().unwrap();
    let configured: [fn(Scope) -> Scope; 4] =
        [|scope| scope, Scope::allow_unix, |scope| scope.allow_unix().deny(Deny::NotFound), Scope::allow_any];
    let expected = [[403, 403], [403, 200], [404, 200], [200, 200]];
    for (at, (scope, expected)) in configured.into_iter().zip(expected).enumerate() {
        for (is_marked, expected) in [false, true].into_iter().zip(expected) {
            let socket = folder.path().join(format!("{at}-{is_marked}"));
            let check = check();
            let server = HttpServer::new(move || App::new().service(scope(health::scope().check(check.clone()))));
            let server = if is_marked { server.on_connect(health::on_connect) } else { server };
            let listener = UnixListener::bind(&socket).unwrap();
            let server = server.workers(1).disable_signals().listen_uds(listener).unwrap().run();
            let handle = server.handle();
            actix_web::rt::spawn(server);
            let status = http::request_unix(&socket, "GET", "/health").await.status;
            assert_eq!(status, expected, "{at}, {is_marked}");
            handle.stop(false).await;
        }
    }
    for part in ["denied a client on a Unix socket", "HttpServer::on_connect(health::on_connect)"] {
        assert!(logs::text().contains(part), "{}", logs::text());
    }
}

#[actix_web::test]
async fn a_client_denied_as_not_found_behind_a_proxy_on_a_unix_socket_gets_the_route_of_the_application() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let check = check();
    let _rig = TestServer::start_at(Some(&socket), 1, move |app| {
        let scope = health::scope().allow(["192.0.2.0/24".parse().unwrap()]).trust_unix().deny(Deny::NotFound);
        app.service(scope.check(check.clone())).default_service(web::to(|| async { "the application" }));
    });
    for (client, expected) in
        [("192.0.2.7", r#"{"status":"UP","checks":{"service":{"fine":"UP"}}}"#), ("203.0.113.9", "the application")]
    {
        let header = format!("X-Forwarded-For: {client}");
        assert_eq!(http::request_unix_with(&socket, "GET", "/health", &[&header]).await.body, expected);
    }
}

#[actix_web::test]
async fn a_test_request_without_a_peer_address_is_denied() {
    let app = test::init_service(App::new().service(health::scope().check(check()))).await;
    assert_eq!(test::call_service(&app, test::TestRequest::get().uri("/health").to_request()).await.status(), 403);
}

/// The table of the unit tests of the crate, through an actix application.
#[actix_web::test]
async fn each_row_of_the_table_of_cases_is_decided_as_written_for_requests() {
    let networks = |list: &str| -> Vec<health::IpNet> {
        let entries = list.split(',').map(str::trim).filter(|&entry| entry != "unix");
        let network = |entry: &str| entry.parse().unwrap_or_else(|_| entry.parse::<IpAddr>().unwrap().into());
        entries.map(network).collect()
    };
    let mut scope: Box<dyn Fn() -> Scope> = Box::new(health::scope);
    let mut cases = 0;
    for row in include_str!("../health/src/access/cases.txt").lines().filter(|row| !row.starts_with('#')) {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let &[first, second, third] = &columns[..] else { continue };
        if first == "scope" {
            scope = Box::new(move || {
                let scope = health::scope().check(check()).allow(networks(second));
                let scope = match third.split_once(' ') {
                    Some(("xff", trusted)) => scope.trust_proxies(networks(trusted)),
                    Some((_, trusted)) => {
                        scope.trust_proxies(networks(trusted)).forwarding_header(ForwardingHeader::Forwarded)
                    }
                    None => scope,
                };
                if third.contains("unix") { scope.trust_unix() } else { scope }
            });
            continue;
        }
        // A request of `actix_web::test` cannot come by a Unix socket.
        if first == "unix" {
            continue;
        }
        let app = test::init_service(App::new().service(scope())).await;
        let mut request = test::TestRequest::get().uri("/health");
        if first != "unknown" {
            request = request.peer_addr((first.parse::<IpAddr>().unwrap(), 4711).into());
        }
        for line in second.split('¶').filter(|line| !line.is_empty()) {
            let (header, value) = line.trim_start().split_at(2);
            let header = if header == "x:" { "X-Forwarded-For" } else { "Forwarded" };
            let value = value.trim().replace('→', "\t");
            request = request.append_header((header, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        }
        let expected = if third == "allowed" { 200 } else { 403 };
        assert_eq!(test::call_service(&app, request.to_request()).await.status(), expected, "{row}");
        cases += 1;
    }
    assert!(cases >= 200, "{cases}");
}

#[actix_web::test]
async fn a_request_with_a_folded_header_is_malformed() {
    let server = serve(|scope| scope.trust_proxies(["127.0.0.1/32".parse().unwrap()]));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let folded =
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9,\r\n 127.0.0.2\r\nConnection: close\r\n\r\n";
    stream.write_all(folded).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

#[actix_web::test]
async fn the_log_line_of_a_denial_names_the_address_its_source_and_the_setting() {
    let server = serve(|scope| scope.trust_proxies(["127.0.0.1/32".parse().unwrap()]));
    let address = server.address;
    let denied = async |lines: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /health HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 403"), "{response}");
        logs::lines().pop().unwrap()
    };
    let client = denied("X-Forwarded-For: 203.0.113.9\r\n").await;
    for part in
        ["denied 203.0.113.9", "that the trusted proxy 127.0.0.1 forwarded in X-Forwarded-For", "HEALTHCHECK_IPS"]
    {
        assert!(client.contains(part), "{client}");
    }
    let count = logs::lines().len();
    denied("X-Forwarded-For: 203.0.113.9\r\n").await;
    assert_eq!(logs::lines().len(), count, "once a minute");
    let malformed = denied("X-Forwarded-For: 203.0.113.9, \t\"health check database.db is UP again\r\n").await;
    for part in
        ["the trusted proxy 127.0.0.1: its X-Forwarded-For header has a malformed element", r#"`\"health check"#]
    {
        assert!(malformed.contains(part), "{malformed}");
    }
    assert_eq!(status_from("127.0.0.9", &server).await, 200);
    let strict = serve(|scope| scope.allow(["127.0.0.1/32".parse().unwrap()]));
    assert_eq!(status_from("127.0.0.8", &strict).await, 403);
    let peer = logs::lines().pop().unwrap();
    assert!(peer.contains("denied 127.0.0.8: the peer address") && peer.contains("trust_proxies"), "{peer}");
}

/// The logged error of a server that does not start because of the configuration of its scope.
async fn config_error(scope: impl Fn() -> Scope + Send + Clone + 'static) -> String {
    logs::keep();
    let server = HttpServer::new(move || App::new().service(scope())).workers(2).disable_signals();
    let server = server.bind(("127.0.0.1", 0)).unwrap().run();
    let started = timeout(Duration::from_secs(30), server).await.expect("the server does not end");
    assert!(started.is_err());
    let line = logs::lines().into_iter().find(|line| line.contains("invalid configuration"));
    line.unwrap_or_else(|| panic!("no error is logged: {}", logs::text()))
}

#[actix_web::test]
async fn a_network_with_host_bits_keeps_the_server_from_starting() {
    let error = config_error(|| health::scope().allow(["10.0.0.5/8".parse().unwrap()])).await;
    assert!(error.contains("`10.0.0.5/8`") && error.contains("`10.0.0.0/8`"), "{error}");
}

#[actix_web::test]
async fn trusting_every_client_keeps_the_server_from_starting_and_is_logged_once_per_worker() {
    let error = config_error(|| health::scope().trust_proxies(["0.0.0.0/0".parse().unwrap()])).await;
    assert!(error.contains(".trust_proxies: the networks contain `0.0.0.0/0`"), "{error}");
    // The server may end before its second worker has logged it.
    assert!((1..=2).contains(&logs::text().matches("invalid configuration").count()), "{}", logs::text());
}

#[actix_web::test]
async fn a_forwarding_header_without_a_trusted_proxy_is_warned_of_once_and_does_not_deny() {
    let app = test::init_service(App::new().service(health::scope().check(check()))).await;
    logs::keep();
    let forwarded = || {
        let request = test::TestRequest::get().uri("/health").peer_addr("127.0.0.1:4711".parse().unwrap());
        request.insert_header(("X-Forwarded-For", "203.0.113.9")).to_request()
    };
    for _ in 0..3 {
        assert_eq!(test::call_service(&app, forwarded()).await.status(), 200);
    }
    let warned: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("a proxy on this machine")).collect();
    assert!(
        matches!(&*warned, [line] if line.contains("X-Forwarded-For") && line.contains("trust_proxies")),
        "{warned:?}"
    );
}

#[actix_web::test]
async fn a_proxy_with_host_bits_keeps_the_server_from_starting() {
    let error = config_error(|| health::scope().trust_proxies(["10.0.0.5/8".parse().unwrap()])).await;
    assert!(error.contains(".trust_proxies: `10.0.0.5/8`"), "{error}");
}

#[actix_web::test]
async fn a_name_that_cannot_be_part_of_a_path_keeps_the_server_from_starting() {
    let named = Check::new("ready", "a", || async { Ok::<_, String>(()) });
    let error = config_error(move || health::scope().check(named.clone())).await;
    assert!(error.contains("`ready` cannot be a group"), "{error}");
}

#[actix_web::test]
async fn two_checks_of_one_name_keep_the_server_from_starting() {
    let checks = Arc::new([check(), check()]);
    let error = config_error(move || checks.iter().cloned().fold(health::scope(), Scope::check)).await;
    assert!(error.contains("two checks of the scope are named service.fine"), "{error}");
}

#[actix_web::test]
async fn a_deadline_of_zero_keeps_the_server_from_starting() {
    let error = config_error(|| health::scope().deadline(Duration::ZERO)).await;
    assert!(error.contains("deadline must be greater than zero"), "{error}");
}

#[actix_web::test]
async fn a_network_that_maps_all_of_ipv4_trusts_every_client_and_keeps_the_server_from_starting() {
    let error = config_error(|| health::scope().trust_proxies(["::ffff:0.0.0.0/96".parse().unwrap()])).await;
    assert!(error.contains(".trust_proxies") && error.contains("`0.0.0.0/0`"), "{error}");
}

/// Sends requests on connections that are reset at once, so that the server cannot look up their addresses.
async fn send_and_reset(server: SocketAddr, path: &str, times: usize) {
    for _ in 0..times {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.set_zero_linger().unwrap();
    }
}

#[actix_web::test]
async fn a_tcp_client_that_resets_its_connection_is_not_treated_as_a_unix_peer() {
    let runs = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&runs);
    let check = Check::new("service", "counted", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    let server = TestServer::start(1, move |app| {
        let scope = |path: &str| {
            let scope = health::scope().path(path).allow(["10.0.0.0/8".parse().unwrap()]);
            scope.check(check.clone()).max_age(Duration::ZERO)
        };
        app.service(scope("/allowed").allow_unix())
            .service(scope("/trusted").trust_unix())
            .service(scope("/hidden").trust_unix().deny(Deny::NotFound))
            .service(scope("/health"));
    });
    for path in ["/allowed", "/trusted", "/hidden", "/health"] {
        send_and_reset(server.address, path, 300).await;
        // Connections are served in the order in which they were accepted.
        assert_eq!(http::get(server.address, "/health").await.status, 403);
        assert_eq!(runs.load(Ordering::SeqCst), 0, "{path}");
    }
    let denied: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("without a peer address")).collect();
    assert!(matches!(&*denied, [line] if line.contains("health::on_connect")), "{denied:#?}");
}
