//! `sqlx::Pool` of sqlx 0.8. The code is that of 0.9. What may differ is the driver: its `Debug` output,
//! its timeouts and its errors.

use std::{any::Any, fs};

use actix_web::web;
use health::{
    Check, HealthCheck, ProbeError, ProbeErrorKind,
    probes::sqlx_0_8::{query, replication_lag, writable},
};
use sqlx::MySqlConnection;
use sqlx_0_8::{
    Connection as _, MySqlPool, PgConnection, PgPool, SqlitePool,
    mysql::MySqlPoolOptions,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server},
    common::{
        PASSWORD,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Kind, Server},
        test_server::TestServer,
    },
    sqlx::{SECOND, listens, of_postgres, serve_check},
};

struct Postgres;

acceptance!(postgres, Postgres);

impl Backend for Postgres {
    type Resource = PgPool;

    of_postgres!();

    async fn open(server: &Server, password: Password) -> Result<PgPool, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&server.url_with(password)).unwrap();
        if password == PASSWORD && listens(server) {
            drop(tokio::join!(pool.acquire(), pool.acquire()));
        }
        Ok(pool)
    }

    async fn saturate(pool: &PgPool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        Ok((Box::new(held), 2))
    }
}

pub(crate) struct MariaDb;

acceptance!(mariadb, MariaDb);

impl Backend for MariaDb {
    type Resource = MySqlPool;

    of_server!(Server::prepared(Kind::MariaDb, &[]), selects_of_mariadb, connections_of_mariadb);

    async fn open(server: &Server, password: Password) -> Result<MySqlPool, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        let pool = MySqlPoolOptions::new().max_connections(2).connect_lazy(&server.url_with(password)).unwrap();
        if password == PASSWORD && listens(server) {
            drop(tokio::join!(pool.acquire(), pool.acquire()));
        }
        Ok(pool)
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to mysql at 127.0.0.1:{}", server.port());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("mysql at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "Access denied for user"))
    }

    async fn saturate(pool: &MySqlPool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        Ok((Box::new(held), 2))
    }
}

/// Returns how often a MariaDB has executed a `SELECT`.
pub(crate) async fn selects_of_mariadb(server: &Server) -> Result<u64, Unsupported> {
    let mut admin = admin(server).await;
    // The administrator executes no `SELECT` here.
    let (_, count): (String, String) =
        sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Com_select'").fetch_one(&mut admin).await.unwrap();
    sqlx::Connection::close(admin).await.unwrap();
    Ok(count.parse().unwrap())
}

/// Returns the number of connections of applications to a MariaDB: those have a database.
pub(crate) async fn connections_of_mariadb(server: &Server) -> Result<usize, Unsupported> {
    Ok(ids_of_mariadb(server).await.len())
}

/// Makes a MariaDB close all connections of applications.
pub(crate) async fn close_all_of_mariadb(server: &Server) {
    let ids = ids_of_mariadb(server).await;
    assert!(!ids.is_empty(), "there is a connection");
    let mut admin = admin(server).await;
    for id in ids {
        sqlx::query(sqlx::AssertSqlSafe(format!("KILL {id}"))).execute(&mut admin).await.unwrap();
    }
    sqlx::Connection::close(admin).await.unwrap();
}

async fn ids_of_mariadb(server: &Server) -> Vec<i64> {
    let mut admin = admin(server).await;
    let lines = sqlx::query("SHOW PROCESSLIST").fetch_all(&mut admin).await.unwrap();
    sqlx::Connection::close(admin).await.unwrap();
    let has_database = |line: &&sqlx::mysql::MySqlRow| sqlx::Row::get::<Option<String>, _>(*line, "db").is_some();
    lines.iter().filter(has_database).map(|line| sqlx::Row::get(line, "Id")).collect()
}

/// Opens a connection without a database.
async fn admin(server: &Server) -> MySqlConnection {
    let url = server.url();
    let (server, _) = url.rsplit_once('/').expect("a database is named last");
    <MySqlConnection as sqlx::Connection>::connect(server).await.unwrap()
}

#[derive(HealthCheck)]
struct State {
    db: SqlitePool,
}

fn serve(db: SqlitePool) -> TestServer {
    let state = web::Data::new(State { db });
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    })
}

#[actix_web::test]
async fn a_file_of_sqlite_that_is_gone_or_no_database_is_down() {
    let folder = tempfile::Builder::new().prefix("canarybase").tempdir().unwrap();
    let file = folder.path().join("notes.db");
    let rig =
        serve(SqlitePool::connect_lazy_with(SqliteConnectOptions::new().filename(&file).create_if_missing(false)));
    assert_down(&rig, "database", "db", "unable to connect to sqlite").await;

    let maker = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file).create_if_missing(true)).await;
    sqlx_0_8::raw_sql("CREATE TABLE notes (text TEXT)").execute(&maker.unwrap()).await.unwrap();
    assert_recovers(&rig, "database", "db").await;

    fs::remove_file(&file).unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&rig, "database", "db", "unable to connect to sqlite").await;
    assert_not_leaked(&rig, &response, &["No such file"]).await;
    assert!(!file.exists());

    fs::write(&file, "not a database, whatever its length".repeat(1000)).unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "db", "unable to connect to sqlite").await;
    let rig = serve(SqlitePool::connect_lazy_with(SqliteConnectOptions::new().filename(&file)));
    let response = assert_down(&rig, "database", "db", "unexpected response from sqlite").await;
    assert_not_leaked(&rig, &response, &["not a database"]).await;
}

#[actix_web::test]
async fn a_sqlite_that_a_writer_locks_and_a_pool_in_use_are_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options);
    let rig = serve(pool.clone());
    assert_up(&rig, "database", "db").await;

    let mut writer = pool.acquire().await.unwrap();
    sqlx_0_8::raw_sql("BEGIN EXCLUSIVE").execute(&mut *writer).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "sqlite is locked by a writer").await;
    sqlx_0_8::raw_sql("ROLLBACK").execute(&mut *writer).await.unwrap();
    assert_recovers(&rig, "database", "db").await;

    let held = pool.acquire().await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
    drop((writer, held));
    assert_recovers(&rig, "database", "db").await;
}

#[actix_web::test]
async fn the_further_queries_work() {
    let mut server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    let checked = pool.clone();
    let rig = serve_check(Check::new("database", "all", move || {
        let pool = checked.clone();
        async move {
            writable(&pool).await?;
            replication_lag(&pool, SECOND, SECOND).await?;
            query(&pool, "SELECT 1 FROM orders LIMIT 1").await
        }
    }));
    let message = format!("unexpected response from postgres at 127.0.0.1:{}", server.port());
    let response = assert_down(&rig, "database", "all", &message).await;
    assert_not_leaked(&rig, &response, &["does not exist"]).await;
    sqlx_0_8::raw_sql("CREATE TABLE orders (id int)").execute(&pool).await.unwrap();
    assert_recovers(&rig, "database", "all").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
    assert_down(&rig, "database", "all", &message).await;
}

#[actix_web::test]
async fn errors_in_a_check_of_ones_own_keep_their_class() {
    let server = Server::prepared(Kind::Postgres, &[]);
    let error = PgConnection::connect(&server.url()).await.unwrap_err();
    let error = ProbeError::from(error);
    assert_eq!((error.kind(), error.to_string()), (ProbeErrorKind::Unreachable, "unable to connect".to_owned()));
    assert_eq!(ProbeError::from(sqlx_0_8::Error::PoolTimedOut).kind(), ProbeErrorKind::TimedOut);
}
