//! `redis::aio::ConnectionManager`. Further tests of it, and of the other handles of redis, are in `tests/caches.rs`.

use std::{any::Any, sync::Arc, time::Duration};

use actix_web::web;
use health::{HealthCheck, Probe};
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, of_server, serve_uncached},
    common::{
        PASSWORD, USER, eventually, logs,
        responses::{MAX_AGE, assert_not_leaked, assert_up},
        servers::{FaultInjection as _, Kind, Server},
        test_server::TestServer,
    },
    servers::balancer::Balancer,
};

pub(crate) struct Manager;

acceptance!(manager, Manager);

impl Backend for Manager {
    type Resource = ConnectionManager;

    of_server!(Server::prepared(Kind::Redis, &[]), values_written, connections_of_redis);

    async fn open(server: &Server, password: Password) -> Result<ConnectionManager, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(manager(Client::open(server.url_with(password)).unwrap()))
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to redis at 127.0.0.1:{}", server.port());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(_: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        // It retries before it returns the error.
        Ok((ExpectedMessage::Message("timed out after 800 ms".to_owned()), "health check cache.resource is DOWN"))
    }

    fn frozen(server: &Server) -> Result<ExpectedMessage, Unsupported> {
        // The driver times out after 500 ms on an open connection, and not on one that it opens.
        let message = format!("no response from redis at 127.0.0.1:{}", server.port());
        Ok(ExpectedMessage::OneOf(vec![message, "timed out after 800 ms".to_owned()]))
    }

    async fn saturate(_: &ConnectionManager) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("all clones of a manager share one connection")
    }
}

/// Returns the number of `SET`s that a Redis has executed.
pub(crate) async fn values_written(server: &Server) -> Result<u64, Unsupported> {
    let statistics = query(server, "INFO", "commandstats").await;
    let line = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    Ok(line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap()))
}

/// Returns the number of connections of a Redis, without that of this query.
pub(crate) async fn connections_of_redis(server: &Server) -> Result<usize, Unsupported> {
    Ok(query(server, "CLIENT", "LIST").await.lines().count() - 1)
}

async fn query(server: &Server, command: &str, argument: &str) -> String {
    let client = Client::open(server.url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(command).arg(argument).query_async(&mut admin).await.unwrap()
}

/// A manager whose delays between attempts do not grow, because the suite measures the check.
fn manager(client: Client) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100)).set_number_of_retries(1000);
    ConnectionManager::new_lazy_with_config(client, config).unwrap()
}

/// All handles to the same server, with `PING`, and one with the default probe.
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

    fn serve(self) -> TestServer {
        let state = web::Data::new(self);
        TestServer::start(1, move |app| {
            app.service(health::scope().max_age(MAX_AGE).state(&state));
        })
    }
}

const ALL_UP: [&str; 4] = ["UP"; 4];

/// The statuses of client, manager, connection, and of the default probe.
async fn statuses(rig: &TestServer) -> [String; 4] {
    let response = rig.health().await.json();
    ["client", "manager", "connection", "written"]
        .map(|name| response["checks"]["cache"][name].as_str().unwrap().to_owned())
}

#[actix_web::test]
async fn a_user_without_permission_to_write_keys_is_up_with_ping() {
    // The rules of a further user without other permissions.
    let words = format!("--user reader on >{PASSWORD} +ping");
    let server = Server::prepared(Kind::Redis, &words.split(' ').collect::<Vec<_>>());
    let server = restarted(server);
    let rig = Pinged::open(&format!("redis://reader:{PASSWORD}@127.0.0.1:{}/", server.port())).await.serve();
    assert_eq!(statuses(&rig).await, ["UP", "UP", "UP", "DOWN"], "{}", logs::text());
    let message = &rig.health().await.json()["errors"]["cache"]["written"];
    assert_eq!(*message, format!("redis at 127.0.0.1:{} denied access", server.port()));
}

