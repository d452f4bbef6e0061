//! Every way in which a server ends the connections of a driver, with a message or without: what the check reports then, compared with
//! what the application gets.

use std::{cell::Cell as Flag, rc::Rc, time::Duration};

use redis::Value;
use sqlx::{
    Connection as _, Executor as _, MySqlConnection, PgConnection, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    agreement::{Right, Subject, lines, observe_all},
    application::{LocalBoxFuture, rows_of},
    drivers::{Held, Kind},
    table::Table,
};
use crate::{
    common::{
        PASSWORD, USER, eventually,
        servers::{FaultInjection, Kind as ServerKind, Server},
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

/// How long checks are polled.
const POLLED: Duration = Duration::from_secs(4);
/// How long they are polled if only new connections notice the change: longer than a check reuses one.
const A_MINUTE: Duration = Duration::from_secs(60);

/// One way in which connections end.
struct Ending<S> {
    name: &'static str,
    /// Command line arguments of the server.
    args: &'static [&'static str],
    polled: Duration,
    right: Right,
    /// Ends the connections. The returned guard is dropped after the measurement.
    end: End<S>,
}

type End<S> = for<'a> fn(&'a mut S, &'a [Subject]) -> LocalBoxFuture<'a, Held>;

impl<S> Ending<S> {
    const fn new(name: &'static str, end: End<S>) -> Self {
        Self { name, args: &[], polled: POLLED, right: Right::AsTheApplication, end }
    }

    const fn args(mut self, args: &'static [&'static str]) -> Self {
        self.args = args;
        self
    }

    const fn right(mut self, right: Right) -> Self {
        self.right = right;
        self
    }

    const fn polled(mut self, polled: Duration) -> Self {
        self.polled = polled;
        self
    }
}

impl<S: FaultInjection> Ending<S> {
    fn shutdown_and_start() -> Self {
        Self::new("shutdown and start", |server, _| {
            Box::pin(async move {
                server.stop();
                server.restart();
                over()
            })
        })
    }
}

/// How to prepare a server of this kind with arguments, and its port.
struct Servers<S> {
    kind: Kind,
    prepared: fn(&[&str]) -> S,
    port: fn(&S) -> u16,
}

async fn table_of<S: FaultInjection>(servers: Servers<S>, endings: Vec<Ending<S>>) -> Table {
    let rows = rows_of(&[servers.kind]);
    let mut table = Table::new(["driver"].into_iter().chain(endings.iter().map(|ending| ending.name)));
    let mut columns = Vec::new();
    for ending in endings {
        let mut server = (servers.prepared)(ending.args);
        server.restart();
        let subjects = Subject::all(&rows, (servers.port)(&server)).await;
        let held = (ending.end)(&mut server, &subjects).await;
        columns.push(observe_all(subjects, ending.polled, ending.right).await);
        drop(held);
    }
    lines(&mut table, &rows, columns);
    table
}

/// An empty guard.
fn over() -> Held {
    Box::new(())
}

/// Opens connections until the server rejects further ones, repeatedly until it is dropped.
struct Hog(Rc<Flag<bool>>);

