//! `lapin::Connection`, `lapin::Channel` and deadpool-lapin's pool. RabbitMQ takes seconds to start, so tests share one server
//! where they can.

use std::{any::Any, sync::Arc, time::Duration};

use actix_web::web;
use deadpool_lapin::{Config, Pool, Runtime};
use health::{
    Check, HealthCheck, Probe as _, ProbeError, ProbeErrorKind,
    probes::lapin::{Limits, queue},
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};

use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, serve_uncached, values},
    common::{
        PASSWORD, eventually,
        proxy::{Fault, Proxy},
        responses::{assert_degraded, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{
        connections_to,
        rabbitmq::{RabbitMq, Shared},
    },
};

struct OfConnection;
struct OfChannel;
struct OfPool;

acceptance!(connection, OfConnection);
acceptance!(channel, OfChannel);
acceptance!(pool, OfPool);

/// Reconnects with delays that do not grow, because the tests measure the check.
fn recovering() -> ConnectionProperties {
    ConnectionProperties::default().enable_auto_recover().configure_backoff(|backoff| {
        backoff
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_millis(200))
            .with_max_times(1000)
    })
}

async fn connect(rabbit: &Shared, properties: ConnectionProperties) -> Arc<Connection> {
    Arc::new(Connection::connect(&rabbit.with(RabbitMq::url), properties).await.unwrap())
}

const LET_IN: Unsupported = "a connection exists only once the server has accepted its credentials";
const SHARED: Unsupported = "all clones share a connection, and the check has a channel of its own";
/// The error of lapin for a lost connection.
const LOST: (&str, &str) = ("unable to connect to rabbitmq", "invalid connection state");

impl Backend for OfConnection {
    type Resource = Arc<Connection>;
    type Server = Shared;

    fn prepare() -> Shared {
        Shared::prepared()
    }

    async fn open(rabbit: &Shared, password: Password) -> Result<Arc<Connection>, Unsupported> {
        if password == Password::Wrong || !rabbit.with(RabbitMq::runs) {
            return Err(LET_IN);
        }
        Ok(connect(rabbit, recovering()).await)
    }

    fn unreachable(_: &Shared) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message(LOST.0.to_owned()), LOST.1)
    }

    fn rejected(_: &Shared) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(LET_IN)
    }

    async fn saturate(_: &Arc<Connection>) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(rabbit: &Shared) -> Result<u64, Unsupported> {
        Ok(rabbit.with(RabbitMq::received))
    }

    /// In bytes, because RabbitMQ counts those: the frame of `channel.flow`.
    const QUERIES_PER_RUN: u64 = 13;

    async fn connections(rabbit: &Shared) -> Result<usize, Unsupported> {
        Ok(connections_to(rabbit.with(RabbitMq::port)))
    }
}

impl Backend for OfChannel {
    type Resource = Channel;
    type Server = Shared;

    fn prepare() -> Shared {
        Shared::prepared()
    }

    async fn open(rabbit: &Shared, password: Password) -> Result<Channel, Unsupported> {
        Ok(OfConnection::open(rabbit, password).await?.create_channel().await.unwrap())
    }

    fn unreachable(rabbit: &Shared) -> (ExpectedMessage, &'static str) {
        (OfConnection::unreachable(rabbit).0, "invalid channel state")
    }

    fn rejected(_: &Shared) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err(LET_IN)
    }

    async fn saturate(_: &Channel) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err(SHARED)
    }

    async fn queries(rabbit: &Shared) -> Result<u64, Unsupported> {
        OfConnection::queries(rabbit).await
    }

    const QUERIES_PER_RUN: u64 = OfConnection::QUERIES_PER_RUN;

    async fn connections(rabbit: &Shared) -> Result<usize, Unsupported> {
        OfConnection::connections(rabbit).await
    }
}

fn pool(rabbit: &Shared, password: &str) -> Pool {
    pool_at(rabbit.with(|it| it.url_with(password)))
}

/// Of two connections.
fn pool_at(url: String) -> Pool {
    let config = Config { url: Some(url), ..Config::default() };
    config.builder(ConnectionProperties::default, Runtime::Tokio1).unwrap().max_size(2).build().unwrap()
}

impl Backend for OfPool {
    type Resource = Pool;
    type Server = Shared;

