//! `/health/page` in Debian's Chromium, driven by `browser/run.mjs`, and as text in w3m. Screenshots are written to
//! `target/screenshots/`, for people.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use health::{AllowList, Check, ProbeError, ProbeErrorKind, Scope};

use tokio::sync::mpsc::unbounded_channel;

use crate::common::{
    eventually, http,
    process::as_user,
    reverse_proxy::{Header, Kind, ReverseProxy, Upstream},
    servers::free_port,
    test_server::TestServer,
};

/// Runs a case of `browser/run.mjs`. It requests actions by words.
async fn browser(case: &str, args: &[String], mut act: impl AsyncFnMut(&str)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    assert!(folder.join("node_modules").exists(), "puppeteer-core is not installed: tests/run does it");
    let mut node = as_user("root", "node")
        .arg(folder.join("run.mjs"))
        .arg(case)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (node.stdin.take().unwrap(), node.stdout.take().unwrap());
    // On a thread, because the server runs on this one.
    let (send_word, mut words) = unbounded_channel();
    thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|word| send_word.send(word.unwrap())));
    while let Some(word) = words.recv().await {
        act(&word).await;
        writeln!(stdin, "done").unwrap();
    }
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{case} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn views(pages: &[(&str, String)]) {
    let args: Vec<_> = pages.iter().map(|(name, url)| format!("{name}={url}")).collect();
    browser("views", &args, async |_| ()).await;
}

fn scope() -> Scope {
    health::scope().max_age(Duration::ZERO)
}

fn with(scope: Scope, checks: &[Check]) -> Scope {
    checks.iter().cloned().fold(scope, Scope::check)
}

fn url(server: SocketAddr, path: &str) -> String {
    format!("http://{server}{path}/page")
}

/// A check whose runs take some milliseconds, and whose latest results are those of the text: `+` up, `!` degraded, `-` down. Before
/// them, and between them, the latency varies.
fn check(group: &str, name: &str, results: &'static str, ms: u64, message: &'static str) -> Check {
    let runs = AtomicUsize::new(0);
    Check::new(group, name, move || {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        let result = results.as_bytes()[run.min(results.len() - 1)];
        let slower = [0, 1, 0, 2, 0, 0, 5, 1, 0, 3][run * 7 % 10];
        async move {
            health::observe("connections", 4 + slower);
            tokio::time::sleep(Duration::from_millis(ms * (1 + slower))).await;
            match result {
                b'+' => Ok(()),
                b'!' => Err(ProbeError::new(ProbeErrorKind::Saturated, message)),
                _ => Err(ProbeError::new(ProbeErrorKind::Unreachable, message)),
            }
        }
    })
}

const UP: &str = "+";
const POOL: &str = "connection pool exhausted (10 of 10 in use)";
const REDIS: &str = "unable to connect to redis at 127.0.0.1:6379";

fn nine_checks(sessions: &'static str, orders: &'static str) -> Vec<Check> {
    vec![
        check("database", "db", UP, 1, ""),
        check("database", "replica", "+++++++++++++++!!!++++++++++++-+++", 2, "replication lag is 40 s"),
        check("cache", "sessions", sessions, 0, REDIS).shared(),
        check("cache", "pages", UP, 0, "").optional(),
        check("queue", "orders", orders, 3, POOL),
        check("mail", "smtp", "+++++++++++++++++++--++++++++++++", 8, "timed out after 800 ms").optional(),
        check("storage", "uploads", UP, 5, ""),
        check("service", "payments", UP, 12, ""),
        check("system", "disk", UP, 0, "").live(),
    ]
}

/// So that there is a history.
async fn run_checks(server: &TestServer, path: &str, times: usize) {
    for _ in 0..times {
        server.get(path).await;
    }
}

