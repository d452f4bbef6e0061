//! `sea_orm::DatabaseConnection` on PostgreSQL and SQLite, and connections without a pool.

use std::{any::Any, fs, path::Path};

use health::{Probe as _, ProbeError, ProbeErrorKind};
use sea_orm::{
    ConnAcquireErr, ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, MockDatabase,
    MockExecResult, RuntimeErr,
};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::Server,
        test_server::TestServer,
    },
    sqlx::{listens, of_postgres, serve_check},
};

struct Postgres;

acceptance!(postgres, Postgres);

impl Backend for Postgres {
    type Resource = DatabaseConnection;

    of_postgres!();

    async fn open(server: &Server, password: Password) -> Result<DatabaseConnection, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        let db = connected(server.url_with(password)).await;
        if password == PASSWORD && listens(server) {
            let pool = db.get_postgres_connection_pool();
            drop(tokio::join!(pool.acquire(), pool.acquire()));
        }
        Ok(db)
    }

    async fn saturate(db: &DatabaseConnection) -> Result<(Box<dyn Any>, u32), Unsupported> {
        let pool = db.get_postgres_connection_pool();
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        Ok((Box::new(held), 2))
    }
}

/// With at most two connections, and none open.
async fn connected(url: String) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(2).connect_lazy(true);
    Database::connect(options).await.unwrap()
}

async fn sqlite(file: &Path, mode: &str) -> DatabaseConnection {
    connected(format!("sqlite://{}?mode={mode}", file.display())).await
}

fn serve(db: &DatabaseConnection) -> TestServer {
    serve_check(health::Check::probe("db", db.clone()))
}

#[actix_web::test]
async fn a_file_of_sqlite_that_is_gone_or_no_database_is_down() {
    let folder = tempfile::Builder::new().prefix("canarybase").tempdir().unwrap();
    let file = folder.path().join("notes.db");
    let rig = serve(&sqlite(&file, "rw").await);
    assert_down(&rig, "database", "db", "unable to connect to sqlite").await;

    sqlite(&file, "rwc").await.execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
    assert_recovers(&rig, "database", "db").await;

    fs::remove_file(&file).unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&rig, "database", "db", "unable to connect to sqlite").await;
    assert_not_leaked(&rig, &response, &["No such file"]).await;

    fs::write(&file, "not a database, whatever its length".repeat(1000)).unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "db", "unable to connect to sqlite").await;
    let rig = serve(&sqlite(&file, "rw").await);
    let response = assert_down(&rig, "database", "db", "unexpected response from sqlite").await;
    assert_not_leaked(&rig, &response, &["not a database"]).await;
}

#[actix_web::test]
async fn a_sqlite_that_a_writer_locks_and_a_pool_in_use_are_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let db = sqlite(&folder.path().join("notes.db"), "rwc").await;
    let rig = serve(&db);
    assert_up(&rig, "database", "db").await;

    let pool = db.get_sqlite_connection_pool();
    let mut writer = pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut *writer).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "sqlite is locked by a writer").await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *writer).await.unwrap();
    assert_recovers(&rig, "database", "db").await;

    let held = pool.acquire().await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
    drop((writer, held));
    assert_recovers(&rig, "database", "db").await;
}

#[actix_web::test]
async fn a_client_that_was_never_connected_is_down() {
    let rig = serve(&DatabaseConnection::default());
    assert_down(&rig, "database", "db", "the database was never connected to").await;
}

#[actix_web::test]
async fn connections_without_a_pool_are_probed() {
    let db = MockDatabase::new(DbBackend::Postgres)
        .append_exec_results([MockExecResult::default()])
        .append_exec_errors([DbErr::Exec(RuntimeErr::Internal("canarybase is gone".to_owned()))])
        .into_connection();
    let rig = serve(&db);
    assert_up(&rig, "database", "db").await;
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&rig, "database", "db", "unexpected response from postgres").await;
    assert_not_leaked(&rig, &response, &["is gone"]).await;
    assert_eq!(db.resource(), None);
}

#[actix_web::test]
async fn errors_in_a_check_of_ones_own_keep_their_class() {
    let folder = tempfile::tempdir().unwrap();
    let missing = sqlite(&folder.path().join("missing").join("notes.db"), "rw").await;
    let error = missing.execute_unprepared("SELECT 1").await.unwrap_err();
    assert_eq!(ProbeError::from(error).kind(), ProbeErrorKind::Unreachable);

    let read_only = folder.path().join("notes.db");
    sqlite(&read_only, "rwc").await.execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
    let error = sqlite(&read_only, "ro").await.execute_unprepared("DELETE FROM notes").await.unwrap_err();
    assert_eq!(ProbeError::from(error).kind(), ProbeErrorKind::ReadOnly);
    let error = DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
    assert_eq!(ProbeError::from(error).kind(), ProbeErrorKind::TimedOut);
}