    fn prepare() -> Shared {
        Shared::prepared()
    }

    async fn open(rabbit: &Shared, password: Password) -> Result<Pool, Unsupported> {
        Ok(pool(rabbit, if password == Password::Right { PASSWORD } else { WRONG }))
    }

    fn unreachable(rabbit: &Shared) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to rabbitmq at 127.0.0.1:{}", rabbit.with(RabbitMq::port));
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(rabbit: &Shared) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("rabbitmq at 127.0.0.1:{} denied access", rabbit.with(RabbitMq::port));
        Ok((ExpectedMessage::Message(message), "ACCESS_REFUSED"))
    }

    async fn saturate(pool: &Pool) -> Result<(Box<dyn Any>, u32), Unsupported> {
        let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
        Ok((Box::new(held), 2))
    }

    async fn queries(rabbit: &Shared) -> Result<u64, Unsupported> {
        OfConnection::queries(rabbit).await
    }

    /// A channel is opened and closed again.
    const QUERIES_PER_RUN: u64 = 13 + 21;

    async fn connections(rabbit: &Shared) -> Result<usize, Unsupported> {
        OfConnection::connections(rabbit).await
    }
}

async fn declared(channel: &Channel, name: &str) {
    channel.queue_declare(name.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
}

async fn publish(channel: &Channel, name: &str) {
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), name.into(), options, b"work", BasicProperties::default()).await.unwrap();
}