#[actix_web::test]
async fn pages_are_accessible_and_fit_in_every_theme_and_width() {
    let up = nine_checks(UP, UP);
    let down = nine_checks("+++++++++++++++++++++++++++++++++++++++++++----", "+++++++++++++++++++++++++++!!!!!!!!!!!");
    let hostile = [
        Check::new("service", "<script>alert(1)</script>", || async { Ok::<_, ProbeError>(()) }),
        Check::new("\"><img src=x onerror=alert(1)>", "' style='color:red", || async {
            Err::<(), _>(ProbeError::new(ProbeErrorKind::Failed, "</main><script>alert(1)</script>\u{202e}\"& שגיאה"))
        }),
        Check::new("service", "مرحبا بالعالم", || async {
            Err::<(), _>(ProbeError::new(ProbeErrorKind::Failed, "تعذر الاتصال: 127.0.0.1"))
        }),
        Check::new("service", "x".repeat(150), || async {
            Err::<(), _>(ProbeError::new(ProbeErrorKind::Failed, "no-space-".repeat(40)))
        }),
    ];
    let server = TestServer::start(1, move |app| {
        app.service(with(scope().path("/up").release("orders", "1.4.2"), &up))
            .service(with(scope().path("/down").release("orders", "1.4.2"), &down))
            .service(with(scope().path("/one").release("orders", "1.4.2"), &up[..1]))
            .service(scope().path("/none"))
            .service(scope().path("/empty").allow_empty())
            .service(with(scope().path("/hostile").release("<b>or\"ders</b>", "<i>1</i>"), &hostile));
    });
    run_checks(&server, "/up", 60).await;
    run_checks(&server, "/down", 50).await;
    let pages = ["up", "down", "one", "none", "empty", "hostile"];
    views(&pages.map(|name| (name, url(server.address, &format!("/{name}"))))).await;
}

#[actix_web::test]
async fn a_page_of_two_hundred_checks_is_accessible_and_fits() {
    let results = |n| if n % 67 == 5 { "++++++++--" } else { UP };
    let checks: Vec<_> = (0..200)
        .map(|n| check("service", &format!("tenant-{n:03}"), results(n), 1, "rejected the credentials"))
        .collect();
    let server = TestServer::start(1, move |app| {
        app.service(with(scope().release("tenants", "7"), &checks));
    });
    run_checks(&server, "/health", 20).await;
    views(&[("many", url(server.address, "/health"))]).await;
}

#[actix_web::test]
async fn the_page_shows_a_hold_a_blocked_worker_and_a_drain() {
    let checks = nine_checks(UP, UP);
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let main = HttpServer::new(move || {
        let released = Arc::clone(&released);
        let block = move || {
            // Until the sender is dropped.
            let _ = released.lock().unwrap().recv();
            async { HttpResponse::Ok() }
        };
        App::new().service(health::heartbeat()).route("/block", web::get().to(block))
    });
    let main = main.workers(4).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let address = main.addrs()[0];
    let main = main.run();
    let drain = health::drain(main.handle(), Duration::from_hours(1));
    let handle = main.handle();
    actix_web::rt::spawn(main);
    let stall = Duration::from_secs(1);
    let server =
        health::serve("127.0.0.1:0", move || with(scope().stall(stall).release("orders", "1.4.2"), &checks)).unwrap();
    let page = server.addrs()[0];
    let shows = async |text: &str| http::get(page, "/health/page").await.body.contains(text);
    eventually("all workers are registered", || shows("workers: 4 running")).await;
    for _ in 0..20 {
        http::get(page, "/health").await;
    }

    let hold = health::hold("maintenance", Duration::from_mins(12));
    assert!(shows("held: maintenance, 12 min left").await);
    views(&[("held", url(page, "/health"))]).await;
    drop(hold);

    let blocked = actix_web::rt::spawn(http::get(address, "/block"));
    eventually("the worker is reported", || shows("blocked for")).await;
    assert!(shows("workers: 3 running").await);
    views(&[("blocked", url(page, "/health"))]).await;
    drop(release);
    assert_eq!(blocked.await.unwrap().status, 200);

    drain.start();
    eventually("the drain has started", || shows("draining")).await;
    views(&[("draining", url(page, "/health"))]).await;
    handle.stop(false).await;
}

