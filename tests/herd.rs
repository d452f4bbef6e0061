//! Many concurrent clients, and clients that leave, cause one run, counted at the server; and no resource grows.

use std::{fs, net::SocketAddr, time::Duration};

use actix_web::web;
use health::{Check, HealthCheck};
use sqlx::{PgPool, Row as _};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::common::{
    eventually, http,
    proxy::{Fault, Proxy},
    servers::{FaultInjection as _, Kind, Server},
    test_server::TestServer,
};

#[derive(HealthCheck)]
struct State {
    db: PgPool,
    cache: redis::Client,
}

/// PostgreSQL, which counts its statements, and Redis, behind proxies that delay by 100 ms in each direction.
struct Slow {
    postgres: Server,
    redis: Server,
    proxies: [Proxy; 2],
    server: TestServer,
}

const MAX_AGE: Duration = Duration::from_secs(3);

impl Slow {
    async fn start(workers: usize) -> Self {
        let postgres = Server::start_with(Kind::Postgres, &["-c", "shared_preload_libraries=pg_stat_statements"]);
        let redis = Server::start(Kind::Redis);
        let admin = PgPool::connect(&postgres.url()).await.unwrap();
        sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&admin).await.unwrap();
        let proxies = [Proxy::start(postgres.port()).await, Proxy::start(redis.port()).await];
        let state = web::Data::new(State {
            db: PgPool::connect_lazy(&postgres.url_at(proxies[0].port)).unwrap(),
            cache: redis::Client::open(redis.url_at(proxies[1].port)).unwrap(),
        });
        let server = TestServer::start(workers, move |app| {
            app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
        });
        // Connections are open, so that a run is one query.
        assert_eq!(server.health().await.status, 200);
        for proxy in &proxies {
            proxy.set(Fault::Delay(Duration::from_millis(100)));
        }
        let slow = Self { postgres, redis, proxies, server };
        assert_eq!(slow.queries().await, (1, 1, 1));
        slow
    }

    /// How many queries each server received.
    async fn queries(&self) -> (i64, u64, u64) {
        let admin = PgPool::connect(&self.postgres.url()).await.unwrap();
        let statements = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query = 'SELECT $1'";
        let selects: i64 = sqlx::query(statements).fetch_one(&admin).await.unwrap().get(0);
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut admin = client.get_multiplexed_async_connection().await.unwrap();
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
        let calls = |command: &str| {
            let line = info.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:"))).unwrap_or_default();
            line.split(['=', ',']).nth(1).map_or(0, |calls| calls.parse().unwrap())
        };
        (selects, calls("set"), calls("get"))
    }
}

#[actix_web::test]
async fn a_thousand_concurrent_clients_cause_one_run() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let slow = Slow::start(4).await;
    tokio::time::sleep(MAX_AGE).await;
    let address = slow.server.address;
    let paths = ["/health", "/health/", "/health?details", "/health/ready", "/health/database/db"];
    let clients: Vec<_> = (0..1000)
        .map(|n| actix_web::rt::spawn(async move { http::get(address, paths[n % paths.len()]).await }))
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap().status, 200);
    }
    assert_eq!(slow.queries().await, (2, 2, 2));
    drop(slow.proxies);
}

#[actix_web::test]
async fn a_client_that_leaves_does_not_cancel_the_run_for_the_next() {
    let slow = Slow::start(1).await;
    tokio::time::sleep(MAX_AGE).await;
    let mut impatient = TcpStream::connect(slow.server.address).await.unwrap();
    impatient.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(impatient);
    assert_eq!(slow.server.health().await.status, 200);
    assert_eq!(slow.queries().await, (2, 2, 2));
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The resident memory of this process, in KiB.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Polls in sequence, each time on a new connection.
async fn poll(address: SocketAddr, times: usize) {
    for _ in 0..times {
        assert_eq!(http::get(address, "/health").await.status, 503);
    }
}

#[actix_web::test]
async fn ten_thousand_polls_of_a_hung_check_leak_nothing() {
    let hung =
        Check::new("service", "hung", std::future::pending::<Result<(), String>>).timeout(Duration::from_millis(50));
    let server = TestServer::start(2, move |app| {
        app.service(health::scope().check(hung.clone()).max_age(Duration::ZERO));
    });
    poll(server.address, 100).await;
    let (files, kib) = (open_files(), resident_kib());
    poll(server.address, 9_900).await;
    eventually("no further descriptor is open", || async { open_files() <= files }).await;
    // The allocator keeps some freed memory; a leaked task per poll would be 10 MB.
    assert!(resident_kib() < kib + 3_000, "{kib} KiB before, {} KiB after", resident_kib());
}

#[actix_web::test]
async fn long_a_minute_of_a_frozen_server_and_ten_thousand_polls_leak_nothing() {
    let server = Server::start(Kind::Postgres);
    let pool = PgPool::connect_lazy(&server.url()).unwrap();
    let state = web::Data::new(State { db: pool.clone(), cache: redis::Client::open("redis://127.0.0.1:1").unwrap() });
    let app = TestServer::start(2, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    assert_eq!(app.get("/health/database").await.status, 200);
    server.freeze();
    tokio::time::sleep(Duration::from_secs(1)).await;
    poll(app.address, 100).await;
    let (files, kib) = (open_files(), resident_kib());
    for _ in 0..58 {
        poll(app.address, 170).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert!(resident_kib() < kib + 3_000, "{kib} KiB before, {} KiB after", resident_kib());
    // A run may hold two connections of the pool, and there is one run at a time.
    assert!(open_files() <= files + 8, "{files} before, {} after", open_files());
    server.resume();
    eventually("the check is up", || async { app.get("/health/database").await.status == 200 }).await;
    assert!(pool.size() <= 4, "{}", pool.size());
}
