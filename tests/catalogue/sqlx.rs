//! `sqlx::Pool` of PostgreSQL, and the other questions to a pool. What else is shown of the probe, with MariaDB, is in
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
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        DATABASE, PASSWORD, eventually, logs,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection as _, Kind, Server},
        test_server::TestServer,
    },
    servers::standby::standby_of,
};

/// What the suite asks of PostgreSQL itself, whichever driver is shown: in an `impl Backend`.
macro_rules! of_postgres {
    () => {
        fn prepare() -> Server {
            $crate::sqlx::statements_are_counted()
        }

        fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
            let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
            (ExpectedMessage::Message(message), "Connection refused")
        }

        fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
            let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
            Ok((ExpectedMessage::Message(message), "password authentication failed"))
        }

        async fn questions(server: &Server) -> Result<u64, Unsupported> {
            $crate::sqlx::statements(server).await
        }

        async fn connections(server: &Server) -> Result<usize, Unsupported> {
            $crate::sqlx::connections_of_postgres(server).await
        }
    };
}

pub(crate) use of_postgres;

struct Postgres;

acceptance!(postgres, Postgres);

impl Backend for Postgres {
    type Resource = PgPool;
    type Server = Server;

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

/// Then both of a pool's connections are opened: a round that follows at once, before the last one's connection is back in
/// the pool, would open the second, and that is none of the check's.
pub(crate) fn listens(server: &Server) -> bool {
    TcpStream::connect(("127.0.0.1", server.port())).is_ok()
}

/// A PostgreSQL that counts statements.
pub(crate) fn statements_are_counted() -> Server {
    Server::prepared(Kind::Postgres, &["-c", "shared_preload_libraries=pg_stat_statements"])
}

/// How often `SELECT 1` was run on such a server.
pub(crate) async fn statements(server: &Server) -> Result<u64, Unsupported> {
    let mut admin = admin(server).await;
    sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut admin).await.unwrap();
    let asked = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query = 'SELECT $1'";
    let count: i64 = sqlx::query_scalar(asked).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}

/// How many connections a PostgreSQL has, but for those that ask.
pub(crate) async fn connections_of_postgres(server: &Server) -> Result<usize, Unsupported> {
    let mut admin = admin(server).await;
    let asked =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'admin'";
    let count: i64 = sqlx::query_scalar(asked).fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Ok(count.try_into().unwrap())
}

/// A connection that is not counted.
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
fn asking<DB, F>(name: &'static str, pool: &Pool<DB>, ask: impl Fn(Pool<DB>) -> F + Send + Sync + 'static) -> Check
where
    DB: Database,
    F: Future<Output = Result<(), ProbeError>> + Send + 'static,
{
    let pool = pool.clone();
    Check::new("database", name, move || ask(pool.clone()))
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
async fn a_standby_takes_no_writes_until_it_is_promoted() {
    let primary = Server::start(Kind::Postgres);
    let standby = standby_of(&primary, &[]);
    assert_up(&serve_writable(PgPool::connect_lazy(&primary.url()).unwrap()), "database", "db").await;

    let pool = PgPool::connect_lazy(&standby.url()).unwrap();
    let rig = serve_writable(pool.clone());
    let message = format!("postgres at 127.0.0.1:{} is read-only", standby.port());
    let answer = assert_down(&rig, "database", "db", &message).await;
    assert_not_leaked(&rig, &answer, &["a standby, a replica"]).await;
    assert!(logs::text().contains("read-only"), "{}", logs::text());

    run(&pool, "SELECT pg_promote()").await;
    eventually("it is up", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_primary_whose_transactions_are_read_only_takes_no_writes() {
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
async fn a_mariadb_that_is_read_only_takes_no_writes() {
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
        // A session has its transactions' kind from its beginning.
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
async fn a_sqlite_that_is_read_only_takes_no_writes_and_a_locked_one_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.clone()).await.unwrap();
    let rig = serve_writable(pool.clone());
    for _ in 0..3 {
        assert_up(&rig, "database", "db").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master").fetch_one(&pool).await.unwrap();
    assert_eq!(tables, 0, "what is written is taken back");

    let one = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone().read_only(true));
    let read_only = serve_writable(one.clone());
    let answer = assert_down(&read_only, "database", "db", "sqlite is read-only").await;
    assert_not_leaked(&read_only, &answer, &["readonly database"]).await;
    // The failed write is over: the connection is in no transaction.
    run(&one, "BEGIN; ROLLBACK").await;

    let mut writer = pool.acquire().await.unwrap();
    writer.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "db", "sqlite is locked by a writer").await;
    writer.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    assert_recovers(&rig, "database", "db").await;
}

/// An application that asks a standby with strict limits and with lenient ones.
fn serve_lag(url: &str) -> TestServer {
    let pool = PgPool::connect_lazy(url).unwrap();
    let strict = asking("strict", &pool, |pool| async move { replication_lag(&pool, SECOND / 2, SECOND).await });
    let lenient = asking("lenient", &pool, |pool| async move { replication_lag(&pool, SECOND, HOUR).await });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).check(strict.clone()).check(lenient.clone()));
    })
}

