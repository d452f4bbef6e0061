//! Blocking `diesel::r2d2::Pool`.

use std::{any::Any, fs, path::Path, time::Duration};

use diesel::{
    PgConnection, SqliteConnection,
    connection::SimpleConnection as _,
    r2d2::{ConnectionManager, Pool},
};
use health::Probe as _;
use tokio::time::timeout;

use super::sqlx::{connections_of_postgres, statements, statements_are_counted};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD, eventually,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Server},
    },
    pools::{Pooled, close_all_of_postgres, pools},
};

pub(crate) struct R2d2;

acceptance!(postgres, R2d2);
// The probe opens no connection outside such a pool, so a stopped server is reported only later while all connections are in use.
pools!(postgres_as_a_pool, R2d2:
    is_up_at_once_when_its_server_closed_idle_connections
);

impl Backend for R2d2 {
    type Resource = Pool<ConnectionManager<PgConnection>>;

    of_server!(statements_are_counted(), statements, connections_of_postgres);

    async fn open(server: &Server, password: Password) -> Result<Self::Resource, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(pool(&server.url_with(password), Duration::from_secs(30)))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(Self::refused(server)), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        // The pool keeps only the text of the error.
        Ok((ExpectedMessage::Message("unable to connect to postgres".to_owned()), "password authentication failed"))
    }

    async fn saturate(pool: &Self::Resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Ok((Box::new([pool.get().unwrap(), pool.get().unwrap()]), 2))
    }

    // The pool executes a `SELECT 1` before it returns a connection.
    const QUERIES_PER_RUN: u64 = 2;
}

impl Pooled for R2d2 {
    async fn open_at(server: &Server, port: u16) -> Self::Resource {
        pool(&server.url_at(port), Duration::from_secs(30))
    }

    fn refused(_: &Server) -> String {
        "unable to connect to postgres".to_owned()
    }

    async fn close_all(server: &Server) {
        close_all_of_postgres(server).await;
    }
}

fn pool(url: &str, connection_timeout: Duration) -> Pool<ConnectionManager<PgConnection>> {
    let manager = ConnectionManager::new(url);
    Pool::builder().max_size(2).connection_timeout(connection_timeout).build_unchecked(manager)
}

/// The number of threads of tokio's blocking pools.
pub(crate) fn blocked_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("tokio")).count()
}

#[actix_web::test]
async fn a_server_that_froze_while_all_was_in_use_is_down_when_the_application_gets_no_connection_either() {
    let mut server = R2d2::prepare();
    server.restart();
    let pool = pool(&server.url(), Duration::from_secs(2));
    let held = R2d2::saturate(&pool).await.unwrap();
    server.freeze();
    let rig = serve(pool);
    assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
    eventually("it is down", || async { rig.health().await.status == 503 }).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_eq!(rig.health().await.status, 503, "and stays so");
    server.resume();
    drop(held);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    assert_recovers(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn a_server_that_stopped_while_all_was_in_use_is_down_when_the_application_has_noticed() {
    let mut server = R2d2::prepare();
    server.restart();
    let pool = pool(&server.url(), Duration::from_secs(30));
    let mut held = [pool.get().unwrap(), pool.get().unwrap()];
    server.stop();
    let rig = serve(pool);
    assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
    for connection in &mut held {
        connection.batch_execute("SELECT 1").unwrap_err();
    }
    drop(held);
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&rig, "database", "resource", "unable to connect to postgres").await;
    assert_not_leaked(&rig, &response, &["Connection refused"]).await;
}

#[actix_web::test]
async fn a_pool_without_tests_is_up_at_once_when_its_server_closed_idle_connections() {
    let mut server = R2d2::prepare();
    server.restart();
    let manager = ConnectionManager::new(server.url());
    let pool: Pool<ConnectionManager<PgConnection>> =
        Pool::builder().max_size(2).test_on_check_out(false).build(manager).unwrap();
    let rig = serve(pool);
    assert_up(&rig, "database", "resource").await;
    close_all_of_postgres(&server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn a_frozen_server_costs_one_thread_however_many_runs_there_are() {
    let mut server = R2d2::prepare();
    server.restart();
    let pool = pool(&server.url(), Duration::from_secs(30));
    let kept = pool.session().unwrap();
    kept.probe().await.unwrap();
    server.freeze();
    for _ in 0..10 {
        timeout(Duration::from_millis(50), kept.probe()).await.unwrap_err();
    }
    // The thread of the first query may not be free yet for the second one.
    assert!(blocked_threads() <= 2, "{}", blocked_threads());
    server.resume();
    // The queries from the frozen time get responses, which no later run uses.
    kept.probe().await.unwrap();
}

#[actix_web::test]
async fn sqlite_is_probed() {
    fn open(file: &Path) -> Pool<ConnectionManager<SqliteConnection>> {
        Pool::builder().max_size(2).build_unchecked(ConnectionManager::new(file.to_str().unwrap()))
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let pool = open(&file);
    let rig = serve(pool.clone());
    assert_up(&rig, "database", "resource").await;

    let held = [pool.get().unwrap(), pool.get().unwrap()];
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
    drop(held);
    assert_recovers(&rig, "database", "resource").await;

    let mut writer = pool.get().unwrap();
    writer.batch_execute("BEGIN EXCLUSIVE").unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_degraded(&rig, "database", "resource", "sqlite is locked by a writer").await;
    assert_not_leaked(&rig, &response, &["database is locked"]).await;
    writer.batch_execute("ROLLBACK").unwrap();
    drop(writer);
    assert_recovers(&rig, "database", "resource").await;

    // Longer than the limit of the check.
    let patient = open(&file);
    for mut connection in [patient.get().unwrap(), patient.get().unwrap()] {
        connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    }
    let rig = serve(patient);
    assert_up(&rig, "database", "resource").await;
    let mut writer = pool.get().unwrap();
    writer.batch_execute("BEGIN EXCLUSIVE").unwrap();
    tokio::time::sleep(MAX_AGE).await;
    for _ in 0..2 {
        assert_degraded(&rig, "database", "resource", "sqlite is locked by a writer").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    writer.batch_execute("ROLLBACK").unwrap();
    drop(writer);
    assert_recovers(&rig, "database", "resource").await;

    let other = folder.path().join("other");
    fs::write(&other, [b'x'; 4096]).unwrap();
    let rig = serve(open(&other));
    let response = assert_down(&rig, "database", "resource", "unexpected response from sqlite").await;
    assert_not_leaked(&rig, &response, &["file is not a database"]).await;

    let rig = serve(open(&folder.path().join("nowhere/canary.db")));
    let response = assert_down(&rig, "database", "resource", "unable to connect to sqlite").await;
    assert_not_leaked(&rig, &response, &["nable to open"]).await;
}
