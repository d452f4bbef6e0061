//! A running application with one resource and its health check, for every driver.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use actix_web::web;
use anyhow::bail;
use health::{HealthCheck, Probe};

use super::drivers::{self, Driver, Held, Kind};
use crate::common::{responses::MAX_AGE, test_server::TestServer};

pub(crate) type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A row of the tables: a driver and its kind of server.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) server: Kind,
    /// The number of connections that the application opens for its first operation and keeps.
    pub(crate) connections: u64,
    /// How long a run of the check takes, in operations of the application: the first run of a cold start, and a later one.
    pub(crate) first_run: u32,
    pub(crate) run: u32,
    /// How old the connection of the check is when it is replaced.
    pub(crate) renewal_age: Option<Duration>,
    open: fn(u16) -> LocalBoxFuture<'static, Application>,
}

pub(crate) const ROWS: [Row; 23] = [
    row::<drivers::SqlxPostgres>("sqlx, PostgreSQL", Kind::Postgres, 1),
    row::<drivers::Sqlx08Postgres>("sqlx 0.8, PostgreSQL", Kind::Postgres, 1),
    row::<drivers::SeaOrm>("sea-orm, PostgreSQL", Kind::Postgres, 1),
    row::<drivers::TokioPostgres>("tokio_postgres::Client", Kind::Postgres, 1),
    row::<drivers::DeadpoolPostgres>("deadpool-postgres", Kind::Postgres, 1),
    row::<drivers::DieselDeadpool>("diesel-async, deadpool", Kind::Postgres, 1),
    row::<drivers::DieselBb8>("diesel-async, bb8", Kind::Postgres, 1),
    // It opens the maximum at once.
    row::<drivers::DieselR2d2>("diesel, r2d2", Kind::Postgres, 2),
    row::<drivers::SqlxMariaDb>("sqlx, MariaDB", Kind::MariaDb, 1),
    row::<drivers::Sqlx08MariaDb>("sqlx 0.8, MariaDB", Kind::MariaDb, 1),
    Row { renewal_age: Some(Duration::from_secs(5)), ..row::<drivers::RedisClient>("redis::Client", Kind::Redis, 1) },
    row::<drivers::RedisManager>("ConnectionManager", Kind::Redis, 1),
    row::<drivers::RedisMultiplexed>("MultiplexedConnection", Kind::Redis, 1),
    row::<drivers::DeadpoolRedis>("deadpool-redis", Kind::Redis, 1),
    row::<drivers::Bb8Redis>("bb8-redis", Kind::Redis, 1),
    row::<drivers::FredClient>("fred, Client", Kind::Redis, 1),
    row::<drivers::FredPool>("fred, Pool", Kind::Redis, 2),
    row::<drivers::MemcachedAsync>("memcache, asynchronous", Kind::Memcached, 1),
    // An idle connection in addition to the one in use. A run writes and reads, which are two operations for this client, and the
    // first one queries the versions before that.
    Row { first_run: 3, run: 2, ..row::<drivers::MemcachedBlocking>("memcache, blocking", Kind::Memcached, 2) },
    row::<drivers::Nats>("async_nats::Client", Kind::Nats, 1),
    row::<drivers::JetStream>("jetstream::Context", Kind::Nats, 1),
    row::<drivers::Mqtt>("rumqttc", Kind::Mosquitto, 1),
    row::<drivers::Http>("reqwest::Get", Kind::Http, 1),
];

/// Only in the table of failovers, because a sentinel names the address of its master, without a proxy.
pub(crate) const SENTINEL_ROW: Row = row::<drivers::SentinelClient>("SentinelClient", Kind::Sentinel, 1);

/// Only in the long tables, because their servers take seconds to start.
pub(crate) const SLOW_ROWS: [Row; 5] = [
    // One to the configured node, and one to each of the three.
    row::<drivers::ClusterClient>("ClusterClient", Kind::Cluster, 4),
    row::<drivers::ClusterConnection>("ClusterConnection", Kind::Cluster, 4),
    row::<drivers::LapinConnection>("lapin, Connection", Kind::RabbitMq, 1),
    row::<drivers::LapinChannel>("lapin, Channel", Kind::RabbitMq, 1),
    row::<drivers::DeadpoolLapin>("deadpool-lapin", Kind::RabbitMq, 1),
];

