//! `fred::clients::Client` and `fred::clients::Pool`.

use std::{any::Any, time::Duration};

use actix_web::web;
use fred::{
    clients::{Client, Pool},
    interfaces::ClientLike as _,
    types::{
        Builder,
        config::{Config, ReconnectPolicy, ServerConfig},
    },
};
use health::HealthCheck;

use super::redis::{connections_of_redis, opens_no_connection_at_any_distance, values_written};
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve},
    common::{
        PASSWORD, USER, eventually, logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::{FaultInjection, Kind, Server},
        test_server::TestServer,
    },
    servers::{balancer::Balancer, cluster::Cluster, sentinel},
};

pub(crate) struct One;
struct Two;

acceptance!(client, One);
acceptance!(pool, Two);

const SHARED: Unsupported = "all clones share its connections";

impl Backend for One {
    type Resource = Client;
    type Server = Server;

    fn prepare() -> Server {
        Server::prepared(Kind::Redis, &[])
    }

    async fn open(server: &Server, password: Password) -> Result<Client, Unsupported> {
        let client = builder(server, password).build().unwrap();
        connected(&client, password).await;
        Ok(client)
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        refused(server)
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok(refuses(server))
    }

    fn frozen(server: &Server) -> Result<ExpectedMessage, Unsupported> {
        Ok(silent(server))
    }

    async fn saturate(_: &Client) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(server: &Server) -> Result<u64, Unsupported> {
        values_written(server).await
    }

    async fn connections(_: &Server) -> Result<usize, Unsupported> {
        Err(CLOSED_BY_QUIT)
    }
}

impl Backend for Two {
    type Resource = Pool;
    type Server = Server;

    fn prepare() -> Server {
        Server::prepared(Kind::Redis, &[])
    }

    async fn open(server: &Server, password: Password) -> Result<Pool, Unsupported> {
        let pool = builder(server, password).build_pool(2).unwrap();
        connected(&pool, password).await;
        Ok(pool)
    }

    fn unreachable(server: &Server) -> (ExpectedMessage, &'static str) {
        refused(server)
    }

    fn rejected(server: &Server) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok(refuses(server))
    }

    fn frozen(server: &Server) -> Result<ExpectedMessage, Unsupported> {
        Ok(silent(server))
    }

    async fn saturate(_: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(server: &Server) -> Result<u64, Unsupported> {
        values_written(server).await
    }

    /// One on each of its connections, concurrently.
    const QUERIES_PER_RUN: u64 = 2;

    async fn connections(_: &Server) -> Result<usize, Unsupported> {
        Err(CLOSED_BY_QUIT)
    }
}

const CLOSED_BY_QUIT: Unsupported = "a connection is that of a task of fred's, which ends by `quit` and not when the last client is \
                             dropped: a test of its own counts them";

fn refused(server: &Server) -> (ExpectedMessage, &'static str) {
    (
        ExpectedMessage::Message(format!("unable to connect to redis at 127.0.0.1:{}", server.port())),
        "Connection refused",
    )
}

fn refuses(server: &Server) -> (ExpectedMessage, &'static str) {
    (ExpectedMessage::Message(format!("redis at 127.0.0.1:{} denied access", server.port())), "WRONGPASS")
}

fn silent(server: &Server) -> ExpectedMessage {
    // On a slow machine the check's limit ends first.
    let message = format!("no response from redis at 127.0.0.1:{}", server.port());
    ExpectedMessage::OneOf(vec![message, "timed out after 800 ms".to_owned()])
}

fn config(password: Password, server: ServerConfig) -> Config {
    let password = if password == Password::Right { PASSWORD } else { WRONG };
    Config {
        server,
        username: Some(USER.to_owned()),
        password: Some(password.to_owned()),
        fail_fast: false,
        ..Config::default()
    }
}

/// Builds clients that reconnect.
fn builder(server: &Server, password: Password) -> Builder {
    builder_at(server.port(), password)
}

fn builder_at(port: u16, password: Password) -> Builder {
    let server = ServerConfig::new_centralized("127.0.0.1", port);
    let mut builder = Builder::from_config(config(password, server));
    builder.set_policy(ReconnectPolicy::new_constant(0, 100));
    builder
}

/// As an application that starts before its cache.
async fn connected(client: &impl fred::interfaces::ClientLike, password: Password) {
    drop(client.connect());
    if password == Password::Right {
        let _ = tokio::time::timeout(MAX_AGE, client.wait_for_connect()).await;
    }
}

fn started(args: &[&str]) -> Server {
    let mut server = Server::prepared(Kind::Redis, args);
    server.restart();
    server
}

