//! What machines read: metrics in both formats, the schema, the OpenAPI document; and hostile names in every format.

#![allow(clippy::float_cmp, reason = "counts and flags are exact")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{middleware::Compress, web};
use futures_util::future::join_all;
use health::{Check, HealthCheck, ProbeError, ProbeErrorKind, Registry};
use serde_json::{Value, json};

use crate::common::{
    daemon::Daemon,
    eventually, http,
    servers::{FaultInjection as _, Kind, Server},
    test_server::TestServer,
};

/// The headers of Prometheus and of a client that only knows its old format.
const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const TEXT: &str = "Accept: text/plain;version=0.0.4";

const METRICS: &str = "/health/metrics";

fn up(group: &str, name: &str) -> Check {
    Check::new(group, name, || async { Ok::<_, String>(()) })
}

fn down(group: &str, name: &str) -> Check {
    Check::new(group, name, || async { Err(ProbeError::new(ProbeErrorKind::TimedOut, "timed out")) })
}

async fn scrape(server: &TestServer, accept: &str) -> http::Response {
    let address = server.address;
    http::request_with(address.ip(), address, "GET", METRICS, &[accept]).await
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program, which must succeed, and returns its output.
fn output_of(command: &mut Command, input: &str) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}\n{input}");
    text
}

fn promtool(args: &[&str], input: &str) -> String {
    output_of(Command::new("promtool").args(args).current_dir(workspace()), input)
}

/// The samples of metrics as the `prometheus-client` of Python reads them: the value of each name and label set.
fn parsed(module: &str, text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let program = format!(
        "import json, sys\nfrom prometheus_client.{module} import text_string_to_metric_families as families\n\
         text = sys.stdin.buffer.read().decode()\n\
         print(json.dumps([(s.name, s.labels, s.value) for f in families(text) for s in f.samples]))"
    );
    let mut python = Command::new("python3");
    let samples =
        output_of(python.args(["-c", &program]).env("PYTHONPATH", workspace().join("target/tools/python")), text);
    serde_json::from_str(&samples).unwrap_or_else(|error| panic!("{error}: {samples}"))
}

fn value(samples: &[(String, BTreeMap<String, String>, f64)], name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let found: Vec<_> = samples.iter().filter(|sample| sample.0 == name && sample.1 == labels).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {samples:#?}");
    found[0].2
}

#[derive(HealthCheck)]
struct State {
    sessions: redis::Client,
}

/// A real Prometheus that scrapes each second.
struct Prometheus(Daemon<()>);

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let mut daemon = Daemon::new((), "prometheus", "prometheus");
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: orders\n  metrics_path: {METRICS}\n  \
             static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        daemon.write("config.yml", &config);
        daemon.add_args(&[
            format!("--config.file={}", daemon.path("config.yml")),
            format!("--storage.tsdb.path={}", daemon.path("data")),
            format!("--web.listen-address={}", daemon.address()),
        ]);
        daemon.restart();
        Self(daemon)
    }

    /// The value of a metric with one series; `None` before it is scraped.
    async fn value(&self, metric: &str) -> Option<f64> {
        let address = self.0.address().parse().unwrap();
        let response = http::get(address, &format!("/api/v1/query?query={metric}")).await;
        if response.status == 503 {
            // It is still starting.
            return None;
        }
        let result = response.json()["data"]["result"].as_array().unwrap().clone();
        assert!(result.len() <= 1, "{result:?}");
        result.first().map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
    }
}

