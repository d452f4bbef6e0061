//! Every driver with a server whose replies are late: from a cold start, with all connections of a pool in use, and warm.

use std::time::Duration;

use super::{
    application::{Application, Polled, ROWS, Row, SLOW_ROWS, Status},
    drivers::Kind,
    table::{Cell, Table},
};
use crate::{
    common::{
        proxy::{Fault, Proxy},
        servers::{FaultInjection as _, Kind as ServerKind, Server},
    },
    postgres,
    servers::{
        cluster::Cluster,
        memcached::Memcached,
        mosquitto::Mosquitto,
        nats::Nats,
        rabbitmq::RabbitMq,
        stub::{Page, Stub},
    },
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Cold,
    InUse,
    Warm,
}

impl Start {
    const ALL: [Self; 3] = [Self::Cold, Self::InUse, Self::Warm];

    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::InUse => "all in use",
            Self::Warm => "warm",
        }
    }
}

/// The limit of a check.
const LIMIT: Duration = Duration::from_millis(800);
/// What the machine may add to a time.
const NOISE: Duration = Duration::from_millis(150);
/// How many cells are measured at the same time: as many as the servers of that kind leave to the drivers of two cores.
fn at_once(kind: Kind) -> usize {
    match kind {
        Kind::RabbitMq | Kind::Cluster => 8,
        _ => 20,
    }
}

/// One server of each kind for all.
struct Servers {
    postgres: Server,
    mariadb: Server,
    redis: Server,
    memcached: Memcached,
    rabbitmq: Option<RabbitMq>,
    nats: Nats,
    mosquitto: Mosquitto,
    http: Stub,
}

impl Servers {
    fn start(rows: &[Row]) -> Self {
        let mut servers = Self {
            postgres: postgres(&["-c", "max_connections=400"]),
            mariadb: Server::prepared(ServerKind::MariaDb, &["--max-connections=400"]),
            redis: Server::prepared(ServerKind::Redis, &[]),
            memcached: Memcached::prepared(&[]),
            rabbitmq: rows.iter().any(|row| row.server == Kind::RabbitMq).then(RabbitMq::prepared),
            nats: Nats::prepared(),
            mosquitto: Mosquitto::prepared(),
            http: Stub::page(Page::Plain(200, "", "all is well".to_owned())),
        };
        servers.postgres.restart();
        servers.mariadb.restart();
        servers.redis.restart();
        servers.memcached.restart();
        servers.nats.restart();
        servers.mosquitto.restart();
        if let Some(rabbitmq) = &mut servers.rabbitmq {
            rabbitmq.restart();
        }
        servers
    }

    fn port(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Postgres => self.postgres.port(),
            Kind::MariaDb => self.mariadb.port(),
            Kind::Redis => self.redis.port(),
            Kind::Memcached => self.memcached.port(),
            Kind::RabbitMq => self.rabbitmq.as_ref().expect("it was started").port(),
            Kind::Nats => self.nats.port(),
            Kind::Mosquitto => self.mosquitto.port(),
            Kind::Http => self.http.port(),
            Kind::Cluster | Kind::Sentinel => unreachable!("they name addresses of nodes: no server is for all"),
        }
    }
}

/// The way to a server, or to all nodes of a cluster, whose replies are late on it.
struct Road {
    proxies: Vec<Proxy>,
    _cluster: Option<Cluster>,
}

impl Road {
    fn new(kind: Kind, servers: &Servers, delay: Duration) -> Self {
        let proxy = |port| Proxy::start_with(port, Fault::Distance(delay));
        if kind != Kind::Cluster {
            return Self { proxies: vec![proxy(servers.port(kind))], _cluster: None };
        }
        let cluster = Cluster::start();
        let proxies: Vec<_> = cluster.ports().into_iter().map(proxy).collect();
        cluster.announce(&proxies.iter().map(|proxy| proxy.port).collect::<Vec<_>>());
        Self { proxies, _cluster: Some(cluster) }
    }

    fn port(&self) -> u16 {
        self.proxies[0].port
    }

    fn opened(&self) -> u64 {
        self.proxies.iter().map(Proxy::opened).sum()
    }
}

/// What is measured of a row.
struct Measured {
    /// The application's own operation: on an idle connection in a warm start, else its first one.
    own: Option<Duration>,
    polled: Polled,
    /// For how long.
    time: Duration,
    /// Connections beyond those that the application needs.
    outside: u64,
    /// How many round trips the check takes in a cold start for each of the application's.
    round_trips: u32,
}