#[actix_web::test]
async fn a_read_only_server_is_down() {
    let server = started(&["--maxmemory-policy", "noeviction"]);
    let rig = serve(One::open(&server, Password::Right).await.unwrap());
    for (ill, well, word) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ] {
        assert_up(&rig, "cache", "resource").await;
        command(&server, ill);
        tokio::time::sleep(MAX_AGE).await;
        let message = format!("redis at 127.0.0.1:{} is read-only", server.port());
        assert_not_leaked(&rig, &assert_down(&rig, "cache", "resource", &message).await, &[word]).await;
        command(&server, well);
        assert_recovers(&rig, "cache", "resource").await;
    }
}

#[actix_web::test]
async fn a_client_without_a_reconnect_policy_stays_down_once_its_connection_is_lost() {
    let mut server = started(&[]);
    let mut config = config(Password::Right, ServerConfig::new_centralized("127.0.0.1", server.port()));
    config.fail_fast = true;
    let client = Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    let rig = serve(client);
    assert_up(&rig, "cache", "resource").await;
    server.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "cache", "resource", &format!("unable to connect to redis at 127.0.0.1:{}", server.port())).await;
    server.restart();
    tokio::time::sleep(MAX_AGE).await;
    assert_eq!(rig.health().await.status, 503, "{}", logs::text());
}

#[actix_web::test]
async fn the_check_opens_no_connection_and_a_client_that_quits_closes_its_own() {
    let server = started(&[]);
    let before = connections_of_redis(&server).await.unwrap();
    let pool = Two::open(&server, Password::Right).await.unwrap();
    let opened = connections_of_redis(&server).await.unwrap();
    let rig = serve(pool.clone());
    for _ in 0..2 {
        assert_up(&rig, "cache", "resource").await;
        assert_eq!(connections_of_redis(&server).await.unwrap(), opened);
        tokio::time::sleep(MAX_AGE).await;
    }
    pool.quit().await.unwrap();
    eventually("its connections are closed", || async { connections_of_redis(&server).await.unwrap() == before }).await;
    assert_eq!(rig.health().await.status, 503, "{}", logs::text());
}

#[actix_web::test]
async fn a_client_that_was_never_connected_is_down() {
    let server = started(&[]);
    let rig = serve(builder(&server, Password::Right).build().unwrap());
    assert_eq!(rig.health().await.status, 503, "{}", logs::text());
}

#[actix_web::test]
async fn a_cluster_is_down_if_any_of_three_masters_is_frozen_or_stopped() {
    let mut cluster = Cluster::start();
    let hosts = cluster.ports().map(|port| ("127.0.0.1", port));
    let config = config(Password::Right, ServerConfig::new_clustered(hosts.into()));
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 100));
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    let rig = serve(client);
    for node in 0..3 {
        eventually("it is up", || async { rig.health().await.status == 200 }).await;
        cluster.nodes[node].freeze();
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(rig.health().await.status, 503, "{}", logs::text());
        cluster.nodes[node].resume();
        cluster.wait_until_it_is_whole();
        eventually("it is up again", || async { rig.health().await.status == 200 }).await;
        cluster.nodes[node].stop();
        tokio::time::sleep(MAX_AGE).await;
        assert_eq!(rig.health().await.status, 503, "{}", logs::text());
        cluster.restart_node(node);
    }
}

#[actix_web::test]
async fn distance_to_the_server_opens_no_connection() {
    let server = started(&[]);
    let client = async |port| {
        let client = builder_at(port, Password::Right).build().unwrap();
        client.init().await.unwrap();
        client
    };
    opens_no_connection_at_any_distance(server.port(), client).await;
    let pool = async |port| {
        let pool = builder_at(port, Password::Right).build_pool(2).unwrap();
        pool.init().await.unwrap();
        pool
    };
    opens_no_connection_at_any_distance(server.port(), pool).await;
}

#[actix_web::test]
async fn a_reply_that_is_within_the_limit_of_the_check_is_up() {
    #[derive(HealthCheck)]
    struct Patient {
        #[health(timeout = "5s")]
        cache: Client,
    }

    let server = started(&[]);
    let balancer = Balancer::start(server.port());
    let cache = builder_at(balancer.port, Password::Right).build().unwrap();
    cache.init().await.unwrap();
    balancer.delay_replies(Duration::from_millis(700));
    let state = web::Data::new(Patient { cache });
    let rig = TestServer::start(1, move |app| {
        app.service(health::scope().deadline(Duration::from_secs(10)).max_age(MAX_AGE).state(&state));
    });
    assert_up(&rig, "cache", "cache").await;
}

fn command(server: &Server, words: &str) {
    sentinel::query::<redis::Value>(&server.url(), words).unwrap();
}
