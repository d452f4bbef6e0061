//! `mysql_async::Pool`.

use std::{any::Any, sync::atomic::Ordering, time::Duration};

use ::mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, prelude::Queryable as _};
use health::{Probe as _, ProbeError, ProbeErrorKind};
use tokio::time::timeout;

use super::sqlx_0_8::{close_all_of_mariadb, connections_of_mariadb, selects_of_mariadb};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD, eventually,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_up},
        servers::{FaultInjection as _, Kind, Server},
    },
    pools::{Pooled, pools, until_it_stays_full},
};

struct OfPool;

acceptance!(pool, OfPool);
// A pool has no accessor for its options, so a connection outside it can be opened only after a run has had one: the other two tests are
// below, with a run before.
pools!(pool_as_a_pool, OfPool:
    is_up_at_once_when_its_server_closed_idle_connections
    is_degraded_while_its_idle_connections_are_silent_and_new_ones_work
    opens_few_connections_outside_the_pool_if_its_server_is_far
);

/// A pool of at most two connections, which opens none before it is used and keeps both.
fn open(url: &str) -> Pool {
    open_with(url, PoolConstraints::new(2, 2).unwrap())
}

fn open_with(url: &str, constraints: PoolConstraints) -> Pool {
    let options = PoolOpts::default().with_constraints(constraints);
    Pool::new(OptsBuilder::from_opts(Opts::from_url(url).unwrap()).pool_opts(options))
}

async fn take_both(pool: &Pool) -> [Conn; 2] {
    [pool.get_conn().await.unwrap(), pool.get_conn().await.unwrap()]
}

impl Backend for OfPool {
    type Resource = Pool;

    of_server!(Server::prepared(Kind::MariaDb, &[]), selects_of_mariadb, connections_of_mariadb);

    async fn open(server: &Server, password: Password) -> Result<Pool, Unsupported> {
        Ok(open(&server.url_with(if password == Password::Right { PASSWORD } else { WRONG })))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("mysql at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "Access denied for user"))
    }

    async fn saturate(pool: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new(take_both(pool).await), 2))
    }
}

impl Pooled for OfPool {
    async fn open_at(server: &Server, port: u16) -> Pool {
        open(&server.url_at(port))
    }

    fn refused(server: &Server) -> String {
        format!("unable to connect to mysql at 127.0.0.1:{}", server.port())
    }

    async fn close_all(server: &Server) {
        close_all_of_mariadb(server).await;
    }
}

fn started() -> Server {
    Server::start(Kind::MariaDb)
}

#[actix_web::test]
async fn a_server_that_froze_while_all_was_in_use_is_down() {
    let server = started();
    let pool = open(&server.url());
    let rig = serve(pool.clone());
    assert_up(&rig, "database", "resource").await;
    let held = take_both(&pool).await;
    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
    server.resume();
    drop(held);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_server_that_stopped_while_all_was_in_use_is_down() {
    let mut server = started();
    let pool = open(&server.url());
    let rig = serve(pool.clone());
    assert_up(&rig, "database", "resource").await;
    let held = take_both(&pool).await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "resource", &OfPool::refused(&server)).await;
    drop(held);
}

#[actix_web::test]
async fn a_pool_that_is_exhausted_from_the_start_is_degraded_and_has_one_waiter_however_many_runs_there_are() {
    let server = started();
    let pool = open(&server.url());
    let held = take_both(&pool).await;
    // Without a limit of its own.
    timeout(Duration::from_secs(2), pool.get_conn()).await.unwrap_err();
    let rig = serve(pool.clone());
    for _ in 0..3 {
        assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let waiting = pool.metrics().active_wait_requests.load(Ordering::Relaxed);
    assert_eq!(waiting, 1, "one run waits until the options of the pool are known");
    drop(held);
    eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
}

#[actix_web::test]
async fn a_server_that_is_full_is_degraded_while_the_pool_has_a_connection_and_down_without_any() {
    let server = Server::start_with(Kind::MariaDb, &["--max-connections=10"]);
    let (with, without) = (open(&server.url()), open(&server.url()));
    let mut connections = vec![with.get_conn().await.unwrap()];
    let is_full = async || match Conn::new(Opts::from_url(&server.url()).unwrap()).await {
        Ok(connection) => {
            connections.push(connection);
            false
        }
        Err(_) => true,
    };
    until_it_stays_full(is_full).await;
    let message = format!("mysql at 127.0.0.1:{} accepts no more connections", server.port());
    let rig = serve(with);
    let response = assert_degraded(&rig, "database", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["Too many connections"]).await;
    assert_down(&serve(without), "database", "resource", &message).await;
    for connection in connections {
        connection.disconnect().await.unwrap();
    }
}

#[actix_web::test]
async fn a_server_that_is_frozen_from_the_start_is_down_whatever_the_application_waits_for() {
    let server = started();
    server.freeze();
    let pool = open(&server.url());
    // Each takes a slot of the pool, and has no connection.
    let attempts = [pool.get_conn(), pool.get_conn()].map(tokio::spawn);
    let rig = serve(pool);
    assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
    attempts.iter().for_each(tokio::task::JoinHandle::abort);
    server.resume();
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_run_neither_resets_the_session_nor_leaves_a_transaction() {
    let server = started();
    let pool = open(&server.url());
    let mut connection = pool.get_conn().await.unwrap();
    connection.query_drop("SET @canary = 7").await.unwrap();
    connection.reset_connection(false);
    drop(connection);
    let session = pool.session().expect("its check has a state");
    for _ in 0..3 {
        session.probe().await.unwrap();
    }
    assert_eq!(pool.metrics().resetting_connection.load(Ordering::Relaxed), 0);
    let mut connection = pool.get_conn().await.unwrap();
    let canary: Option<i64> = connection.query_first("SELECT @canary").await.unwrap();
    assert_eq!(canary, Some(7), "it is the same session");
}

#[actix_web::test]
async fn a_pool_that_keeps_no_idle_connection_is_up() {
    let server = started();
    let pool = open_with(&server.url(), PoolConstraints::new(0, 2).unwrap());
    let rig = serve(pool.clone());
    for _ in 0..3 {
        assert_up(&rig, "database", "resource").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let metrics = pool.metrics();
    eventually("each is closed", || async { metrics.discarded_superfluous_connection.load(Ordering::Relaxed) == 3 })
        .await;
}

#[actix_web::test]
async fn a_disconnected_pool_is_down() {
    let server = started();
    let pool = open(&server.url());
    let rig = serve(pool.clone());
    assert_up(&rig, "database", "resource").await;
    pool.disconnect().await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unexpected response from mysql at 127.0.0.1:{}", server.port());
    let response = assert_down(&rig, "database", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["Pool was disconnected"]).await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let server = Server::prepared(Kind::MariaDb, &[]);
    let refused = open(&server.url()).get_conn().await.unwrap_err();
    assert_eq!(ProbeError::from(refused).kind(), ProbeErrorKind::Unreachable);
    let server = started();
    let rejected = open(&server.url_with(WRONG)).get_conn().await.unwrap_err();
    let rejected = anyhow::Error::from(rejected).context("while an order is stored");
    assert_eq!(ProbeError::from_error(rejected).kind(), ProbeErrorKind::Rejected);
}
