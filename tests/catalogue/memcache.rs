//! The clients of the crate `memcache`, asynchronous and blocking.

use std::{any::Any, fs, time::Duration};

use ::memcache::{Client, ConnectionManager, Url, exp::AsyncMemcache};
use diesel::r2d2;
use health::Probe;

use super::redis::opens_no_connection_at_any_distance;
use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, acceptance, serve, serve_uncached},
    common::{
        eventually,
        responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
        servers::FaultInjection,
    },
    servers::{balancer::Balancer, memcached::Memcached},
};

pub(crate) struct Asynchronous;
struct Blocking;

acceptance!(asynchronous, Asynchronous);
acceptance!(blocking, Blocking);

const NO_CREDENTIALS: Unsupported = "the client of the meta protocol can't log in, and that of the binary protocol connects when it is \
                             made, which fails with a wrong password";

impl Backend for Asynchronous {
    type Resource = AsyncMemcache;
    type Server = Memcached;

    fn prepare() -> Memcached {
        Memcached::prepared(&[])
    }

    async fn open(server: &Memcached, _: Password) -> Result<AsyncMemcache, Unsupported> {
        Ok(asynchronous_client(&[server]).await)
    }

    fn unreachable(_: &Memcached) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message("unable to connect to memcached".to_owned()), "Connection refused")
    }

    fn rejected(_: &Memcached) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(NO_CREDENTIALS)
    }

    async fn saturate(_: &AsyncMemcache) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("its pools are unlimited by default, and lend no connections")
    }

    async fn queries(server: &Memcached) -> Result<u64, Unsupported> {
        Ok(server.counter("cmd_set"))
    }

    /// In one round trip.
    const QUERIES_PER_RUN: u64 = 16;

    async fn connections(server: &Memcached) -> Result<usize, Unsupported> {
        Ok(server.connections())
    }
}

impl Backend for Blocking {
    type Resource = Client;
    type Server = Memcached;

    fn prepare() -> Memcached {
        Memcached::prepared(&[])
    }

    async fn open(server: &Memcached, _: Password) -> Result<Client, Unsupported> {
        Ok(blocking_client(server))
    }

    fn unreachable(server: &Memcached) -> (ExpectedMessage, &'static str) {
        // A client that was never connected does not expose its address.
        let outcome = [
            format!("unable to connect to memcached at {}", server.address()),
            "unable to connect to memcached".to_owned(),
        ];
        (ExpectedMessage::OneOf(outcome.into()), "Connection refused")
    }

    fn rejected(_: &Memcached) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(NO_CREDENTIALS)
    }

    async fn saturate(_: &Client) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("its pools have no public counters, and lend no connections")
    }

    async fn queries(server: &Memcached) -> Result<u64, Unsupported> {
        Ok(server.counter("cmd_set"))
    }

    async fn connections(server: &Memcached) -> Result<usize, Unsupported> {
        Ok(server.connections())
    }
}

async fn asynchronous_client(servers: &[&Memcached]) -> AsyncMemcache {
    AsyncMemcache::connect(servers.iter().map(|server| server.address())).await.unwrap()
}

/// A client that can be created while the server is stopped, with a short timeout to connect.
fn blocking_client(server: &Memcached) -> Client {
    let url = format!("memcache://{}", server.address());
    let pool = r2d2::Pool::builder().max_size(2).min_idle(Some(1)).connection_timeout(Duration::from_millis(400));
    Client::with_pool(pool.build_unchecked(ConnectionManager::new(Url::parse(&url).unwrap()))).unwrap()
}

async fn all_of_three_servers_are_queried<R: Probe + Clone>(rig: impl AsyncFnOnce(&[&Memcached]) -> R) {
    let mut servers = [(); 3].map(|()| Memcached::start(&[]));
    let rig = serve(rig(&servers.each_ref()).await);
    assert_up(&rig, "cache", "resource").await;
    for server in &mut servers {
        assert!(server.counter("cmd_set") > 0, "it was queried");
        server.stop();
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&rig, "cache", "resource", "unable to connect to memcached").await;
        server.restart();
        eventually("it is up again", || async { rig.health().await.status == 200 }).await;
    }
}

#[actix_web::test]
async fn one_server_of_three_that_is_stopped_is_down_for_an_asynchronous_client() {
    all_of_three_servers_are_queried(asynchronous_client).await;
}

#[actix_web::test]
async fn one_server_of_three_that_is_stopped_is_down_for_a_blocking_client() {
    all_of_three_servers_are_queried(async |servers: &[&Memcached]| {
        let urls: Vec<_> = servers.iter().map(|server| format!("memcache://{}", server.address())).collect();
        Client::builder().add_server(urls).unwrap().with_connection_timeout(Duration::from_millis(400)).build().unwrap()
    })
    .await;
}

