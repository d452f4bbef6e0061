//! `redis::aio::ConnectionManager`: what else is asked of it, and of the other handles of redis, is in `tests/caches.rs`.

use std::{any::Any, sync::Arc, time::Duration};

use actix_web::web;
use health::HealthCheck;
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};

use crate::{
    acceptance::{Backend, Not, Password, Told, WRONG, acceptance},
    common::{
        PASSWORD,
        answers::{MAX_AGE, assert_secret},
        eventually, logs,
        rig::Rig,
        servers::{Faulty as _, Kind, Server},
    },
};

struct Manager;

acceptance!(manager, Manager);

impl Backend for Manager {
    type Resource = ConnectionManager;
    type Server = Server;

    fn prepare() -> Server {
        Server::prepared(Kind::Redis, &[])
    }

    async fn open(server: &Server, password: Password) -> Result<ConnectionManager, Not> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(manager(Client::open(server.url_with(password)).unwrap()))
    }

    fn unreachable(server: &Server) -> (Told, &'static str) {
        let message = format!("unable to connect to redis at 127.0.0.1:{}", server.port());
        (Told::Message(message), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(Told, &'static str), Not> {
        // It tries again and again before it says what it was.
        Ok((Told::Message("timed out after 800 ms".to_owned()), "health check cache.resource is DOWN"))
    }

    fn frozen(server: &Server) -> Told {
        // The driver gives up after 500 ms by itself on a connection that it has, and not on one that it opens.
        let message = format!("no response from redis at 127.0.0.1:{}", server.port());
        Told::OneOf(vec![message, "timed out after 800 ms".to_owned()])
    }

    async fn saturate(_: &ConnectionManager) -> Result<(Box<dyn Any>, u32), Not> {
        Err("a manager shares one connection among all who ask: there is nothing to use up")
    }

    async fn questions(server: &Server) -> Result<u64, Not> {
        values_written(server).await
    }

    async fn connections(server: &Server) -> Result<usize, Not> {
        connections_of_redis(server).await
    }
}

/// How many values a Redis was told to keep.
pub(crate) async fn values_written(server: &Server) -> Result<u64, Not> {
    let statistics = asked(server, "INFO", "commandstats").await;
    let line = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    Ok(line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap()))
}

/// How many connections a Redis has, but for the one that asks.
pub(crate) async fn connections_of_redis(server: &Server) -> Result<usize, Not> {
    Ok(asked(server, "CLIENT", "LIST").await.lines().count() - 1)
}

async fn asked(server: &Server, command: &str, argument: &str) -> String {
    let client = Client::open(server.url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(command).arg(argument).query_async(&mut admin).await.unwrap()
}

/// One whose pauses between attempts don't grow: what the suite measures is the check.
fn manager(client: Client) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100)).set_number_of_retries(1000);
    ConnectionManager::new_lazy_with_config(client, config).unwrap()
}

/// The same server by every handle: asked by a `PING`, and once as it is by default.
#[derive(HealthCheck)]
struct Pinged {
    #[health(with = health::probes::redis::ping, group = "cache")]
    client: Client,
    #[health(with = health::probes::redis::ping, group = "cache")]
    manager: Arc<ConnectionManager>,
    #[health(with = health::probes::redis::ping, group = "cache")]
    connection: MultiplexedConnection,
    written: ConnectionManager,
}

impl Pinged {
    async fn open(url: &str) -> Self {
        let client = Client::open(url).unwrap();
        Self {
            manager: Arc::new(manager(client.clone())),
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            written: manager(client.clone()),
            client,
        }
    }

    fn serve(self) -> Rig {
        let state = web::Data::new(self);
        Rig::start(1, move |app| {
            app.service(health::scope().max_age(MAX_AGE).state(&state));
        })
    }
}

const ALL_UP: [&str; 4] = ["UP"; 4];

/// What is said of client, manager, connection and what is written.
async fn said(rig: &Rig) -> [String; 4] {
    let answer = rig.health().await.json();
    ["client", "manager", "connection", "written"]
        .map(|name| answer["checks"]["cache"][name].as_str().unwrap().to_owned())
}

#[actix_web::test]
async fn who_may_not_write_keys_is_up_by_a_ping() {
    // The words of a further user, who may do nothing else.
    let words = format!("--user reader on >{PASSWORD} +ping");
    let server = Server::prepared(Kind::Redis, &words.split(' ').collect::<Vec<_>>());
    let server = restarted(server);
    let rig = Pinged::open(&format!("redis://reader:{PASSWORD}@127.0.0.1:{}/", server.port())).await.serve();
    assert_eq!(said(&rig).await, ["UP", "UP", "UP", "DOWN"], "{}", logs::text());
    let message = &rig.health().await.json()["errors"]["cache"]["written"];
    assert_eq!(*message, format!("redis at 127.0.0.1:{} denied access", server.port()));
}

#[actix_web::test]
async fn a_ping_does_not_see_that_nothing_can_be_written() {
    let server = restarted(Server::prepared(Kind::Redis, &["--maxmemory-policy", "noeviction"]));
    let rig = Pinged::open(&server.url()).await.serve();
    assert_eq!(said(&rig).await, ALL_UP, "{}", logs::text());
    let mut admin = Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();

    for (ill, well) in
        [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")]
    {
        command(&mut admin, ill).await;
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(said(&rig).await, ["UP", "UP", "UP", "DOWN"], "{ill}: {}", logs::text());
        command(&mut admin, well).await;
        eventually("it is up again", || async { said(&rig).await == ALL_UP }).await;
    }
}

#[actix_web::test]
async fn a_ping_sees_a_server_that_is_stopped_or_frozen() {
    let mut server = restarted(Server::prepared(Kind::Redis, &[]));
    let rig = Pinged::open(&server.url()).await.serve();
    assert_eq!(said(&rig).await, ALL_UP, "{}", logs::text());

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_eq!(said(&rig).await, ["DOWN"; 4], "{}", logs::text());
    server.thaw();
    eventually("it is up again", || async { said(&rig).await == ALL_UP }).await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let answer = rig.health().await;
    let message = format!("unable to connect to redis at 127.0.0.1:{}", server.port());
    let messages = serde_json::json!({
        "client": message, "manager": message, "connection": "unable to connect to redis", "written": message,
    });
    assert_eq!(answer.json()["errors"]["cache"], messages, "{}", logs::text());
    assert_secret(&rig, &answer, &["Connection refused"]).await;
    server.restart();
    // A multiplexed connection that is broken is so for good.
    eventually("it is up again", || async { said(&rig).await == ["UP", "UP", "DOWN", "UP"] }).await;
}

fn restarted(mut server: Server) -> Server {
    server.restart();
    server
}

async fn command(connection: &mut MultiplexedConnection, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command.query_async::<redis::Value>(connection).await.unwrap_or_else(|error| panic!("{error}"));
}