#[actix_web::test]
async fn prometheus_sees_a_stopped_redis_and_a_service_that_is_there() {
    let mut redis = Server::start(Kind::Redis);
    let state = web::Data::new(State { sessions: redis::Client::open(redis.url()).unwrap() });
    let server = TestServer::start(2, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    let prometheus = Prometheus::start(server.address);
    eventually("the check is up", || async { prometheus.value("health_check_up").await == Some(1.0) }).await;
    redis.stop();
    eventually("the check is down", || async { prometheus.value("health_check_up").await == Some(0.0) }).await;
    assert_eq!(prometheus.value("up").await, Some(1.0));
    assert_eq!(prometheus.value("health_check_transitions_total").await, Some(1.0));
    redis.restart();
    eventually("the check is up again", || async { prometheus.value("health_check_up").await == Some(1.0) }).await;
}

/// A service with each kind of sample.
fn service() -> TestServer {
    let observed = Check::new("queue", "orders", || async {
        health::observe("depth", 1204);
        health::observe("load", 0.5);
        health::observe("leader", true);
        health::observe("node", "a");
        Ok::<_, String>(())
    });
    let down = down("cache", "sessions").optional();
    TestServer::start(2, move |app| {
        let scope = health::scope().check(observed.clone()).check(down.clone()).release("or\"d\\e\nrs", "1.4.2");
        app.service(scope.check(up("a\"\\{},=", "<'&>\u{5d0}ü \\n")));
    })
}

#[actix_web::test]
async fn promtool_accepts_the_text_format_without_a_remark() {
    let response = scrape(&service(), TEXT).await;
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(promtool(&["check", "metrics"], &response.body), "", "{}", response.body);
}

#[actix_web::test]
async fn a_parser_of_each_format_reads_the_same_samples() {
    let server = service();
    // Both before a parser is started, which may take longer than the maximum age of the results.
    let text = scrape(&server, TEXT).await;
    let response = scrape(&server, OPENMETRICS).await;
    let text = parsed("parser", &text.body);
    assert_eq!(response.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(response.body.ends_with("\n# EOF\n"));
    let openmetrics = parsed("openmetrics.parser", &response.body);
    for samples in [&text, &openmetrics] {
        let sessions = [("group", "cache"), ("name", "sessions")];
        let with = |label| [&sessions[..], &[label]].concat();
        assert_eq!(value(samples, "health_up", &[("endpoint", "ready")]), 1.0);
        assert_eq!(value(samples, "health_degraded", &[]), 1.0);
        assert_eq!(value(samples, "health_check_up", &with(("role", "optional"))), 0.0);
        assert_eq!(value(samples, "health_check_failures_total", &with(("kind", "timed_out"))), 1.0);
        assert_eq!(value(samples, "health_check_runs_total", &with(("result", "down"))), 1.0);
        assert_eq!(value(samples, "health_check_duration_seconds_bucket", &with(("le", "+Inf"))), 1.0);
        let orders = [("group", "queue"), ("name", "orders")];
        assert_eq!(value(samples, "health_check_observation", &[&orders[..], &[("key", "depth")]].concat()), 1204.0);
        assert_eq!(value(samples, "health_check_observation", &[&orders[..], &[("key", "load")]].concat()), 0.5);
        assert_eq!(samples.iter().filter(|sample| sample.0 == "health_check_observation").count(), 2);
        assert_eq!(value(samples, "health_service_info", &[("service", "or\"d\\e\nrs"), ("version", "1.4.2")]), 1.0);
        let hostile = [("group", "a\"\\{},="), ("name", "<'&>\u{5d0}ü \\n")];
        assert_eq!(value(samples, "health_check_degraded", &hostile), 0.0);
    }
    let names = |samples: &[(String, BTreeMap<String, String>, f64)]| -> Vec<_> {
        samples.iter().map(|sample| (sample.0.clone(), sample.1.clone())).collect()
    };
    assert_eq!(names(&text), names(&openmetrics));
}

#[actix_web::test]
async fn a_hostile_name_is_shown_as_it_is_in_json_health_json_and_text() {
    let server = service();
    let (group, name) = ("a\"\\{},=", "<'&>\u{5d0}ü \\n");
    let json = server.health().await.json();
    assert_eq!(json["checks"][group][name], "UP");
    let details = server.get("/health?details").await.json();
    assert_eq!(details["details"][group][name]["raw"], "UP");
    let health_json = server.get("/health?format=health%2Bjson").await.json();
    let component = format!("{group}.{name}");
    assert_eq!(health_json["checks"][format!("{component}:responseTime")][0]["componentId"], component);
    assert_eq!(health_json["serviceId"], "or\"d\\e\nrs");
    let text = server.get("/health?verbose").await.body;
    assert!(text.lines().any(|line| line == format!("[+]{component} ok")), "{text}");
}

#[actix_web::test]
async fn metrics_are_200_while_everything_is_down() {
    let check = down("database", "db");
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(check.clone()));
    });
    assert_eq!(server.health().await.status, 503);
    let response = scrape(&server, TEXT).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("vary"), Some("Accept"));
    for line in [
        r#"health_up{endpoint="health"} 0"#,
        r#"health_up{endpoint="ready"} 0"#,
        r#"health_up{endpoint="live"} 1"#,
        r#"health_up{endpoint="startup"} 0"#,
        r#"health_check_up{group="database",name="db",role="critical"} 0"#,
    ] {
        assert!(response.body.lines().any(|known| known == line), "{line} is not in {}", response.body);
    }
}

