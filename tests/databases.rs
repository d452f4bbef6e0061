//! Every fault of PostgreSQL and MariaDB, through a real server: down when it is down, up when it works, and nothing told.

use std::time::Duration;

use actix_web::web;
use health::HealthCheck;
use sqlx::{
    AnyPool, Connection as _, Database, Executor, MySql, Pool, Postgres, any::install_default_drivers,
    pool::PoolOptions,
};

use crate::common::{
    answers::{MAX_AGE, assert_secret, back_up, degraded, down, up},
    logs,
    rig::Rig,
    servers::{Faulty as _, Kind, Server},
};

#[derive(HealthCheck)]
struct State<DB: Database> {
    #[health(probe)]
    db: Pool<DB>,
}

/// An application with a pool of two connections.
fn serve<DB: Database>(pool: &Pool<DB>) -> Rig
where
    State<DB>: HealthCheck,
{
    let state = web::Data::new(State { db: pool.clone() });
    Rig::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).state(&state));
    })
}

fn pool<DB: Database>(url: &str) -> Pool<DB> {
    PoolOptions::new().max_connections(2).connect_lazy(url).unwrap()
}

/// The kind of server, and its name in messages.
trait Served: Database {
    const KIND: Kind;
    const WORD: &'static str;
    const DENIED: &'static str;
    /// What it is started with to take few connections, and what it says when it has them.
    const FEW_CONNECTIONS: &'static [&'static str];
    const FULL: &'static str;
    /// Ends the connections of everybody else.
    const KILL_OTHERS: &'static str;
}

impl Served for Postgres {
    const KIND: Kind = Kind::Postgres;
    const WORD: &'static str = "postgres";
    const DENIED: &'static str = "password authentication failed for user";
    const FEW_CONNECTIONS: &'static [&'static str] =
        &["-c", "max_connections=5", "-c", "superuser_reserved_connections=0"];
    const FULL: &'static str = "too many clients";
    const KILL_OTHERS: &'static str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()";
}

impl Served for MySql {
    const KIND: Kind = Kind::MariaDb;
    const WORD: &'static str = "mysql";
    const DENIED: &'static str = "Access denied for user";
    const FEW_CONNECTIONS: &'static [&'static str] = &["--max-connections=10"];
    const FULL: &'static str = "Too many connections";
    const KILL_OTHERS: &'static str = "BEGIN NOT ATOMIC FOR it IN (SELECT id FROM information_schema.processlist \
         WHERE id <> connection_id() AND db = database()) DO KILL CONNECTION it.id; END FOR; END";
}

macro_rules! for_each_database {
    ($($test:ident)*) => {
        mod postgres {
            $(#[actix_web::test] async fn $test() { super::$test::<sqlx::Postgres>().await; })*
        }
        mod mariadb {
            $(#[actix_web::test] async fn $test() { super::$test::<sqlx::MySql>().await; })*
        }
    };
}

for_each_database! {
    a_stopped_server_is_down_and_up_again_when_restarted
    a_frozen_server_is_down_within_the_deadline_and_up_again_when_thawed
    a_wrong_password_is_down_and_told_to_nobody
    nothing_listening_from_the_start_is_down_until_something_does
    a_pool_that_the_application_exhausts_is_degraded
    an_exhausted_pool_of_a_frozen_server_is_down
    attempts_on_a_stopped_server_that_fill_the_pool_are_no_saturation
    dead_idle_connections_are_no_outage
    a_server_that_is_full_does_not_take_a_working_service_down
    the_pool_is_warm_after_a_server_that_was_slow_to_let_it_in
}

async fn a_stopped_server_is_down_and_up_again_when_restarted<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let mut server = Server::start(DB::KIND);
    let rig = serve(&pool::<DB>(&server.url()));
    up(&rig, "database", "db").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    let answer = down(&rig, "database", "db", &refused).await;
    assert_secret(&rig, &answer, &["Connection refused"]).await;

    server.restart();
    back_up(&rig, "database", "db").await;
    // Each transition is one line, and the polls between them are none.
    for _ in 0..5 {
        up(&rig, "database", "db").await;
    }
    let transitions = || logs::lines().iter().filter(|line| line.contains("health check database.db is")).count();
    crate::common::eventually("both transitions are logged", || async { transitions() >= 2 }).await;
    assert_eq!(transitions(), 2, "{:#?}", logs::lines());
}

async fn a_frozen_server_is_down_within_the_deadline_and_up_again_when_thawed<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let rig = serve(&pool::<DB>(&server.url()));
    up(&rig, "database", "db").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let answer = down(&rig, "database", "db", "timed out after 800 ms").await;
    assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
    println!("a frozen {:?} was answered for after {:?}", DB::KIND, answer.took);
    assert_secret(&rig, &answer, &[]).await;
    // The run that hangs is known to hang: nobody waits for it again.
    let again = down(&rig, "database", "db", "timed out after 800 ms").await;
    assert!(again.took < Duration::from_millis(500), "{:?}", again.took);

    server.thaw();
    back_up(&rig, "database", "db").await;
}

