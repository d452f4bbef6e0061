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
/// The shortest time between two connections that a check opens to hedge a silent one.
const HEDGE_INTERVAL: Duration = Duration::from_secs(2);
/// The tolerance for a busy machine.
const NOISE: Duration = Duration::from_millis(150);
/// How many cells are measured concurrently: a run of two round trips of 350 ms has to fit the limit on two cores, next to the servers
/// of this kind.
fn concurrency(kind: Kind) -> usize {
    match kind {
        Kind::RabbitMq => 4,
        Kind::Cluster => 8,
        _ => 20,
    }
}

/// One server of each kind, for all rows.
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

/// The proxies in front of a server, or of all nodes of a cluster, which delay the replies.
struct Route {
    proxies: Vec<Proxy>,
    _cluster: Option<Cluster>,
}

impl Route {
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

/// The measurements of a cell.
struct Measured {
    row: Row,
    own: Own,
    polled: Polled,
    /// How long it was polled.
    time: Duration,
    /// Connections beyond those that the application needs.
    outside: u64,
}

/// How long operations of the application take, if they succeed.
#[derive(Clone, Copy)]
struct Own {
    /// In a warm start on an idle connection, otherwise the first operation.
    first: Option<Duration>,
    /// The one after the first. Some pools test a connection before its second use, and prepare a statement for that.
    second: Option<Duration>,
}

/// Returns the time until an operation has succeeded, including failed ones before.
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

/// Measures a cell. Returns `None` if the driver has no such start.
async fn measure(row: Row, start: Start, time: Duration, route: Route, twin: Route) -> Option<Measured> {
    let (application, own, before, held) = match start {
        Start::Cold => {
            // Measured with another application, so that this one stays cold.
            let other = row.open(twin.port()).await;
            let own = Own { first: first_operation(&other).await, second: other.operate().await.ok() };
            other.close().await;
            let application = row.open(route.port()).await;
            (application, own, row.connections, None)
        }
        Start::InUse => {
            // A connection outside the pool takes as long as the first operation of another application.
            let other = row.open(twin.port()).await;
            let own = Own { first: first_operation(&other).await, second: None };
            other.close().await;
            let application = row.open(route.port()).await;
            let held = application.hold().await.ok()?;
            (application, own, route.opened(), Some(held))
        }
        Start::Warm => {
            let application = row.open(route.port()).await;
            first_operation(&application).await;
            application.poll(3 * LIMIT).await;
            let own = Own { first: application.operate().await.ok(), second: None };
            // The connections are back in the pool.
            tokio::time::sleep(LIMIT).await;
            let before = route.opened();
            (application, own, before, None)
        }
    };
    let polled = application.poll(time).await;
    let outside = route.opened().saturating_sub(before);
    drop(held);
    application.close().await;
    Some(Measured { row, own, polled, time, outside })
}

impl Measured {
    fn is_right(&self, start: Start) -> bool {
        let Self { row, own: Own { first, second }, polled, time, outside } = self;
        match start {
            Start::Cold => {
                let Some(first_run) = first.map(|first| first * row.first_run) else {
                    return polled.all(Status::is_down);
                };
                let run = second.unwrap_or_default() * row.run;
                // One more for each interval that connecting takes; for a cluster's client that is one to each node.
                let silent = u64::try_from(first_run.as_millis() / HEDGE_INTERVAL.as_millis()).unwrap_or(u64::MAX);
                let is_outside_right = *outside <= 1 + silent * row.connections_of_client();
                if row.run > 1 && run >= LIMIT {
                    return polled.all(Status::is_down) && is_outside_right;
                }
                let in_time = if first_run + NOISE < LIMIT {
                    polled.all(Status::is_up) && polled.first(Status::is_up).is_some_and(|at| at <= LIMIT + NOISE)
                } else {
                    // The run that connects is too late, and is followed by one that is in time, unless that is the first one to test
                    // its connection and too late as well.
                    let tests = if run < LIMIT { Duration::ZERO } else { run };
                    polled.first(Status::is_up).is_some_and(|at| at <= first_run + tests + 2 * LIMIT)
                };
                in_time && polled.stays(Status::is_up) && is_outside_right
            }
            Start::InUse => {
                // Until the first connection outside the pool was opened, the check does not know whether the server works.
                let is_slow = first.is_none_or(|first| first + NOISE >= LIMIT);
                let allowed = first.unwrap_or_default() + 2 * LIMIT;
                let in_time = polled.first(Status::is_degraded).is_some_and(|first| first <= allowed);
                (polled.all(Status::is_degraded) || is_slow && in_time && polled.stays(Status::is_degraded))
                    && *outside <= time.as_secs() / 2 + 1
            }
            // A run of several operations may exceed the limit, and cannot be UP then.
            Start::Warm => {
                let fits = row.run == 1 || first.is_some_and(|first| first * row.run < LIMIT);
                let renewals = row.renewal_age.map_or(0, |age| time.as_secs().div_ceil(age.as_secs()));
                polled.all(if fits { Status::is_up } else { Status::is_down }) && *outside <= renewals
            }
        }
    }

    fn cell(&self, start: Start) -> Cell {
        let is_right = self.is_right(start);
        let first = self.polled.first(Status::is_up).filter(|_| start == Start::Cold);
        let after = first.map(|first| format!(" after {} ms", first.as_millis())).unwrap_or_default();
        let mut parts = vec![format!("{}{after}", self.polled)];
        match self.own.first {
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

async fn table_of(mut rows: Vec<Row>, delays: &[u64], polled: Duration) -> Table {
    rows.retain(Row::is_selected);
    let servers = Servers::start(&rows);
    let columns = delays.iter().map(|delay| format!("replies {delay} ms late"));
    let mut table = Table::new(["driver".to_owned(), "start".to_owned()].into_iter().chain(columns));
    let lines: Vec<_> = rows.iter().flat_map(|&row| Start::ALL.map(|start| (row, start))).collect();
    let cells = lines.iter().flat_map(|&line| delays.iter().map(move |&delay| (line, delay))).collect::<Vec<_>>();
    let mut measured = Vec::new();
    let alike = cells.chunk_by(|((a, _), _), ((b, _), _)| concurrency(a.server) == concurrency(b.server));
    for cells in alike.flat_map(|cells| cells.chunks(concurrency(cells[0].0.0.server))) {
        // All routes are created first, because starting a cluster blocks this thread, on which the drivers run.
        let routes = cells.iter().map(|((row, start), delay)| {
            let route = || Route::new(row.server, &servers, Duration::from_millis(*delay));
            let twin = if *start == Start::Warm { Route { proxies: Vec::new(), _cluster: None } } else { route() };
            (route(), twin)
        });
        let routes: Vec<_> = routes.collect();
        let running: Vec<_> = cells
            .iter()
            .zip(routes)
            .map(|(&((row, start), _), (route, twin))| actix_web::rt::spawn(measure(row, start, polled, route, twin)))
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