#[actix_web::test]
async fn ping_is_up_on_a_read_only_server() {
    let server = restarted(Server::prepared(Kind::Redis, &["--maxmemory-policy", "noeviction"]));
    let rig = Pinged::open(&server.url()).await.serve();
    assert_eq!(statuses(&rig).await, ALL_UP, "{}", logs::text());
    let mut admin = Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();

    for (ill, well) in
        [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")]
    {
        command(&mut admin, ill).await;
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(statuses(&rig).await, ["UP", "UP", "UP", "DOWN"], "{ill}: {}", logs::text());
        command(&mut admin, well).await;
        eventually("it is up again", || async { statuses(&rig).await == ALL_UP }).await;
    }
}

#[actix_web::test]
async fn ping_is_down_on_a_stopped_or_frozen_server() {
    let mut server = restarted(Server::prepared(Kind::Redis, &[]));
    let rig = Pinged::open(&server.url()).await.serve();
    assert_eq!(statuses(&rig).await, ALL_UP, "{}", logs::text());

    server.freeze();
    tokio::time::sleep(MAX_AGE).await;
    assert_eq!(statuses(&rig).await, ["DOWN"; 4], "{}", logs::text());
    server.resume();
    eventually("it is up again", || async { statuses(&rig).await == ALL_UP }).await;

    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    let response = rig.health().await;
    let message = format!("unable to connect to redis at 127.0.0.1:{}", server.port());
    let messages = serde_json::json!({
        "client": message, "manager": message, "connection": "unable to connect to redis", "written": message,
    });
    assert_eq!(response.json()["errors"]["cache"], messages, "{}", logs::text());
    assert_not_leaked(&rig, &response, &["Connection refused"]).await;
    server.restart();
    // A broken multiplexed connection never recovers.
    eventually("it is up again", || async { statuses(&rig).await == ["UP", "UP", "DOWN", "UP"] }).await;
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

/// Checks that the check of a far server is UP, and opens at most one connection in the first run and none later. `open` opens the resource
/// through the balancer on a port.
pub(crate) async fn opens_no_connection_at_any_distance<R: Probe + Clone>(server: u16, open: impl AsyncFn(u16) -> R) {
    const POLLS: usize = 6;
    for distance in [80, 150, 250, 350] {
        let balancer = Balancer::start(server);
        balancer.delay_replies(Duration::from_millis(distance));
        let resource = open(balancer.port).await;
        let rig = serve_uncached(resource);
        let before = balancer.accepted().max(1);
        eventually("it is up", || async { rig.health().await.status == 200 }).await;
        let warm = balancer.accepted();
        assert!(warm <= before + 1, "{distance} ms away: {warm} connections, and {before} before the first run");
        for _ in 0..POLLS {
            assert_up(&rig, "cache", "resource").await;
        }
        assert_eq!(balancer.accepted(), warm, "{distance} ms away, in {POLLS} runs");
    }
}

fn url(port: u16) -> String {
    format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}/")
}

#[actix_web::test]
async fn distance_to_the_server_opens_no_connection_for_any_client() {
    let server = restarted(Server::prepared(Kind::Redis, &[]));
    let client = async |port| Client::open(url(port)).unwrap();
    opens_no_connection_at_any_distance(server.port(), client).await;
    opens_no_connection_at_any_distance(server.port(), async |port| manager(Client::open(url(port)).unwrap())).await;
    let connection = async |port| {
        let client = Client::open(url(port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    };
    opens_no_connection_at_any_distance::<MultiplexedConnection>(server.port(), connection).await;
}

#[actix_web::test]
async fn a_client_whose_reused_connection_leads_to_a_demoted_master_is_up_on_a_new_connection() {
    let old = restarted(Server::prepared(Kind::Redis, &[]));
    let words =
        format!("--masteruser {USER} --masterauth {PASSWORD} --repl-diskless-sync-delay 0 --replicaof 127.0.0.1");
    let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    words.push(old.port().to_string());
    let new = restarted(Server::prepared(Kind::Redis, &words.iter().map(String::as_str).collect::<Vec<_>>()));
    let balancer = Balancer::start(old.port());
    let rig = serve_uncached(Client::open(url(balancer.port)).unwrap());
    assert_up(&rig, "cache", "resource").await;

    let admin =
        async |server: &Server| Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    command(&mut admin(&new).await, "REPLICAOF NO ONE").await;
    command(&mut admin(&old).await, &format!("REPLICAOF 127.0.0.1 {}", new.port())).await;
    balancer.lead_to(new.port());
    for _ in 0..3 {
        assert_up(&rig, "cache", "resource").await;
    }
    assert_eq!(balancer.accepted(), 2, "the new connection is kept");
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}
