//! Every fault of PostgreSQL and MariaDB, with real servers: DOWN while the server is, UP when it works, and no secrets in responses.

use std::time::{Duration, Instant};

use actix_web::web;
use health::HealthCheck;
use sqlx::{
    AnyPool, Connection as _, Database, Executor, MySql, Pool, Postgres, any::install_default_drivers,
    pool::PoolOptions,
};

use crate::common::{
    DATABASE, PASSWORD, USER,
    daemon::Daemon,
    eventually,
    far::Far,
    logs,
    responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
    servers::{FaultInjection as _, Kind, Server},
    test_server::TestServer,
};

#[derive(HealthCheck)]
struct State<DB: Database> {
    #[health(probe)]
    db: Pool<DB>,
}

/// An application with a pool of two connections.
fn serve<DB: Database>(pool: &Pool<DB>) -> TestServer
where
    State<DB>: HealthCheck,
{
    let state = web::Data::new(State { db: pool.clone() });
    TestServer::start(1, move |app| {
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
    /// Arguments that limit its connections, and its error when the limit is reached.
    const FEW_CONNECTIONS: &'static [&'static str];
    const FULL: &'static str;
    /// A statement that closes all other connections.
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
    a_frozen_server_is_down_by_the_deadline_and_up_when_it_resumes
    a_wrong_password_is_down_and_not_in_responses_or_logs
    nothing_listening_from_the_start_is_down_until_something_does
    an_exhausted_pool_of_a_frozen_server_is_down
    attempts_on_a_stopped_server_that_fill_the_pool_are_not_saturation
    dead_idle_connections_are_not_an_outage
    a_server_that_is_full_does_not_take_a_working_service_down
    the_pool_is_warm_after_a_server_that_was_slow_to_let_it_in
    a_far_database_is_up_from_a_cold_start_with_few_connections_outside_the_pool
    a_far_database_whose_pool_is_exhausted_is_degraded_and_opens_a_connection_every_two_seconds_at_most
    silent_idle_connections_are_degraded_while_new_ones_work
    one_silent_connection_next_to_a_working_one_is_up
    a_server_that_is_back_is_up_within_a_second_although_an_idle_connection_is_silent
    a_pool_that_lost_its_connections_to_a_full_server_is_down
    an_exhausted_pool_is_degraded_except_while_its_server_is_frozen
}

async fn a_stopped_server_is_down_and_up_again_when_restarted<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let mut server = Server::start(DB::KIND);
    let app = serve(&pool::<DB>(&server.url()));
    assert_up(&app, "database", "db").await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    let response = assert_down(&app, "database", "db", &refused).await;
    assert_not_leaked(&app, &response, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&app, "database", "db").await;
    // Each transition is one line; the polls between them log nothing.
    for _ in 0..5 {
        assert_up(&app, "database", "db").await;
    }
    let transitions = || logs::lines().iter().filter(|line| line.contains("health check database.db is")).count();
    crate::common::eventually("both transitions are logged", || async { transitions() >= 2 }).await;
    assert_eq!(transitions(), 2, "{:#?}", logs::lines());
}

async fn a_frozen_server_is_down_by_the_deadline_and_up_when_it_resumes<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let app = serve(&pool::<DB>(&server.url()));
    assert_up(&app, "database", "db").await;

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&app, "database", "db", "timed out after 800 ms").await;
    assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
    println!("a frozen {:?} was reported after {:?}", DB::KIND, response.took);
    assert_not_leaked(&app, &response, &[]).await;
    // The overdue run is known, so the response does not wait for it again.
    let again = assert_down(&app, "database", "db", "timed out after 800 ms").await;
    assert!(again.took < Duration::from_millis(500), "{:?}", again.took);

    server.resume();
    assert_recovers(&app, "database", "db").await;
}

async fn a_wrong_password_is_down_and_not_in_responses_or_logs<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let wrong = "canary-wr0ng";
    let app = serve(&pool::<DB>(&server.url_with(wrong)));
    let refused = format!("{} at 127.0.0.1:{} denied access", DB::WORD, server.port());
    let response = assert_down(&app, "database", "db", &refused).await;
    assert_not_leaked(&app, &response, &[DB::DENIED]).await;
    assert!(!response.body.contains(wrong) && !logs::text().contains(wrong), "{}", logs::text());
}

