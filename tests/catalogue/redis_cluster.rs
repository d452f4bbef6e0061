//! `redis::cluster_async::ClusterConnection` and `redis::cluster::ClusterClient`, on a cluster of three masters.

use std::{any::Any, time::Duration};

use actix_web::web;
use health::HealthCheck;
use redis::{Value, cluster::ClusterClient, cluster_async::ClusterConnection};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve, serve_uncached},
    common::{
        PASSWORD, eventually, logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection,
        test_server::TestServer,
    },
    servers::{balancer::Balancer, cluster::Cluster},
};

struct Client;
struct Connection;

acceptance!(client, Client);
acceptance!(connection, Connection);

impl Backend for Client {
    type Resource = ClusterClient;
    type Server = Cluster;

    fn prepare() -> Cluster {
        Cluster::prepared()
    }

    async fn open(cluster: &Cluster, password: Password) -> Result<ClusterClient, Unsupported> {
        Ok(client(cluster, password))
    }

    fn unreachable(cluster: &Cluster) -> (ExpectedMessage, &'static str) {
        unreachable_nodes(cluster)
    }

    fn rejected(_: &Cluster) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = "redis cluster denied access".to_owned();
        Ok((ExpectedMessage::Message(message), "Password authentication failed"))
    }

    async fn saturate(_: &ClusterClient) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(cluster: &Cluster) -> Result<u64, Unsupported> {
        Ok(values_written(cluster).iter().sum())
    }

    /// One to each master, concurrently.
    const QUERIES_PER_RUN: u64 = 3;

    async fn connections(cluster: &Cluster) -> Result<usize, Unsupported> {
        Ok(connections(cluster))
    }
}

impl Backend for Connection {
    type Resource = ClusterConnection;
    type Server = Cluster;

    fn prepare() -> Cluster {
        Cluster::prepared()
    }

    async fn open(cluster: &Cluster, password: Password) -> Result<ClusterConnection, Unsupported> {
        let connection = client(cluster, password).get_async_connection().await;
        connection.map_err(|_| "a connection is made where something listens, or not at all")
    }

    fn unreachable(cluster: &Cluster) -> (ExpectedMessage, &'static str) {
        unreachable_nodes(cluster)
    }

    fn rejected(_: &Cluster) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err("a connection with a wrong password cannot be opened")
    }

    async fn saturate(_: &ClusterConnection) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(cluster: &Cluster) -> Result<u64, Unsupported> {
        Ok(values_written(cluster).iter().sum())
    }

    const QUERIES_PER_RUN: u64 = 3;

    async fn connections(cluster: &Cluster) -> Result<usize, Unsupported> {
        Ok(connections(cluster))
    }
}

const SHARED: Unsupported = "all clones share one connection to each node";

fn client(cluster: &Cluster, password: Password) -> ClusterClient {
    let password = if password == Password::Right { PASSWORD } else { WRONG };
    ClusterClient::new(cluster.nodes.iter().map(|node| node.url_with(password))).unwrap()
}

/// The message names the node that was the first to refuse.
fn unreachable_nodes(cluster: &Cluster) -> (ExpectedMessage, &'static str) {
    (ExpectedMessage::OneOf(cluster.ports().map(refused).into()), "Connection refused")
}

fn refused(port: u16) -> String {
    format!("unable to connect to redis at 127.0.0.1:{port}")
}

/// Returns the number of `SET`s that each node has executed.
fn values_written(cluster: &Cluster) -> [u64; 3] {
    [0, 1, 2].map(|node| {
        let statistics = cluster.query::<String>(node, "INFO commandstats").unwrap();
        let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    })
}

/// Returns the number of connections of all nodes, without those of this query.
fn connections(cluster: &Cluster) -> usize {
    (0..3).map(|node| cluster.query::<String>(node, "CLIENT LIST").unwrap().lines().count() - 1).sum()
}

#[derive(HealthCheck)]
struct Pinged {
    #[health(with = health::probes::redis::ping, group = "cache")]
    client: ClusterClient,
    #[health(with = health::probes::redis::ping, group = "cache")]
    connection: ClusterConnection,
}

#[actix_web::test]
async fn a_ping_writes_nothing_and_sees_a_cluster_that_is_stopped() {
    let mut cluster = Cluster::start();
    let client = client(&cluster, Password::Right);
    let connection = client.get_async_connection().await.unwrap();
    let state = web::Data::new(Pinged { client, connection });
    let rig = TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).state(&state));
    });
    let all = |status: &str| serde_json::json!({"client": status, "connection": status});
    assert_eq!(rig.health().await.json()["checks"]["cache"], all("UP"), "{}", logs::text());
    assert_eq!(values_written(&cluster), [0; 3]);
    cluster.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_eq!(rig.health().await.json()["checks"]["cache"], all("DOWN"), "{}", logs::text());
}

#[actix_web::test]
async fn every_master_is_queried_once_per_run() {
    let cluster = Cluster::start();
    let rig = serve(client(&cluster, Password::Right));
    assert_up(&rig, "cache", "resource").await;
    let before = values_written(&cluster);
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "resource").await;
    assert_eq!(values_written(&cluster), before.map(|calls| calls + 1));
}

