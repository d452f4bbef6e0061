//! `sqlx::Pool` of PostgreSQL, and the further queries on a pool. More tests of the probe, also with MariaDB, are in
//! `tests/databases.rs`, and SQLite in `tests/sqlite.rs`.

use std::{any::Any, future::Future, net::TcpStream, time::Duration};

use health::{
    Check, HealthCheck, ProbeError, ProbeErrorKind, Status,
    probes::sqlx::{migrated, query, replication_lag, writable},
};
use serde_json::json;
use sqlx::{
    Connection as _, Database, Executor, MySqlPool, PgConnection, PgPool, Pool, SqlSafeStr as _, SqlitePool,
    any::AnyPoolOptions,
    migrate::{Migrate, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, values},
    common::{
        DATABASE, PASSWORD, eventually, logs,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Kind, Server},
        test_server::TestServer,
    },
    servers::standby::standby_of,
};

/// The part of an `impl Backend` that is the same for all drivers of PostgreSQL.
macro_rules! of_postgres {
    () => {
        $crate::acceptance::of_server!(
            $crate::sqlx::statements_are_counted(),
            $crate::sqlx::statements,
            $crate::sqlx::connections_of_postgres
        );

        fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
            let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
            (ExpectedMessage::Message(message), "Connection refused")
        }

        fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
            let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
            Ok((ExpectedMessage::Message(message), "password authentication failed"))
        }
    };
}

pub(crate) use of_postgres;

pub(crate) struct Postgres;

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

/// Opens both connections of a pool, because a run that begins before the connection of the previous one is back in the pool could open the
/// second one.
pub(crate) fn listens(server: &Server) -> bool {
    TcpStream::connect(("127.0.0.1", server.port())).is_ok()
}

/// A PostgreSQL that counts statements.
pub(crate) fn statements_are_counted() -> Server {
    Server::prepared(Kind::Postgres, &["-c", "shared_preload_libraries=pg_stat_statements"])
}

/// Returns how often `SELECT 1` was executed on such a server.
pub(crate) async fn statements(server: &Server) -> Result<u64, Unsupported> {
    let mut admin = admin(server).await;
    sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut admin).await.unwrap();
    let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query = 'SELECT $1'";
    let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}

/// Returns the number of connections of a PostgreSQL, without that of this query.
pub(crate) async fn connections_of_postgres(server: &Server) -> Result<usize, Unsupported> {
    let mut admin = admin(server).await;
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'admin'";
    let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}

/// Opens a connection that is not counted.
async fn admin(server: &Server) -> PgConnection {
    let options: PgConnectOptions = server.url().parse().unwrap();
    PgConnection::connect_with(&options.application_name("admin")).await.unwrap()
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// An application with one check and no state.
pub(crate) fn serve_check(check: Check) -> TestServer {
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).check(check.clone()));
    })
}

/// A check of a pool by a function.
fn query_check<DB, F>(
    name: &'static str,
    pool: &Pool<DB>,
    query: impl Fn(Pool<DB>) -> F + Send + Sync + 'static,
) -> Check
where
    DB: Database,
    F: Future<Output = Result<(), ProbeError>> + Send + 'static,
{
    let pool = pool.clone();
    Check::new("database", name, move || query(pool.clone()))
}

async fn run<DB: Database>(pool: &Pool<DB>, statements: &'static str)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    pool.acquire().await.unwrap().execute(sqlx::raw_sql(statements)).await.unwrap();
}

#[derive(HealthCheck)]
struct Primary<DB: Database>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    #[health(with = writable, group = "database")]
    db: Pool<DB>,
}

fn serve_writable<DB: Database>(db: Pool<DB>) -> TestServer
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    Primary<DB>: HealthCheck,
{
    let state = actix_web::web::Data::new(Primary { db });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).state(&state));
    })
}