/// Waits until the strict check and the lenient one say so.
async fn eventually_told(rig: &TestServer, strict: &str, lenient: &str) -> serde_json::Value {
    let mut told = json!(null);
    for _ in 0..600 {
        told = rig.health().await.json();
        if told["checks"]["database"] == json!({"strict": strict, "lenient": lenient}) {
            return told["errors"]["database"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {strict} and {lenient}: {told}\n{}", logs::text());
}

/// What makes a standby notice soon.
const SOON: &[&str] = &["-c", "wal_retrieve_retry_interval=100ms", "-c", "wal_receiver_timeout=1s"];

#[actix_web::test]
async fn a_standby_is_behind_from_a_commit_that_it_has_not_replayed_until_it_has() {
    let primary = Server::start(Kind::Postgres);
    let written = PgPool::connect_lazy(&primary.url()).unwrap();
    run(&written, "CREATE ROLE anybody LOGIN PASSWORD 'any'; CREATE TABLE orders (id int)").await;
    let standby = standby_of(&primary, SOON);
    let replica = PgPool::connect_lazy(&standby.url()).unwrap();
    // Who owns everything may see what the primary has; another one only how far the standby is.
    let anybody = format!("postgres://anybody:any@127.0.0.1:{}/{DATABASE}", standby.port());
    let rigs = [serve_lag(&standby.url()), serve_lag(&anybody)];
    run(&written, "INSERT INTO orders VALUES (1)").await;
    for rig in &rigs {
        eventually_told(rig, "UP", "UP").await;
    }
    // A primary that is idle for longer than the limits leaves nobody behind.
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
        let told = eventually_told(rig, "DOWN", "DEGRADED").await;
        for message in [&told["strict"], &told["lenient"]] {
            let seconds = message.as_str().and_then(|message| {
                let rest = message.strip_prefix(&format!("postgres at 127.0.0.1:{} is ", standby.port()))?;
                rest.strip_suffix(" s behind its primary")?.parse::<u64>().ok()
            });
            assert!(seconds.is_some_and(|seconds| (1..60).contains(&seconds)), "{message}");
        }
    }
    run(&replica, "SELECT pg_wal_replay_resume()").await;
    for rig in &rigs {
        eventually_told(rig, "UP", "UP").await;
    }
}

#[actix_web::test]
async fn the_first_commit_after_an_idle_time_is_no_lag_of_that_time() {
    let primary = Server::start(Kind::Postgres);
    let written = PgPool::connect_lazy(&primary.url()).unwrap();
    run(&written, "CREATE TABLE orders (id int)").await;
    // Each commit is seen to be received and not yet replayed.
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
async fn a_standby_that_lost_its_primary_does_not_look_fresh() {
    let mut primary = Server::start(Kind::Postgres);
    run(&PgPool::connect_lazy(&primary.url()).unwrap(), "CREATE TABLE orders (id int)").await;
    let mut standby = standby_of(&primary, SOON);
    run(&PgPool::connect_lazy(&primary.url()).unwrap(), "INSERT INTO orders VALUES (1)").await;
    let rig = serve_lag(&standby.url());
    eventually_told(&rig, "UP", "UP").await;
    let lost = format!("postgres at 127.0.0.1:{} receives nothing from its primary", standby.port());

    primary.stop();
    let told = eventually_told(&rig, "DOWN", "DEGRADED").await;
    assert_eq!(told, json!({"strict": lost, "lenient": lost}));
    primary.restart();
    eventually_told(&rig, "UP", "UP").await;

    primary.freeze();
    let told = eventually_told(&rig, "DOWN", "DEGRADED").await;
    assert_eq!(told, json!({"strict": lost, "lenient": lost}));
    primary.resume();
    eventually_told(&rig, "UP", "UP").await;

    // One that starts without its primary has not replayed anything that it could tell the time of.
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
async fn a_primary_is_never_behind_and_other_databases_are_not_asked() {
    let server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    replication_lag(&pool, Duration::ZERO, Duration::ZERO).await.unwrap();
    let sqlite = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let error = replication_lag(&sqlite, SECOND, SECOND).await.unwrap_err();
    assert_eq!(error.to_string(), "only postgres is known how to ask for its replication lag");
}

#[actix_web::test]
async fn a_statement_of_ones_own_is_down_while_it_fails_and_its_text_is_told_to_nobody() {
    let mut server = Server::start(Kind::Postgres);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&server.url()).unwrap();
    let rig =
        serve_check(asking("orders", &pool, |pool| async move { query(&pool, "SELECT 1 FROM orders LIMIT 1").await }));
    let message = format!("unexpected response from postgres at 127.0.0.1:{}", server.port());
    let answer = assert_down(&rig, "database", "orders", &message).await;
    assert_not_leaked(&rig, &answer, &["does not exist"]).await;
    assert!(!answer.body.contains("SELECT") && !answer.body.contains("relation"), "{answer:?}");

    // Without a row it runs all the same.
    run(&pool, "CREATE TABLE orders (id int)").await;
    assert_recovers(&rig, "database", "orders").await;
    run(&pool, "CREATE ROLE anybody LOGIN PASSWORD 'any'").await;
    let anybody = format!("postgres://anybody:any@127.0.0.1:{}/{DATABASE}", server.port());
    let anybody = PgPool::connect_lazy(&anybody).unwrap();
    let theirs =
        serve_check(asking(
            "orders",
            &anybody,
            |pool| async move { query(&pool, "SELECT 1 FROM orders LIMIT 1").await },
        ));
    let message = format!("postgres at 127.0.0.1:{} denied access", server.port());
    assert_down(&theirs, "database", "orders", &message).await;

    // By the probe's way to a connection.
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

async fn all_migrations_are_applied_whole_and_unchanged_or_it_is_told<DB: Database>(pool: Pool<DB>)
where
    DB::Connection: Migrate,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let told = async |migrations: &[(i64, &'static str)]| match migrated(&pool, &migrator(migrations)).await {
        Ok(()) => "migrated".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(&[ONE, TWO]).await, "2 of 2 migrations are not applied");
    let table = pool.acquire().await.unwrap().execute(sqlx::raw_sql("SELECT 1 FROM _sqlx_migrations")).await;
    assert!(table.is_err(), "asking makes no table");
    assert_eq!(told(&[]).await, "migrated");

    migrator(&[ONE]).run(&pool).await.unwrap();
    assert_eq!(told(&[ONE, TWO]).await, "1 of 2 migrations are not applied");
    migrator(&[ONE, TWO]).run(&pool).await.unwrap();
    assert_eq!(told(&[ONE, TWO]).await, "migrated");
    assert_eq!(told(&[ONE, TWO_CHANGED]).await, "a migration was changed after it was applied");

    migrator(&[ONE, TWO, THREE]).run(&pool).await.unwrap();
    assert_eq!(told(&[ONE, TWO]).await, "migrated", "a newer program's migration is no failure of an older one");
    run(&pool, "UPDATE _sqlx_migrations SET success = false WHERE version = 2").await;
    assert_eq!(told(&[ONE, TWO, THREE]).await, "a migration was not finished");
}

#[actix_web::test]
async fn all_migrations_of_a_postgres_are_applied_or_it_is_told() {
    let mut server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    all_migrations_are_applied_whole_and_unchanged_or_it_is_told(pool.clone()).await;

    let rig = serve_check(asking("schema", &pool, |pool| async move { migrated(&pool, &migrator(&[ONE])).await }));
    let answer = assert_down(&rig, "database", "schema", "a migration was not finished").await;
    assert_not_leaked(&rig, &answer, &["migration 2 is dirty"]).await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let message = format!("unable to connect to postgres at 127.0.0.1:{}", server.port());
    let answer = assert_down(&rig, "database", "schema", &message).await;
    assert_not_leaked(&rig, &answer, &["Connection refused"]).await;
}

#[actix_web::test]
async fn all_migrations_of_a_mariadb_are_applied_or_it_is_told() {
    let server = Server::start(Kind::MariaDb);
    let pool = MySqlPool::connect_lazy(&server.url()).unwrap();
    all_migrations_are_applied_whole_and_unchanged_or_it_is_told(pool).await;
}

#[actix_web::test]
async fn all_migrations_of_a_sqlite_are_applied_or_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    all_migrations_are_applied_whole_and_unchanged_or_it_is_told(pool.clone()).await;

    // The way back is not to be applied.
    run(&pool, "UPDATE _sqlx_migrations SET success = true").await;
    let [up, down] = [(MigrationType::ReversibleUp, ONE.1), (MigrationType::ReversibleDown, "DROP TABLE one")]
        .map(|(kind, sql)| Migration::new(1, "reversible".into(), kind, sql.into_sql_str(), false));
    migrated(&pool, &Migrator::with_migrations(vec![up, down])).await.unwrap();
}

#[actix_web::test]
async fn migrations_can_be_asked_for_by_who_may_only_read() {
    let primary = Server::start(Kind::Postgres);
    migrator(&[ONE]).run(&PgPool::connect_lazy(&primary.url()).unwrap()).await.unwrap();
    let standby = standby_of(&primary, &[]);
    let replica = PgPool::connect_lazy(&standby.url()).unwrap();
    migrated(&replica, &migrator(&[ONE])).await.unwrap();
    let error = migrated(&replica, &migrator(&[ONE, TWO])).await.unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 migrations are not applied");
}

#[actix_web::test]
async fn a_pool_of_any_database_is_asked_as_its_url_says() {
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
    // It has replayed no commit yet whose time it could tell.
    eventually("the standby is behind", || async { status().await == Err(Status::Down) }).await;
    run(&replica, "SELECT pg_wal_replay_resume()").await;
    eventually("the standby is fresh", || async { status().await == Ok(()) }).await;
    run(&replica, "SELECT pg_wal_replay_pause()").await;
    run(&any(&postgres.url()), "INSERT INTO orders VALUES (1)").await;
    eventually("the standby is behind", || async { status().await == Err(Status::Degraded) }).await;
}
