//! Every fault of Redis, with a real server and each of the three handles that applications use.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use actix_web::web;
use health::{HealthCheck, Probe};
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};

use crate::common::{
    eventually, logs,
    responses::{MAX_AGE, assert_down, assert_not_leaked, assert_recovers, assert_up},
    servers::{FaultInjection as _, Kind, Server},
    test_server::TestServer,
};

#[derive(HealthCheck)]
struct State<R> {
    #[health(probe)]
    cache: R,
}

fn serve<R>(handle: R) -> TestServer
where
    R: Probe + Clone,
{
    let state = web::Data::new(State { cache: handle });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).state(&state));
    })
}

fn client(url: &str) -> Client {
    Client::open(url).unwrap()
}

/// A manager whose delays between attempts do not grow, because the tests measure the check.
fn manager(url: &str) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100)).set_number_of_retries(1000);
    ConnectionManager::new_lazy_with_config(client(url), config).unwrap()
}

fn refused(server: &Server) -> String {
    format!("unable to connect to redis at 127.0.0.1:{}", server.port())
}

async fn admin(server: &Server) -> MultiplexedConnection {
    client(&server.url()).get_multiplexed_async_connection().await.unwrap()
}

async fn command(connection: &mut MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async::<redis::Value>(connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

macro_rules! for_each_handle {
    ($($test:ident)*) => {
        mod client_handle {
            $(#[actix_web::test] async fn $test() { super::$test(super::client).await; })*
        }
        mod manager_handle {
            $(#[actix_web::test] async fn $test() { super::$test(super::manager).await; })*
        }
    };
}

for_each_handle! {
    a_stopped_server_is_down_and_up_again_when_restarted
    a_frozen_server_is_down_by_the_deadline_and_up_when_it_resumes
    a_wrong_password_is_down_and_not_in_responses_or_logs
    nothing_listening_from_the_start_is_down_until_something_does
    a_read_only_replica_is_down
    a_server_out_of_memory_is_down_until_there_is_some
    a_server_that_cannot_write_its_disk_is_down
    a_killed_idle_connection_is_not_an_outage
}

async fn a_stopped_server_is_down_and_up_again_when_restarted<R: Probe + Clone>(handle: fn(&str) -> R) {
    let mut server = Server::start(Kind::Redis);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&app, "cache", "cache", &refused(&server)).await;
    assert_not_leaked(&app, &response, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&app, "cache", "cache").await;
}

async fn a_frozen_server_is_down_by_the_deadline_and_up_when_it_resumes<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("no response from redis at 127.0.0.1:{}", server.port());
    let response = app.health().await;
    assert_eq!(response.status, 503);
    // The driver times out shortly before the deadline on an open connection, but not on one that it opens.
    let outcome = response.json()["errors"]["cache"]["cache"].clone();
    assert!(outcome == message || outcome == "timed out after 800 ms", "{outcome}");
    assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
    println!("a frozen Redis was reported after {:?}", response.took);
    assert_not_leaked(&app, &response, &[]).await;

    server.resume();
    assert_recovers(&app, "cache", "cache").await;
}

async fn a_wrong_password_is_down_and_not_in_responses_or_logs<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let wrong = "canary-wr0ng";
    let app = serve(handle(&server.url_with(wrong)));
    // A manager retries before it returns the error.
    let response = app.health().await;
    assert_eq!((response.status, &response.json()["checks"]["cache"]["cache"]), (503, &"DOWN".into()));
    assert_not_leaked(&app, &response, &[]).await;
    assert!(!response.body.contains(wrong) && !logs::text().contains(wrong), "{}", logs::text());
}

#[actix_web::test]
async fn a_client_with_a_wrong_password_is_denied_access() {
    let server = Server::start(Kind::Redis);
    let app = serve(client(&server.url_with("canary-wr0ng")));
    let message = format!("redis at 127.0.0.1:{} denied access", server.port());
    let response = assert_down(&app, "cache", "cache", &message).await;
    assert_not_leaked(&app, &response, &["Password authentication failed"]).await;
}

async fn nothing_listening_from_the_start_is_down_until_something_does<R: Probe + Clone>(handle: fn(&str) -> R) {
    let mut server = Server::prepared(Kind::Redis, &[]);
    let app = serve(handle(&server.url()));
    let response = assert_down(&app, "cache", "cache", &refused(&server)).await;
    assert_not_leaked(&app, &response, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&app, "cache", "cache").await;
}

async fn a_read_only_replica_is_down<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    let mut admin = admin(&server).await;
    // A replica of a master that does not exist.
    command(&mut admin, &["REPLICAOF", "127.0.0.1", "1"]).await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    assert_not_leaked(&app, &assert_down(&app, "cache", "cache", &message).await, &["read only replica"]).await;

    command(&mut admin, &["REPLICAOF", "NO", "ONE"]).await;
    assert_recovers(&app, "cache", "cache").await;
}