#[actix_web::test]
async fn a_standby_is_down_for_writable_until_it_is_promoted() {
    let primary = Server::start(Kind::Postgres);
    let standby = standby_of(&primary, &[]);
    assert_up(&serve_writable(PgPool::connect_lazy(&primary.url()).unwrap()), "database", "db").await;

    let pool = PgPool::connect_lazy(&standby.url()).unwrap();
    let rig = serve_writable(pool.clone());
    let message = format!("postgres at 127.0.0.1:{} is read-only", standby.port());
    let response = assert_down(&rig, "database", "db", &message).await;
    assert_not_leaked(&rig, &response, &["a standby or a replica"]).await;
    assert!(logs::text().contains("read-only"), "{}", logs::text());

    run(&pool, "SELECT pg_promote()").await;
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_primary_with_read_only_transactions_is_down_for_writable() {
    let server = Server::start(Kind::Postgres);
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&server.url()).unwrap();
    let rig = serve_writable(pool.clone());
    assert_up(&rig, "database", "db").await;
    run(&pool, "SET default_transaction_read_only = on").await;
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("postgres at 127.0.0.1:{} is read-only", server.port());
    assert_down(&rig, "database", "db", &message).await;
    run(&pool, "SET default_transaction_read_only = off").await;
    assert_recovers(&rig, "database", "db").await;
}

#[actix_web::test]
async fn a_read_only_mariadb_is_down_for_writable() {
    let mut server = Server::start(Kind::MariaDb);
    let pool = MySqlPool::connect_lazy(&server.url()).unwrap();
    let rig = serve_writable(pool.clone());
    assert_up(&rig, "database", "db").await;
    let message = format!("mysql at 127.0.0.1:{} is read-only", server.port());
    for (on, off) in [
        ("SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF"),
        ("SET GLOBAL tx_read_only = ON", "SET GLOBAL tx_read_only = OFF"),
    ] {
        run(&pool, on).await;
        // A session reads the default for its transactions when it begins.
        let rig = serve_writable(MySqlPool::connect_lazy(&server.url()).unwrap());
        assert_down(&rig, "database", "db", &message).await;
        run(&pool, off).await;
    }
    assert_recovers(&rig, "database", "db").await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to mysql at 127.0.0.1:{}", server.port());
    assert_not_leaked(&rig, &assert_down(&rig, "database", "db", &message).await, &["Connection refused"]).await;
}

#[actix_web::test]
async fn a_read_only_sqlite_is_down_for_writable_and_a_locked_one_is_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.clone()).await.unwrap();
    let rig = serve_writable(pool.clone());
    for _ in 0..3 {
        assert_up(&rig, "database", "db").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master").fetch_one(&pool).await.unwrap();
    assert_eq!(tables, 0, "the write is rolled back");

    let one = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone().read_only(true));
    let read_only = serve_writable(one.clone());
    let response = assert_down(&read_only, "database", "db", "sqlite is read-only").await;
    assert_not_leaked(&read_only, &response, &["readonly database"]).await;
    // After the failed write the connection is not in a transaction.
    run(&one, "BEGIN; ROLLBACK").await;

    let mut writer = pool.acquire().await.unwrap();
    writer.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "sqlite is locked by a writer").await;
    writer.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    assert_recovers(&rig, "database", "db").await;
}

/// An application that checks a standby with strict and with lenient limits.
fn serve_lag(url: &str) -> TestServer {
    let pool = PgPool::connect_lazy(url).unwrap();
    let strict = query_check("strict", &pool, |pool| async move { replication_lag(&pool, SECOND / 2, SECOND).await });
    let lenient = query_check("lenient", &pool, |pool| async move { replication_lag(&pool, SECOND, HOUR).await });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).check(strict.clone()).check(lenient.clone()));
    })
}