#[actix_web::test]
async fn a_server_that_wants_credentials_refuses_access() {
    let users = tempfile::NamedTempFile::new().unwrap();
    fs::write(users.path(), "user:password\n").unwrap();
    let path = users.path().display().to_string();
    crate::common::process::chown(users.path(), "memcache");
    let server = Memcached::start(&["-Y", &path]);
    let rig = serve(asynchronous_client(&[&server]).await);
    let response = assert_down(&rig, "cache", "resource", "memcached denied access").await;
    assert_not_leaked(&rig, &response, &["unauthenticated"]).await;
}

#[actix_web::test]
async fn a_server_that_is_full_and_may_not_evict_is_down() {
    let server = Memcached::start(&["-m", "2", "-M", "-I", "512k"]);
    let client = asynchronous_client(&[&server]).await;
    let [asynchronous, blocking] = [serve(client.clone()), serve(blocking_client(&server))];
    assert_up(&asynchronous, "cache", "resource").await;
    assert_up(&blocking, "cache", "resource").await;

    // Values as small as those of the check, because memory is allocated by size.
    let fill = async |size: usize| {
        for number in 0.. {
            if client
                .set(format!("health:{number:040}"), "x".repeat(size), memcache::exp::Ttl::secs(600))
                .await
                .is_err()
            {
                break;
            }
        }
    };
    for size in [100_000, 10_000, 1000, 60, 40, 20, 1] {
        fill(size).await;
    }
    tokio::time::sleep(MAX_AGE).await;
    // A key that cannot be overwritten is removed, which frees memory, so the check of new keys comes first.
    assert_down(&blocking, "cache", "resource", &format!("memcached at {} is read-only", server.address())).await;
    let response = assert_down(&asynchronous, "cache", "resource", "memcached is read-only").await;
    assert_not_leaked(&asynchronous, &response, &["out of memory"]).await;
}

#[actix_web::test]
async fn a_killed_idle_connection_is_no_outage() {
    let mut server = Memcached::start(&[]);
    let [asynchronous, blocking] = [serve(asynchronous_client(&[&server]).await), serve(blocking_client(&server))];
    assert_up(&asynchronous, "cache", "resource").await;
    assert_up(&blocking, "cache", "resource").await;
    // After the restart of the server all connections are dead.
    server.stop();
    server.restart();
    assert_recovers(&asynchronous, "cache", "resource").await;
    assert_recovers(&blocking, "cache", "resource").await;
    let lines = crate::common::logs::lines();
    assert!(lines.iter().all(|line| !line.contains("is DOWN")), "{lines:#?}");
}

#[actix_web::test]
async fn a_frozen_server_blocks_one_thread_however_many_runs_there_are() {
    let server = Memcached::start(&[]);
    let check = blocking_client(&server).session().expect("it has something to keep");
    check.probe().await.unwrap();
    let before = threads();
    server.freeze();
    for _ in 0..20 {
        let result = tokio::time::timeout(Duration::from_millis(50), check.probe()).await;
        assert!(result.is_err(), "it is frozen");
    }
    assert!(threads() <= before + 1, "{} threads, and {before} before", threads());
    server.resume();
    check.probe().await.unwrap();
}

#[actix_web::test]
async fn a_silent_connection_of_an_asynchronous_client_is_degraded_while_a_new_one_responds() {
    let [old, new] = [Memcached::start(&[]), Memcached::start(&[])];
    let balancer = Balancer::start(old.port());
    let client = AsyncMemcache::connect([format!("127.0.0.1:{}", balancer.port)]).await.unwrap();
    let rig = serve(client);
    assert_up(&rig, "cache", "resource").await;

    old.freeze();
    balancer.lead_to(new.port());
    tokio::time::sleep(MAX_AGE).await;
    let message = "a request to memcached had no response in time, a later one had";
    assert_degraded(&rig, "cache", "resource", message).await;
    assert_recovers(&rig, "cache", "resource").await;
}

#[actix_web::test]
async fn distance_to_the_server_opens_no_connection() {
    let server = Memcached::start(&[]);
    let asynchronous = async |port| AsyncMemcache::connect([format!("127.0.0.1:{port}")]).await.unwrap();
    opens_no_connection_at_any_distance(server.port(), asynchronous).await;

    // A run of the blocking client is four round trips.
    for distance in [80, 150] {
        let balancer = Balancer::start(server.port());
        let client = Client::builder().add_server(format!("memcache://127.0.0.1:{}", balancer.port)).unwrap();
        let rig = serve_uncached(client.with_max_pool_size(1).build().unwrap());
        assert_up(&rig, "cache", "resource").await;
        balancer.delay_replies(Duration::from_millis(distance));
        // The first run at this distance takes longer than all before.
        assert_up(&rig, "cache", "resource").await;
        let warm = balancer.accepted();
        assert!(warm <= 2, "{distance} ms away: {warm} connections");
        for _ in 0..6 {
            assert_up(&rig, "cache", "resource").await;
        }
        assert_eq!(balancer.accepted(), warm, "{distance} ms away");
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}