const fn row<D: Driver>(name: &'static str, server: Kind, connections: u64) -> Row {
    Row {
        name,
        server,
        connections,
        first_run: 1,
        run: 1,
        renewal_age: None,
        open: |port| Box::pin(Application::start::<D>(port)),
    }
}

/// All drivers of a kind of server.
pub(crate) fn rows_of(kinds: &[Kind]) -> Vec<Row> {
    let rows = ROWS.into_iter().chain(SLOW_ROWS).chain([SENTINEL_ROW]);
    rows.filter(|row| kinds.contains(&row.server) && row.is_selected()).collect()
}

/// The environment variable that restricts the tables to the rows whose names contain one of its parts, which semicolons
/// separate: `ROWS='sqlx, PostgreSQL;lapin'`. The documentation is not updated then.
pub(crate) const ROWS_VAR: &str = "ROWS";

impl Row {
    /// The number of TCP connections of one client connection.
    pub(crate) fn connections_of_client(&self) -> u64 {
        if self.server == Kind::Cluster { self.connections } else { 1 }
    }

    pub(crate) fn is_selected(&self) -> bool {
        std::env::var(ROWS_VAR).map_or(true, |parts| parts.split(';').any(|part| self.name.contains(part)))
    }

    /// Opens the resource, and starts an application whose check has not run yet.
    pub(crate) async fn open(self, port: u16) -> Application {
        (self.open)(port).await
    }
}

pub(crate) struct Application {
    rig: TestServer,
    resource: Box<dyn Resource>,
    group: &'static str,
}

/// The functions of a driver, on one resource.
trait Resource {
    fn operate(&self) -> LocalBoxFuture<'_, anyhow::Result<()>>;
    fn hold(&self) -> LocalBoxFuture<'_, anyhow::Result<Held>>;
    fn fill_pool(&self) -> LocalBoxFuture<'_, ()>;
    fn on_each(&self, statement: &'static str) -> LocalBoxFuture<'_, anyhow::Result<()>>;
    fn close(self: Box<Self>) -> LocalBoxFuture<'static, ()>;
}

struct Opened<D: Driver> {
    resource: D::Resource,
    port: u16,
}

impl<D: Driver> Resource for Opened<D> {
    fn operate(&self) -> LocalBoxFuture<'_, anyhow::Result<()>> {
        Box::pin(D::operate(&self.resource, self.port))
    }

    fn hold(&self) -> LocalBoxFuture<'_, anyhow::Result<Held>> {
        Box::pin(D::hold(&self.resource))
    }

    fn fill_pool(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(D::fill_pool(&self.resource, self.port))
    }

    fn on_each(&self, statement: &'static str) -> LocalBoxFuture<'_, anyhow::Result<()>> {
        Box::pin(D::on_each(&self.resource, statement))
    }

    fn close(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(D::close(self.resource))
    }
}

#[derive(HealthCheck)]
struct State<R> {
    #[health(probe)]
    resource: R,
}

/// How long an operation of the application may take.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

impl Application {
    async fn start<D: Driver>(port: u16) -> Self {
        let resource = D::open(port).await;
        let state = web::Data::new(State { resource: resource.clone() });
        let rig = TestServer::start(1, move |app| {
            app.service(health::scope().max_age(MAX_AGE).state(&state));
        });
        let resource = Box::new(Opened::<D> { resource, port });
        Self { rig, resource, group: <D::Resource as Probe>::GROUP }
    }

    /// Runs an operation of the application, and returns its duration.
    pub(crate) async fn operate(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        match tokio::time::timeout(OPERATION_TIMEOUT, self.resource.operate()).await {
            Ok(done) => done.map(|()| started.elapsed()),
            Err(_) => bail!("no reply within {OPERATION_TIMEOUT:?}"),
        }
    }