/// Waits until the strict and the lenient check have these statuses.
async fn eventually_reports(rig: &TestServer, strict: &str, lenient: &str) -> serde_json::Value {
    let mut outcome = json!(null);
    for _ in 0..600 {
        outcome = rig.health().await.json();
        if outcome["checks"]["database"] == json!({"strict": strict, "lenient": lenient}) {
            return outcome["errors"]["database"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {strict} and {lenient}: {outcome}\n{}", logs::text());
}

/// Settings with which a standby notices faults soon.
const SOON: &[&str] = &["-c", "wal_retrieve_retry_interval=100ms", "-c", "wal_receiver_timeout=1s"];

#[actix_web::test]
async fn a_standby_is_behind_from_a_commit_that_it_has_not_replayed_until_it_has() {
    let primary = Server::start(Kind::Postgres);
    let written = PgPool::connect_lazy(&primary.url()).unwrap();
    run(&written, "CREATE ROLE limited LOGIN PASSWORD 'any'; CREATE TABLE orders (id int)").await;
    let standby = standby_of(&primary, SOON);
    let replica = PgPool::connect_lazy(&standby.url()).unwrap();
    // A superuser can read the position of the primary; other users only that of the standby.
    let limited = format!("postgres://limited:any@127.0.0.1:{}/{DATABASE}", standby.port());
    let rigs = [serve_lag(&standby.url()), serve_lag(&limited)];
    run(&written, "INSERT INTO orders VALUES (1)").await;
    for rig in &rigs {
        eventually_reports(rig, "UP", "UP").await;
    }
    // While the primary is idle for longer than the limits, the standby is not behind.
    tokio::time::sleep(SECOND + SECOND / 2).await;
    for rig in &rigs {
        for _ in 0..3 {
            assert_eq!(rig.health().await.json()["status"], "UP", "{}", logs::text());
            tokio::time::sleep(MAX_AGE).await;
        }
    }

    run(&replica, "SELECT pg_wal_replay_pause()").await;
    for rig in &rigs {
        assert_eq!(rig.health().await.json()["status"], "UP", "nothing is missing yet");
    }
    run(&written, "INSERT INTO orders VALUES (2)").await;
    for rig in &rigs {
        let outcome = eventually_reports(rig, "DOWN", "DEGRADED").await;
        for message in [&outcome["strict"], &outcome["lenient"]] {
            let seconds = message.as_str().and_then(|message| {
                let rest = message.strip_prefix(&format!("postgres at 127.0.0.1:{} is ", standby.port()))?;
                rest.strip_suffix(" s behind its primary")?.parse::<u64>().ok()
            });
            assert!(seconds.is_some_and(|seconds| (1..60).contains(&seconds)), "{message}");
        }
        let lag = values(rig, "database", "strict").await["replication_lag_seconds"].as_f64();
        assert!(lag.is_some_and(|lag| (1.0..60.0).contains(&lag)), "{lag:?}");
    }
    run(&replica, "SELECT pg_wal_replay_resume()").await;
    for rig in &rigs {
        eventually_reports(rig, "UP", "UP").await;
        assert_eq!(values(rig, "database", "strict").await, json!({"replication_lag_seconds": 0.0}));
    }
}

#[actix_web::test]
async fn the_first_commit_after_an_idle_time_is_no_lag_of_that_time() {
    let primary = Server::start(Kind::Postgres);
    let written = PgPool::connect_lazy(&primary.url()).unwrap();
    run(&written, "CREATE TABLE orders (id int)").await;
    // Each commit is received and not yet replayed.
    let standby = standby_of(&primary, &["-c", "recovery_min_apply_delay=50ms"]);
    let replica = PgPool::connect_lazy(&standby.url()).unwrap();
    run(&written, "INSERT INTO orders VALUES (1)").await;
    let lag = || replication_lag(&replica, SECOND, HOUR);
    eventually("the standby is up", || async { lag().await.is_ok() }).await;
    tokio::time::sleep(SECOND + SECOND / 2).await;
    run(&written, "INSERT INTO orders VALUES (2)").await;
    let seen = "SELECT count(*) = 2 FROM orders";
    loop {
        lag().await.unwrap_or_else(|error| panic!("{error:?}"));
        if sqlx::query_scalar(seen).fetch_one(&replica).await.unwrap() {
            break;
        }
    }
}

#[actix_web::test]
async fn a_standby_that_lost_its_primary_is_reported() {
    let mut primary = Server::start(Kind::Postgres);
    run(&PgPool::connect_lazy(&primary.url()).unwrap(), "CREATE TABLE orders (id int)").await;
    let mut standby = standby_of(&primary, SOON);
    run(&PgPool::connect_lazy(&primary.url()).unwrap(), "INSERT INTO orders VALUES (1)").await;
    let rig = serve_lag(&standby.url());
    eventually_reports(&rig, "UP", "UP").await;
    let lost = format!("postgres at 127.0.0.1:{} is not connected to its primary", standby.port());

    primary.stop();
    let outcome = eventually_reports(&rig, "DOWN", "DEGRADED").await;
    assert_eq!(outcome, json!({"strict": lost, "lenient": lost}));
    primary.restart();
    eventually_reports(&rig, "UP", "UP").await;

    primary.freeze();
    let outcome = eventually_reports(&rig, "DOWN", "DEGRADED").await;
    assert_eq!(outcome, json!({"strict": lost, "lenient": lost}));
    primary.resume();
    eventually_reports(&rig, "UP", "UP").await;

    // A standby that starts without its primary has not replayed any commit with a time.
    primary.stop();
    standby.stop();
    standby.restart();
    eventually("the strict check is down for it", || async {
        rig.health().await.json()["errors"]["database"]["strict"] == *lost
    })
    .await;
    assert_ne!(rig.health().await.json()["checks"]["database"]["lenient"], "UP");
}

#[actix_web::test]
async fn a_primary_is_never_behind_and_other_databases_are_not_supported() {
    let server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    replication_lag(&pool, Duration::ZERO, Duration::ZERO).await.unwrap();
    let sqlite = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let error = replication_lag(&sqlite, SECOND, SECOND).await.unwrap_err();
    assert_eq!(error.to_string(), "`replication_lag` supports only PostgreSQL");
}

#[actix_web::test]
async fn a_custom_statement_is_down_while_it_fails_and_responses_do_not_contain_it() {
    let mut server = Server::start(Kind::Postgres);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&server.url()).unwrap();
    let rig =
        serve_check(query_check(
            "orders",
            &pool,
            |pool| async move { query(&pool, "SELECT 1 FROM orders LIMIT 1").await },
        ));
    let message = format!("unexpected response from postgres at 127.0.0.1:{}", server.port());
    let response = assert_down(&rig, "database", "orders", &message).await;
    assert_not_leaked(&rig, &response, &["does not exist"]).await;
    assert!(!response.body.contains("SELECT") && !response.body.contains("relation"), "{response:?}");

    // A statement without rows succeeds too.
    run(&pool, "CREATE TABLE orders (id int)").await;
    assert_recovers(&rig, "database", "orders").await;
    run(&pool, "CREATE ROLE limited LOGIN PASSWORD 'any'").await;
    let limited = format!("postgres://limited:any@127.0.0.1:{}/{DATABASE}", server.port());
    let limited = PgPool::connect_lazy(&limited).unwrap();
    let theirs = serve_check(query_check("orders", &limited, |pool| async move {
        query(&pool, "SELECT 1 FROM orders LIMIT 1").await
    }));
    let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
    assert_down(&theirs, "database", "orders", &message).await;

    // It acquires its connection as the probe does.
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "orders", "connection pool exhausted (2 of 2 in use)").await;
    drop(held);
    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "database", "orders", "timed out after 800 ms").await;
    server.resume();
    assert_recovers(&rig, "database", "orders").await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
    assert_down(&rig, "database", "orders", &message).await;
}

