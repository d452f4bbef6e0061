//! A check that blocks, deadlocks or leaks threads affects no other check: over real HTTP, on real threads.

use std::{
    fs,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use actix_web::web;
use health::{Check, Probe, ProbeError, Registry};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::common::{eventually, logs, test_server::TestServer};

fn sleeping(name: impl Into<String>, ms: u64) -> Check {
    Check::new("service", name, move || async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok::<_, String>(())
    })
}

/// Blocks its thread for that time in each run.
fn blocking(name: impl Into<String>, time: Duration) -> Check {
    Check::new("service", name, move || async move {
        thread::sleep(time);
        Ok::<_, String>(())
    })
}

/// Sleeps for 20 ms, then parks its thread forever.
fn deadlocked(name: impl Into<String>) -> Check {
    Check::new("service", name, || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        loop {
            thread::park();
        }
        #[allow(unreachable_code)]
        Ok::<_, String>(())
    })
}

fn serve(checks: Vec<Check>) -> TestServer {
    serve_as(checks, |scope| scope)
}

fn serve_as(checks: Vec<Check>, set: impl Fn(health::Scope) -> health::Scope + Send + Sync + 'static) -> TestServer {
    TestServer::start(1, move |app| {
        app.service(checks.iter().cloned().fold(set(health::scope()), health::Scope::check));
    })
}

/// The names of the checks that are not UP.
async fn not_up(server: &TestServer) -> Vec<String> {
    let response = server.health().await;
    assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
    let checks = response.json()["checks"]["service"].as_object().unwrap().clone();
    checks.into_iter().filter(|(_, status)| status != "UP").map(|(name, _)| name).collect()
}

fn threads(name: &str) -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path().join("comm"));
    names.filter(|comm| fs::read_to_string(comm).is_ok_and(|comm| comm.trim_end().starts_with(name))).count()
}

#[actix_web::test]
async fn of_nine_checks_only_the_deadlocked_one_is_down_in_every_response() {
    let mut checks: Vec<_> =
        (0..8).map(|n| if n == 4 { deadlocked("4") } else { sleeping(n.to_string(), 20) }).collect();
    checks.push(sleeping("slow", 100));
    let server = serve_as(checks, |scope| scope.max_age(Duration::ZERO));
    for _ in 0..20 {
        assert_eq!(not_up(&server).await, ["4"], "{}", logs::text());
    }
}

#[actix_web::test]
async fn a_healthy_check_is_up_next_to_seven_that_block() {
    let mut checks: Vec<_> = (0..7).map(|n| blocking(n.to_string(), Duration::from_millis(2_500))).collect();
    checks.push(sleeping("healthy", 50));
    let server = serve(checks);
    for _ in 0..4 {
        let down = not_up(&server).await;
        assert!(!down.contains(&"healthy".to_owned()), "{down:?}");
        assert_eq!(down.len(), 7);
    }
}

#[actix_web::test]
async fn four_healthy_checks_are_up_next_to_four_deadlocked_ones_and_only_the_deadlocked_ones_are_logged() {
    let blocked = (0..4).map(|n| deadlocked(format!("blocked-{n}")));
    let healthy = (0..4).map(|n| sleeping(format!("healthy-{n}"), 30));
    let server = serve_as(blocked.chain(healthy).collect(), |scope| scope.max_age(Duration::ZERO));
    for _ in 0..10 {
        let down = not_up(&server).await;
        assert!(down.len() == 4 && down.iter().all(|name| name.starts_with("blocked")), "{down:?}");
    }
    eventually("the blocked ones are logged", || async {
        (0..4).all(|n| logs::text().contains(&format!("service.blocked-{n}")))
    })
    .await;
    let logged = logs::lines().into_iter().find(|line| line.contains("ERROR") && line.contains("healthy"));
    assert_eq!(logged, None);
}