#[actix_web::test]
async fn a_publishing_connection_is_down_during_an_alarm_and_any_other_is_up() {
    let rabbit = Shared::started();
    let publisher = connect(&rabbit, ConnectionProperties::default()).await;
    let channel = publisher.create_channel().await.unwrap();
    let pool = pool(&rabbit, PASSWORD);
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let of_pool = held[0].create_channel().await.unwrap();
    let consumer = connect(&rabbit, ConnectionProperties::default()).await;
    declared(&channel, "jobs").await;
    let [of_connection, of_consumer] = [Arc::clone(&publisher), consumer].map(serve_uncached);
    let of_channel = serve_uncached(channel.clone());
    for rig in [&of_connection, &of_channel, &of_consumer] {
        assert_up(rig, "queue", "resource").await;
    }

    rabbit.with(|it| it.alarm(true));
    publish(&channel, "jobs").await;
    // The broker notifies one of its two connections, and not the other.
    publish(&of_pool, "jobs").await;
    eventually("they are notified", || async { publisher.status().blocked() && held[0].status().blocked() }).await;
    let message = "rabbitmq is read-only";
    for rig in [&of_connection, &of_channel] {
        assert_down(rig, "queue", "resource", message).await;
    }
    assert_up(&of_consumer, "queue", "resource").await;
    let result = queue(&publisher, "jobs", Limits::new()).await.unwrap_err();
    assert_eq!(result.kind(), ProbeErrorKind::ReadOnly);
    drop(held);
    let of_pool = serve_uncached(pool);
    let message = format!("rabbitmq at 127.0.0.1:{} is read-only", rabbit.with(RabbitMq::port));
    // Whichever of its connections is used first.
    for _ in 0..3 {
        assert_down(&of_pool, "queue", "resource", &message).await;
    }

    rabbit.with(|it| it.alarm(false));
    eventually("they are notified", || async { !publisher.status().blocked() }).await;
    assert_up(&of_connection, "queue", "resource").await;
    assert_up(&of_channel, "queue", "resource").await;
    eventually("the pool is up", || async { of_pool.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_queue_is_checked_for_depth_and_consumers_on_a_separate_channel() {
    let rabbit = Shared::started();
    let connection = connect(&rabbit, ConnectionProperties::default()).await;
    let channel = connection.create_channel().await.unwrap();
    declared(&channel, "jobs").await;
    let limits = Limits::new().degraded_above(2).down_above(4).consumers(0);
    let outcome = |result: Result<(), ProbeError>| result.map_err(|error| (error.status(), error.to_string()));
    let down = |message: &str| Err((health::Status::Down, message.to_owned()));

    let result = queue(&connection, "jobs", Limits::new()).await;
    assert_eq!(outcome(result), down("the queue has no consumers"));
    for published in 1..=5_u32 {
        publish(&channel, "jobs").await;
        let expected = match published {
            0..=2 => Ok(()),
            3..=4 => Err((health::Status::Degraded, format!("{published} messages wait, more than 2"))),
            _ => down("5 messages wait, more than 4"),
        };
        eventually(&format!("{published} are counted"), || async {
            outcome(queue(&connection, "jobs", limits).await) == expected
        })
        .await;
    }
    let checked = Arc::clone(&connection);
    let jobs = Check::new("queue", "jobs", move || {
        let connection = Arc::clone(&checked);
        async move { queue(&connection, "jobs", limits).await }
    });
    let rig = TestServer::start(1, move |app| {
        app.service(health::scope().check(jobs.clone()));
    });
    assert_eq!(rig.health().await.status, 503);
    assert_eq!(values(&rig, "queue", "jobs").await, json!({"messages": 5, "consumers": 0}));
    rig.stop().await;

    let missing = queue(&connection, "canary-queue", limits).await;
    assert_eq!(outcome(missing), down("the queue does not exist"));

    let none_wait = Limits::new().down_above(0);
    let consumer =
        channel.basic_consume("jobs".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
    // Delivered messages do not wait, even if they are not acknowledged.
    eventually("it is consumed", || async { queue(&connection, "jobs", none_wait).await.is_ok() }).await;
    assert_eq!(
        outcome(queue(&connection, "jobs", none_wait.consumers(2)).await),
        down("too few consumers: 1, expected at least 2")
    );
    drop(consumer);

    channel.probe().await.unwrap();
    eventually("its channels are closed", || async { channels(&rabbit) == 1 }).await;
}

/// Returns the number of open channels.
fn channels(rabbit: &Shared) -> usize {
    let listed = rabbit.with(|it| it.control(&["list_channels", "--no-table-headers", "pid"]));
    listed.lines().filter(|line| !line.is_empty()).count()
}

#[actix_web::test]
async fn a_connection_without_recovery_stays_down_and_a_pool_replaces_it() {
    #[derive(HealthCheck)]
    #[health(strict)]
    struct State {
        connection: Arc<Connection>,
        channel: Channel,
        pool: Pool,
    }

    let mut rabbit = Shared::started();
    let connection = connect(&rabbit, ConnectionProperties::default()).await;
    let channel = connection.create_channel().await.unwrap();
    let state = web::Data::new(State { connection, channel, pool: pool(&rabbit, PASSWORD) });
    let rig = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(Duration::ZERO));
    });
    assert_eq!(rig.health().await.status, 200);
    rabbit.stop();
    rabbit.restart();
    // While the broker starts, the pool's old connection may stay silent for longer than a new one takes.
    eventually("the pool has another connection", || async {
        rig.health().await.json()["checks"]["queue"]["pool"] == "UP"
    })
    .await;
    for _ in 0..3 {
        let response = rig.health().await.json();
        let lost = "unable to connect to rabbitmq";
        assert_eq!(response["errors"]["queue"], serde_json::json!({"connection": lost, "channel": lost}), "{response}");
        assert_eq!(response["checks"]["queue"]["pool"], "UP");
    }
}

#[actix_web::test]
async fn a_channel_that_the_application_lost_is_down_and_its_connection_is_up() {
    let rabbit = Shared::started();
    let connection = connect(&rabbit, ConnectionProperties::default()).await;
    let channel = connection.create_channel().await.unwrap();
    let missing = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("missing".into(), missing, FieldTable::default()).await.unwrap_err();
    let rig = serve_uncached(channel);
    let response = assert_down(&rig, "queue", "resource", "unexpected response from rabbitmq").await;
    assert_not_leaked(&rig, &response, &["invalid channel state"]).await;
    assert_up(&serve_uncached(connection), "queue", "resource").await;
}

#[actix_web::test]
async fn a_connection_without_a_free_channel_is_degraded_and_one_with_an_open_probe_channel_is_up() {
    let rabbit = Shared::started();
    let url = format!("{}?channel_max=2", rabbit.with(RabbitMq::url));
    let connection = Arc::new(Connection::connect(&url, ConnectionProperties::default()).await.unwrap());
    let first = connection.create_channel().await.unwrap();
    let second = connection.create_channel().await.unwrap();
    let rig = serve_uncached(Arc::clone(&connection));
    assert_degraded(&rig, "queue", "resource", "all 2 channels are in use").await;
    drop(first);
    eventually("it is up", || async { rig.health().await.json()["status"] == "UP" }).await;
    assert!(connection.create_channel().await.is_err(), "the check has the last one");
    assert_up(&rig, "queue", "resource").await;
    drop(second);
}

#[actix_web::test]
async fn a_pooled_connection_that_is_silent_is_degraded_and_is_discarded() {
    let rabbit = Shared::started();
    let proxy = Proxy::start(rabbit.with(RabbitMq::port)).await;
    let pool = pool_at(RabbitMq::url_at(proxy.port));
    let rig = serve_uncached(pool.clone());
    assert_up(&rig, "queue", "resource").await;
    proxy.set(Fault::HalfOpen);
    let message =
        format!("an idle connection to rabbitmq at 127.0.0.1:{} does not respond, a new one does", proxy.port);
    assert_degraded(&rig, "queue", "resource", &message).await;
    assert_eq!(pool.status().size, 0);
    assert_up(&rig, "queue", "resource").await;
}

#[actix_web::test]
async fn a_pool_that_is_used_up_on_a_frozen_server_is_down() {
    let rabbit = Shared::started();
    let pool = pool(&rabbit, PASSWORD);
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let rig = serve_uncached(pool);
    assert_degraded(&rig, "queue", "resource", "connection pool exhausted (2 of 2 in use)").await;
    rabbit.freeze();
    // The outcome of a connection outside the pool is reused for a while.
    eventually("it is down", || async { rig.health().await.json()["status"] == "DOWN" }).await;
    assert_down(&rig, "queue", "resource", "timed out after 800 ms").await;
    rabbit.resume();
    drop(held);
    eventually("it is up again", || async { rig.health().await.json()["status"] == "UP" }).await;
}

#[actix_web::test]
async fn a_long_freeze_leaves_no_channels_behind() {
    let rabbit = Shared::started();
    let [first, second] = [
        connect(&rabbit, ConnectionProperties::default()).await,
        connect(&rabbit, ConnectionProperties::default()).await,
    ];
    let channel = second.create_channel().await.unwrap();
    // A probe without a channel, one with a channel, and `queue`, which opens a channel each time; and the channels of the application.
    let (new, kept) = (first.session().unwrap(), second.session().unwrap());
    kept.probe().await.unwrap();
    rabbit.freeze();
    for _ in 0..5 {
        // As the engine does at its hard limit.
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, new.probe()).await.is_err(), "it is frozen");
        assert!(tokio::time::timeout(soon, kept.probe()).await.is_err(), "it is frozen");
        assert!(tokio::time::timeout(soon, channel.probe()).await.is_err(), "it is frozen");
        let result = tokio::time::timeout(soon, queue(&second, "jobs", Limits::new())).await;
        assert!(result.is_err(), "it is frozen");
    }
    rabbit.resume();
    new.probe().await.unwrap();
    kept.probe().await.unwrap();
    channel.probe().await.unwrap();
    eventually("but for one each, its channels are closed", || async { channels(&rabbit) == 3 }).await;
}

#[actix_web::test]
async fn a_broker_that_accepts_and_is_silent_costs_one_thread_however_many_runs_of_a_pool_there_are() {
    // The server behind it hangs, as behind a load balancer.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let pool = pool_at(format!("amqp://127.0.0.1:{}/%2f", silent.local_addr().unwrap().port()));
    let kept = pool.session().unwrap();
    for _ in 0..5 {
        // As the engine does at its hard limit.
        assert!(tokio::time::timeout(Duration::from_millis(50), kept.probe()).await.is_err(), "it hangs");
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name =
        |thread: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok();
    assert_eq!(threads.filter_map(name).filter(|name| name.starts_with("lapin-io")).count(), 1);
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let rabbit = Shared::prepared();
    let refused = Connection::connect(&rabbit.with(RabbitMq::url), ConnectionProperties::default()).await;
    let refused = anyhow::Error::from(refused.map(drop).unwrap_err()).context("while an order is sent");
    assert_eq!(ProbeError::from_error(refused).kind(), ProbeErrorKind::Unreachable);
}
