//! The deadpool and bb8 pools of diesel-async.

use std::{any::Any, path::Path, time::Duration};

use diesel::SqliteConnection;
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection as _,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8::Pool as Bb8Pool, deadpool::Pool,
    },
    sync_connection_wrapper::SyncConnectionWrapper,
};
use health::Probe;
use tokio::time::timeout;

use super::sqlx::{connections_of_postgres, statements, statements_are_counted};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve},
    common::{
        PASSWORD, eventually, logs,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Server},
    },
    pools::{Pooled, close_all_of_postgres, pools},
};

struct OfDeadpool;
struct OfBb8;

acceptance!(deadpool, OfDeadpool);
pools!(deadpool_as_a_pool, OfDeadpool);
acceptance!(bb8, OfBb8);
pools!(bb8_as_a_pool, OfBb8);

/// Both pools differ only in how they are opened and exhausted.
macro_rules! backend {
    ($backend:ident, $resource:ty, $pool:path, $get:ident, $keeps_silent:expr) => {
        impl Backend for $backend {
            type Resource = $resource;

            of_server!(statements_are_counted(), statements, connections_of_postgres);

            async fn open(server: &Server, password: Password) -> Result<$resource, Unsupported> {
                let password = if password == Password::Right { PASSWORD } else { WRONG };
                Ok($pool(&server.url_with(password)))
            }

            fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
                (ExpectedMessage::Message(Self::refused(server)), "error connecting to server")
            }

            fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
                Ok((ExpectedMessage::Message("postgres denied access".to_owned()), "password authentication failed"))
            }

            async fn saturate(pool: &$resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
                Ok((Box::new([pool.$get().await.unwrap(), pool.$get().await.unwrap()]), 2))
            }

            // The pool executes a `SELECT 1` before it returns a connection.
            const QUERIES_PER_RUN: u64 = 2;
        }

        impl Pooled for $backend {
            async fn open_at(server: &Server, port: u16) -> $resource {
                $pool(&server.url_at(port))
            }

            fn refused(_: &Server) -> String {
                "unable to connect to postgres".to_owned()
            }

            async fn close_all(server: &Server) {
                close_all_of_postgres(server).await;
            }

            const KEEPS_SILENT: Option<Unsupported> = $keeps_silent;
        }
    };
}

const BB8_TESTS: Unsupported = "bb8 keeps a connection whose test on check-out hangs, and returns it again";

backend!(OfDeadpool, Pool<AsyncPgConnection>, of_deadpool, get, None);
backend!(OfBb8, Bb8Pool<AsyncPgConnection>, of_bb8, get_owned, Some(BB8_TESTS));

fn of_deadpool(url: &str) -> Pool<AsyncPgConnection> {
    Pool::builder(AsyncDieselConnectionManager::new(url)).max_size(2).build().unwrap()
}

fn of_bb8(url: &str) -> Bb8Pool<AsyncPgConnection> {
    Bb8Pool::builder().max_size(2).build_unchecked(AsyncDieselConnectionManager::new(url))
}

/// Without a query of the pool before that of the probe.
fn fast(server: &Server) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut config = ManagerConfig::default();
    config.recycling_method = RecyclingMethod::Fast;
    AsyncDieselConnectionManager::new_with_config(server.url(), config)
}

#[actix_web::test]
async fn a_connection_of_deadpool_whose_query_was_dropped_is_closed() {
    let mut server = OfDeadpool::prepare();
    server.restart();
    let pool: Pool<_> = Pool::builder(fast(&server)).build().unwrap();
    pool.probe().await.unwrap();
    assert_eq!(pool.status().size, 1);
    server.freeze();
    timeout(Duration::from_millis(100), pool.probe()).await.unwrap_err();
    assert_eq!(pool.status().size, 0, "it is not given back");
}

#[actix_web::test]
async fn a_connection_of_bb8_whose_query_was_dropped_is_closed() {
    let mut server = OfBb8::prepare();
    server.restart();
    let pool: Bb8Pool<_> = Bb8Pool::builder().build_unchecked(fast(&server));
    pool.probe().await.unwrap();
    assert_eq!(pool.state().connections, 1);
    server.freeze();
    timeout(Duration::from_millis(100), pool.probe()).await.unwrap_err();
    assert_eq!(pool.state().connections, 0, "it is not given back");
}

