//! How long a probe of `/health/live` takes while the main server is overloaded, and while all of its workers are blocked: on a
//! management server, and on the main port for comparison.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};

use crate::{Measured, median};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 512;
const PROBES: u32 = 100;
const ROUNDS: usize = 5;

/// The bound for the slowest probe. A kubelet waits for 1 s.
const BOUND_MS: f64 = 100.0;

pub(crate) async fn measure() -> Vec<Measured> {
    let scope = || health::scope().registry(health::registry()).allow_empty();
    let management = health::serve("127.0.0.1:0", scope).unwrap();
    let probed = management.addrs()[0];
    let server = HttpServer::new(move || {
        App::new().service(scope()).route("/burn", web::get().to(burn)).route("/block", web::get().to(block))
    })
    .workers(WORKERS)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let main = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    probes(main, 1, Duration::ZERO).await;

    let mut load = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), "-d120s", "--timeout=30s", &format!("http://{main}/burn")])
        .spawn()
        .expect("benches/run installs wrk");
    // The queue of a worker is full when a request has waited for it.
    while probes(main, 1, Duration::ZERO).await[0] < 500.0 {}
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(probes(probed, PROBES, Duration::from_millis(20)).await);
    }
    let of_main = probes(main, 5, Duration::ZERO).await;
    load.kill().unwrap();
    load.wait().unwrap();

    let (release, gates): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| mpsc::channel::<()>()).unzip();
    *GATES.lock().unwrap() = gates;
    let blocked: Vec<_> = (0..WORKERS).map(|_| thread::spawn(move || probe(main, "/block"))).collect();
    while !GATES.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    let while_blocked = probes(probed, PROBES, Duration::from_millis(150)).await;
    drop(release);
    for blocked in blocked {
        blocked.join().unwrap();
    }
    handle.stop(false).await;
    management.stop();

    let worst = median(rounds.iter().map(|round| slowest(round)).collect());
    let worst_blocked = slowest(&while_blocked);
    let row = |what, times: &[f64], worst: f64, bounded: bool| Measured {
        what,
        value: format!("{:.1} ms, {worst:.1} ms", median(times.to_vec())),
        bound: if bounded { format!("slowest at most {BOUND_MS} ms") } else { String::new() },
        holds: bounded.then_some(worst <= BOUND_MS),
    };
    let under_load = format!("with {CONNECTIONS} connections that burn 5 ms of CPU per request");
    vec![
        row(
            format!(
                "`/health/live` of a management server {under_load}: median, slowest of {PROBES} (median of {ROUNDS} rounds)"
            ),
            &rounds.concat(),
            worst,
            true,
        ),
        row("the same on the main port, 5 probes".to_owned(), &of_main, slowest(&of_main), false),
        row(
            format!(
                "`/health/live` of a management server while every worker is blocked for 15 s: median, slowest of {PROBES}"
            ),
            &while_blocked,
            worst_blocked,
            true,
        ),
    ]
}

/// What the workers wait for: each takes one, until its sender is dropped.
static GATES: std::sync::Mutex<Vec<mpsc::Receiver<()>>> = std::sync::Mutex::new(Vec::new());

async fn block() -> HttpResponse {
    let gate = GATES.lock().unwrap().pop().expect("there is one for each worker");
    let _ = gate.recv();
    HttpResponse::Ok().finish()
}

async fn burn() -> HttpResponse {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    HttpResponse::Ok().finish()
}

/// The times of probes in milliseconds, each on a connection of its own, as a kubelet opens them.
async fn probes(address: SocketAddr, count: u32, interval: Duration) -> Vec<f64> {
    let times = web::block(move || {
        let probe = |_| {
            thread::sleep(interval);
            probe(address, "/health/live").as_secs_f64() * 1000.0
        };
        (0..count).map(probe).collect()
    });
    times.await.unwrap()
}

fn probe(address: SocketAddr, path: &str) -> Duration {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") || response.starts_with("HTTP/1.1 503"), "{response}");
    started.elapsed()
}

fn slowest(times: &[f64]) -> f64 {
    times.iter().copied().fold(0.0, f64::max)
}
