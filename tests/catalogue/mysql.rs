//! `mysql::Pool`, the blocking driver.

use std::{any::Any, time::Duration};

use ::mysql::{
    Conn, DriverError, Error, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, PooledConn, prelude::Queryable as _,
};
use health::{Probe as _, ProbeError, ProbeErrorKind};
use tokio::time::timeout;

use super::{
    diesel::blocked_threads,
    sqlx_0_8::{close_all_of_mariadb, connections_of_mariadb, selects_of_mariadb},
};
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
// The probe opens no connection outside such a pool, so a stopped server is reported only later while all connections are in use.
pools!(pool_as_a_pool, OfPool:
    is_up_at_once_when_its_server_closed_idle_connections
);

/// A pool of at most two connections, which opens none before it is used.
fn open_with(url: &str, options: PoolOpts) -> Pool {
    let options = options.with_constraints(PoolConstraints::new(0, 2).unwrap());
    Pool::new(OptsBuilder::from_opts(Opts::from_url(url).unwrap()).pool_opts(options)).unwrap()
}

fn open(url: &str) -> Pool {
    open_with(url, PoolOpts::default())
}

fn take_both(pool: &Pool) -> [PooledConn; 2] {
    [pool.get_conn().unwrap(), pool.get_conn().unwrap()]
}

impl Backend for OfPool {
    type Resource = Pool;

    of_server!(Server::prepared(Kind::MariaDb, &[]), selects_of_mariadb, connections_of_mariadb);

    async fn open(server: &Server, password: Password) -> Result<Pool, Unsupported> {
        Ok(open(&server.url_with(if password == Password::Right { PASSWORD } else { WRONG })))
    }

    fn unreachable(_: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message("unable to connect to mysql".to_owned()), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok((ExpectedMessage::Message("mysql denied access".to_owned()), "Access denied for user"))
    }

    async fn saturate(pool: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new(take_both(pool)), 2))
    }
}

impl Pooled for OfPool {
    async fn open_at(server: &Server, port: u16) -> Pool {
        open(&server.url_at(port))
    }

    fn refused(_: &Server) -> String {
        "unable to connect to mysql".to_owned()
    }

    async fn close_all(server: &Server) {
        close_all_of_mariadb(server).await;
    }
}

fn started() -> Server {
    Server::start(Kind::MariaDb)
}

#[actix_web::test]
async fn a_pool_without_tests_and_resets_is_up_at_once_when_its_server_closed_idle_connections() {
    let server = started();
    let options = PoolOpts::default().with_check_health(false).with_reset_connection(false);
    let pool = open_with(&server.url(), options);
    let rig = serve(pool.clone());
    drop(take_both(&pool));
    assert_up(&rig, "database", "resource").await;
    close_all_of_mariadb(&server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "database", "resource").await;
    // The dead connections have left the pool.
    for mut connection in take_both(&pool) {
        connection.query_drop("SELECT 1").unwrap();
    }
}

#[actix_web::test]
async fn an_exhausted_pool_is_degraded_and_the_application_waits_without_a_limit() {
    let server = started();
    let pool = open(&server.url());
    let held = take_both(&pool);
    let rig = serve(pool.clone());
    for _ in 0..3 {
        assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let waits = actix_web::web::block({
        let pool = pool.clone();
        move || pool.get_conn().map(drop)
    });
    let mut waits = std::pin::pin!(waits);
    timeout(Duration::from_secs(2), &mut waits).await.unwrap_err();
    drop(held);
    waits.await.unwrap().unwrap();
    eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
}

#[actix_web::test]
async fn a_server_that_is_full_is_degraded_while_the_pool_has_a_connection_and_down_without_any() {
    let server = Server::start_with(Kind::MariaDb, &["--max-connections=10"]);
    let (with, without) = (open(&server.url()), open(&server.url()));
    let _held = with.get_conn().unwrap();
    let mut others = Vec::new();
    let is_full = async || match Conn::new(Opts::from_url(&server.url()).unwrap()) {
        Ok(connection) => {
            others.push(connection);
            false
        }
        Err(_) => true,
    };
    until_it_stays_full(is_full).await;
    let message = "mysql accepts no more connections";
    let rig = serve(with);
    let response = assert_degraded(&rig, "database", "resource", message).await;
    assert_not_leaked(&rig, &response, &["Too many connections"]).await;
    assert_down(&serve(without), "database", "resource", message).await;
}

#[actix_web::test]
async fn a_frozen_server_costs_one_thread_however_many_runs_there_are() {
    let server = started();
    let pool = open(&server.url());
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
async fn a_server_that_freezes_while_the_pool_opens_a_connection_is_down() {
    let server = started();
    server.freeze();
    let pool = open(&server.url());
    let attempt = std::thread::spawn({
        let pool = pool.clone();
        // It locks the pool.
        move || pool.get_conn().map(drop)
    });
    let rig = serve(pool);
    assert_down(&rig, "database", "resource", "timed out after 800 ms").await;
    server.resume();
    attempt.join().unwrap().unwrap();
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_run_does_not_reset_the_session() {
    let server = started();
    let pool = open(&server.url());
    let mut connection = pool.get_conn().unwrap();
    connection.query_drop("SET @canary = 7").unwrap();
    connection.reset_connection(false);
    drop(connection);
    pool.probe().await.unwrap();
    let canary: Option<i64> = pool.get_conn().unwrap().query_first("SELECT @canary").unwrap();
    assert_eq!(canary, Some(7), "it is the same session");
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let server = started();
    let rejected = open(&server.url_with(WRONG)).get_conn().unwrap_err();
    let rejected = anyhow::Error::from(rejected).context("while an order is stored");
    assert_eq!(ProbeError::from_error(rejected).kind(), ProbeErrorKind::Rejected);
    let timed_out = Error::from(DriverError::Timeout);
    assert_eq!(ProbeError::from(timed_out).kind(), ProbeErrorKind::TimedOut);
}
