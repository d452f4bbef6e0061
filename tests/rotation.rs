//! What each path responds in each state of the process: a table that the guide shows.
//!
//! `rotation.txt` has the codes and bodies. After a change that is meant, write it and the table of the guide again with
//! `UPDATE_TABLES=1 cargo nextest run -p tests -E 'test(each_path_responds)'`, and read the difference.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use health::Check;

use crate::common::{
    eventually, http, logs,
    reverse_proxy::{Header, Kind, ReverseProxy, Upstream},
    test_server::TestServer,
};

/// The paths, with the heads of their columns in the guide.
const PATHS: [(&str, &str); 8] = [
    ("/health", "`/health`, `/healthz`"),
    ("/healthz", ""),
    ("/health/ready", "`/health/ready`, `/readyz`"),
    ("/readyz", ""),
    ("/health/live", "`/health/live`, `/livez`"),
    ("/livez", ""),
    ("/health/startup", "`/health/startup`"),
    ("/health/database", "`/health/{group}`"),
];

/// The checks of the application, and whether each is up.
#[derive(Clone)]
struct Checks {
    critical: Arc<AtomicBool>,
    shared: Arc<AtomicBool>,
    optional: Arc<AtomicBool>,
    all: [Check; 3],
}

impl Checks {
    fn new() -> Self {
        let [critical, shared, optional] = [(); 3].map(|()| Arc::new(AtomicBool::new(true)));
        let check = |group, name, switch: &Arc<AtomicBool>| {
            let switch = Arc::clone(switch);
            Check::new(group, name, move || {
                let is_up = switch.load(Ordering::SeqCst);
                async move { if is_up { Ok(()) } else { Err("switched off") } }
            })
        };
        let all = [
            check("database", "own", &critical),
            check("database", "shared", &shared).shared(),
            check("cache", "sessions", &optional).optional(),
        ];
        Self { critical, shared, optional, all }
    }

    fn scope(&self) -> health::Scope {
        let scope = health::scope().kubernetes_paths().max_age(Duration::ZERO).stall(Duration::from_millis(200));
        self.all.iter().cloned().fold(scope, health::Scope::check)
    }

    fn serve(&self, workers: usize) -> TestServer {
        let checks = self.clone();
        TestServer::start(workers, move |app| {
            app.service(checks.scope()).route("/block", web::get().to(block));
        })
    }
}

static IS_BLOCKED: AtomicBool = AtomicBool::new(true);

/// Blocks the worker until it is released.
async fn block() -> HttpResponse {
    while IS_BLOCKED.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    HttpResponse::Ok().finish()
}

