//! The example whose state contains ten kinds of resources, against ten servers, which are stopped in turn.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    common::{
        PASSWORD, USER, eventually, http,
        servers::{FaultInjection, Kind, Server},
    },
    servers::{
        memcached::Memcached,
        mosquitto::Mosquitto,
        nats::Nats,
        rabbitmq::RabbitMq,
        stub::{Stub, Talk},
    },
};

struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(variables: &[(&str, String)]) -> (Example, SocketAddr) {
    // Built together with the tests of the package `examples`, in the folder above the one of the test binaries.
    let program = std::env::current_exe().unwrap().parent().unwrap().with_file_name("everything");
    assert!(program.exists(), "the example is not built: test with `--workspace --all-features`");
    let mut example = Command::new(program)
        .env_remove("HEALTHCHECK_IPS")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Example)
        .unwrap();
    let mut printed = BufReader::new(example.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(printed.read_line(&mut line).unwrap() > 0, "the example printed no address");
    }
    // The rest of its output has to be read, or it would block.
    std::thread::spawn(move || printed.read_to_end(&mut Vec::new()));
    let (_, rest) = line.split_once("http://").unwrap();
    let end = rest.find(';').unwrap();
    (example, rest[..end].parse().unwrap())
}

/// `{"status":…,"checks":…}` with one check down, or none.
fn expected(checks: &[(&str, &str)], down: Option<&str>) -> Value {
    let mut all = json!({});
    for (group, name) in checks {
        all[group][name] = if down == Some(name) { "DOWN".into() } else { "UP".into() };
    }
    json!({"status": if down.is_some() { "DOWN" } else { "UP" }, "checks": all})
}

#[actix_web::test]
async fn of_ten_servers_exactly_the_one_that_is_stopped_is_down() {
    let redis = || Server::start(Kind::Redis);
    let (orders, legacy, reports) = (Kind::Postgres, Kind::MariaDb, Kind::Postgres);
    let [orders, legacy, reports] = [orders, legacy, reports].map(Server::start);
    let (sessions, limits) = (redis(), redis());
    let (mut pages, mut events, mut jobs, mut sensors) =
        (Memcached::prepared(&[]), Nats::prepared(), RabbitMq::prepared(), Mosquitto::prepared());
    pages.restart();
    events.restart();
    jobs.restart();
    sensors.restart();
    let payments = Stub::start(Talk::Http);

    let local = |scheme: &str, port: u16| format!("{scheme}://{USER}:{PASSWORD}@127.0.0.1:{port}");
    let (example, address) = start(&[
        ("ORDERS", orders.url()),
        ("LEGACY", legacy.url()),
        ("REPORTS", reports.url()),
        ("SESSIONS", sessions.url()),
        ("LIMITS", limits.url()),
        ("PAGES", format!("127.0.0.1:{}", pages.port())),
        ("EVENTS", local("nats", events.port())),
        ("JOBS", jobs.url()),
        ("SENSORS", local("mqtt", sensors.port())),
        ("PAYMENTS", format!("{}/", local("http", payments.port()))),
    ]);
    let checks = [
        ("database", "orders"),
        ("database", "legacy"),
        ("database", "reports"),
        ("cache", "sessions"),
        ("cache", "limits"),
        ("cache", "pages"),
        ("queue", "events"),
        ("queue", "jobs"),
        ("queue", "sensors"),
        ("service", "payments"),
    ];
    let mut servers: [Box<dyn FaultInjection>; 10] = [
        Box::new(orders),
        Box::new(legacy),
        Box::new(reports),
        Box::new(sessions),
        Box::new(limits),
        Box::new(pages),
        Box::new(events),
        Box::new(jobs),
        Box::new(sensors),
        Box::new(payments),
    ];
    let responds = async |down: Option<&str>| {
        let response = http::get(address, "/health").await;
        let mut outcome = response.json();
        let errors = outcome.as_object_mut().unwrap().remove("errors");
        assert_eq!(response.status, if outcome["status"] == "UP" { 200 } else { 503 });
        assert_eq!(errors.is_some(), outcome["status"] == "DOWN", "{response:?}");
        outcome == expected(&checks, down)
    };
    eventually("all are up", || responds(None)).await;
    for (server, (_, name)) in servers.iter_mut().zip(checks) {
        server.stop();
        eventually(&format!("only {name} is down"), || responds(Some(name))).await;
        server.restart();
        eventually(&format!("{name} is up again"), || responds(None)).await;
    }
    drop(example);
}