/// A check that is up while the switch is on.
fn switched(group: &str, name: &str) -> (Arc<AtomicBool>, Check) {
    let switch = Arc::new(AtomicBool::new(true));
    let on = Arc::clone(&switch);
    let check = Check::new(group, name, move || {
        let is_up = on.load(Ordering::SeqCst);
        async move { if is_up { Ok(()) } else { Err(ProbeError::new(ProbeErrorKind::Failed, "it is switched off")) } }
    });
    (switch, check)
}

/// A server with a check that is up, and one that can be switched.
struct Switched {
    switch: Arc<AtomicBool>,
    checks: [Check; 2],
    allowed: AllowList,
}

impl Switched {
    fn new() -> Self {
        let (switch, sessions) = switched("cache", "sessions");
        let checks = [check("database", "db", UP, 0, ""), sessions];
        let allowed = AllowList::new(["127.0.0.1/32".parse().unwrap()]).unwrap();
        Self { switch, checks, allowed }
    }

    fn serve(&self, port: u16) -> TestServer {
        let (checks, allowed) = (self.checks.clone(), self.allowed.clone());
        TestServer::start_on(port, 1, move |app| {
            app.service(with(scope().allow_list(&allowed).release("orders", "1.4.2"), &checks));
        })
    }
}

#[actix_web::test]
async fn the_page_is_complete_without_script_and_usable_with_the_keyboard_only() {
    let app = Switched::new();
    let server = app.serve(0);
    app.switch.store(false, Ordering::SeqCst);
    let url = url(server.address, "/health");
    browser("scriptOff", &[url.clone()], async |_| ()).await;
    browser("keyboard", &[url], async |_| ()).await;
}

#[actix_web::test]
async fn the_page_follows_the_server_and_says_when_it_cannot() {
    let app = Switched::new();
    let port = free_port();
    let mut server = Some(app.serve(port));
    let url = url(([127, 0, 0, 1], port).into(), "/health");
    browser("updates", &[url], async |word| match word {
        "fail" => app.switch.store(false, Ordering::SeqCst),
        "mend" => app.switch.store(true, Ordering::SeqCst),
        "stop" => server.take().unwrap().stop().await,
        "start" => server = Some(app.serve(port)),
        "deny" => app.allowed.set(["192.0.2.1/32".parse().unwrap()]).unwrap(),
        "allow" => app.allowed.set(["127.0.0.1/32".parse().unwrap()]).unwrap(),
        _ => panic!("unknown word: {word}"),
    })
    .await;
}

#[actix_web::test]
async fn links_work_with_a_trailing_slash_and_behind_a_stripped_prefix() {
    let server = Switched::new().serve(0);
    let upstream = Upstream::Tcp { server: server.address, from: Ipv4Addr::LOCALHOST };
    let strip = "rewrite ^/apps/orders/(.*)$ /$1 break;";
    let nginx = ReverseProxy::start_with(Kind::Nginx, Header::XForwardedFor, upstream, strip);
    for url in [url(server.address, "/health"), url(nginx.v4, "/apps/orders/health")] {
        browser("links", &[url], async |_| ()).await;
    }
}

#[actix_web::test]
async fn the_page_reads_well_as_text() {
    let app = Switched::new();
    let server = app.serve(0);
    run_checks(&server, "/health", 2).await;
    app.switch.store(false, Ordering::SeqCst);
    let output = Command::new("w3m")
        .args(["-dump", "-cols", "120", "-O", "UTF-8", &url(server.address, "/health")])
        .output()
        .expect("w3m is not installed: tests/run does it");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rest = &*text;
    for part in [
        "orders 1.4.2",
        "✕ DOWN",
        "1 of 2 checks down: cache.sessions. Since ",
        "✕ ready 503",
        "✓ live 200",
        "✓ startup 200",
        "workers: 1 running",
        "✕ DOWN",
        "cache.sessions",
        "it is switched off",
        "✓ UP",
        "database.db",
        "Generated on ",
        "JSON",
        "Schema",
    ] {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part} is missing or in another place:\n{text}")).1;
    }
    assert!(!text.contains("--color") && !text.contains("querySelector"), "{text}");
}