impl Hog {
    fn start<C: 'static>(connect: impl AsyncFn() -> Option<C> + 'static) -> Self {
        let stopped = Rc::new(Flag::new(false));
        let stop = Rc::clone(&stopped);
        actix_web::rt::spawn(async move {
            let mut held = Vec::new();
            while !stop.get() {
                match connect().await {
                    Some(connection) => held.push(connection),
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Self(stopped)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// For events that cannot be observed: sessions that time out, and other clients that open connections.
async fn wait(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn server_of(kind: Kind, prepared: fn(&[&str]) -> Server) -> Servers<Server> {
    Servers { kind, prepared, port: Server::port }
}

async fn on_postgres(server: &Server, statements: &[&'static str]) {
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    for statement in statements {
        admin.execute(sqlx::raw_sql(*statement)).await.unwrap();
    }
    admin.close().await.unwrap();
}

const OTHERS: &str = "others";

/// Connections of others, by which they are known.
fn other_of_postgres(server: &Server) -> PgConnectOptions {
    server.url().parse::<PgConnectOptions>().unwrap().application_name(OTHERS)
}

fn hog_of_postgres(server: &Server) -> Hog {
    let options = other_of_postgres(server);
    Hog::start(async move || PgConnection::connect_with(&options).await.ok())
}

const SMALL_POSTGRES: &[&str] =
    &["-c", "max_connections=40", "-c", "superuser_reserved_connections=0", "-c", "max_wal_senders=0"];

fn endings_of_postgres() -> Vec<Ending<Server>> {
    vec![
        Ending::<Server>::new("57P01, `pg_terminate_backend`", |server, _| {
            Box::pin(async move {
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                            AND pid <> pg_backend_pid()";
                on_postgres(server, &[kill]).await;
                over()
            })
        }),
        Ending::<Server>::new("57P05, `idle_session_timeout`", |server, _| {
            Box::pin(async move {
                on_postgres(server, &["ALTER SYSTEM SET idle_session_timeout = '700ms'", "SELECT pg_reload_conf()"]).await;
                wait(1.5).await;
                over()
            })
        }),
        Ending::<Server>::new("25P03, `idle_in_transaction_session_timeout`", |server, subjects| {
            Box::pin(async move {
                let set = "ALTER SYSTEM SET idle_in_transaction_session_timeout = '300ms'";
                on_postgres(server, &[set, "SELECT pg_reload_conf()"]).await;
                for subject in subjects {
                    subject.application.on_each("BEGIN").await.unwrap();
                }
                wait(1.0).await;
                over()
            })
        }),
        Ending::<Server>::new("53300, others have all the rest", |server, _| {
            Box::pin(async move {
                let hog = hog_of_postgres(server);
                wait(1.0).await;
                Box::new(hog) as Held
            })
        })
        .args(SMALL_POSTGRES),
        Ending::<Server>::new("53300, others have all", |server, _| {
            Box::pin(async move {
                let mut admin = PgConnection::connect_with(&other_of_postgres(server)).await.unwrap();
                let hog = hog_of_postgres(server);
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                            AND application_name <> 'others'";
                for _ in 0..40 {
                    wait(0.05).await;
                    admin.execute(kill).await.unwrap();
                }
                Box::new((hog, admin)) as Held
            })
        })
        .args(SMALL_POSTGRES)
        .right(Right::Down),
        Ending::<Server>::new("57P03, smart shutdown: only open connections work", |server, _| {
            Box::pin(async move {
                server.signal("TERM");
                wait(0.5).await;
                over()
            })
        }),
        Ending::<Server>::new("57P01, fast shutdown and start", |server, _| {
            Box::pin(async move {
                server.stop_by("INT");
                server.restart();
                over()
            })
        }),
        Ending::<Server>::new("57P02, immediate shutdown and start", |server, _| {
            Box::pin(async move {
                server.stop_by("QUIT");
                server.restart();
                over()
            })
        }),
    ]
}

/// Connects by the Unix socket as root, for whom there are no limits.
async fn root_of_mariadb(server: &Server) -> MySqlConnection {
    let options = MySqlConnectOptions::new().username("root").socket(server.path("socket"));
    MySqlConnection::connect_with(&options).await.unwrap()
}

/// Kills all connections with a database, which are those of applications.
async fn kill_all_of_mariadb(root: &mut MySqlConnection) {
    let ids = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db IS NOT NULL";
    for id in sqlx::query_scalar::<_, i64>(ids).fetch_all(&mut *root).await.unwrap() {
        // It may be closed already.
        let _ = root.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("KILL {id}")))).await;
    }
}

fn hog_of_mariadb(server: &Server) -> Hog {
    let url = format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/", server.port());
    Hog::start(async move || MySqlConnection::connect(&url).await.ok())
}

async fn hold_all(subjects: &[Subject]) -> Vec<Held> {
    let mut held = Vec::new();
    for subject in subjects {
        held.push(subject.application.hold().await.unwrap());
    }
    held
}

fn endings_of_mariadb() -> Vec<Ending<Server>> {
    vec![
        Ending::<Server>::new("`KILL`", |server, _| {
            Box::pin(async move {
                kill_all_of_mariadb(&mut root_of_mariadb(server).await).await;
                over()
            })
        }),
        Ending::<Server>::new("`wait_timeout`", |_, _| {
            Box::pin(async move {
                wait(2.5).await;
                over()
            })
        })
        .args(&["--wait-timeout=1"]),
        Ending::<Server>::new("1226, a user's limit, all in use", |server, subjects| {
            Box::pin(async move {
                let held = hold_all(subjects).await;
                let limit = "ALTER USER 'canaryuser'@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1";
                root_of_mariadb(server).await.execute(limit).await.unwrap();
                Box::new(held) as Held
            })
        })
        .right(Right::Degraded),
        Ending::<Server>::new("1226, a user's limit, idle", |server, _| {
            Box::pin(async move {
                let limit = "ALTER USER 'canaryuser'@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1";
                root_of_mariadb(server).await.execute(limit).await.unwrap();
                over()
            })
        }),
        Ending::<Server>::new("1203, the limit of each user, all in use", |server, subjects| {
            Box::pin(async move {
                let held = hold_all(subjects).await;
                let mut root = root_of_mariadb(server).await;
                root.execute("REVOKE CONNECTION ADMIN, SUPER ON *.* FROM 'canaryuser'@'127.0.0.1'").await.unwrap();
                root.execute("SET GLOBAL max_user_connections = 1").await.unwrap();
                Box::new(held) as Held
            })
        })
        .args(&["--max-user-connections=100"])
        .right(Right::Degraded),
        Ending::<Server>::new("1040, others have all the rest", |server, _| {
            Box::pin(async move {
                let hog = hog_of_mariadb(server);
                wait(1.0).await;
                Box::new(hog) as Held
            })
        })
        .args(&["--max-connections=20"]),
        Ending::<Server>::new("1040, others have all", |server, _| {
            Box::pin(async move {
                let mut root = root_of_mariadb(server).await;
                let hog = hog_of_mariadb(server);
                for _ in 0..40 {
                    wait(0.05).await;
                    kill_all_of_mariadb(&mut root).await;
                }
                Box::new((hog, root)) as Held
            })
        })
        .args(&["--max-connections=20"])
        .right(Right::Down),
        Ending::shutdown_and_start(),
    ]
}

async fn on_redis(server: &Server, words: &str) {
    let mut admin = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).query_async::<Value>(&mut admin).await.unwrap();
}

fn endings_of_redis() -> Vec<Ending<Server>> {
    vec![
        Ending::<Server>::new("`CLIENT KILL`", |server, _| {
            Box::pin(async move {
                on_redis(server, "CLIENT KILL TYPE normal SKIPME yes").await;
                over()
            })
        }),
        Ending::<Server>::new("`timeout`", |server, _| {
            Box::pin(async move {
                on_redis(server, "CONFIG SET timeout 1").await;
                wait(3.0).await;
                over()
            })
        }),
        Ending::<Server>::new("`maxclients` is reached", |server, _| {
            Box::pin(async move {
                let client = redis::Client::open(server.url()).unwrap();
                let mut admin = client.get_multiplexed_async_connection().await.unwrap();
                let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
                let set = ["SET", "maxclients", &clients.lines().count().to_string()];
                redis::cmd("CONFIG").arg(&set).query_async::<Value>(&mut admin).await.unwrap();
                Box::new(admin) as Held
            })
        })
        .polled(A_MINUTE),
        Ending::<Server>::new("the password was changed", |server, _| {
            Box::pin(async move {
                on_redis(server, &format!("ACL SETUSER {USER} resetpass >another")).await;
                over()
            })
        })
        .polled(A_MINUTE),
        Ending::<Server>::new("`LOADING`", |server, _| {
            Box::pin(async move {
                let client = redis::Client::open(server.url()).unwrap();
                let mut admin = client.get_multiplexed_async_connection().await.unwrap();
                redis::cmd("DEBUG").arg(&["POPULATE", "10000"]).query_async::<Value>(&mut admin).await.unwrap();
                // Each key takes 4 ms to load.
                let set = ["SET", "key-load-delay", "4000", "loading-process-events-interval-bytes", "1024"];
                redis::cmd("CONFIG").arg(&set).query_async::<Value>(&mut admin).await.unwrap();
                let loading = actix_web::rt::spawn(async move {
                    let _ = redis::cmd("DEBUG").arg("RELOAD").query_async::<Value>(&mut admin).await;
                });
                wait(0.5).await;
                Box::new(loading) as Held
            })
        })
        .args(&["--enable-debug-command", "yes"])
        .right(Right::Down),
        Ending::shutdown_and_start(),
    ]
}

fn endings_of_cluster() -> Vec<Ending<Cluster>> {
    vec![
        Ending::<Cluster>::new("`CLIENT KILL` on each node", |cluster, _| {
            Box::pin(async move {
                for node in &cluster.nodes {
                    on_redis(node, "CLIENT KILL TYPE normal SKIPME yes").await;
                }
                over()
            })
        }),
        Ending::<Cluster>::new("`timeout`", |cluster, _| {
            Box::pin(async move {
                for node in &cluster.nodes {
                    on_redis(node, "CONFIG SET timeout 1").await;
                }
                wait(3.0).await;
                over()
            })
        }),
        Ending::shutdown_and_start(),
    ]
}

fn endings_of_memcached() -> Vec<Ending<Memcached>> {
    vec![
        Ending::<Memcached>::new("`idle_timeout`", |_, _| {
            Box::pin(async move {
                wait(3.0).await;
                over()
            })
        })
        .args(&["-o", "idle_timeout=1"]),
        Ending::<Memcached>::new("`maxconns`, others have all the rest", |server, _| {
            Box::pin(async move {
                let port = server.port();
                let hog = Hog::start(async move || other_of_memcached(port).await);
                wait(1.0).await;
                Box::new(hog) as Held
            })
        })
        .args(&["-c", "64", "-o", "maxconns_fast"]),
        Ending::shutdown_and_start(),
    ]
}

/// Opens a connection, if the server accepts it.
async fn other_of_memcached(port: u16) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"mn\r\n").await.ok()?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await.ok()?;
    (reply == *b"MN\r\n").then_some(stream)
}

fn endings_of_http() -> Vec<Ending<Stub>> {
    vec![
        Ending::<Stub>::new("closed after each response", |stub, _| {
            Box::pin(async move {
                stub.show(Page::ClosesAfterwards);
                over()
            })
        }),
        Ending::shutdown_and_start(),
    ]
}

fn endings_of_rabbitmq() -> Vec<Ending<RabbitMq>> {
    vec![
        Ending::<RabbitMq>::new("320, `close_all_connections`", |server, _| {
            Box::pin(async move {
                server.control(&["close_all_connections", "maintenance"]);
                over()
            })
        }),
        Ending::shutdown_and_start(),
    ]
}

fn endings_of_nats() -> Vec<Ending<Nats>> {
    vec![
        Ending::<Nats>::new("the user was removed", |server, _| {
            Box::pin(async move {
                server.authorize("{user: another, password: another}");
                server.signal("HUP");
                wait(0.5).await;
                over()
            })
        }),
        Ending::<Nats>::new("lame duck, and another server", |server, subjects| {
            Box::pin(async move {
                server.configure("lame_duck_grace_period: \"1s\"\nlame_duck_duration: \"30s\"");
                // The periods are read at start only.
                server.stop();
                server.restart();
                let mut other = Nats::prepared();
                other.restart();
                for subject in subjects {
                    eventually("it works again", || async { subject.application.operate().await.is_ok() }).await;
                    subject.proxy.lead_to(other.port());
                }
                server.signal("USR2");
                Box::new(other) as Held
            })
        }),
        Ending::shutdown_and_start(),
    ]
}

/// Connects with this client id, so that the broker closes the connection of the client that uses it.
async fn take_over(port: u16, id: &str) {
    let mut fields = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    for field in [id, USER, PASSWORD] {
        fields.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        fields.extend(field.as_bytes());
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&[&[0x10, u8::try_from(fields.len()).unwrap()], &fields[..]].concat()).await.unwrap();
    let mut accepted = [0; 4];
    stream.read_exact(&mut accepted).await.unwrap();
    assert_eq!(accepted, [0x20, 2, 0, 0]);
}

fn endings_of_mosquitto() -> Vec<Ending<Mosquitto>> {
    vec![
        Ending::<Mosquitto>::new("another client of its name", |server, subjects| {
            Box::pin(async move {
                for subject in subjects {
                    take_over(server.port(), &format!("application-{}", subject.proxy.port)).await;
                }
                over()
            })
        }),
        Ending::shutdown_and_start(),
    ]
}

/// The first three endings, which take seconds.
#[actix_web::test]
async fn connections_closed_by_their_server_are_not_an_outage() {
    let of = server_of(Kind::Postgres, postgres);
    table_of(of, endings_of_postgres().into_iter().take(3).collect()).await.finish(None);
}

#[actix_web::test]
async fn long_every_ending_of_postgres_agrees_with_the_application() {
    let of = server_of(Kind::Postgres, postgres);
    table_of(of, endings_of_postgres()).await.finish(Some("endings of PostgreSQL"));
}

#[actix_web::test]
async fn long_every_ending_of_mariadb_agrees_with_the_application() {
    let of = server_of(Kind::MariaDb, |args| Server::prepared(ServerKind::MariaDb, args));
    table_of(of, endings_of_mariadb()).await.finish(Some("endings of MariaDB"));
}

#[actix_web::test]
async fn long_every_ending_of_redis_agrees_with_the_application() {
    let of = server_of(Kind::Redis, |args| Server::prepared(ServerKind::Redis, args));
    table_of(of, endings_of_redis()).await.finish(Some("endings of Redis"));
}

#[actix_web::test]
async fn long_every_ending_of_memcached_agrees_with_the_application() {
    let of = Servers { kind: Kind::Memcached, prepared: Memcached::prepared, port: Memcached::port };
    table_of(of, endings_of_memcached()).await.finish(Some("endings of memcached"));
}

#[actix_web::test]
async fn long_every_ending_of_a_cluster_agrees_with_the_application() {
    let port = |cluster: &Cluster| cluster.ports()[0];
    let of = Servers { kind: Kind::Cluster, prepared: |_| Cluster::prepared(), port };
    table_of(of, endings_of_cluster()).await.finish(Some("endings of a Redis cluster"));
}

#[actix_web::test]
async fn long_every_ending_of_http_agrees_with_the_application() {
    let of = Servers { kind: Kind::Http, prepared: |_| Stub::good(), port: Stub::port };
    table_of(of, endings_of_http()).await.finish(Some("endings of HTTP"));
}

#[actix_web::test]
async fn long_every_ending_of_rabbitmq_agrees_with_the_application() {
    let of = Servers { kind: Kind::RabbitMq, prepared: |_| RabbitMq::prepared(), port: RabbitMq::port };
    table_of(of, endings_of_rabbitmq()).await.finish(Some("endings of RabbitMQ"));
}

#[actix_web::test]
async fn long_every_ending_of_nats_agrees_with_the_application() {
    let of = Servers { kind: Kind::Nats, prepared: |_| Nats::prepared(), port: Nats::port };
    table_of(of, endings_of_nats()).await.finish(Some("endings of NATS"));
}

#[actix_web::test]
async fn long_every_ending_of_mosquitto_agrees_with_the_application() {
    let of = Servers { kind: Kind::Mosquitto, prepared: |_| Mosquitto::prepared(), port: Mosquitto::port };
    table_of(of, endings_of_mosquitto()).await.finish(Some("endings of mosquitto"));
}
