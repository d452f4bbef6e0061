//! Faults of servers and of connections to them, under load: the time until the check is DOWN, the time until it is UP again, and
//! the slowest response.
//!
//! With `UPDATE_DOCS=1` the table is written to `docs/faults.md`.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::web;
use health::HealthCheck;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::{MySqlPool, PgPool};

use crate::common::{
    docs, http, logs,
    proxy::{Fault, Proxy},
    servers::{FaultInjection as _, Kind, Server},
    test_server::TestServer,
};

/// The client with which the application connects to a server.
#[derive(Clone, Copy, Debug)]
enum Backend {
    Postgres,
    MariaDb,
    RedisClient,
    RedisManager,
}

#[derive(HealthCheck)]
struct State {
    postgres: Option<PgPool>,
    mariadb: Option<MySqlPool>,
    client: Option<redis::Client>,
    manager: Option<ConnectionManager>,
}

impl Backend {
    fn kind(self) -> Kind {
        match self {
            Self::Postgres => Kind::Postgres,
            Self::MariaDb => Kind::MariaDb,
            Self::RedisClient | Self::RedisManager => Kind::Redis,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "sqlx, PostgreSQL",
            Self::MariaDb => "sqlx, MariaDB",
            Self::RedisClient => "redis::Client",
            Self::RedisManager => "ConnectionManager",
        }
    }

    fn state(self, url: &str) -> State {
        let mut state = State { postgres: None, mariadb: None, client: None, manager: None };
        let client = || redis::Client::open(url).unwrap();
        match self {
            Self::Postgres => state.postgres = Some(PgPool::connect_lazy(url).unwrap()),
            Self::MariaDb => state.mariadb = Some(MySqlPool::connect_lazy(url).unwrap()),
            Self::RedisClient => state.client = Some(client()),
            Self::RedisManager => {
                // Its backoff between attempts grows, and would be measured instead of the check.
                let config = ConnectionManagerConfig::new()
                    .set_max_delay(Duration::from_millis(100))
                    .set_number_of_retries(1000);
                state.manager = Some(ConnectionManager::new_lazy_with_config(client(), config).unwrap());
            }
        }
        state
    }
}

/// A fault, which the test ends again.
#[derive(Clone, Copy, Debug)]
enum Breakage {
    Connection(Fault),
    Frozen,
    Restarted,
}

const BREAKAGES: [(&str, Breakage, bool); 9] = [
    ("responds 300 ms late", Breakage::Connection(Fault::Delay(Duration::from_millis(150))), false),
    ("responds 2 s late", Breakage::Connection(Fault::Delay(Duration::from_secs(1))), true),
    ("accepts, never responds", Breakage::Connection(Fault::Blackhole), true),
    ("old connections are silently dead", Breakage::Connection(Fault::HalfOpen), false),
    ("resets connections", Breakage::Connection(Fault::Reset), true),
    ("resets in the middle of a response", Breakage::Connection(Fault::ResetMidResponse), true),
    ("responds with garbage", Breakage::Connection(Fault::Corrupt), true),
    ("frozen (SIGSTOP)", Breakage::Frozen, true),
    ("restarted during a run", Breakage::Restarted, false),
];

impl State {
    /// Whether the client of the application works.
    async fn works(&self) -> bool {
        let query = async {
            let mut redis = match (&self.postgres, &self.mariadb, &self.client, &self.manager) {
                (Some(pool), ..) => return sqlx::raw_sql("SELECT 1").execute(pool).await.is_ok(),
                (_, Some(pool), ..) => return sqlx::raw_sql("SELECT 1").execute(pool).await.is_ok(),
                (_, _, Some(client), _) => return client.get_multiplexed_async_connection().await.is_ok(),
                (_, _, _, manager) => manager.clone().unwrap(),
            };
            redis::cmd("PING").query_async::<String>(&mut redis).await.is_ok()
        };
        tokio::time::timeout(Duration::from_secs(5), query).await.unwrap_or(false)
    }
}

struct Row {
    to_down: Option<Duration>,
    to_up: Option<Duration>,
    /// Whether the client of the application works after the fault.
    works: bool,
    slowest: Duration,
}

/// Four clients that poll continuously, each time on a new connection.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<actix_web::rt::task::JoinHandle<Duration>>,
}