#[actix_web::test]
async fn a_check_that_blocks_once_has_no_lasting_effect_on_others() {
    let blocks = Arc::new(AtomicBool::new(true));
    let once = Check::new("service", "once", {
        let blocks = Arc::clone(&blocks);
        move || {
            let blocks = blocks.swap(false, Ordering::SeqCst);
            async move {
                if blocks {
                    thread::sleep(Duration::from_millis(1_500));
                }
                Ok::<_, String>(())
            }
        }
    });
    let names = Arc::new(Mutex::new(Vec::new()));
    let mut checks = vec![once];
    for n in 0..4 {
        let names = Arc::clone(&names);
        checks.push(Check::new("service", n.to_string(), move || {
            names.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, String>(())
            }
        }));
    }
    let server = serve_as(checks, |scope| scope.max_age(Duration::from_millis(100)));
    assert_eq!(not_up(&server).await, ["once"]);
    eventually("it is up again", || async { not_up(&server).await.is_empty() }).await;
    for _ in 0..5 {
        assert!(not_up(&server).await.is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let names = names.lock().unwrap();
    assert!(names.iter().all(|name| name == "health-check"), "{names:?}");
}

#[actix_web::test]
async fn a_connection_opened_in_a_check_works_after_that_check_has_blocked() {
    let echo = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = echo.local_addr().unwrap();
    actix_web::rt::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    });
    let connection: Arc<tokio::sync::Mutex<Option<TcpStream>>> = Arc::default();
    let runs = Arc::new(AtomicU32::new(0));
    let check = Check::new("service", "connects", {
        let (connection, runs) = (Arc::clone(&connection), Arc::clone(&runs));
        move || {
            let (connection, run) = (Arc::clone(&connection), runs.fetch_add(1, Ordering::SeqCst));
            async move {
                match run {
                    // It blocks twice before it connects.
                    0 | 1 => thread::sleep(Duration::from_millis(1_200)),
                    2 => *connection.lock().await = Some(TcpStream::connect(address).await?),
                    _ => {}
                }
                Ok::<_, std::io::Error>(())
            }
        }
    });
    let server = serve_as(vec![check], |scope| scope.max_age(Duration::ZERO));
    eventually("the check has connected", || async {
        server.health().await;
        connection.lock().await.is_some()
    })
    .await;
    server.health().await;
    let mut connection = connection.lock().await.take().unwrap();
    connection.write_all(b"x").await.unwrap();
    let mut byte = [0];
    tokio::time::timeout(Duration::from_secs(10), connection.read_exact(&mut byte)).await.unwrap().unwrap();
    assert_eq!(&byte, b"x");
}

/// Blocks threads until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Makes a blocking call that waits for the gate, and cancels its own wait for the call after that time, as the hard limit does;
/// the thread of the call continues.
fn hangs(gate: &Arc<Gate>, wait: Duration) -> Check {
    let gate = Arc::clone(gate);
    Check::new("service", "hangs", move || {
        let gate = Arc::clone(&gate);
        async move {
            let call = web::block(move || gate.pass());
            let result = tokio::time::timeout(wait, call).await;
            result.map_err(|_| "the call hangs")?.map_err(|_| "the call was cancelled")
        }
    })
}

#[actix_web::test]
async fn hung_blocking_calls_are_bounded_and_the_check_recovers_when_they_return() {
    let gate = Arc::new(Gate::default());
    let check = hangs(&gate, Duration::from_millis(20));
    let server = serve_as(vec![check, sleeping("healthy", 10)], |scope| {
        scope.max_age(Duration::ZERO).deadline(Duration::from_millis(100))
    });
    for _ in 0..30 {
        assert_eq!(not_up(&server).await, ["hangs"]);
    }
    assert_eq!(gate.waiting.load(Ordering::SeqCst), 4, "blocking calls");
    assert!(threads("health-") < 16, "{} threads", threads("health-"));
    eventually("the log has the reason", || async {
        logs::text().contains("4 blocking calls that it made have not returned")
    })
    .await;
    gate.open();
    eventually("it is up again", || async { not_up(&server).await.is_empty() }).await;
}

