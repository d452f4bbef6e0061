//! `health::self_check` as a container runs it: against each state of a service, and against what is none.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use actix_web::web;
use health::Check;

use crate::common::test_server::TestServer;

const OPERATIONS: &str = env!("CARGO_BIN_EXE_operations");

/// Docker's default timeout is 30 s; the check has to end long before.
const LIMIT: Duration = Duration::from_secs(15);

/// Runs the program with an address that it would listen on. Returns its exit code and its line.
async fn check_as(ip: &str, port: u16, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(OPERATIONS);
    command.args(args).env("IP", ip).env("MANAGEMENT_PORT", port.to_string());
    let started = Instant::now();
    let output = web::block(move || command.output().unwrap()).await.unwrap();
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
    assert_eq!(output.stderr, b"");
    let printed = String::from_utf8(output.stdout).unwrap();
    let line = printed.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{printed}");
    (output.status.code().unwrap(), line.to_owned())
}

async fn check(address: SocketAddr, path: &str) -> (i32, String) {
    check_as(&address.ip().to_string(), address.port(), &["healthcheck", path]).await
}

/// Asserts that the check fails, and returns the line without the URL.
async fn failure(address: SocketAddr) -> String {
    let (code, line) = check(address, "/health/live").await;
    assert_eq!(code, 1, "{line}");
    line.strip_prefix(&format!("http://{address}/health/live: ")).unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// A server that responds to one connection after it has received a request.
fn stub(ip: &str, respond: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = stream.read(&mut [0; 4096]).unwrap();
        assert!(request > 0);
        respond(stream);
    });
    address
}

/// A stub that sends these bytes and keeps the connection open.
fn sends(bytes: &'static [u8]) -> SocketAddr {
    stub("127.0.0.1", move |mut stream| {
        stream.write_all(bytes).unwrap();
        let _ = stream.read(&mut [0]);
    })
}

#[actix_web::test]
async fn a_service_is_a_success_while_it_is_up_and_its_errors_are_printed_while_it_is_down() {
    let up = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&up);
    let fine = Check::new("service", "fine", move || {
        let up = switch.load(Ordering::SeqCst);
        async move { if up { Ok(()) } else { Err("the text of a driver") } }
    });
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(fine.clone()).max_age(Duration::ZERO));
    });
    let port = server.address.port();
    for path in ["/health", "/health/ready", "/health/live", "/health/startup", "/health/service/fine"] {
        assert_eq!(check(server.address, path).await, (0, format!("http://127.0.0.1:{port}{path}: 200 OK")));
    }
    let live = (0, format!("http://127.0.0.1:{port}/health/live: 200 OK"));
    assert_eq!(check_as("0.0.0.0", port, &["healthcheck"]).await, live);

    up.store(false, Ordering::SeqCst);
    let down = format!("http://127.0.0.1:{port}/health: 503 Service Unavailable: service.fine: the check failed");
    assert_eq!(check(server.address, "/health").await, (1, down));
    assert_eq!(check(server.address, "/health/live").await, live);
    let missing = format!("http://127.0.0.1:{port}/health/other: 404 Not Found");
    assert_eq!(check(server.address, "/health/other").await, (1, missing));
}

#[actix_web::test]
async fn a_denied_check_names_the_address_to_allow() {
    let server = TestServer::start(1, |app| {
        app.service(health::scope().allow(["192.0.2.0/24".parse().unwrap()]));
    });
    let line = failure(server.address).await;
    assert_eq!(line, "403 Forbidden: add 127.0.0.1 to the allow-list (HEALTHCHECK_IPS or Scope::allow)");
}

#[actix_web::test]
async fn unspecified_ipv6_means_loopback() {
    let address = stub("::1", |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let port = address.port();
    let up = (0, format!("http://[::1]:{port}/health/live: 200 OK"));
    assert_eq!(check_as("::", port, &["healthcheck"]).await, up);
}

#[actix_web::test]
async fn invalid_arguments_fail() {
    let (code, line) = check_as("127.0.0.1", 1, &["healthcheck", "health"]).await;
    assert_eq!(
        (code, &*line),
        (1, "`health` is not the path of a URL, such as /health/ready; usage: healthcheck [path]")
    );
}

#[actix_web::test]
async fn nothing_listening_is_a_failure() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = failure(address).await;
    assert!(line.starts_with("unable to connect: Connection refused"), "{line}");
}

#[actix_web::test]
async fn a_server_that_accepts_and_stays_silent_is_a_failure_in_time() {
    let line = failure(sends(b"")).await;
    assert_eq!(line, "no response: timed out after 5 s; 0 bytes were received");
}

#[actix_web::test]
async fn a_server_that_sends_a_byte_now_and_then_is_a_failure_in_time() {
    let address = stub("127.0.0.1", |mut stream| {
        let head = b"HTTP/1.1 200 OK\r\nX: ".iter().chain([b'x'; 1000].iter());
        for byte in head {
            // Fails when the client has closed the connection.
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    let line = failure(address).await;
    assert!(line.starts_with("no response: timed out after 5 s; "), "{line}");
}

#[actix_web::test]
async fn what_is_not_http_is_a_failure() {
    let line = failure(sends(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
    assert!(line.starts_with("the response is not HTTP (") && line.ends_with(r"`SSH-2.0-OpenSSH_9.2\r\n`"), "{line}");
    // Closes the connection.
    let line = failure(stub("127.0.0.1", drop)).await;
    assert!(line.starts_with("no response: "), "{line}");
}

#[actix_web::test]
async fn a_redirect_is_a_failure() {
    let line = failure(sends(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(line, "302 Found: redirects are not followed");
}

#[actix_web::test]
async fn a_body_without_end_is_a_failure() {
    let address = stub("127.0.0.1", |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        // Until the client closes the connection.
        while stream.write_all(&[b'x'; 16 * 1024]).is_ok() {}
    });
    let line = failure(address).await;
    assert!(line.starts_with("200 OK, but the body is not complete: the response is longer than 1 MiB; "), "{line}");
}