#[actix_web::test]
async fn fifty_scrapes_at_once_are_one_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("queue", "orders", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, String>(())
        }
    });
    let server = TestServer::start(2, move |app| {
        app.service(
            health::scope().check(check.clone()).max_age(Duration::from_hours(1)).deadline(Duration::from_secs(10)),
        );
    });
    let scrapes = (0..50).map(|n| scrape(&server, if n % 2 == 0 { TEXT } else { OPENMETRICS }));
    for response in join_all(scrapes).await {
        assert!(response.body.contains(r#"health_check_runs_total{group="queue",name="orders",result="up"} 1"#));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[actix_web::test]
async fn a_removed_check_has_no_series_at_the_next_scrape() {
    let registry = Registry::new();
    registry.register(up("queue", "orders")).unwrap();
    let guard = registry.register_guarded(up("plugin", "search")).unwrap();
    let server = TestServer::start(2, move |app| {
        app.service(health::scope().registry(&registry).max_age(Duration::from_hours(1)));
    });
    for accept in [TEXT, OPENMETRICS, TEXT, OPENMETRICS] {
        assert!(scrape(&server, accept).await.body.contains("search"));
    }
    drop(guard);
    for accept in [TEXT, OPENMETRICS, TEXT, OPENMETRICS] {
        let body = scrape(&server, accept).await.body;
        assert!(body.contains("orders") && !body.contains("search"), "{body}");
    }
}

#[actix_web::test]
async fn metrics_text_has_the_latest_results_and_runs_nothing() {
    let redis = Server::start(Kind::Redis);
    let state = web::Data::new(State { sessions: redis::Client::open(redis.url()).unwrap() });
    let unknown = health::metrics_text(&state);
    assert!(unknown.contains(r#"health_check_up{group="cache",name="sessions",role="critical"} 0"#), "{unknown}");
    let served = state.clone();
    let server = TestServer::start(1, move |app| {
        app.app_data(served.clone()).service(health::scope());
    });
    assert_eq!(server.health().await.status, 200);
    for _ in 0..3 {
        let text = health::metrics_text(&state);
        assert!(text.contains(r#"health_check_runs_total{group="cache",name="sessions",result="up"} 1"#), "{text}");
        assert!(!text.contains("EOF"), "{text}");
    }
}

#[test]
fn the_documented_alerts_fire_when_they_should() {
    assert!(promtool(&["check", "rules", "docs/alerts.yml"], "").contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "tests/alerts_test.yml"], "").contains("SUCCESS"));
}

/// Each expression of the dashboard, with its variables replaced.
fn expressions_of_the_dashboard() -> Vec<String> {
    let text = fs::read_to_string(workspace().join("docs/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions.map(|expression| expression.replace("$__rate_interval", "5m").replace('$', "")).collect()
}

#[actix_web::test]
async fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    let expressions = expressions_of_the_dashboard();
    let rules: Vec<_> = expressions.iter().map(|expr| json!({"record": "dashboard", "expr": expr})).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    // With duplicates, which only a warning names, because all rules have one name.
    promtool(&["check", "rules", "--lint=none", &file.display().to_string()], "");

    let metrics = scrape(&service(), TEXT).await.body;
    let alerts = fs::read_to_string(workspace().join("docs/alerts.yml")).unwrap();
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let all = expressions.iter().map(String::as_str).chain(alerts).collect::<Vec<_>>().join("\n");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: Vec<_> = all.split(|c| !is_word(c)).filter(|word| word.starts_with("health_")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(
            metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} ")),
            "{name}: {metrics}"
        );
    }
}

#[actix_web::test]
async fn the_schema_and_the_openapi_document_are_served() {
    let server = service();
    let schema = server.get("/health/schema").await;
    assert_eq!((schema.status, schema.header("content-type")), (200, Some("application/schema+json")));
    assert_eq!(schema.json()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let document = server.get("/health/openapi.json").await;
    assert_eq!((document.status, document.header("content-type")), (200, Some("application/json")));
    assert_eq!(document.json(), health::openapi("/health"));
}

#[test]
fn redocly_has_no_remark_on_the_openapi_document() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("openapi.json"), health::openapi("/internal/health").to_string()).unwrap();
    let redocly = workspace().join("target/tools/node_modules/.bin/redocly");
    let mut command = Command::new(redocly);
    command.args(["lint", "openapi.json", "--format=json"]).current_dir(folder.path());
    let output = output_of(command.env("REDOCLY_TELEMETRY", "off"), "");
    let (_, found) = output.split_once('{').unwrap_or_else(|| panic!("{output}"));
    assert!(found.contains(r#""errors": 0"#) && found.contains(r#""warnings": 0"#), "{output}");
}

#[actix_web::test]
async fn each_path_of_the_openapi_document_responds_with_the_formats_that_it_names() {
    let check = down("database", "db");
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(check.clone()).check(up("queue", "orders")));
    });
    let document = health::openapi("/health");
    let mut responses = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        let path = template.replace("{group}", "database").replace("{name}", "db");
        let operation = &item["get"];
        let parameters = operation["parameters"].as_array().unwrap();
        let formats = parameters.iter().find(|parameter| parameter["name"] == "format");
        let formats = formats.map_or(Vec::new(), |format| format["schema"]["enum"].as_array().unwrap().clone());
        let queries: Vec<_> = formats.iter().map(|format| format!("?format={}", format.as_str().unwrap())).collect();
        for query in [String::new(), "?format=yaml".to_owned()].into_iter().chain(queries) {
            let response = server.get(&format!("{path}{query}")).await;
            let content = &operation["responses"][response.status.to_string()]["content"];
            let (kind, _) = response
                .header("content-type")
                .unwrap()
                .split_once(';')
                .unwrap_or((response.header("content-type").unwrap(), ""));
            let mut named = content.as_object().unwrap_or_else(|| panic!("{path}{query}: {response:?}")).keys();
            assert!(named.any(|known| known.split(';').next() == Some(kind)), "{path}{query}: {kind}: {content}");
            responses += 1;
        }
    }
    assert!(responses > 30, "{responses}");
}

#[actix_web::test]
async fn other_methods_and_denied_clients_get_nothing_of_it() {
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().check(up("queue", "orders")).allow(["127.0.0.1/32".parse().unwrap()]));
    });
    for path in [METRICS, "/health/page", "/health/schema", "/health/openapi.json"] {
        let get = server.get(path).await;
        let head = http::request(server.address, "HEAD", path).await;
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()), "{path}");
        let post = http::request(server.address, "POST", path).await;
        assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")), "{path}");
        let denied = http::request_from("127.0.0.2".parse().unwrap(), server.address, "GET", path).await;
        assert_eq!((denied.status, &*denied.body), (403, ""), "{path}");
    }
    eventually("the denials are counted", || async {
        server.get(METRICS).await.body.lines().any(|line| line == "health_access_denied_total 4")
    })
    .await;
}

