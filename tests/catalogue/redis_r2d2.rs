//! `r2d2::Pool<redis::Client>`.

use std::{any::Any, time::Duration};

use ::redis::Client;
use health::Probe as _;
use r2d2::Pool;
use serde_json::json;
use tokio::time::timeout;

use super::{
    diesel::blocked_threads,
    redis::{connections_of_redis, values_written},
};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD, eventually,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, close_all_of_redis, pools},
};

struct OfPool;

acceptance!(pool, OfPool);
// The probe opens no connection outside such a pool, so a stopped server is reported only later while all connections are in use.
pools!(pool_as_a_pool, OfPool:
    is_up_at_once_when_its_server_closed_idle_connections
);

/// A pool of two connections, whose waiting time is the default, 30 s.
fn open(url: String) -> Pool<Client> {
    open_with(url, Pool::<Client>::builder())
}

fn open_with(url: String, builder: r2d2::Builder<Client>) -> Pool<Client> {
    builder.max_size(2).build_unchecked(Client::open(url).unwrap())
}

impl Backend for OfPool {
    type Resource = Pool<Client>;

    // The `PING` of the pool is not counted.
    of_server!(Server::prepared(Kind::Redis, &[]), values_written, connections_of_redis);

    async fn open(server: &Server, password: Password) -> Result<Self::Resource, Unsupported> {
        Ok(open(server.url_with(if password == Password::Right { PASSWORD } else { WRONG })))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        // The pool keeps only the text of the error.
        Ok((ExpectedMessage::Message("unable to connect to redis".to_owned()), "uthentication failed"))
    }

    async fn saturate(pool: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get().unwrap(), pool.get().unwrap()]), 2))
    }
}

impl Pooled for OfPool {
    async fn open_at(server: &Server, port: u16) -> Self::Resource {
        open(server.url_at(port))
    }

    fn refused(_: &Server) -> String {
        "unable to connect to redis".to_owned()
    }

    async fn close_all(server: &Server) {
        close_all_of_redis(server).await;
    }
}

fn started() -> Server {
    Server::start(Kind::Redis)
}

#[actix_web::test]
async fn a_pool_without_tests_is_up_at_once_when_its_server_closed_idle_connections() {
    let server = started();
    let pool = open_with(server.url(), Pool::builder().test_on_check_out(false));
    drop(OfPool::saturate(&pool).await.unwrap());
    let rig = serve(pool);
    assert_up(&rig, "cache", "resource").await;
    close_all_of_redis(&server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "resource").await;
}

#[actix_web::test]
async fn a_stopped_server_is_down_by_the_deadline_while_the_application_waits_for_30_s() {
    let mut server = started();
    let pool = open(server.url());
    let rig = serve(pool.clone());
    assert_up(&rig, "cache", "resource").await;
    server.stop();
    let waits = actix_web::web::block(move || pool.get().map(drop));
    let mut waits = std::pin::pin!(waits);
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "cache", "resource", "unable to connect to redis").await;
    timeout(Duration::from_secs(2), &mut waits).await.unwrap_err();
    server.restart();
    waits.await.unwrap().unwrap();
    assert_recovers(&rig, "cache", "resource").await;
}

#[actix_web::test]
async fn a_server_that_froze_while_all_was_in_use_is_down_when_the_application_gets_no_connection_either() {
    let server = started();
    let pool = open_with(server.url(), Pool::builder().connection_timeout(Duration::from_secs(2)));
    let held = OfPool::saturate(&pool).await.unwrap();
    server.freeze();
    let rig = serve(pool);
    assert_degraded(&rig, "cache", "resource", "connection pool exhausted (2 of 2 in use)").await;
    eventually("it is down", || async { rig.health().await.status == 503 }).await;
    server.resume();
    drop(held);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_pool_that_is_exhausted_again_after_a_restart_is_degraded() {
    let mut server = started();
    let pool = open(server.url());
    let rig = serve(pool.clone());
    let held = OfPool::saturate(&pool).await.unwrap();
    assert_degraded(&rig, "cache", "resource", "connection pool exhausted (2 of 2 in use)").await;
    server.stop();
    drop(held);
    // The query of that run still waits, and now gets the error of an attempt to connect.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.restart();
    let _held = actix_web::web::block(move || [pool.get().unwrap(), pool.get().unwrap()]).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "cache", "resource", "connection pool exhausted (2 of 2 in use)").await;
}

#[actix_web::test]
async fn a_frozen_server_costs_one_thread_however_many_runs_there_are() {
    let server = started();
    let pool = open(server.url());
    let session = pool.session().expect("its check has a state");
    session.probe().await.unwrap();
    server.freeze();
    for _ in 0..10 {
        timeout(Duration::from_millis(50), session.probe()).await.unwrap_err();
    }
    // The thread of the first query may not be free yet for the second one.
    assert!(blocked_threads() <= 2, "{}", blocked_threads());
    server.resume();
    session.probe().await.unwrap();
}

#[actix_web::test]
async fn a_replica_is_read_only() {
    let server = Server::start_with(Kind::Redis, &["--replicaof", "127.0.0.1", "1"]);
    let rig = serve(open(server.url()));
    let response = assert_down(&rig, "cache", "resource", "redis is read-only").await;
    assert_not_leaked(&rig, &response, &["read only replica"]).await;
}

#[actix_web::test]
async fn the_connections_of_a_pool_are_observed() {
    let server = started();
    let pool = open(server.url());
    let rig = serve(pool.clone());
    assert_up(&rig, "cache", "resource").await;
    let held = pool.get().unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let details = rig.get("/health?details").await.json();
    let data = &details["details"]["cache"]["resource"]["data"];
    assert_eq!(*data, json!({"connections_in_use": 1, "connections_idle": 1, "connections_max": 2}), "{details}");
    drop(held);
}