#[actix_web::test]
async fn a_cluster_is_down_if_any_of_three_masters_is_stopped() {
    let mut cluster = Cluster::start();
    let clients = client(&cluster, Password::Right);
    let connection = clients.get_async_connection().await.unwrap();
    let rigs = [serve(clients), serve(connection)];
    for node in 0..3 {
        for rig in &rigs {
            eventually("it is up", || async { rig.health().await.status == 200 }).await;
        }
        cluster.nodes[node].stop();
        tokio::time::sleep(MAX_AGE).await;
        for rig in &rigs {
            let response = assert_down(rig, "cache", "resource", &refused(cluster.ports()[node])).await;
            assert_not_leaked(rig, &response, &["Connection refused"]).await;
        }
        cluster.restart_node(node);
    }
}

#[actix_web::test]
async fn a_cluster_with_one_master_of_three_frozen_is_down_by_the_deadline_and_up_when_it_resumes() {
    let cluster = Cluster::start();
    let rig = serve(client(&cluster, Password::Right));
    for node in 0..3 {
        eventually("it is up", || async { rig.health().await.status == 200 }).await;
        cluster.nodes[node].freeze();
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "cache", "resource", "timed out after 800 ms").await;
        cluster.nodes[node].resume();
        cluster.wait_until_it_is_whole();
    }
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_cluster_with_one_read_only_master_is_down() {
    let cluster = Cluster::start();
    let rig = serve(client(&cluster, Password::Right));
    for node in 0..3 {
        assert_up(&rig, "cache", "resource").await;
        cluster.query::<Value>(node, "CONFIG SET maxmemory 1").unwrap();
        tokio::time::sleep(MAX_AGE).await;
        let response = assert_down(&rig, "cache", "resource", "redis cluster is read-only").await;
        assert_not_leaked(&rig, &response, &["OOM"]).await;
        cluster.query::<Value>(node, "CONFIG SET maxmemory 0").unwrap();
        tokio::time::sleep(MAX_AGE).await;
    }
}

#[actix_web::test]
async fn killed_idle_connections_are_no_outage() {
    let cluster = Cluster::start();
    let clients = client(&cluster, Password::Right);
    let rigs = [serve(clients.get_async_connection().await.unwrap()), serve(clients)];
    for rig in &rigs {
        assert_up(rig, "cache", "resource").await;
    }
    for node in 0..3 {
        cluster.query::<Value>(node, "CLIENT KILL TYPE normal SKIPME yes").unwrap();
    }
    tokio::time::sleep(MAX_AGE).await;
    for rig in &rigs {
        assert_up(rig, "cache", "resource").await;
    }
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_cluster_with_unassigned_slots_is_down() {
    let cluster = Cluster::start();
    for node in 0..3 {
        // By default a node responds to nothing then.
        cluster.query::<Value>(node, "CONFIG SET cluster-require-full-coverage no").unwrap();
    }
    let rig = serve(client(&cluster, Password::Right));
    assert_up(&rig, "cache", "resource").await;
    for node in 0..3 {
        cluster.query::<Value>(node, "CLUSTER DELSLOTSRANGE 16000 16383").unwrap();
    }
    // The keys of the check have moved, or have no slot; then the driver retries until the check's limit.
    eventually("it is down", || async { rig.health().await.status == 503 }).await;
    let rig = serve(client(&cluster, Password::Right));
    assert_down(&rig, "cache", "resource", "384 slots of redis cluster have no master").await;
}

#[actix_web::test]
async fn distance_to_the_nodes_opens_no_connection() {
    const POLLS: usize = 6;
    let cluster = Cluster::start();
    for distance in [80, 150, 250, 350] {
        let mut balancers = Vec::new();
        for (node, port) in cluster.ports().into_iter().enumerate() {
            let balancer = Balancer::start(port);
            // The addresses that the nodes announce are those of the balancers too.
            let words = format!("CONFIG SET cluster-announce-port {}", balancer.port);
            cluster.query::<Value>(node, &words).unwrap();
            balancers.push(balancer);
        }
        eventually("each node knows where the others are", || async {
            (0..3).all(|node| {
                let nodes = cluster.query::<String>(node, "CLUSTER NODES").unwrap();
                balancers.iter().all(|balancer| nodes.contains(&format!("127.0.0.1:{}@", balancer.port)))
            })
        })
        .await;
        let urls = balancers.iter().map(|balancer| cluster.nodes[0].url_at(balancer.port));
        let clients = ClusterClient::new(urls.collect::<Vec<_>>()).unwrap();
        let accepted = || balancers.iter().map(Balancer::accepted).collect::<Vec<_>>();
        let connection = clients.get_async_connection().await.unwrap();
        for balancer in &balancers {
            balancer.delay_replies(Duration::from_millis(distance));
        }
        let before = accepted();
        let rigs = [serve_uncached(connection), serve_uncached(clients)];
        for rig in &rigs {
            eventually("it is up", || async { rig.health().await.status == 200 }).await;
        }
        let warm = accepted();
        println!("{distance} ms away: {before:?} and {warm:?} after the first runs");
        for rig in &rigs {
            for _ in 0..POLLS {
                assert_up(rig, "cache", "resource").await;
            }
        }
        assert_eq!(accepted(), warm, "{distance} ms away, in {POLLS} runs of each");
    }
}