impl Load {
    fn start(server: &TestServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, address) = (Arc::clone(&stop), server.address);
            actix_web::rt::spawn(async move {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    slowest = slowest.max(http::get(address, "/health").await.took);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                slowest
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, clients }
    }

    async fn slowest_response(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        for client in self.clients {
            slowest = slowest.max(client.await.unwrap());
        }
        slowest
    }
}

/// Polls until the status code is `status`. Returns the time it took; `None` if it took longer than `limit`.
async fn until(server: &TestServer, status: u16, limit: Duration) -> Option<Duration> {
    let started = Instant::now();
    while server.health().await.status != status {
        if started.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Some(started.elapsed())
}

async fn measure(client: Backend, breakage: Breakage, is_down: bool) -> Row {
    let mut server = Server::start(client.kind());
    let proxy = Proxy::start(server.port()).await;
    let state = web::Data::new(client.state(&server.url_at(proxy.port)));
    let own = state.clone();
    let app = TestServer::start(2, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    until(&app, 200, Duration::from_secs(10)).await.expect("the check is up before the fault");
    // The connection returns to its pool after the response.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let load = Load::start(&app);
    match breakage {
        Breakage::Connection(fault) => proxy.set(fault),
        Breakage::Frozen => server.freeze(),
        Breakage::Restarted => {
            server.freeze();
            // Longer than `max_age`, so that a run is in flight.
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            server.kill();
            server.restart();
        }
    }
    let to_down = until(&app, 503, Duration::from_secs(if is_down { 10 } else { 3 })).await;
    match breakage {
        Breakage::Connection(_) => proxy.set(Fault::None),
        Breakage::Frozen => server.resume(),
        Breakage::Restarted => {}
    }
    let to_up = until(&app, 200, Duration::from_secs(10)).await;
    Row { to_down, to_up, works: to_up.is_some() || own.works().await, slowest: load.slowest_response().await }
}

#[actix_web::test]
async fn every_fault_is_down_in_time_and_up_again_in_time() {
    logs::keep();
    let mut table = String::from(
        "| client | fault | DOWN after | UP again after | slowest response |\n| --- | --- | --- | --- | --- |\n",
    );
    let clients = [Backend::Postgres, Backend::MariaDb, Backend::RedisClient, Backend::RedisManager];
    let mut wrong = Vec::new();
    for (fault, breakage, is_down) in BREAKAGES {
        // All clients concurrently, each with its own server and application.
        let rows = clients.map(|client| actix_web::rt::spawn(measure(client, breakage, is_down)));
        for (client, row) in clients.into_iter().zip(rows) {
            let Row { to_down, to_up, works, slowest } = row.await.unwrap();
            let ms = |time: Duration| format!("{} ms", time.as_millis());
            let down = to_down.map_or_else(|| "stays UP".to_owned(), ms);
            let up = to_up.map_or_else(
                || "not within 10 s".to_owned(),
                |time| if to_down.is_some() { ms(time) } else { String::new() },
            );
            let row = format!("| {} | {fault} | {down} | {up} | {} |", client.name(), ms(slowest));
            // A run may or may not fall into the time of the restart.
            let either =
                matches!(breakage, Breakage::Restarted) || matches!(breakage, Breakage::Connection(Fault::HalfOpen));
            if (to_down.is_some() != is_down && !either)
                || (to_up.is_none() && works)
                || slowest > Duration::from_secs(2)
            {
                wrong.push(row.clone());
            }
            writeln!(table, "{row}").unwrap();
        }
    }
    println!("{table}");
    docs::update("faults", &table);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[actix_web::test]
async fn a_host_name_that_does_not_resolve_is_down_in_time() {
    let url = "postgres://canaryuser:canary-5ecret@no-such-host.invalid:5432/canarybase";
    let state = web::Data::new(State {
        postgres: Some(PgPool::connect_lazy(url).unwrap()),
        mariadb: None,
        client: Some(redis::Client::open("redis://no-such-host.invalid").unwrap()),
        manager: None,
    });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    let response = server.health().await;
    assert_eq!(response.status, 503);
    assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
    assert_eq!(
        response.json()["checks"],
        serde_json::json!({"database": {"postgres": "DOWN"}, "cache": {"client": "DOWN"}})
    );
}