#[actix_web::test]
async fn polls_with_a_deadlocked_and_a_blocking_check_leave_no_threads_behind() {
    let checks =
        vec![deadlocked("deadlocked"), blocking("blocking", Duration::from_millis(400)), sleeping("healthy", 1)];
    let server = serve_as(checks, |scope| scope.max_age(Duration::ZERO).deadline(Duration::from_millis(100)));
    for _ in 0..50 {
        not_up(&server).await;
    }
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    let before = (count("/proc/self/task"), count("/proc/self/fd"));
    for _ in 0..300 {
        assert!(not_up(&server).await.contains(&"deadlocked".to_owned()));
    }
    // A run may start another thread while that of the last run is about to become idle, and the descriptors of the last clients
    // are closed a little later. Leaks would be hundreds.
    eventually("threads and descriptors are back at their number", || async {
        count("/proc/self/task") <= before.0 + 3 && count("/proc/self/fd") <= before.1 + 3
    })
    .await;
}

/// A resource of which `Display` and `Debug` of the error, or the method `resource`, block forever.
#[derive(Clone)]
struct BlocksOutsideProbe(&'static str);

impl std::fmt::Display for BlocksOutsideProbe {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        loop {
            thread::park();
        }
    }
}

impl std::fmt::Debug for BlocksOutsideProbe {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        loop {
            thread::park();
        }
    }
}

impl std::error::Error for BlocksOutsideProbe {}

impl Probe for BlocksOutsideProbe {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        if self.0 == "resource" { Ok(()) } else { Err(ProbeError::from_error(self.clone())) }
    }

    fn resource(&self) -> Option<String> {
        if self.0 == "resource" {
            loop {
                thread::park();
            }
        }
        None
    }
}

#[actix_web::test]
async fn an_error_or_a_resource_whose_text_blocks_affects_only_its_check() {
    let checks = vec![
        Check::probe("error", BlocksOutsideProbe("error")),
        Check::probe("resource", BlocksOutsideProbe("resource")),
        sleeping("healthy", 30),
    ];
    let server = serve_as(checks, |scope| scope.max_age(Duration::ZERO));
    for _ in 0..5 {
        assert_eq!(not_up(&server).await, ["error", "resource"]);
    }
}

#[actix_web::test]
async fn checks_beyond_the_number_of_threads_are_recorded_as_not_started() {
    let gate = Arc::new(Gate::default());
    let checks: Vec<_> = (0..140)
        .map(|n| {
            let gate = Arc::clone(&gate);
            Check::new("service", n.to_string(), move || {
                let gate = Arc::clone(&gate);
                async move {
                    gate.pass();
                    Ok::<_, String>(())
                }
            })
        })
        .collect();
    let server = serve(checks);
    let response = server.health().await;
    assert_eq!(response.status, 503);
    let errors = response.json()["errors"]["service"].as_object().unwrap().clone();
    let with = |message: &str| errors.values().filter(|error| *error == message).count();
    assert_eq!((with("timed out after 800 ms"), with("the check could not start within 800 ms")), (128, 12));
    eventually("the log has the reason", || async { logs::text().contains("all 128 threads for checks are in use") })
        .await;
    gate.open();
    eventually("all are up", || async { server.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_blocked_log_subscriber_delays_no_response() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Check::new("service", "failing", {
        let fails = Arc::clone(&fails);
        move || {
            let fails = fails.load(Ordering::SeqCst);
            async move { if fails { Err("its text is logged") } else { Ok(()) } }
        }
    });
    let server = serve(vec![failing, sleeping("healthy", 10)]);
    // The first request logs on its worker which checks are probed.
    assert!(not_up(&server).await.is_empty());
    fails.store(true, Ordering::SeqCst);
    let held = logs::hold();
    eventually("it is down", || async { not_up(&server).await == ["failing"] }).await;
    fails.store(false, Ordering::SeqCst);
    eventually("it is up again", || async { not_up(&server).await.is_empty() }).await;
    drop(held);
    eventually("the lines are written", || async { logs::text().contains("service.failing is UP again") }).await;
}

#[actix_web::test]
async fn spawned_tasks_that_block_affect_no_other_check() {
    let spawns = Check::new("service", "spawns", || async {
        for delay in [0, 0, 30, 30, 60] {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                loop {
                    thread::park();
                }
            });
        }
        Ok::<_, String>(())
    });
    let server = serve_as(vec![sleeping("a", 100), spawns, sleeping("b", 150)], |scope| scope.max_age(Duration::ZERO));
    for _ in 0..10 {
        let down = not_up(&server).await;
        assert!(down.iter().all(|name| name == "spawns"), "{down:?}: {}", logs::text());
    }
    assert_eq!(not_up(&server).await, ["spawns"]);
    eventually("the log has the reason", || async {
        logs::text().contains("a task that it spawned blocks the runtime")
    })
    .await;
    assert!(threads("health-") < 16, "{} threads", threads("health-"));
}

