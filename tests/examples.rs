//! Every example is started as a user starts it, and asked over HTTP.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::common::{
    eventually, http,
    servers::{FaultInjection as _, Kind, Server},
};

/// A running example. It is stopped when dropped.
struct Example {
    process: Child,
    address: SocketAddr,
}

impl Example {
    /// Starts an example and reads from what it prints where it listens.
    fn start(name: &str, variables: &[(&str, &str)]) -> Self {
        let mut process = command(name, variables).stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(printed.read_line(&mut line).unwrap() > 0, "{name} printed no address");
        }
        // What else it prints must go somewhere, or it would block.
        std::thread::spawn(move || printed.read_to_end(&mut Vec::new()));
        let (_, rest) = line.split_once("http://").unwrap();
        let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap();
        let address = rest[..end].parse().unwrap();
        assert!(line.contains("curl -i http://"), "{line}");
        Self { process, address }
    }

    async fn health(&self) -> (u16, String) {
        let answer = http::get(self.address, "/health").await;
        (answer.status, answer.body)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `cargo run` becomes the program that it runs, so to kill the one is to kill the other.
fn command(name: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--package", "examples", "--bin", name])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .env_remove("HEALTHCHECK_IPS")
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .env("PORT", "0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[actix_web::test]
async fn quickstart_needs_nothing() {
    let example = Example::start("quickstart", &[]);
    assert_eq!(example.health().await, (200, r#"{"status":"UP","checks":{"database":{"default":"UP"}}}"#.to_owned()));
    let index = http::get(example.address, "/").await;
    assert!(index.body.starts_with("Quickstart without a cache"), "{index:?}");
}

#[actix_web::test]
async fn quickstart_answers_as_designed_with_a_cache_and_a_database_and_without() {
    let mut redis = Server::start(Kind::Redis);
    let example = Example::start("quickstart", &[("REDIS_URL", &redis.url())]);
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
        let example = Example::start("quickstart", &[("REDIS_URL", &redis.url()), ("DATABASE_URL", &server.url())]);
        let all = r#"{"status":"UP","checks":{"database":{"default":"UP","orders":"UP"},"cache":{"default":"UP"}}}"#;
        assert_eq!(example.health().await, (200, all.to_owned()), "{kind:?}");
    }
}

#[actix_web::test]
async fn quickstart_refuses_an_address_that_is_not_listed() {
    let example = Example::start("quickstart", &[("HEALTHCHECK_IPS", "127.0.0.1, 10.0.0.0/8")]);
    assert_eq!(example.health().await.0, 200);
    let other = http::request_from([127, 0, 0, 2].into(), example.address, "GET", "/health").await;
    assert_eq!((other.status, &*other.body), (403, ""));
    let example = Example::start("quickstart", &[("HEALTHCHECK_IPS", "10.0.0.0/8")]);
    assert_eq!(example.health().await, (403, String::new()));
    // Set to nothing is as not set.
    let example = Example::start("quickstart", &[("HEALTHCHECK_IPS", " ")]);
    assert_eq!(example.health().await.0, 200);
}

#[test]
fn a_bad_entry_of_the_list_keeps_quickstart_from_starting_and_is_named() {
    for (list, named) in [
        ("127.0.0.1,localhost", "HEALTHCHECK_IPS: `localhost` is no address and no network"),
        ("10.0.0.5/8", "HEALTHCHECK_IPS: `10.0.0.5/8` has bits set behind its prefix; write `10.0.0.0/8`"),
        ("127.0.0.1,", "HEALTHCHECK_IPS: an entry is empty"),
    ] {
        let output: Output = command("quickstart", &[("HEALTHCHECK_IPS", list)]).output().unwrap();
        assert!(!output.status.success());
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(named), "{printed}");
    }
}

#[actix_web::test]
async fn many_databases_are_checked_by_their_keys() {
    let example = Example::start("many_databases", &[]);
    let all = r#"{"status":"UP","checks":{"database":{"primary":"UP","replica":"UP","reports.archive":"UP","reports.scratch":"UP"}}}"#;
    assert_eq!(example.health().await, (200, all.to_owned()));
}

#[actix_web::test]
async fn custom_checks_are_made_in_three_ways() {
    let example = Example::start("custom_check", &[]);
    let all =
        r#"{"status":"UP","checks":{"service":{"mailer":"UP"},"system":{"uploads":"UP"},"queue":{"orders":"UP"}}}"#;
    assert_eq!(example.health().await, (200, all.to_owned()));
    assert_eq!(http::get(example.address, "/health/queue/orders").await.status, 200);
}
