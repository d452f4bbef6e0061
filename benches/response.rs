//! `GET /health` with fresh results, compared with a bare handler that returns the same bytes and headers.

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

/// A minimal handler: its body is a constant.
async fn bare() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(Bytes::from_static(BODY.as_bytes()))
}

pub(crate) async fn measure() -> Vec<Measured> {
    let checks = ["database", "cache"].map(|group| Check::new(group, "default", || async { Ok::<_, String>(()) }));
    let (address, handle) = serve(move |app| {
        // Under load, the checks run once per second, as in a service.
        let scope = checks.iter().cloned().fold(health::scope(), health::Scope::check);
        app.route("/bare", web::get().to(bare)).service(scope);
    });

    let mut connection = Connection::open(address).await;
    let (health, bare) = (connection.get("/health").await, connection.get("/bare").await);
    assert_eq!(without_date(&health), without_date(&bare), "the same bytes and headers");

    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        // Alternating, so that neither is always measured second, on a warmer machine.
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
            what: "requests per second of `GET /health` ÷ of a bare handler".into(),
            value: format!("{ratio:.3} ({:.0} per second)", median(rates)),
            bound: "at least 0.97".into(),
            holds: Some(ratio >= 0.97),
        },
        Measured {
            what: "allocations of a response, and of one of the bare handler".into(),
            value: format!("{of_health:.2}, {of_bare:.2}"),
            bound: "no more than the bare handler's".into(),
            // The allocations of the runs are spread over thousands of responses.
            holds: Some(of_health <= of_bare + 0.01),
        },
    ]
}

/// Requests per second. The load comes from a second process.
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

/// Allocations per request on an open connection.
async fn allocations(address: SocketAddr, path: &str) -> f64 {
    const REQUESTS: u16 = 5_000;
    let mut connection = Connection::open(address).await;
    for _ in 0..100 {
        connection.get(path).await;
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        connection.request(path).await;
    }
    let Stats { allocations, reallocations, .. } = region.change();
    f64::from(u32::try_from(allocations + reallocations).unwrap()) / f64::from(REQUESTS)
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 4 << 20] }
    }

    /// Sends a request, and reads the response without allocating. Returns its length.
    pub(crate) async fn request(&mut self, path: &str) -> usize {
        for piece in ["GET ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            self.stream.write_all(piece.as_bytes()).await.unwrap();
        }
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[length..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            length += read;
            if is_complete(&self.buffer[..length]) {
                return length;
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        let length = self.request(path).await;
        String::from_utf8(self.buffer[..length].to_vec()).unwrap()
    }
}

/// Whether the response is complete, by its `content-length`.
fn is_complete(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&response[..end]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    response.len() == end + 4 + length.parse::<usize>().unwrap()
}

fn without_date(response: &str) -> Vec<&str> {
    let mut lines: Vec<_> = response.lines().filter(|line| !line.starts_with("date:")).collect();
    lines.sort_unstable();
    lines
}

/// Waits for work that earlier measurements have started.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}