async fn a_server_out_of_memory_is_down_until_there_is_some<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start_with(Kind::Redis, &["--maxmemory-policy", "noeviction"]);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    let mut admin = admin(&server).await;
    command(&mut admin, &["CONFIG", "SET", "maxmemory", "1"]).await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    assert_not_leaked(&app, &assert_down(&app, "cache", "cache", &message).await, &["OOM"]).await;

    command(&mut admin, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_recovers(&app, "cache", "cache").await;
}

async fn a_server_that_cannot_write_its_disk_is_down<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    let mut admin = admin(&server).await;
    fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o555)).unwrap();
    command(&mut admin, &["CONFIG", "SET", "save", "3600 1"]).await;
    command(&mut admin, &["SET", "something", "to save"]).await;
    command(&mut admin, &["BGSAVE"]).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    eventually("redis has failed to save", || async { app.health().await.status == 503 }).await;
    assert_not_leaked(&app, &assert_down(&app, "cache", "cache", &message).await, &["MISCONF"]).await;
    fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o755)).unwrap();
}

async fn a_killed_idle_connection_is_not_an_outage<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let app = serve(handle(&server.url()));
    assert_up(&app, "cache", "cache").await;

    let mut admin = admin(&server).await;
    command(&mut admin, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&app, "cache", "cache").await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_client_reuses_one_connection_for_all_runs() {
    let server = Server::start(Kind::Redis);
    let app = serve(client(&server.url()));
    for _ in 0..4 {
        assert_up(&app, "cache", "cache").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let mut admin = admin(&server).await;
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut admin).await.unwrap();
    // That of the check and that of this query; the harness opened one more when it waited for the port.
    let received = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
    assert_eq!(received, "3", "{info}");
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    let calls = |command: &str| {
        let line = info.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:"))).unwrap_or_default();
        line.split(['=', ',']).nth(1).and_then(|calls| calls.parse::<u32>().ok()).unwrap_or_default()
    };
    assert_eq!((calls("set"), calls("get"), calls("ping")), (4, 4, 0), "{info}");
}

#[actix_web::test]
async fn a_broken_multiplexed_connection_stays_down_as_for_the_application() {
    let mut server = Server::start(Kind::Redis);
    let mut handle = admin(&server).await;
    let app = serve(handle.clone());
    assert_up(&app, "cache", "cache").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_not_leaked(&app, &assert_down(&app, "cache", "cache", "unable to connect to redis").await, &[]).await;
    server.restart();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&app, "cache", "cache", "unable to connect to redis").await;
    assert!(redis::cmd("PING").query_async::<String>(&mut handle).await.is_err());
}

#[actix_web::test]
async fn a_multiplexed_connection_to_a_frozen_server_is_down_and_up_when_it_resumes() {
    let server = Server::start(Kind::Redis);
    let app = serve(admin(&server).await);
    assert_up(&app, "cache", "cache").await;
    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&app, "cache", "cache", "no response from redis").await;
    server.resume();
    assert_recovers(&app, "cache", "cache").await;
}