/// The state, and the response of each path.
type Row = (&'static str, Vec<http::Response>);

async fn responses(server: &TestServer) -> Vec<http::Response> {
    let mut responses = Vec::new();
    for (path, _) in PATHS {
        responses.push(server.get(path).await);
    }
    responses
}

/// The row of a state that `set` brings about, after the service has started.
async fn after_start<H>(state: &'static str, set: impl FnOnce(&Checks) -> H) -> Row {
    let checks = Checks::new();
    let server = checks.serve(1);
    assert_eq!(server.get("/health/startup").await.status, 200);
    let held = set(&checks);
    let row = (state, responses(&server).await);
    drop(held);
    server.stop().await;
    row
}

/// The row of a state in which a check has never been up.
async fn before_start(state: &'static str, set: impl FnOnce(&Checks)) -> Row {
    let checks = Checks::new();
    set(&checks);
    let server = checks.serve(1);
    let row = (state, responses(&server).await);
    server.stop().await;
    row
}

async fn draining() -> Row {
    let checks = Checks::new();
    let own_checks = checks.clone();
    let server = HttpServer::new(move || App::new().service(own_checks.scope()))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle: ServerHandle = server.handle();
    let drain = health::drain(handle.clone(), Duration::from_hours(1));
    actix_web::rt::spawn(server);
    assert_eq!(http::get(address, "/health/startup").await.status, 200);
    drain.start();
    eventually("the drain has started", || async { http::get(address, "/health").await.status == 503 }).await;
    let mut responses = Vec::new();
    for (path, _) in PATHS {
        responses.push(http::get(address, path).await);
    }
    handle.stop(false).await;
    ("draining", responses)
}

async fn blocked_worker() -> Row {
    let server = Checks::new().serve(2);
    let address = server.address;
    assert_eq!(server.get("/health/startup").await.status, 200);
    let blocked = actix_web::rt::spawn(http::get(address, "/block"));
    // A request to the blocked worker gets no response.
    let get = async |path| loop {
        if let Ok(response) = tokio::time::timeout(Duration::from_secs(1), http::get(address, path)).await {
            break response;
        }
    };
    eventually("the worker is reported", || async { get("/health/live").await.status == 503 }).await;
    let mut responses = Vec::new();
    for (path, _) in PATHS {
        responses.push(get(path).await);
    }
    IS_BLOCKED.store(false, Ordering::SeqCst);
    blocked.await.unwrap();
    server.stop().await;
    ("an event loop is blocked", responses)
}

/// Replaces what differs from run to run: times, which of the workers is blocked, and the number of a single worker, which may register
/// before that of the server before has ended.
fn normalized(body: &str) -> String {
    let (start, time) = body.split_once("blocked for ").unwrap_or((body, ""));
    let body = match time.split_once('"') {
        Some((_, end)) => format!("{start}blocked for … s\"{end}"),
        None => body.to_owned(),
    };
    body.replace(r#""worker.1":"event"#, r#""worker.0":"event"#)
        .replace(r#""worker.0":"UP","worker.1":"DOWN""#, r#""worker.0":"DOWN","worker.1":"UP""#)
        .replace(r#"{"worker.1":"UP"}"#, r#"{"worker.0":"UP"}"#)
}

#[actix_web::test]
async fn each_path_responds_in_each_state_as_the_table_says() {
    logs::keep();
    let rows = [
        before_start("starting: a critical check has not been up yet", |checks| {
            checks.critical.store(false, Ordering::SeqCst);
        })
        .await,
        before_start("starting: a shared check has not been up yet", |checks| {
            checks.shared.store(false, Ordering::SeqCst);
        })
        .await,
        after_start("all checks are up", |_| ()).await,
        after_start("a critical check is down", |checks| checks.critical.store(false, Ordering::SeqCst)).await,
        after_start("a shared check is down", |checks| checks.shared.store(false, Ordering::SeqCst)).await,
        after_start("an optional check is down", |checks| checks.optional.store(false, Ordering::SeqCst)).await,
        after_start("held", |_| health::hold("maintenance", Duration::from_mins(12))).await,
        blocked_worker().await,
        // The last one, because the process drains from then on.
        draining().await,
    ];
    let (mut table, mut guide) = (String::new(), String::from("| state |"));
    let columns: Vec<_> = PATHS.iter().map(|(_, head)| *head).filter(|head| !head.is_empty()).collect();
    writeln!(guide, " {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len() + 1)).unwrap();
    for (state, responses) in &rows {
        writeln!(table, "{state}").unwrap();
        write!(guide, "| {state} |").unwrap();
        for ((path, head), response) in PATHS.iter().zip(responses) {
            let body = normalized(&response.body);
            writeln!(table, "  {path} {} {body}", response.status).unwrap();
            if !head.is_empty() {
                write!(guide, " {} |", response.status).unwrap();
            }
        }
        guide.push('\n');
    }
    assert_file_contains("tests/rotation.txt", &table);
    assert_file_contains("docs/guide/operations.md", &guide);
}

/// Asserts that a file consists of the table, or has it below the line `<!-- rotation -->` up to an empty line.
fn assert_file_contains(file: &str, table: &str) {
    const MARK: &str = "<!-- rotation -->\n\n";

    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(file);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let expected = match text.split_once(MARK) {
        Some((before, after)) => {
            let rest = after.split_once("\n\n").map_or("", |(_, rest)| rest);
            format!("{before}{MARK}{table}\n{rest}")
        }
        None => table.to_owned(),
    };
    if std::env::var_os("UPDATE_TABLES").is_some() {
        fs::write(path, expected).unwrap();
    } else {
        assert_eq!(text, expected, "{file} differs; see the head of this file");
    }
}

async fn assert_in_rotation(proxy: &ReverseProxy, what: &str) {
    let is_served = async || http::get(proxy.v4, "/work").await.status == 200;
    eventually(&format!("in rotation: {what}"), is_served).await;
}

async fn assert_out_of_rotation(proxy: &ReverseProxy, what: &str) {
    let is_rejected = async || http::get(proxy.v4, "/work").await.status >= 500;
    eventually(&format!("out of rotation: {what}"), is_rejected).await;
}

async fn assert_leaves_rotation_and_returns(kind: Kind, readiness: &str) {
    let checks = Checks::new();
    checks.shared.store(false, Ordering::SeqCst);
    let own_checks = checks.clone();
    let server =
        HttpServer::new(move || App::new().service(own_checks.scope()).route("/work", web::get().to(HttpResponse::Ok)))
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
    let upstream = Upstream::Tcp { server: server.addrs()[0], from: Ipv4Addr::LOCALHOST };
    let server = server.run();
    let handle = server.handle();
    let drain = health::drain(handle.clone(), Duration::from_hours(1));
    actix_web::rt::spawn(server);
    let proxy = ReverseProxy::start_with(kind, Header::XForwardedFor, upstream, readiness);

    assert_out_of_rotation(&proxy, "a shared check has not been up yet").await;
    checks.shared.store(true, Ordering::SeqCst);
    assert_in_rotation(&proxy, "the shared check is up").await;
    checks.critical.store(false, Ordering::SeqCst);
    assert_out_of_rotation(&proxy, "a critical check is down").await;
    // The shared one goes down first, so that the proxy is in rotation because of its role.
    checks.shared.store(false, Ordering::SeqCst);
    checks.critical.store(true, Ordering::SeqCst);
    assert_in_rotation(&proxy, "the shared check is down after the start").await;
    let hold = health::hold("maintenance", Duration::from_hours(1));
    assert_out_of_rotation(&proxy, "held").await;
    drop(hold);
    assert_in_rotation(&proxy, "the hold has ended").await;
    drain.start();
    assert_out_of_rotation(&proxy, "draining").await;
    handle.stop(false).await;
}

#[actix_web::test]
async fn haproxy_takes_the_server_out_of_rotation_and_in_again() {
    let readiness = "option httpchk\n    http-check send meth GET uri /health/ready\n    default-server check inter 50ms fall 1 rise 1";
    assert_leaves_rotation_and_returns(Kind::HaProxy, readiness).await;
}

#[actix_web::test]
async fn nginx_takes_the_server_out_of_rotation_and_in_again() {
    assert_leaves_rotation_and_returns(Kind::Nginx, "auth_request /health/ready;").await;
}

#[actix_web::test]
async fn a_hold_ends_by_itself_without_a_request() {
    let checks = Checks::new();
    let server = checks.serve(1);
    let _hold = health::hold("restart of postgres://bob:hunter2@db", Duration::from_millis(300));
    let response = server.get("/health/ready").await;
    let message = "held: restart of postgres://***@db, 1 s left";
    assert_eq!((response.status, &response.json()["errors"]["health"]["hold"]), (503, &message.into()));
    eventually("the expiry is logged", || async { logs::text().contains("has expired") }).await;
    assert_eq!(server.get("/health/ready").await.status, 200);
    assert!(!logs::text().contains("hunter2"), "{}", logs::text());
}
