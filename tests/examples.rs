//! The tests of the package `examples`: each example as a user starts it, over HTTP.

#![allow(missing_docs, reason = "the names of tests are messages")]

#[allow(dead_code, reason = "the other test binaries use the rest")]
mod common;
mod self_check;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use crate::common::{
    eventually, http,
    servers::{FaultInjection as _, Kind, Server},
};

const README: &str = env!("CARGO_BIN_EXE_readme");
const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");
const MANY_DATABASES: &str = env!("CARGO_BIN_EXE_many_databases");
const CUSTOM_CHECK: &str = env!("CARGO_BIN_EXE_custom_check");
const OPERATIONS: &str = env!("CARGO_BIN_EXE_operations");

/// A running example. Killed when dropped.
struct Example {
    process: Child,
    address: SocketAddr,
    /// The address of the suggested request, which is that of the health check.
    health: SocketAddr,
    /// What it has printed since.
    output: Arc<Mutex<String>>,
}

impl Example {
    /// Starts an example and reads its address from its output.
    fn start(program: &str, variables: &[(&str, &str)]) -> Self {
        let mut process = command(program, variables).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on http://") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "{program} printed no address");
        }
        // A full pipe would block the example.
        let printed = Arc::new(Mutex::new(String::new()));
        let further = Arc::clone(&printed);
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| *further.lock().unwrap() += &line);
        });
        let address = |from: &str| {
            let (_, rest) = line.split_once(from).unwrap_or_else(|| panic!("{from:?} is not in {line}"));
            let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap();
            rest[..end].parse().unwrap()
        };
        Self { process, address: address("listening on http://"), health: address("curl -i http://"), output: printed }
    }

    async fn health(&self) -> (u16, String) {
        let response = http::get(self.health, "/health").await;
        (response.status, response.body)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(program: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("HEALTHCHECK_IPS")
        .env_remove("HEALTHCHECK_EXCLUDE")
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .env("PORT", "0")
        .env("MANAGEMENT_PORT", "0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn the_program_of_the_readme_starts_without_its_backends_and_is_down() {
    let (_, code) = include_str!("../README.md").split_once("```rust,no_run\n").unwrap();
    let (code, _) = code.split_once("```\n").unwrap();
    assert!(
        include_str!("../examples/readme.rs").ends_with(code),
        "examples/readme.rs is not README's program:\n{code}"
    );

    // In a network of its own, its port is free and its backends do not exist. The port accepts connections as soon as it is bound.
    let script = r#"ip link set lo up; "$0" & program=$!; trap 'kill $program' EXIT
        until curl --silent --write-out '\n%{http_code}' http://127.0.0.1:8080/health; do kill -0 $program || exit; sleep 0.1; done"#;
    let mut command = command("unshare", &[]);
    let output = command.args(["--net", "timeout", "30", "bash", "-c", script, README]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let (body, status) = printed.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((status, &body["status"]), ("503", &"DOWN".into()));
    assert_eq!(body["errors"]["cache"]["sessions"], "unable to connect to redis at 127.0.0.1:6379");
    assert_eq!(body["checks"], serde_json::json!({"database": {"db": "DOWN"}, "cache": {"sessions": "DOWN"}}));
}

#[actix_web::test]
async fn quickstart_runs_without_configuration() {
    let example = Example::start(QUICKSTART, &[]);
    assert_eq!(example.health().await, (200, r#"{"status":"UP","checks":{"database":{"default":"UP"}}}"#.to_owned()));
    let index = http::get(example.address, "/").await;
    assert!(index.body.starts_with("Quickstart without a cache, "), "{index:?}");
}

#[actix_web::test]
async fn quickstart_reports_the_cache_and_the_database_that_are_configured() {
    let mut redis = Server::start(Kind::Redis);
    let example = Example::start(QUICKSTART, &[("REDIS_URL", &redis.url())]);
    let up = r#"{"status":"UP","checks":{"database":{"default":"UP"},"cache":{"default":"UP"}}}"#;
    assert_eq!(example.health().await, (200, up.to_owned()));

    redis.stop();
    let down = format!(
        r#"{{"status":"DOWN","errors":{{"cache":{{"default":"unable to connect to redis at 127.0.0.1:{}"}}}},"checks":{{"database":{{"default":"UP"}},"cache":{{"default":"DOWN"}}}}}}"#,
        redis.port()
    );
    eventually("the cache is down", || async { example.health().await == (503, down.clone()) }).await;
    redis.restart();
    eventually("the cache is up", || async { example.health().await == (200, up.to_owned()) }).await;

    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = Server::start(kind);
        let example = Example::start(QUICKSTART, &[("REDIS_URL", &redis.url()), ("DATABASE_URL", &server.url())]);
        let all = r#"{"status":"UP","checks":{"database":{"default":"UP","orders":"UP"},"cache":{"default":"UP"}}}"#;
        assert_eq!(example.health().await, (200, all.to_owned()), "{kind:?}");
    }
}

#[actix_web::test]
async fn quickstart_denies_an_address_that_is_not_allowed() {
    let example = Example::start(QUICKSTART, &[("HEALTHCHECK_IPS", "127.0.0.1, 10.0.0.0/8")]);
    assert_eq!(example.health().await.0, 200);
    let other = http::request_from([127, 0, 0, 2].into(), example.address, "GET", "/health").await;
    assert_eq!((other.status, &*other.body), (403, ""));
    let example = Example::start(QUICKSTART, &[("HEALTHCHECK_IPS", "10.0.0.0/8")]);
    assert_eq!(example.health().await, (403, String::new()));
    // A blank variable counts as not set.
    let example = Example::start(QUICKSTART, &[("HEALTHCHECK_IPS", " ")]);
    assert_eq!(example.health().await.0, 200);
}

#[actix_web::test]
async fn an_operator_excludes_a_check_of_the_quickstart_by_a_variable() {
    let down = ("REDIS_URL", "redis://127.0.0.1:1");
    assert_eq!(Example::start(QUICKSTART, &[down]).health().await.0, 503);
    let up = r#"{"status":"UP","checks":{"database":{"default":"UP"}}}"#;
    for list in ["cache", " cache.default , mail,"] {
        let example = Example::start(QUICKSTART, &[down, ("HEALTHCHECK_EXCLUDE", list)]);
        assert_eq!(example.health().await, (200, up.to_owned()), "{list}");
    }
}

#[test]
fn quickstart_does_not_start_with_an_invalid_entry_in_its_allow_list_and_names_it() {
    for (list, named) in [
        ("127.0.0.1,localhost", "HEALTHCHECK_IPS: `localhost` is not an IP address or network"),
        ("10.0.0.5/8", "HEALTHCHECK_IPS: `10.0.0.5/8` has bits set after its prefix; write `10.0.0.0/8`"),
        ("127.0.0.1,", "HEALTHCHECK_IPS: an entry is empty"),
    ] {
        let output: Output = command(QUICKSTART, &[("HEALTHCHECK_IPS", list)]).output().unwrap();
        assert!(!output.status.success());
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(named), "{printed}");
    }
}

#[actix_web::test]
async fn the_checks_of_a_map_are_named_after_its_keys() {
    let example = Example::start(MANY_DATABASES, &[]);
    let all = r#"{"status":"UP","checks":{"database":{"primary":"UP","replica":"UP","reports.archive":"UP","reports.scratch":"UP"}}}"#;
    assert_eq!(example.health().await, (200, all.to_owned()));
}

#[actix_web::test]
async fn custom_checks_come_from_a_probe_a_function_and_the_registry() {
    let example = Example::start(CUSTOM_CHECK, &[]);
    let all =
        r#"{"status":"UP","checks":{"service":{"mailer":"UP"},"system":{"uploads":"UP"},"queue":{"orders":"UP"}}}"#;
    assert_eq!(example.health().await, (200, all.to_owned()));
    assert_eq!(http::get(example.address, "/health/queue/orders").await.status, 200);
}

#[actix_web::test]
async fn operations_serves_its_health_check_on_another_port_and_leaves_the_rotation_for_maintenance_and_at_sigterm() {
    let mut example = Example::start(OPERATIONS, &[("DRAIN_SECONDS", "4")]);
    assert_eq!(http::get(example.address, "/").await.status, 200);
    assert_eq!(http::get(example.address, "/health").await.status, 404);
    eventually("the workers have registered", || async { example.health().await.0 == 200 }).await;
    assert_eq!(example.health().await.1, r#"{"status":"UP","checks":{"database":{"default":"UP"}}}"#);
    let self_check = |path| {
        let output = command(OPERATIONS, &[("MANAGEMENT_PORT", &example.health.port().to_string())])
            .args(["healthcheck", path])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let url = format!("http://{}", example.health);
    assert_eq!(self_check("/health/ready"), (Some(0), format!("{url}/health/ready: 200 OK\n")));

    assert_eq!(http::request(example.address, "PUT", "/maintenance/600").await.body, "out of rotation\n");
    let held = format!("{url}/health/ready: 503 Service Unavailable: health.hold: held: maintenance, 10 min left\n");
    assert_eq!(self_check("/health/ready"), (Some(1), held));
    assert_eq!(self_check("/health/live").0, Some(0));
    assert_eq!(http::request(example.address, "DELETE", "/maintenance").await.body, "in rotation\n");
    assert_eq!(self_check("/health/ready").0, Some(0));

    let pid = example.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    eventually("the drain has started", || async { example.health().await.0 == 503 }).await;
    let draining = format!("{url}/health/ready: 503 Service Unavailable: health.drain: server is draining\n");
    assert_eq!(self_check("/health/ready"), (Some(1), draining));
    assert_eq!(self_check("/health/live").0, Some(0));
    assert_eq!(http::get(example.address, "/").await.status, 200);
    let status = actix_web::web::block(move || example.process.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[cfg(feature = "observability")]
#[actix_web::test]
async fn observability_serves_a_page_and_metrics_and_exports_gauges() {
    let program = env!("CARGO_BIN_EXE_observability");
    let example = Example::start(program, &[("OTEL_METRIC_EXPORT_INTERVAL", "200")]);
    assert_eq!(example.health().await.0, 200);
    let page = http::get(example.address, "/health/page").await;
    assert!(page.status == 200 && page.body.contains("queue.orders"), "{page:?}");
    let metrics = http::get(example.address, "/health/metrics").await.body;
    assert!(metrics.contains(r#"health_check_observation{group="queue",name="orders",key="depth"} 1204"#), "{metrics}");
    assert!(metrics.contains(r#"health_service_info{service="examples""#), "{metrics}");
    eventually("the gauges are exported", || async {
        let output = example.output.lock().unwrap().clone();
        ["health.check.up", "health.check.latency", "orders"].iter().all(|text| output.contains(text))
    })
    .await;
}
