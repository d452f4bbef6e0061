//! Every fault of Redis, through a real server and each of the three handles that applications keep.

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

/// One whose pauses between attempts to connect don't grow: what the tests measure is the check.
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
    a_frozen_server_is_down_within_the_deadline_and_up_again_when_thawed
    a_wrong_password_is_down_and_told_to_nobody
    nothing_listening_from_the_start_is_down_until_something_does
    a_read_only_replica_is_down
    a_server_out_of_memory_is_down_until_there_is_some
    a_server_that_cannot_write_its_disk_is_down
    a_killed_idle_connection_is_no_outage
}

async fn a_stopped_server_is_down_and_up_again_when_restarted<R: Probe + Clone>(handle: fn(&str) -> R) {
    let mut server = Server::start(Kind::Redis);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let answer = assert_down(&rig, "cache", "cache", &refused(&server)).await;
    assert_not_leaked(&rig, &answer, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&rig, "cache", "cache").await;
}

async fn a_frozen_server_is_down_within_the_deadline_and_up_again_when_thawed<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("no response from redis at 127.0.0.1:{}", server.port());
    let answer = rig.health().await;
    assert_eq!(answer.status, 503);
    // The driver gives up a moment before the deadline does, for a connection that it has; not for one that it opens.
    let told = answer.json()["errors"]["cache"]["cache"].clone();
    assert!(told == message || told == "timed out after 800 ms", "{told}");
    assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
    println!("a frozen Redis was answered for after {:?}", answer.took);
    assert_not_leaked(&rig, &answer, &[]).await;

    server.resume();
    assert_recovers(&rig, "cache", "cache").await;
}

async fn a_wrong_password_is_down_and_told_to_nobody<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let wrong = "canary-wr0ng";
    let rig = serve(handle(&server.url_with(wrong)));
    // A manager tries again, as with any failure to connect, before it says what it was.
    let answer = rig.health().await;
    assert_eq!((answer.status, &answer.json()["checks"]["cache"]["cache"]), (503, &"DOWN".into()));
    assert_not_leaked(&rig, &answer, &[]).await;
    assert!(!answer.body.contains(wrong) && !logs::text().contains(wrong), "{}", logs::text());
}

#[actix_web::test]
async fn a_client_with_a_wrong_password_is_refused_access() {
    let server = Server::start(Kind::Redis);
    let rig = serve(client(&server.url_with("canary-wr0ng")));
    let message = format!("redis at 127.0.0.1:{} denied access", server.port());
    let answer = assert_down(&rig, "cache", "cache", &message).await;
    assert_not_leaked(&rig, &answer, &["Password authentication failed"]).await;
}

async fn nothing_listening_from_the_start_is_down_until_something_does<R: Probe + Clone>(handle: fn(&str) -> R) {
    let mut server = Server::prepared(Kind::Redis, &[]);
    let rig = serve(handle(&server.url()));
    let answer = assert_down(&rig, "cache", "cache", &refused(&server)).await;
    assert_not_leaked(&rig, &answer, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&rig, "cache", "cache").await;
}

async fn a_read_only_replica_is_down<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    let mut admin = admin(&server).await;
    // Of a master that is not there, which a replica does not need to be one.
    command(&mut admin, &["REPLICAOF", "127.0.0.1", "1"]).await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    assert_not_leaked(&rig, &assert_down(&rig, "cache", "cache", &message).await, &["read only replica"]).await;

    command(&mut admin, &["REPLICAOF", "NO", "ONE"]).await;
    assert_recovers(&rig, "cache", "cache").await;
}

async fn a_server_out_of_memory_is_down_until_there_is_some<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start_with(Kind::Redis, &["--maxmemory-policy", "noeviction"]);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    let mut admin = admin(&server).await;
    command(&mut admin, &["CONFIG", "SET", "maxmemory", "1"]).await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    assert_not_leaked(&rig, &assert_down(&rig, "cache", "cache", &message).await, &["OOM"]).await;

    command(&mut admin, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_recovers(&rig, "cache", "cache").await;
}

async fn a_server_that_cannot_write_its_disk_is_down<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    let mut admin = admin(&server).await;
    fs::set_permissions(server.folder(), fs::Permissions::from_mode(0o555)).unwrap();
    command(&mut admin, &["CONFIG", "SET", "save", "3600 1"]).await;
    command(&mut admin, &["SET", "something", "to save"]).await;
    command(&mut admin, &["BGSAVE"]).await;
    let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
    eventually("redis has failed to save", || async { rig.health().await.status == 503 }).await;
    assert_not_leaked(&rig, &assert_down(&rig, "cache", "cache", &message).await, &["MISCONF"]).await;
    fs::set_permissions(server.folder(), fs::Permissions::from_mode(0o755)).unwrap();
}

async fn a_killed_idle_connection_is_no_outage<R: Probe + Clone>(handle: fn(&str) -> R) {
    let server = Server::start(Kind::Redis);
    let rig = serve(handle(&server.url()));
    assert_up(&rig, "cache", "cache").await;

    let mut admin = admin(&server).await;
    command(&mut admin, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "cache").await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_client_keeps_one_connection_for_its_rounds() {
    let server = Server::start(Kind::Redis);
    let rig = serve(client(&server.url()));
    for _ in 0..4 {
        assert_up(&rig, "cache", "cache").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let mut admin = admin(&server).await;
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut admin).await.unwrap();
    // That of the check and that of this question; the harness's own look at the port says nothing and is one more.
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
async fn a_multiplexed_connection_is_down_for_good_once_it_is_broken_as_it_is_for_the_application() {
    let mut server = Server::start(Kind::Redis);
    let mut handle = admin(&server).await;
    let rig = serve(handle.clone());
    assert_up(&rig, "cache", "cache").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_not_leaked(&rig, &assert_down(&rig, "cache", "cache", "unable to connect to redis").await, &[]).await;
    server.restart();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "cache", "cache", "unable to connect to redis").await;
    assert!(redis::cmd("PING").query_async::<String>(&mut handle).await.is_err());
}

#[actix_web::test]
async fn a_multiplexed_connection_to_a_frozen_server_is_down_and_up_again_when_thawed() {
    let server = Server::start(Kind::Redis);
    let rig = serve(admin(&server).await);
    assert_up(&rig, "cache", "cache").await;
    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "cache", "cache", "no response from redis").await;
    server.resume();
    assert_recovers(&rig, "cache", "cache").await;
}
