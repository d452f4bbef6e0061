//! `GET /health` with a fresh result, against a bare handler that returns the same bytes and headers.

use std::{net::SocketAddr, process::Command, time::Duration};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    web::{self, Bytes},
};
use health::Check;
use stats_alloc::{Region, Stats};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{ALLOCATOR, Measured, median, serve};

const BODY: &str = r#"{"status":"UP","checks":{"database":{"default":"UP"},"cache":{"default":"UP"}}}"#;
const ROUNDS: usize = 9;
const SECONDS: &str = "2";

/// As lean as a handler can be: a body that was rendered once.
async fn bare() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(Bytes::from_static(BODY.as_bytes()))
}

pub(crate) async fn measure() -> Vec<Measured> {
    let checks = ["database", "cache"].map(|group| Check::new(group, "default", || async { Ok::<_, String>(()) }));
    let (address, handle) = serve(move |app| {
        // The result is renewed once a second under the load, as in a service.
        let scope = checks.iter().cloned().fold(health::scope(), health::Scope::check);
        app.route("/bare", web::get().to(bare)).service(scope);
    });

    let mut connection = Connection::open(address).await;
    let (health, bare) = (connection.get("/health").await, connection.get("/bare").await);
    assert_eq!(without_date(&health), without_date(&bare), "the same bytes and headers");

    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        // Each first in turn, so that neither has the warmer machine.
        let order = if round % 2 == 0 { ["/health", "/bare"] } else { ["/bare", "/health"] };
        let [first, second] = [load(address, order[0]).await, load(address, order[1]).await];
        let (health, bare) = if round % 2 == 0 { (first, second) } else { (second, first) };
        ratios.push(health / bare);
        rates.push(health);
    }
    let ratio = median(ratios);

    let (of_health, of_bare) = (allocations(address, "/health").await, allocations(address, "/bare").await);
    handle.stop(false).await;
    vec![
        Measured {
            what: "`GET /health`, requests per second, by those of a bare handler".into(),
            value: format!("{ratio:.3} ({:.0} a second)", median(rates)),
            bound: "at least 0.97".into(),
            holds: Some(ratio >= 0.97),
        },
        Measured {
            what: "allocations of an answer, and of the bare handler's".into(),
            value: format!("{of_health:.2}, {of_bare:.2}"),
            bound: "no more than the bare handler's".into(),
            // What the second's one renewed result allocates is spread over thousands of answers.
            holds: Some(of_health <= of_bare + 0.01),
        },
    ]
}

/// Requests per second, by a second process.
pub(crate) async fn load(address: SocketAddr, path: &str) -> f64 {
    let url = format!("http://{address}{path}");
    let output = web::block(move || {
        Command::new("wrk")
            .args(["-t1", "-c16", &format!("-d{SECONDS}s"), &url])
            .output()
            .expect("benches/run installs wrk")
    });
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(!output.contains("Non-2xx"), "{output}");
    let line = output.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).expect(&output);
    line.trim().parse().unwrap()
}

/// Allocations a request, on a connection that is kept.
async fn allocations(address: SocketAddr, path: &str) -> f64 {
    const REQUESTS: u16 = 5_000;
    let mut connection = Connection::open(address).await;
    for _ in 0..100 {
        connection.get(path).await;
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        connection.ask(path).await;
    }
    let Stats { allocations, reallocations, .. } = region.change();
    f64::from(u32::try_from(allocations + reallocations).unwrap()) / f64::from(REQUESTS)
}

pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, answer: vec![0; 4 << 20] }
    }

    /// Asks, and reads the answer without allocating: its length.
    pub(crate) async fn ask(&mut self, path: &str) -> usize {
        for piece in ["GET ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            self.stream.write_all(piece.as_bytes()).await.unwrap();
        }
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.answer[length..]).await.unwrap();
            assert!(read > 0, "the server has gone");
            length += read;
            if is_whole(&self.answer[..length]) {
                return length;
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        let length = self.ask(path).await;
        String::from_utf8(self.answer[..length].to_vec()).unwrap()
    }
}

/// Whether the body is there to the length that the head says.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    answer.len() == end + 4 + length.parse::<usize>().unwrap()
}

fn without_date(answer: &str) -> Vec<&str> {
    let mut lines: Vec<_> = answer.lines().filter(|line| !line.starts_with("date:")).collect();
    lines.sort_unstable();
    lines
}

/// Lets what was started before come to rest.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}