#[actix_web::test]
async fn a_check_runs_again_after_its_spawned_task_no_longer_blocks() {
    let gate = Arc::new(Gate::default());
    let spawns = Check::new("service", "spawns", {
        let gate = Arc::clone(&gate);
        move || {
            let gate = Arc::clone(&gate);
            async move {
                tokio::spawn(async move { gate.pass() });
                Ok::<_, String>(())
            }
        }
    });
    let server = serve_as(vec![spawns], |scope| scope.max_age(Duration::ZERO).deadline(Duration::from_millis(100)));
    eventually("it is down", || async { not_up(&server).await == ["spawns"] }).await;
    for _ in 0..20 {
        not_up(&server).await;
    }
    assert_eq!(gate.waiting.load(Ordering::SeqCst), 1, "tasks");
    gate.open();
    eventually("it is up again", || async { not_up(&server).await.is_empty() }).await;
}

#[actix_web::test]
async fn blocking_calls_of_other_checks_do_not_raise_the_bound() {
    let gate = Arc::new(Gate::default());
    let hangs = hangs(&gate, Duration::from_millis(5));
    let brief = (0..8).map(|n| {
        Check::new("service", format!("brief-{n}"), || async {
            for _ in 0..20 {
                web::block(|| thread::sleep(Duration::from_micros(100))).await.map_err(|_| "cancelled")?;
            }
            Ok::<_, &str>(())
        })
    });
    let server = serve_as(std::iter::once(hangs).chain(brief).collect(), |scope| {
        scope.max_age(Duration::ZERO).deadline(Duration::from_millis(200))
    });
    for _ in 0..50 {
        not_up(&server).await;
    }
    assert_eq!(gate.waiting.load(Ordering::SeqCst), 4, "blocking calls");
    gate.open();
}

/// A value whose destructor blocks.
struct BlocksOnDrop(Arc<Gate>);

