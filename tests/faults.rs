//! Every way in which the road to a server breaks, under load: the time until the answer is DOWN, the time until it is UP
//! again, and the latest answer of all.
//!
//! With `UPDATE_DOCS=1` the table goes to `docs/faults.md`.

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
    rig::Rig,
    servers::{Faulty as _, Kind, Server},
};

/// The application's way to a server, by which its rows are named.
#[derive(Clone, Copy, Debug)]
enum Way {
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

impl Way {
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
                // Its pauses between attempts grow by themselves; what is measured here is the check.
                let config = ConnectionManagerConfig::new()
                    .set_max_delay(Duration::from_millis(100))
                    .set_number_of_retries(1000);
                state.manager = Some(ConnectionManager::new_lazy_with_config(client(), config).unwrap());
            }
        }
        state
    }
}

/// What is broken, and how it is mended.
#[derive(Clone, Copy, Debug)]
enum Breakage {
    Road(Fault),
    Frozen,
    Restarted,
}

const BREAKAGES: [(&str, Breakage, bool); 9] = [
    ("answers 300 ms late", Breakage::Road(Fault::Delay(Duration::from_millis(150))), false),
    ("answers 2 s late", Breakage::Road(Fault::Delay(Duration::from_secs(1))), true),
    ("accepts, never answers", Breakage::Road(Fault::Swallow), true),
    ("old connections are dead in silence", Breakage::Road(Fault::Forget), false),
    ("resets connections", Breakage::Road(Fault::Cut), true),
    ("resets in the middle of an answer", Breakage::Road(Fault::CutMidAnswer), true),
    ("answers garbage", Breakage::Road(Fault::Garble), true),
    ("frozen (SIGSTOP)", Breakage::Frozen, true),
    ("restarted during a round", Breakage::Restarted, false),
];

impl State {
    /// Whether the application itself gets an answer.
    async fn works(&self) -> bool {
        let asked = async {
            let mut redis = match (&self.postgres, &self.mariadb, &self.client, &self.manager) {
                (Some(pool), ..) => return sqlx::raw_sql("SELECT 1").execute(pool).await.is_ok(),
                (_, Some(pool), ..) => return sqlx::raw_sql("SELECT 1").execute(pool).await.is_ok(),
                (_, _, Some(client), _) => return client.get_multiplexed_async_connection().await.is_ok(),
                (_, _, _, manager) => manager.clone().unwrap(),
            };
            redis::cmd("PING").query_async::<String>(&mut redis).await.is_ok()
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap_or(false)
    }
}

struct Row {
    to_down: Option<Duration>,
    to_up: Option<Duration>,
    /// The application's own handle works when all is mended.
    works: bool,
    latest: Duration,
}

/// Four callers that ask all the time, one connection each, and what the latest answer was.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<actix_web::rt::task::JoinHandle<Duration>>,
}

impl Load {
    fn start(rig: &Rig) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (stop, address) = (Arc::clone(&stop), rig.address);
            actix_web::rt::spawn(async move {
                let mut latest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    latest = latest.max(http::get(address, "/health").await.took);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                latest
            })
        };
        let callers = (0..4).map(caller).collect();
        Self { stop, callers }
    }

    async fn latest(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut latest = Duration::ZERO;
        for caller in self.callers {
            latest = latest.max(caller.await.unwrap());
        }
        latest
    }
}

/// Asks until the status is that one, for at most so long; how long it took.
async fn until(rig: &Rig, status: u16, patience: Duration) -> Option<Duration> {
    let started = Instant::now();
    while rig.health().await.status != status {
        if started.elapsed() > patience {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Some(started.elapsed())
}

async fn broken(way: Way, breakage: Breakage, is_down: bool) -> Row {
    let mut server = Server::start(way.kind());
    let proxy = Proxy::start(server.port()).await;
    let state = web::Data::new(way.state(&server.url_at(proxy.port)));
    let own = state.clone();
    let rig = Rig::start(2, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    until(&rig, 200, Duration::from_secs(10)).await.expect("it is up before it is broken");
    // The connection that was asked goes back to its pool behind the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let load = Load::start(&rig);
    match breakage {
        Breakage::Road(fault) => proxy.set(fault),
        Breakage::Frozen => server.freeze(),
        Breakage::Restarted => {
            server.freeze();
            // Longer than a result is kept: a round is under way.
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            server.kill();
            server.restart();
        }
    }
    let to_down = until(&rig, 503, Duration::from_secs(if is_down { 10 } else { 3 })).await;
    match breakage {
        Breakage::Road(_) => proxy.set(Fault::None),
        Breakage::Frozen => server.thaw(),
        Breakage::Restarted => {}
    }
    let to_up = until(&rig, 200, Duration::from_secs(10)).await;
    Row { to_down, to_up, works: to_up.is_some() || own.works().await, latest: load.latest().await }
}

#[actix_web::test]
async fn every_fault_is_told_in_time_and_forgotten_in_time() {
    logs::keep();
    let mut table = String::from(
        "| way to the server | fault | DOWN after | UP again after | latest answer |\n| --- | --- | --- | --- | --- |\n",
    );
    let ways = [Way::Postgres, Way::MariaDb, Way::RedisClient, Way::RedisManager];
    let mut wrong = Vec::new();
    for (fault, breakage, is_down) in BREAKAGES {
        // All ways at once; each has a server and an application of its own.
        let rows = ways.map(|way| actix_web::rt::spawn(broken(way, breakage, is_down)));
        for (way, row) in ways.into_iter().zip(rows) {
            let Row { to_down, to_up, works, latest } = row.await.unwrap();
            let ms = |time: Duration| format!("{} ms", time.as_millis());
            let down = to_down.map_or_else(|| "stays UP".to_owned(), ms);
            let up = to_up.map_or_else(
                || "not within 10 s".to_owned(),
                |time| if to_down.is_some() { ms(time) } else { String::new() },
            );
            let row = format!("| {} | {fault} | {down} | {up} | {} |", way.name(), ms(latest));
            // A server that restarts may or may not be met while it is away.
            let either = matches!(breakage, Breakage::Restarted) || matches!(breakage, Breakage::Road(Fault::Forget));
            if (to_down.is_some() != is_down && !either)
                || (to_up.is_none() && works)
                || latest > Duration::from_secs(2)
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
async fn a_name_that_does_not_resolve_is_down_in_time() {
    let url = "postgres://canaryuser:canary-5ecret@no-such-host.invalid:5432/canarybase";
    let state = web::Data::new(State {
        postgres: Some(PgPool::connect_lazy(url).unwrap()),
        mariadb: None,
        client: Some(redis::Client::open("redis://no-such-host.invalid").unwrap()),
        manager: None,
    });
    let rig = Rig::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    let answer = rig.health().await;
    assert_eq!(answer.status, 503);
    assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
    assert_eq!(
        answer.json()["checks"],
        serde_json::json!({"database": {"postgres": "DOWN"}, "cache": {"client": "DOWN"}})
    );
}