async fn a_wrong_password_is_down_and_told_to_nobody<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let wrong = "canary-wr0ng";
    let rig = serve(&pool::<DB>(&server.url_with(wrong)));
    let refused = format!("{} at 127.0.0.1:{} denied access", DB::WORD, server.port());
    let answer = down(&rig, "database", "db", &refused).await;
    assert_secret(&rig, &answer, &[DB::DENIED]).await;
    assert!(!answer.body.contains(wrong) && !logs::text().contains(wrong), "{}", logs::text());
}

async fn nothing_listening_from_the_start_is_down_until_something_does<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let mut server = Server::prepared(DB::KIND, &[]);
    let rig = serve(&pool::<DB>(&server.url()));
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    let answer = down(&rig, "database", "db", &refused).await;
    assert_secret(&rig, &answer, &["Connection refused"]).await;

    server.restart();
    back_up(&rig, "database", "db").await;
}

async fn a_pool_that_the_application_exhausts_is_degraded<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let answer = degraded(&rig, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
    assert_secret(&rig, &answer, &[]).await;

    drop(held);
    back_up(&rig, "database", "db").await;
}

async fn an_exhausted_pool_of_a_frozen_server_is_down<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    server.freeze();
    down(&rig, "database", "db", "timed out after 800 ms").await;
    server.thaw();
    drop(held);
}

async fn attempts_on_a_stopped_server_that_fill_the_pool_are_no_saturation<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::prepared(DB::KIND, &[]);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    let attempts = [pool.acquire(), pool.acquire()].map(actix_web::rt::spawn);
    while pool.size() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    down(&rig, "database", "db", &refused).await;
    attempts.iter().for_each(actix_web::rt::task::JoinHandle::abort);
}

async fn dead_idle_connections_are_no_outage<DB: Served>()
where
    State<DB>: HealthCheck,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
    crate::common::eventually("both connections are idle", || async { pool.num_idle() == 2 }).await;

    let mut killer = DB::Connection::connect(&server.url()).await.unwrap();
    killer.execute(sqlx::raw_sql(DB::KILL_OTHERS)).await.unwrap();
    up(&rig, "database", "db").await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

async fn the_pool_is_warm_after_a_server_that_was_slow_to_let_it_in<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    server.freeze();
    down(&rig, "database", "db", "timed out after 800 ms").await;
    assert_eq!(pool.num_idle(), 0);
    server.thaw();
    // Nobody asks again, and yet the run that was under way opens its connection.
    crate::common::eventually("a connection is idle", || async { pool.num_idle() > 0 }).await;
    back_up(&rig, "database", "db").await;
}

#[derive(HealthCheck)]
struct AnyState {
    db: AnyPool,
}

#[actix_web::test]
async fn pools_of_any_database_are_told_by_their_url() {
    install_default_drivers();
    for (kind, name) in [(Kind::Postgres, "postgres"), (Kind::MariaDb, "mysql")] {
        let mut server = Server::start(kind);
        let state = web::Data::new(AnyState { db: AnyPool::connect_lazy(&server.url()).unwrap() });
        let rig = Rig::start(1, move |app| {
            app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
        });
        up(&rig, "database", "db").await;
        server.stop();
        tokio::time::sleep(MAX_AGE).await;
        let refused = format!("unable to connect to {name} at 127.0.0.1:{}", server.port());
        assert_secret(&rig, &down(&rig, "database", "db", &refused).await, &["Connection refused"]).await;
    }
}

async fn a_server_that_is_full_does_not_take_a_working_service_down<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start_with(DB::KIND, DB::FEW_CONNECTIONS);
    let pool = pool::<DB>(&server.url());
    let rig = serve(&pool);
    let held = pool.acquire().await.unwrap();
    let mut others = Vec::new();
    while let Ok(connection) = DB::Connection::connect(&server.url()).await {
        others.push(connection);
    }
    let message = format!("{} at 127.0.0.1:{} accepts no more connections", DB::WORD, server.port());
    let answer = degraded(&rig, "database", "db", &message).await;
    assert_secret(&rig, &answer, &[DB::FULL]).await;
    drop((held, others));
}