async fn nothing_listening_from_the_start_is_down_until_something_does<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let mut server = Server::prepared(DB::KIND, &[]);
    let app = serve(&pool::<DB>(&server.url()));
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    let response = assert_down(&app, "database", "db", &refused).await;
    assert_not_leaked(&app, &response, &["Connection refused"]).await;

    server.restart();
    assert_recovers(&app, "database", "db").await;
}

async fn an_exhausted_pool_of_a_frozen_server_is_down<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    server.freeze();
    assert_down(&app, "database", "db", "timed out after 800 ms").await;
    server.resume();
    drop(held);
}

async fn attempts_on_a_stopped_server_that_fill_the_pool_are_not_saturation<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::prepared(DB::KIND, &[]);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    let attempts = [pool.acquire(), pool.acquire()].map(actix_web::rt::spawn);
    while pool.size() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = format!("unable to connect to {} at 127.0.0.1:{}", DB::WORD, server.port());
    assert_down(&app, "database", "db", &refused).await;
    attempts.iter().for_each(actix_web::rt::task::JoinHandle::abort);
}

async fn dead_idle_connections_are_not_an_outage<DB: Served>()
where
    State<DB>: HealthCheck,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
    crate::common::eventually("both connections are idle", || async { pool.num_idle() == 2 }).await;

    let mut killer = DB::Connection::connect(&server.url()).await.unwrap();
    killer.execute(sqlx::raw_sql(DB::KILL_OTHERS)).await.unwrap();
    assert_up(&app, "database", "db").await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

async fn the_pool_is_warm_after_a_server_that_was_slow_to_let_it_in<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    server.freeze();
    assert_down(&app, "database", "db", "timed out after 800 ms").await;
    assert_eq!(pool.num_idle(), 0);
    server.resume();
    // The run in flight opens its connection, though there is no further request.
    crate::common::eventually("a connection is idle", || async { pool.num_idle() > 0 }).await;
    assert_recovers(&app, "database", "db").await;
}

#[derive(HealthCheck)]
struct AnyState {
    db: AnyPool,
}

#[actix_web::test]
async fn pools_of_any_database_are_named_by_their_url() {
    install_default_drivers();
    for (kind, name) in [(Kind::Postgres, "postgres"), (Kind::MariaDb, "mysql")] {
        let mut server = Server::start(kind);
        let state = web::Data::new(AnyState { db: AnyPool::connect_lazy(&server.url()).unwrap() });
        let app = TestServer::start(1, move |app| {
            app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
        });
        assert_up(&app, "database", "db").await;
        server.stop();
        tokio::time::sleep(MAX_AGE).await;
        let refused = format!("unable to connect to {name} at 127.0.0.1:{}", server.port());
        assert_not_leaked(&app, &assert_down(&app, "database", "db", &refused).await, &["Connection refused"]).await;
    }
}

async fn a_server_that_is_full_does_not_take_a_working_service_down<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start_with(DB::KIND, DB::FEW_CONNECTIONS);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    let held = pool.acquire().await.unwrap();
    let mut others = Vec::new();
    while let Ok(connection) = DB::Connection::connect(&server.url()).await {
        others.push(connection);
    }
    let message = format!("{} at 127.0.0.1:{} accepts no more connections", DB::WORD, server.port());
    let response = assert_degraded(&app, "database", "db", &message).await;
    assert_not_leaked(&app, &response, &[DB::FULL]).await;
    drop((held, others));
}

const DISTANCES: [u64; 4] = [80, 150, 250, 350];

/// A proxy with a delay in front of a server, and a pool of two connections through it.
async fn far<DB: Database>(server: &Server, delay_ms: u64) -> (Far, Pool<DB>) {
    let far = Far::start(server.port(), Duration::from_millis(delay_ms)).await;
    let pool = pool::<DB>(&server.url_at(far.port));
    (far, pool)
}

async fn status(server: &TestServer) -> String {
    server.health().await.json()["status"].as_str().unwrap().to_owned()
}

async fn a_far_database_is_up_from_a_cold_start_with_few_connections_outside_the_pool<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    for delay in DISTANCES {
        let (far, pool) = far::<DB>(&server, delay).await;
        let app = serve(&pool);
        let started = Instant::now();
        eventually("it is up", || async { status(&app).await == "UP" }).await;
        // Longer than the limit and than the application's first query takes at this distance.
        assert!(started.elapsed() < Duration::from_secs(4), "{delay} ms: {:?}", started.elapsed());
        for _ in 0..3 {
            tokio::time::sleep(MAX_AGE).await;
            assert_up(&app, "database", "db").await;
        }
        let opened = far.opened();
        assert!(opened <= 3, "{delay} ms: {opened} connections");
        for _ in 0..4 {
            tokio::time::sleep(MAX_AGE).await;
            assert_up(&app, "database", "db").await;
        }
        assert_eq!(far.opened(), opened, "{delay} ms: a warm pool is probed on its own connections");
    }
}

