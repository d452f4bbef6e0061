//! `redis::sentinel::SentinelClient`, with a master, a replica and a sentinel.

use std::{any::Any, sync::Arc};

use actix_web::web;
use health::HealthCheck;
use redis::{
    RedisConnectionInfo,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::redis::values_written;
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually, logs,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::sentinel::{Sentinel, query},
};

struct Client;

acceptance!(client, Client);

type Locked = Arc<Mutex<SentinelClient>>;

impl Backend for Client {
    type Resource = Locked;
    type Server = Sentinel;

    fn prepare() -> Sentinel {
        Sentinel::prepared()
    }

    async fn open(servers: &Sentinel, password: Password) -> Result<Locked, Unsupported> {
        Ok(client(servers, if password == Password::Right { PASSWORD } else { WRONG }, SentinelServerType::Master))
    }

    fn unreachable(_: &Sentinel) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message("unable to connect to the redis master".to_owned()), "Connection refused")
    }

    fn rejected(_: &Sentinel) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Ok((ExpectedMessage::Message("the redis master denied access".to_owned()), "Password authentication failed"))
    }

    async fn saturate(_: &Locked) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("it opens a connection for each use")
    }

    async fn queries(servers: &Sentinel) -> Result<u64, Unsupported> {
        values_written(&servers.master).await
    }

    async fn connections(servers: &Sentinel) -> Result<usize, Unsupported> {
        // Without those of the sentinel and that of this query.
        let list: String = query(&servers.master.url(), "CLIENT LIST TYPE normal").unwrap();
        Ok(list.lines().filter(|line| !line.contains(" name=sentinel")).count() - 1)
    }
}

fn client(servers: &Sentinel, password: &str, of: SentinelServerType) -> Locked {
    let credentials = RedisConnectionInfo::default().set_username(USER).set_password(password);
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(credentials);
    let client = SentinelClient::build(vec![servers.url()], "main".to_owned(), Some(node), of).unwrap();
    Arc::new(Mutex::new(client))
}

#[derive(HealthCheck)]
struct State {
    cache: Locked,
}

#[derive(HealthCheck)]
struct Pinged {
    #[health(with = health::probes::redis::ping, group = "cache")]
    cache: Locked,
}

fn serve<S: HealthCheck + Send + Sync + 'static>(state: S) -> TestServer {
    let state = web::Data::new(state);
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(MAX_AGE).state(&state));
    })
}

#[actix_web::test]
async fn after_a_failover_the_new_master_is_queried() {
    let mut servers = Sentinel::start();
    let rig = serve(State { cache: client(&servers, PASSWORD, SentinelServerType::Master) });
    assert_up(&rig, "cache", "cache").await;

    servers.master.kill();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&rig, "cache", "cache", "unable to connect to the redis master").await;
    assert_not_leaked(&rig, &response, &["Connection refused"]).await;

    eventually("it is up again, by the new master", || async { rig.health().await.status == 200 }).await;
    let role: String = query(&servers.replica.url(), "INFO replication").unwrap();
    assert!(role.contains("role:master"), "{role}");
    let before = values_written(&servers.replica).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "cache").await;
    assert_eq!(values_written(&servers.replica).await, Ok(before + 1));

    // When the old one is back, as a replica, nothing changes.
    servers.master.restart();
    eventually("the old master is a replica", || async {
        query::<String>(&servers.master.url(), "INFO replication").is_ok_and(|role| role.contains("role:slave"))
    })
    .await;
    assert_up(&rig, "cache", "cache").await;
}

#[actix_web::test]
async fn a_demoted_master_is_replaced_by_the_new_one() {
    let servers = Sentinel::start();
    let rig = serve(State { cache: client(&servers, PASSWORD, SentinelServerType::Master) });
    assert_up(&rig, "cache", "cache").await;
    // Both keep running: the old connection works, and is read-only.
    eventually("the sentinel takes the replica for fit to be the master", || async {
        query::<redis::Value>(&servers.url(), "SENTINEL FAILOVER main").is_ok()
    })
    .await;
    eventually("the old master is a replica", || async {
        query::<String>(&servers.master.url(), "INFO replication").is_ok_and(|role| role.contains("role:slave"))
    })
    .await;
    eventually("it is up, by the new master", || async { rig.health().await.status == 200 }).await;
    let before = values_written(&servers.replica).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "cache").await;
    assert_eq!(values_written(&servers.replica).await, Ok(before + 1));
}

#[actix_web::test]
async fn a_sentinel_that_stops_is_no_outage_while_the_master_works() {
    let mut servers = Sentinel::start();
    let rig = serve(State { cache: client(&servers, PASSWORD, SentinelServerType::Master) });
    assert_up(&rig, "cache", "cache").await;
    servers.monitor.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_up(&rig, "cache", "cache").await;
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_client_of_replicas_is_read_only_and_up_with_ping() {
    let servers = Sentinel::start();
    let written = serve(State { cache: client(&servers, PASSWORD, SentinelServerType::Replica) });
    let message = format!("redis at 127.0.0.1:{} is read-only", servers.replica.port());
    assert_down(&written, "cache", "cache", &message).await;
    let pinged = serve(Pinged { cache: client(&servers, PASSWORD, SentinelServerType::Replica) });
    assert_up(&pinged, "cache", "cache").await;
}
