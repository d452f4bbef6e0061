//! What the health check costs, as ratios measured in one run; `benches/run` renews `docs/performance.md` with it.
//!
//! Each file measures one thing and says what it must not exceed. Absolute figures are shown for scale alone: the machines
//! are small and noisy.

mod access;
mod answer;
mod idle;
mod many;
mod round;
mod stuck;
// The servers of the tests.
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../tests/common/process.rs"]
mod process;
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../tests/common/servers.rs"]
mod servers;

use std::{alloc::System, env, fmt::Write as _, fs, net::SocketAddr, path::Path};

use actix_web::{App, HttpServer, dev::ServerHandle, web::ServiceConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// As in the tests.
const USER: &str = "canaryuser";
const PASSWORD: &str = "canary-5ecret";
const DATABASE: &str = "canarybase";

/// Counts what is allocated, in all threads.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A line of the table.
struct Measured {
    what: String,
    value: String,
    bound: String,
    /// Within the bound; `None` for what is shown for scale.
    holds: Option<bool>,
}

#[actix_web::main]
async fn main() {
    // All of them, or those that are named.
    let named: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    let mut lines = Vec::new();
    if wanted("answer") {
        lines.extend(answer::measure().await);
    }
    if wanted("access") {
        lines.extend(access::measure().await);
    }
    if wanted("round") {
        lines.extend(round::measure().await);
    }
    // Before the supervisor has limits of many checks to look at.
    if wanted("idle") {
        lines.extend(idle::measure().await);
    }
    if wanted("many") {
        lines.extend(many::measure().await);
    }
    // Last, because its checks stay blocked.
    if wanted("stuck") {
        lines.extend(stuck::measure().await);
    }

    let mut table = String::from("| what | measured | bound | holds |\n| --- | --- | --- | --- |\n");
    for Measured { what, value, bound, holds } in &lines {
        let holds = holds.map_or("", |holds| if holds { "yes" } else { "**no**" });
        writeln!(table, "| {what} | {value} | {bound} | {holds} |").unwrap();
    }
    println!("{table}");
    if env::args().any(|arg| arg == "--write") {
        let doc = format!(
            "# Performance\n\nMade by `benches/run`. Ratios of one run on a machine of two cores: one worker, and the load \
             from a second process (`wrk`).\n\n{table}"
        );
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md"), doc).unwrap();
    }
    if lines.iter().any(|line| line.holds == Some(false)) {
        std::process::exit(1);
    }
}

/// An application on one worker, on a free port.
fn serve(configure: impl Fn(&mut ServiceConfig) + Send + Clone + 'static) -> (SocketAddr, ServerHandle) {
    let server = HttpServer::new(move || App::new().configure(configure.clone()))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (address, handle)
}

/// The middle one of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