async fn a_far_database_whose_pool_is_exhausted_is_degraded_and_opens_a_connection_every_two_seconds_at_most<
    DB: Served,
>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    for delay in DISTANCES {
        let (far, pool) = far::<DB>(&server, delay).await;
        let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let app = serve(&pool);
        eventually("it is degraded", || async { status(&app).await == "DEGRADED" }).await;
        let (started, opened) = (Instant::now(), far.opened());
        while started.elapsed() < Duration::from_secs(5) {
            assert_degraded(&app, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
            tokio::time::sleep(MAX_AGE).await;
        }
        let more = far.opened() - opened;
        assert!(more <= 3, "{delay} ms: {more} connections in 5 s");
        drop(held);
        assert_recovers(&app, "database", "db").await;
    }
}

/// A pool through a proxy, with two idle connections, of which the first one is used first.
async fn two_idle<DB: Served>(server: &Server) -> (Far, Pool<DB>) {
    let (far, pool) = far::<DB>(server, 0).await;
    let [first, second] = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    drop(first);
    eventually("one connection is idle", || async { pool.num_idle() == 1 }).await;
    drop(second);
    eventually("both connections are idle", || async { pool.num_idle() == 2 }).await;
    (far, pool)
}

async fn silent_idle_connections_are_degraded_while_new_ones_work<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let (far, pool) = two_idle::<DB>(&server).await;
    far.silence();
    let app = serve(&pool);
    let message =
        format!("an idle connection to {} at 127.0.0.1:{} does not respond, a new one does", DB::WORD, far.port);
    assert_degraded(&app, "database", "db", &message).await;
    // They are discarded, so the pool works again.
    eventually("it is up", || async { status(&app).await == "UP" }).await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

async fn one_silent_connection_next_to_a_working_one_is_up<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let (far, pool) = two_idle::<DB>(&server).await;
    far.silence_first(1);
    let app = serve(&pool);
    for _ in 0..3 {
        assert_up(&app, "database", "db").await;
        tokio::time::sleep(MAX_AGE).await;
    }
}

async fn a_server_that_is_back_is_up_within_a_second_although_an_idle_connection_is_silent<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let (far, pool) = far::<DB>(&server, 0).await;
    let app = serve(&pool);
    assert_up(&app, "database", "db").await;
    far.silence();
    far.refuse(true);
    tokio::time::sleep(MAX_AGE).await;
    for _ in 0..5 {
        assert_eq!(status(&app).await, "DOWN");
        tokio::time::sleep(MAX_AGE).await;
    }
    far.refuse(false);
    let back = Instant::now();
    eventually("it is up", || async { status(&app).await == "UP" }).await;
    // One further attempt, and the poll after it.
    assert!(back.elapsed() < Duration::from_millis(1_800), "{:?}", back.elapsed());
}