/// What `curl` prints with these arguments.
async fn curl(args: &[&str], url: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error"]).args(args).arg(url);
    web::block(move || output_of(&mut command, "")).await.unwrap()
}

#[actix_web::test]
async fn compression_and_http_1_0_do_not_change_the_content() {
    let check = up("database", "db");
    let server = TestServer::start(1, move |app| {
        let scope = health::scope().check(check.clone()).release("orders", "1.4.2");
        app.service(web::scope("/api").wrap(Compress::default()).service(scope));
    });
    for path in ["", "?verbose", "?format=health%2Bjson", "/schema", "/openapi.json", "/metrics", "/page"] {
        let url = format!("http://{}/api/health{path}", server.address);
        let head = curl(&["--compressed", "--dump-header", "-", "--output", "/dev/null"], &url).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-encoding: gzip"), "{path}: {head}");
        let head = curl(&["--http1.0", "--dump-header", "-", "--output", "/dev/null"], &url).await;
        assert!(head.starts_with("HTTP/1.0 200"), "{path}: {head}");
        let plain = curl(&[], &url).await;
        for args in ["--compressed", "--http1.0"] {
            let other = curl(&[args], &url).await;
            // Times and ages differ.
            assert!(!other.is_empty() && other.lines().count() == plain.lines().count(), "{path} {args}: {other}");
            if !["?format=health%2Bjson", "/metrics", "/page"].contains(&path) {
                assert_eq!(other, plain, "{path} {args}");
            }
        }
    }
}