    /// Takes all connections of its pool.
    pub(crate) async fn hold(&self) -> anyhow::Result<Held> {
        self.resource.hold().await
    }

    /// Fills the pool with two idle connections, or opens the shared connection.
    pub(crate) async fn warm_up(&self) {
        self.resource.fill_pool().await;
        for _ in 0..20 {
            if self.operate().await.is_ok() {
                return;
            }
        }
        panic!("the application does not work before anything is broken");
    }

    /// Runs a statement on each of its connections.
    pub(crate) async fn on_each(&self, statement: &'static str) -> anyhow::Result<()> {
        self.resource.on_each(statement).await
    }

    /// Returns the status of its check in a response.
    pub(crate) async fn status(&self) -> Status {
        let response = self.rig.health().await.json();
        match response["checks"][self.group]["resource"].as_str() {
            Some("UP") => Status::Up,
            Some("DEGRADED") => Status::Degraded(response["errors"][self.group]["resource"].to_string()),
            Some("DOWN") => Status::Down(response["errors"][self.group]["resource"].to_string()),
            _ => panic!("{response}"),
        }
    }

    /// Polls for this time, four times a second; every second response is that of a new run.
    pub(crate) async fn poll(&self, time: Duration) -> Polled {
        let started = Instant::now();
        let mut polled = Polled(Vec::new());
        let mut ticks = tokio::time::interval(MAX_AGE / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while started.elapsed() < time {
            ticks.tick().await;
            let status = self.status().await;
            polled.0.push((started.elapsed(), status));
        }
        polled
    }

    pub(crate) async fn close(self) {
        self.rig.stop().await;
        let _ = tokio::time::timeout(OPERATION_TIMEOUT, self.resource.close()).await;
    }
}

/// The status of a check, and the message if it has one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Status {
    Up,
    Degraded(String),
    Down(String),
}

impl Status {
    pub(crate) fn is_up(&self) -> bool {
        *self == Self::Up
    }

    pub(crate) fn is_degraded(&self) -> bool {
        matches!(self, Self::Degraded(_))
    }

    pub(crate) fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Degraded(_) => "DEGRADED",
            Self::Down(_) => "DOWN",
        }
    }
}

/// Statuses, each with the time of its response.
pub(crate) struct Polled(Vec<(Duration, Status)>);

impl Polled {
    /// The time of the first response with that status.
    pub(crate) fn first(&self, is: impl Fn(&Status) -> bool) -> Option<Duration> {
        self.0.iter().find_map(|(time, status)| is(status).then_some(*time))
    }

    pub(crate) fn all(&self, is: impl Fn(&Status) -> bool) -> bool {
        self.0.iter().all(|(_, status)| is(status))
    }

    pub(crate) fn any(&self, is: impl Fn(&Status) -> bool) -> bool {
        self.0.iter().any(|(_, status)| is(status))
    }

    /// Whether all responses have this status from the first one that has it.
    pub(crate) fn stays(&self, is: impl Fn(&Status) -> bool) -> bool {
        let mut rest = self.0.iter().skip_while(|(_, status)| !is(status)).peekable();
        rest.peek().is_some() && rest.all(|(_, status)| is(status))
    }

    pub(crate) fn last(&self) -> &Status {
        &self.0.last().expect("it was polled").1
    }

    /// The last message of all.
    pub(crate) fn message(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|(_, status)| match status {
            Status::Up => None,
            Status::Degraded(message) | Status::Down(message) => Some(message.as_str()),
        })
    }
}

/// Formats sequences of the same status: `DOWN 3, UP 21`; without a number if there is only one sequence.
impl fmt::Display for Polled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(_, status)| status.word()).collect();
        let runs: Vec<_> = words.chunk_by(|a, b| a == b).collect();
        if let [run] = runs[..] {
            return f.write_str(run[0]);
        }
        for (index, run) in runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", run[0], run.len())?;
        }
        Ok(())
    }
}