async fn a_pool_that_lost_its_connections_to_a_full_server_is_down<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start_with(DB::KIND, DB::FEW_CONNECTIONS);
    let pool = PoolOptions::<DB>::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(&server.url())
        .unwrap();
    let app = serve(&pool);
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    // All are in use, and work.
    assert_degraded(&app, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
    // The pool loses its connections, and other clients take the slots.
    drop(held.map(sqlx::pool::PoolConnection::detach));
    let mut others = Vec::new();
    for _ in 0..40 {
        match DB::Connection::connect(&server.url()).await {
            Ok(connection) => others.push(connection),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let application = [(); 2].map(|()| {
        let pool = pool.clone();
        actix_web::rt::spawn(async move {
            loop {
                drop(pool.acquire().await);
            }
        })
    });
    eventually("it is down", || async { status(&app).await == "DOWN" }).await;
    for _ in 0..6 {
        assert_eq!(status(&app).await, "DOWN", "and stays so");
        tokio::time::sleep(MAX_AGE).await;
    }
    drop(others);
    eventually("it is up", || async { status(&app).await != "DOWN" }).await;
    application.iter().for_each(actix_web::rt::task::JoinHandle::abort);
}

async fn an_exhausted_pool_is_degraded_except_while_its_server_is_frozen<DB: Served>()
where
    State<DB>: HealthCheck,
{
    let server = Server::start(DB::KIND);
    let pool = pool::<DB>(&server.url());
    let app = serve(&pool);
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let response = assert_degraded(&app, "database", "db", "connection pool exhausted (2 of 2 in use)").await;
    assert_not_leaked(&app, &response, &[]).await;
    server.freeze();
    let frozen = Instant::now();
    eventually("it is down", || async { status(&app).await == "DOWN" }).await;
    assert!(frozen.elapsed() < Duration::from_secs(5), "{:?}", frozen.elapsed());
    server.resume();
    eventually("it is degraded", || async { status(&app).await == "DEGRADED" }).await;
    drop(held);
    assert_recovers(&app, "database", "db").await;
}

#[actix_web::test]
async fn connections_that_postgres_closed_with_a_message_are_not_an_outage() {
    for (setting, more) in [("idle_session_timeout", ""), ("idle_in_transaction_session_timeout", "BEGIN")] {
        let server = Server::start(Kind::Postgres);
        let pool = pool::<Postgres>(&server.url());
        let mut both = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        for connection in &mut both {
            connection.execute(sqlx::raw_sql(&*format!("SET {setting} = 100; {more}").leak())).await.unwrap();
        }
        drop(both);
        eventually("both connections are idle", || async { pool.num_idle() == 2 }).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let app = serve(&pool);
        assert_up(&app, "database", "db").await;
    }
}

#[actix_web::test]
async fn an_account_of_mariadb_that_has_all_its_connections_is_degraded() {
    let limited = ["--max-user-connections=3"];
    for (args, account) in [(&[][..], "WITH MAX_USER_CONNECTIONS 2"), (&limited, "")] {
        let server = Server::start_with(Kind::MariaDb, args);
        let mut admin = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
        let sql = format!("CREATE USER limited@'127.0.0.1' IDENTIFIED BY 'l1mited' {account}");
        admin.execute(sqlx::raw_sql(&*sql.leak())).await.unwrap();
        let pool = PoolOptions::<MySql>::new()
            .max_connections(5)
            .connect_lazy(&format!("mysql://limited:l1mited@127.0.0.1:{}", server.port()))
            .unwrap();
        let mut held = vec![pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        if account.is_empty() {
            held.push(pool.acquire().await.unwrap());
        }
        let app = serve(&pool);
        let message = format!("mysql at 127.0.0.1:{} accepts no more connections", server.port());
        let response = assert_degraded(&app, "database", "db", &message).await;
        assert_not_leaked(&app, &response, &["max_user_connections"]).await;
        drop(held);
        assert_recovers(&app, "database", "db").await;
    }
}

#[actix_web::test]
async fn a_pgbouncer_that_has_all_its_clients_is_degraded_while_the_pool_has_connections() {
    let server = Server::start(Kind::Postgres);
    let bouncer = pgbouncer(&server, 3);
    let url = server.url_at(bouncer.port());
    let pool = PoolOptions::<Postgres>::new().max_connections(3).connect_lazy(&url).unwrap();
    let held = pool.acquire().await.unwrap();
    let mut others = Vec::new();
    while let Ok(connection) = sqlx::PgConnection::connect(&url).await {
        others.push(connection);
    }
    let app = serve(&pool);
    let message = format!("postgres at 127.0.0.1:{} accepts no more connections", bouncer.port());
    let response = assert_degraded(&app, "database", "db", &message).await;
    assert_not_leaked(&app, &response, &["no more connections allowed"]).await;
    drop((held, others));
    assert_recovers(&app, "database", "db").await;
}

/// Starts a pgbouncer in front of a PostgreSQL.
fn pgbouncer(server: &Server, clients: u32) -> Daemon<()> {
    let mut bouncer = Daemon::new((), "postgres", "/usr/sbin/pgbouncer");
    bouncer.write("users", &format!("\"{USER}\" \"{PASSWORD}\"\n"));
    let settings = format!(
        "[databases]\n{DATABASE} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
         unix_socket_dir =\nauth_type = plain\nauth_file = {}\nmax_client_conn = {clients}\n\
         ignore_startup_parameters = extra_float_digits\n",
        server.port(),
        bouncer.port(),
        bouncer.path("users")
    );
    bouncer.write("ini", &settings);
    bouncer.add_args(&[bouncer.path("ini")]);
    bouncer.restart();
    bouncer
}