/// A stale connection is not an outage, also if the pool does not test connections.
async fn is_up_at_once<P: Probe + Clone>(server: &Server, pool: P) {
    let rig = serve(pool);
    assert_up(&rig, "database", "resource").await;
    close_all_of_postgres(server).await;
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn deadpool_without_tests_is_up_at_once_when_its_server_closed_idle_connections() {
    let mut server = OfDeadpool::prepare();
    server.restart();
    let pool: Pool<_> = Pool::builder(fast(&server)).max_size(2).build().unwrap();
    drop(OfDeadpool::saturate(&pool).await.unwrap());
    is_up_at_once(&server, pool).await;
}

#[actix_web::test]
async fn bb8_without_tests_is_up_at_once_when_its_server_closed_idle_connections() {
    let mut server = OfBb8::prepare();
    server.restart();
    let pool: Bb8Pool<_> = Bb8Pool::builder().max_size(2).build_unchecked(fast(&server));
    drop(OfBb8::saturate(&pool).await.unwrap());
    is_up_at_once(&server, pool).await;
}

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

fn sqlite_of_deadpool(file: &Path) -> Pool<Sqlite> {
    Pool::builder(AsyncDieselConnectionManager::new(file.to_str().unwrap())).max_size(2).build().unwrap()
}

fn sqlite_of_bb8(file: &Path) -> Bb8Pool<Sqlite> {
    Bb8Pool::builder().max_size(2).build_unchecked(AsyncDieselConnectionManager::new(file.to_str().unwrap()))
}

async fn sqlite_is_probed<P: Probe + Clone>(open: impl Fn(&Path) -> P) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let rig = serve(open(&file));
    assert_up(&rig, "database", "resource").await;

    let mut writer = sqlite_of_deadpool(&file).get().await.unwrap();
    writer.batch_execute("BEGIN EXCLUSIVE").await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_degraded(&rig, "database", "resource", "sqlite is locked by a writer").await;
    assert_not_leaked(&rig, &response, &["database is locked"]).await;
    writer.batch_execute("ROLLBACK").await.unwrap();
    assert_recovers(&rig, "database", "resource").await;

    let other = folder.path().join("other");
    std::fs::write(&other, [b'x'; 4096]).unwrap();
    let rig = serve(open(&other));
    let response = assert_down(&rig, "database", "resource", "unexpected response from sqlite").await;
    assert_not_leaked(&rig, &response, &["file is not a database"]).await;

    let rig = serve(open(&folder.path().join("nowhere/canary.db")));
    let response = assert_down(&rig, "database", "resource", "unable to connect to sqlite").await;
    assert_not_leaked(&rig, &response, &["nable to open the database file"]).await;
}

#[actix_web::test]
async fn sqlite_is_probed_in_a_pool_of_deadpool() {
    sqlite_is_probed(sqlite_of_deadpool).await;
}

#[actix_web::test]
async fn sqlite_is_probed_in_a_pool_of_bb8() {
    sqlite_is_probed(sqlite_of_bb8).await;
}

/// With a usual `busy_timeout`, which is longer than the limit of a check, the query is neither cancelled, which panics in diesel-async,
/// nor reported as an outage.
async fn a_patient_sqlite_is_degraded_while_it_is_locked<P: Probe + Clone>(pool: P, file: &Path) {
    let rig = serve(pool);
    assert_up(&rig, "database", "resource").await;
    let mut writer = sqlite_of_deadpool(file).get().await.unwrap();
    writer.batch_execute("BEGIN EXCLUSIVE").await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(MAX_AGE).await;
        assert_degraded(&rig, "database", "resource", "sqlite is locked by a writer").await;
    }
    writer.batch_execute("ROLLBACK").await.unwrap();
    eventually("it is up again", || async { rig.health().await.json()["status"] == "UP" }).await;
    assert!(!logs::text().contains("panicked"), "{}", logs::text());
}

const PATIENT: &str = "PRAGMA busy_timeout = 5000";

#[actix_web::test]
async fn a_patient_sqlite_of_deadpool_is_degraded_while_it_is_locked_and_nothing_panics() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let manager = AsyncDieselConnectionManager::<Sqlite>::new(file.path().to_str().unwrap());
    let pool: Pool<_> = Pool::builder(manager).max_size(1).build().unwrap();
    pool.get().await.unwrap().batch_execute(PATIENT).await.unwrap();
    a_patient_sqlite_is_degraded_while_it_is_locked(pool, file.path()).await;
}

#[actix_web::test]
async fn a_patient_sqlite_of_bb8_is_degraded_while_it_is_locked_and_nothing_panics() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let manager = AsyncDieselConnectionManager::<Sqlite>::new(file.path().to_str().unwrap());
    let pool: Bb8Pool<_> = Bb8Pool::builder().max_size(1).build_unchecked(manager);
    pool.get().await.unwrap().batch_execute(PATIENT).await.unwrap();
    a_patient_sqlite_is_degraded_while_it_is_locked(pool, file.path()).await;
}

#[actix_web::test]
async fn a_pool_of_sqlite_that_is_all_in_use_is_degraded_and_no_file_is_made_to_find_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let pool = sqlite_of_deadpool(&file);
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    std::fs::remove_file(&file).unwrap();
    let rig = serve(pool);
    assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
    assert!(!file.exists());
    drop(held);
}