/// How long the first operation takes that succeeds; how long in all, if some before it failed.
async fn first_operation(application: &Application) -> Option<Duration> {
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if application.operate().await.is_ok() {
            return Some(started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// Nothing if the driver has no such start.
async fn measure(row: Row, start: Start, time: Duration, road: Road, twin: Road) -> Option<Measured> {
    let (application, own, before, held) = match start {
        Start::Cold => {
            // By an application of the same kind, so that this one stays cold.
            let other = row.open(twin.port()).await;
            let own = first_operation(&other).await;
            other.close().await;
            let application = row.open(road.port()).await;
            (application, own, row.connections, None)
        }
        Start::InUse => {
            // A connection outside the pool takes as long as one of the application's that is not held.
            let other = row.open(twin.port()).await;
            let own = first_operation(&other).await;
            other.close().await;
            let application = row.open(road.port()).await;
            let held = application.hold().await.ok()?;
            (application, own, road.opened(), Some(held))
        }
        Start::Warm => {
            let application = row.open(road.port()).await;
            first_operation(&application).await;
            application.poll(3 * LIMIT).await;
            let own = application.operate().await.ok();
            // What was opened for that is back in its pool.
            tokio::time::sleep(LIMIT).await;
            let before = road.opened();
            (application, own, before, None)
        }
    };
    let polled = application.poll(time).await;
    let outside = road.opened().saturating_sub(before);
    drop(held);
    application.close().await;
    Some(Measured { own, polled, time, outside, round_trips: row.round_trips })
}

impl Measured {
    fn is_right(&self, start: Start) -> bool {
        let Self { own, polled, time, outside, round_trips } = self;
        match start {
            Start::Cold => {
                // A connection that takes longer than the limit may be waited for; then it is there.
                let Some(own) = own.map(|own| own * *round_trips) else { return polled.all(Status::is_down) };
                let allowed = if own + NOISE < LIMIT { LIMIT + NOISE } else { own + 2 * LIMIT };
                let first = polled.first(Status::is_up);
                let in_time = first.is_some_and(|first| first <= allowed);
                in_time
                    && (own + NOISE >= LIMIT || polled.all(Status::is_up))
                    && polled.stays(Status::is_up)
                    && *outside <= 1
            }
            // One every two seconds.
            Start::InUse => {
                // Before one has been opened outside a pool that was never probed before, nothing is known of its server.
                let is_slow = own.is_none_or(|own| own + NOISE >= LIMIT);
                let allowed = own.unwrap_or_default() + 2 * LIMIT;
                let in_time = polled.first(Status::is_degraded).is_some_and(|first| first <= allowed);
                (polled.all(Status::is_degraded) || is_slow && in_time && polled.stays(Status::is_degraded))
                    && *outside <= time.as_secs() / 2 + 1
            }
            Start::Warm => polled.all(Status::is_up) && *outside == 0,
        }
    }

    fn cell(&self, start: Start) -> Cell {
        let is_right = self.is_right(start);
        let first = self.polled.first(Status::is_up).filter(|_| start == Start::Cold);
        let after = first.map(|first| format!(" after {} ms", first.as_millis())).unwrap_or_default();
        let mut parts = vec![format!("{}{after}", self.polled)];
        match self.own {
            Some(own) => parts.push(format!("query {} ms", own.as_millis())),
            None => parts.push("query fails".to_owned()),
        }
        parts.push(format!("+{}", self.outside));
        if !is_right {
            parts.extend(self.polled.message().map(str::to_owned));
        }
        Cell::new(parts.join(", "), is_right)
    }
}

async fn table_of(rows: Vec<Row>, delays: &[u64], polled: Duration) -> Table {
    let servers = Servers::start(&rows);
    let columns = delays.iter().map(|delay| format!("replies {delay} ms late"));
    let mut table = Table::new(["driver".to_owned(), "start".to_owned()].into_iter().chain(columns));
    let lines: Vec<_> = rows.iter().flat_map(|&row| Start::ALL.map(|start| (row, start))).collect();
    let cells = lines.iter().flat_map(|&line| delays.iter().map(move |&delay| (line, delay))).collect::<Vec<_>>();
    let mut measured = Vec::new();
    let alike = cells.chunk_by(|((a, _), _), ((b, _), _)| at_once(a.server) == at_once(b.server));
    for cells in alike.flat_map(|cells| cells.chunks(at_once(cells[0].0.0.server))) {
        // To start a cluster blocks this thread, on which drivers run: so all roads are there before anything is measured.
        let roads = cells.iter().map(|((row, start), delay)| {
            let road = || Road::new(row.server, &servers, Duration::from_millis(*delay));
            let twin = if *start == Start::Warm { Road { proxies: Vec::new(), _cluster: None } } else { road() };
            (road(), twin)
        });
        let roads: Vec<_> = roads.collect();
        let running: Vec<_> = cells
            .iter()
            .zip(roads)
            .map(|(&((row, start), _), (road, twin))| actix_web::rt::spawn(measure(row, start, polled, road, twin)))
            .collect();
        for measuring in running {
            measured.push(measuring.await.unwrap());
        }
    }
    for ((row, start), measured) in lines.into_iter().zip(measured.chunks(delays.len())) {
        if measured.iter().all(Option::is_some) {
            let cells = measured.iter().flatten().map(|measured| measured.cell(start)).collect();
            table.line(&[row.name, start.name()], cells);
        }
    }
    table
}

#[actix_web::test]
async fn a_server_150_ms_away_is_up_as_soon_as_it_replies_and_no_connection_is_opened_for_the_check() {
    table_of(ROWS.into(), &[150], Duration::from_secs(3)).await.finish(None);
}

#[actix_web::test]
async fn long_every_driver_is_right_at_every_distance() {
    let rows = ROWS.into_iter().chain(SLOW_ROWS).collect();
    table_of(rows, &[80, 150, 250, 350], Duration::from_secs(6)).await.finish(Some("distance"));
}
