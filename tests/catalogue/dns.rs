//! `probes::dns::Resolve`. The system's resolver queries the servers in `/etc/resolv.conf`, so a test that breaks one runs in
//! another process with another such file, for which it has to be root.
//!
//! One test there replaces the acceptance suite, without wrong credentials, saturation and open connections, which do not apply.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use actix_web::web;
use health::{HealthCheck, probes::dns::Resolve};

use crate::acceptance::values;
use crate::common::{
    eventually,
    responses::{assert_down, assert_not_leaked, assert_up},
    test_server::TestServer,
};

#[derive(HealthCheck)]
struct State {
    partner: Resolve,
}

fn serve(name: &str) -> TestServer {
    let state = web::Data::new(State { partner: Resolve::new(name).unwrap() });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(Duration::ZERO).state(&state));
    })
}

#[actix_web::test]
async fn a_name_that_the_machine_knows_is_up() {
    let rig = serve("localhost");
    assert_up(&rig, "service", "partner").await;
    assert!(values(&rig, "service", "partner").await["addresses"].as_u64() >= Some(1));
}

#[actix_web::test]
async fn a_name_that_can_be_none_is_down() {
    // Longer than a label may be, which the resolver rejects without a server.
    let name = "a".repeat(64) + ".example";
    let rig = serve(&name);
    let response = assert_down(&rig, "service", "partner", &format!("unable to resolve {name}")).await;
    assert_not_leaked(&rig, &response, &["failed to lookup address information"]).await;
}

/// The variable with the address of the server, for the other process.
const ADDRESS: &str = "HEALTH_TEST_NAME_SERVER";

#[test]
fn a_name_is_up_while_its_server_responds_and_down_while_that_is_stopped_or_frozen() {
    let id = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, id[1].max(1), id[2], id[3]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("resolv.conf");
    fs::write(&config, format!("nameserver {address}\noptions timeout:2 attempts:2\n")).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#])
        .arg(&config)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "dns::with_a_name_server_of_its_own", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .output()
        .expect("there is a program `unshare`");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "this test needs root, and a mount namespace of its own: {text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[actix_web::test]
#[ignore = "it is run by the test above, in a process of its own"]
async fn with_a_name_server_of_its_own() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let name = "partner.canary.example";
    let rig = serve(name);
    let unable = format!("unable to resolve {name}");
    let is_up = || async { rig.health().await.status == 200 };

    // The server is stopped from the start.
    let response = assert_down(&rig, "service", "partner", &unable).await;
    assert_not_leaked(&rig, &response, &["failed to lookup address information"]).await;

    let server = NameServer::start(&address);
    eventually("it is up", is_up).await;
    let before = server.queries();
    for _ in 0..5 {
        assert_up(&rig, "service", "partner").await;
    }
    assert_eq!(server.queries() - before, 5, "one lookup a run");

    server.forget(true);
    assert_down(&rig, "service", "partner", &unable).await;
    server.forget(false);
    assert_up(&rig, "service", "partner").await;

    server.freeze(true);
    let response = assert_down(&rig, "service", "partner", "timed out after 800 ms").await;
    assert!(response.took < Duration::from_secs(5), "{:?}", response.took);
    server.freeze(false);
    eventually("it is up again", is_up).await;

    drop(server);
    assert_down(&rig, "service", "partner", &unable).await;
    let _server = NameServer::start(&address);
    assert_up(&rig, "service", "partner").await;
}

/// A name server that resolves all names to the loopback address.
struct NameServer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stops: AtomicBool,
    frozen: AtomicBool,
    forgets: AtomicBool,
    queries: AtomicU64,
}

impl NameServer {
    fn start(address: &str) -> Self {
        let socket = UdpSocket::bind((address, 53)).expect("this test must be root, to listen on port 53");
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let shared = Arc::new(Shared::default());
        let ours = shared.clone();
        let thread = thread::spawn(move || {
            let mut packet = [0; 512];
            while !ours.stops.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                if ours.frozen.load(Ordering::SeqCst) {
                    continue;
                }
                if let Some(response) = ours.response(&packet[..length]) {
                    socket.send_to(&response, from).unwrap();
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Returns the number of queries for an address.
    fn queries(&self) -> u64 {
        self.shared.queries.load(Ordering::SeqCst)
    }

    fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Makes all names unknown.
    fn forget(&self, forgets: bool) {
        self.shared.forgets.store(forgets, Ordering::SeqCst);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        let _ = self.thread.take().expect("it is dropped once").join();
    }
}

impl Shared {
    /// Returns the response to a query of one name: its header, the labels of the name, type and class (RFC 1035).
    fn response(&self, query: &[u8]) -> Option<Vec<u8>> {
        const TYPE_A: [u8; 2] = [0, 1];
        let (header, rest) = query.split_at_checked(12)?;
        let name = rest.iter().position(|&byte| byte == 0)? + 1;
        let question = rest.get(..name + 4)?;
        let is_a = question[name..name + 2] == TYPE_A;
        if is_a {
            self.queries.fetch_add(1, Ordering::SeqCst);
        }
        let forgets = self.forgets.load(Ordering::SeqCst);
        let answers = u8::from(is_a && !forgets);
        let mut response = header[..2].to_vec();
        // Flags, without an error or with NXDOMAIN; one question, and the number of answers.
        response.extend([0x81, if forgets { 0x83 } else { 0x80 }, 0, 1, 0, answers, 0, 0, 0, 0]);
        response.extend(question);
        if answers == 1 {
            // A pointer to the name at 12, type A, class IN, TTL 0, four bytes.
            response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        Some(response)
    }
}