impl Drop for BlocksOnDrop {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[actix_web::test]
async fn a_destructor_that_blocks_after_unregistration_delays_no_response_and_no_log_line() {
    let (gate, registry) = (Arc::new(Gate::default()), Registry::new());
    let owned = BlocksOnDrop(Arc::clone(&gate));
    let owner = Check::new("service", "owner", move || {
        let _ = &owned;
        async { Ok::<_, String>(()) }
    });
    registry.register(owner).unwrap();
    let hangs = Arc::new(AtomicBool::new(false));
    let hung = Check::new("service", "hung", {
        let hangs = Arc::clone(&hangs);
        move || {
            hangs.store(true, Ordering::SeqCst);
            std::future::pending::<Result<(), String>>()
        }
    });
    let server = TestServer::start(1, {
        let registry = registry.clone();
        move |app| {
            let scope = health::scope().registry(&registry).check(hung.clone()).check(sleeping("healthy", 1));
            app.service(scope.deadline(Duration::from_millis(400)));
        }
    });
    let unregister = async {
        eventually("the request waits for a check", || async { hangs.load(Ordering::SeqCst) }).await;
        registry.unregister("service", "owner");
    };
    let (down, ()) = tokio::join!(not_up(&server), unregister);
    assert_eq!(down, ["hung"]);
    eventually("the destructor runs", || async { gate.waiting.load(Ordering::SeqCst) == 1 }).await;
    assert_eq!(not_up(&server).await, ["hung"]);
    eventually("the log has the timeout", || async { logs::text().contains("service.hung is DOWN") }).await;
    gate.open();
}

#[actix_web::test]
async fn the_leftovers_of_removed_checks_do_not_affect_later_ones() {
    let (gate, registry) = (Arc::new(Gate::default()), Registry::new());
    let server = TestServer::start(1, {
        let registry = registry.clone();
        move |app| {
            app.service(health::scope().registry(&registry).max_age(Duration::ZERO));
        }
    });
    for round in 0..8 {
        let gate = Arc::clone(&gate);
        let leaves = Check::new("service", "leaves", move || {
            for _ in 0..4 {
                let gate = Arc::clone(&gate);
                if round % 2 == 0 {
                    tokio::task::spawn_blocking(move || gate.pass());
                } else {
                    tokio::spawn(async move { gate.pass() });
                }
            }
            async { Ok::<_, String>(()) }
        });
        registry.register(leaves).unwrap();
        assert!(not_up(&server).await.is_empty());
        registry.unregister("service", "leaves");
        registry.register(sleeping(format!("healthy-{round}"), 20)).unwrap();
        assert!(not_up(&server).await.is_empty(), "{}", logs::text());
    }
    gate.open();
}

#[actix_web::test]
async fn an_error_whose_destructor_blocks_occupies_one_thread() {
    struct Failure {
        _owned: BlocksOnDrop,
    }

    impl std::fmt::Debug for Failure {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Failure")
        }
    }

    impl std::fmt::Display for Failure {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("failure")
        }
    }

    impl std::error::Error for Failure {}

    let gate = Arc::new(Gate::default());
    let fails = Check::new("service", "fails", {
        let gate = Arc::clone(&gate);
        move || {
            let failure = Failure { _owned: BlocksOnDrop(Arc::clone(&gate)) };
            async { Err::<(), _>(failure) }
        }
    });
    let server = serve_as(vec![fails, sleeping("healthy", 5)], |scope| {
        scope.max_age(Duration::ZERO).deadline(Duration::from_millis(100))
    });
    for _ in 0..20 {
        assert_eq!(not_up(&server).await, ["fails"]);
    }
    assert_eq!(gate.waiting.load(Ordering::SeqCst), 1, "threads");
    gate.open();
}

/// Sends a request on an open connection.
async fn request(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        response.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        if response.ends_with('}') || response.contains("content-length: 0") {
            return response;
        }
        assert!(read > 0, "{response}");
    }
}

#[actix_web::test]
async fn without_descriptors_for_threads_a_scope_responds_503_with_the_reason_and_recovers() {
    let server = serve(vec![sleeping("healthy", 1)]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // After a response, the worker has accepted the connection.
    assert!(request(&mut stream, "/elsewhere").await.starts_with("HTTP/1.1 404"));

    let open: Vec<u64> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|descriptor| descriptor.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let lowest_free = (0..=u64::from(u32::MAX)).find(|number| !open.contains(number)).unwrap();
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(lowest_free, hard).unwrap();
    let responses = [request(&mut stream, "/health").await, request(&mut stream, "/health").await];
    rlimit::Resource::NOFILE.set(soft, hard).unwrap();

    for response in responses {
        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
        let message = r#"{"health":{"runtime":"the threads of the health check cannot be started"}}"#;
        assert!(response.contains(message), "{response}");
    }
    let recovered = request(&mut stream, "/health").await;
    assert!(recovered.starts_with("HTTP/1.1 200"), "{recovered}");
    assert_eq!(logs::lines().iter().filter(|line| line.contains("cannot be started")).count(), 1);
}