fn migrator(of: &[(i64, &'static str)]) -> Migrator {
    let migration = |&(version, sql): &(i64, &'static str)| {
        Migration::new(version, "a migration".into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(of.iter().map(migration).collect())
}

const ONE: (i64, &str) = (1, "CREATE TABLE one (id INTEGER)");
const TWO: (i64, &str) = (2, "CREATE TABLE two (id INTEGER)");
const TWO_CHANGED: (i64, &str) = (2, "CREATE TABLE two (id INTEGER, name TEXT)");
const THREE: (i64, &str) = (3, "CREATE TABLE three (id INTEGER)");

async fn migrations_are_up_if_all_are_applied_completely_and_unchanged<DB: Database>(pool: Pool<DB>)
where
    DB::Connection: Migrate,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let outcome = async |migrations: &[(i64, &'static str)]| match migrated(&pool, &migrator(migrations)).await {
        Ok(()) => "migrated".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(outcome(&[ONE, TWO]).await, "2 of 2 migrations are not applied");
    let table = pool.acquire().await.unwrap().execute(sqlx::raw_sql("SELECT 1 FROM _sqlx_migrations")).await;
    assert!(table.is_err(), "the query creates no table");
    assert_eq!(outcome(&[]).await, "migrated");

    migrator(&[ONE]).run(&pool).await.unwrap();
    assert_eq!(outcome(&[ONE, TWO]).await, "1 of 2 migrations are not applied");
    migrator(&[ONE, TWO]).run(&pool).await.unwrap();
    assert_eq!(outcome(&[ONE, TWO]).await, "migrated");
    assert_eq!(outcome(&[ONE, TWO_CHANGED]).await, "a migration was changed after it was applied");

    migrator(&[ONE, TWO, THREE]).run(&pool).await.unwrap();
    assert_eq!(outcome(&[ONE, TWO]).await, "migrated", "an unknown migration is ignored");
    run(&pool, "UPDATE _sqlx_migrations SET success = false WHERE version = 2").await;
    assert_eq!(outcome(&[ONE, TWO, THREE]).await, "a migration was not finished");
}

#[actix_web::test]
async fn migrations_of_postgres_are_up_if_all_are_applied() {
    let mut server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    migrations_are_up_if_all_are_applied_completely_and_unchanged(pool.clone()).await;

    let rig = serve_check(query_check("schema", &pool, |pool| async move { migrated(&pool, &migrator(&[ONE])).await }));
    let response = assert_down(&rig, "database", "schema", "a migration was not finished").await;
    assert_not_leaked(&rig, &response, &["migration 2 is dirty"]).await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
    let response = assert_down(&rig, "database", "schema", &message).await;
    assert_not_leaked(&rig, &response, &["Connection refused"]).await;
}

#[actix_web::test]
async fn migrations_of_mariadb_are_up_if_all_are_applied() {
    let server = Server::start(Kind::MariaDb);
    let pool = MySqlPool::connect_lazy(&server.url()).unwrap();
    migrations_are_up_if_all_are_applied_completely_and_unchanged(pool).await;
}

#[actix_web::test]
async fn migrations_of_sqlite_are_up_if_all_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    migrations_are_up_if_all_are_applied_completely_and_unchanged(pool.clone()).await;

    // The migration that reverts it does not have to be applied.
    run(&pool, "UPDATE _sqlx_migrations SET success = true").await;
    let [up, down] = [(MigrationType::ReversibleUp, ONE.1), (MigrationType::ReversibleDown, "DROP TABLE one")]
        .map(|(kind, sql)| Migration::new(1, "reversible".into(), kind, sql.into_sql_str(), false));
    migrated(&pool, &Migrator::with_migrations(vec![up, down])).await.unwrap();
}

#[actix_web::test]
async fn migrations_can_be_checked_with_read_permission_only() {
    let primary = Server::start(Kind::Postgres);
    migrator(&[ONE]).run(&PgPool::connect_lazy(&primary.url()).unwrap()).await.unwrap();
    let standby = standby_of(&primary, &[]);
    let replica = PgPool::connect_lazy(&standby.url()).unwrap();
    migrated(&replica, &migrator(&[ONE])).await.unwrap();
    let error = migrated(&replica, &migrator(&[ONE, TWO])).await.unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 migrations are not applied");
}

#[actix_web::test]
async fn a_pool_of_any_database_is_probed_by_the_scheme_of_its_url() {
    sqlx::any::install_default_drivers();
    let any = |url: &str| AnyPoolOptions::new().max_connections(1).connect_lazy(url).unwrap();
    let postgres = Server::start(Kind::Postgres);
    let standby = standby_of(&postgres, &[]);
    let mariadb = Server::start(Kind::MariaDb);
    for url in [postgres.url(), mariadb.url(), "sqlite::memory:".to_owned()] {
        writable(&any(&url)).await.unwrap();
    }
    let replica = any(&standby.url());
    assert_eq!(writable(&replica).await.unwrap_err().kind(), ProbeErrorKind::ReadOnly);
    eventually("the standby is fresh", || async { replication_lag(&replica, SECOND, SECOND).await.is_ok() }).await;
    run(&any(&mariadb.url()), "SET GLOBAL read_only = ON").await;
    assert_eq!(writable(&any(&mariadb.url())).await.unwrap_err().kind(), ProbeErrorKind::ReadOnly);
    let status = async || replication_lag(&replica, Duration::ZERO, HOUR).await.map_err(|error| error.status());
    run(&replica, "SELECT pg_wal_replay_pause()").await;
    run(&any(&postgres.url()), "CREATE TABLE orders (id int)").await;
    // It has not replayed any commit with a time yet.
    eventually("the standby is behind", || async { status().await == Err(Status::Down) }).await;
    run(&replica, "SELECT pg_wal_replay_resume()").await;
    eventually("the standby is fresh", || async { status().await == Ok(()) }).await;
    run(&replica, "SELECT pg_wal_replay_pause()").await;
    run(&any(&postgres.url()), "INSERT INTO orders VALUES (1)").await;
    eventually("the standby is behind", || async { status().await == Err(Status::Degraded) }).await;
}
