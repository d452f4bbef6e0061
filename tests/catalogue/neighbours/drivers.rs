//! The drivers of the catalogue as an application uses them, each with an operation of the application, whose result is compared with
//! the status of the check.

use std::{any::Any, fmt::Display, sync::Arc, time::Duration};

use actix_web::web;
use anyhow::bail;
use bb8_redis::RedisConnectionManager;
use diesel::connection::SimpleConnection as _;
use diesel_async::{SimpleAsyncConnection as _, pooled_connection::AsyncDieselConnectionManager};
use fred::{
    interfaces::{ClientLike as _, KeysInterface as _},
    types::config::{Config, ReconnectPolicy, ServerConfig},
};
use health::{Probe, ProbeError, Session, probes::reqwest::Get};
use redis::{
    RedisConnectionInfo,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    sentinel::{SentinelNodeConnectionInfo, SentinelServerType},
};
use sea_orm::ConnectionTrait as _;
use tokio::sync::Mutex;

use crate::{
    common::{DATABASE, PASSWORD, USER},
    servers::rabbitmq::RabbitMq,
};

/// The delay of drivers between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// The kind of server that a driver connects to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Redis,
    Cluster,
    Sentinel,
    Memcached,
    RabbitMq,
    Nats,
    Mosquitto,
    Http,
}

pub(crate) type Held = Box<dyn Any>;

/// A driver as an application uses it.
pub(crate) trait Driver: 'static {
    type Resource: Probe + Clone;

    /// Opens the resource on a port of this machine, without a connection if the driver supports that.
    async fn open(port: u16) -> Self::Resource;

    /// Runs an operation of the application, which writes if the check does.
    async fn operate(resource: &Self::Resource, port: u16) -> anyhow::Result<()>;

    /// Takes both connections of a pool.
    async fn hold(_: &Self::Resource) -> anyhow::Result<Held> {
        bail!("its connections are shared or its own: nothing can be used up")
    }

    /// Fills the pool with two idle connections, if there is a pool.
    async fn fill_pool(resource: &Self::Resource, _port: u16) {
        drop(Self::hold(resource).await);
    }

    /// Runs an SQL statement on both connections of a pool, or on the only connection.
    async fn on_each(_: &Self::Resource, _: &'static str) -> anyhow::Result<()> {
        bail!("it has no SQL")
    }

    /// Ends tasks that outlive the resource.
    async fn close(_: Self::Resource) {}
}

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")
}

fn redis_url(port: u16) -> String {
    format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}/")
}

/// Opens a resource that needs a connection. Retries, because the driver's own timeout may be too short for a far server.
async fn opened<T, E: Display>(mut open: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..5 {
        match open().await {
            Ok(opened) => return opened,
            Err(error) => println!("opens it again: {error}"),
        }
    }
    panic!("it can't be opened");
}

macro_rules! sqlx_pool {
    ($driver:ident, $pool:ty, $options:ty, $scheme:literal, $raw:path) => {
        pub(crate) struct $driver;

        impl Driver for $driver {
            type Resource = $pool;

            async fn open(port: u16) -> $pool {
                <$options>::new().max_connections(2).connect_lazy(&url($scheme, port)).unwrap()
            }

            async fn operate(pool: &$pool, _: u16) -> anyhow::Result<()> {
                $raw("SELECT 1").execute(pool).await?;
                Ok(())
            }

            async fn hold(pool: &$pool) -> anyhow::Result<Held> {
                Ok(Box::new(tokio::try_join!(pool.acquire(), pool.acquire())?))
            }

            async fn on_each(pool: &$pool, statement: &'static str) -> anyhow::Result<()> {
                let (mut first, mut second) = tokio::try_join!(pool.acquire(), pool.acquire())?;
                $raw(statement).execute(&mut *first).await?;
                $raw(statement).execute(&mut *second).await?;
                Ok(())
            }
        }
    };
}

sqlx_pool!(SqlxPostgres, sqlx::PgPool, sqlx::postgres::PgPoolOptions, "postgres", sqlx::raw_sql);
sqlx_pool!(SqlxMariaDb, sqlx::MySqlPool, sqlx::mysql::MySqlPoolOptions, "mysql", sqlx::raw_sql);
sqlx_pool!(Sqlx08Postgres, sqlx_0_8::PgPool, sqlx_0_8::postgres::PgPoolOptions, "postgres", sqlx_0_8::raw_sql);
sqlx_pool!(Sqlx08MariaDb, sqlx_0_8::MySqlPool, sqlx_0_8::mysql::MySqlPoolOptions, "mysql", sqlx_0_8::raw_sql);

pub(crate) struct SeaOrm;

impl Driver for SeaOrm {
    type Resource = sea_orm::DatabaseConnection;

    async fn open(port: u16) -> Self::Resource {
        let mut options = sea_orm::ConnectOptions::new(url("postgres", port));
        options.max_connections(2).connect_lazy(true);
        sea_orm::Database::connect(options).await.unwrap()
    }

    async fn operate(db: &Self::Resource, _: u16) -> anyhow::Result<()> {
        db.execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    async fn hold(db: &Self::Resource) -> anyhow::Result<Held> {
        let pool = db.get_postgres_connection_pool();
        Ok(Box::new(tokio::try_join!(pool.acquire(), pool.acquire())?))
    }

    async fn on_each(db: &Self::Resource, statement: &'static str) -> anyhow::Result<()> {
        SqlxPostgres::on_each(db.get_postgres_connection_pool(), statement).await
    }
}

pub(crate) struct TokioPostgres;

impl Driver for TokioPostgres {
    type Resource = Arc<tokio_postgres::Client>;

    async fn open(port: u16) -> Self::Resource {
        let url = url("postgres", port);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        actix_web::rt::spawn(connection);
        Arc::new(client)
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        client.simple_query("SELECT 1").await?;
        Ok(())
    }

    async fn on_each(client: &Self::Resource, statement: &'static str) -> anyhow::Result<()> {
        client.simple_query(statement).await?;
        Ok(())
    }
}

pub(crate) struct DeadpoolPostgres;

impl Driver for DeadpoolPostgres {
    type Resource = deadpool_postgres::Pool;

    async fn open(port: u16) -> Self::Resource {
        let config = url("postgres", port).parse::<tokio_postgres::Config>().unwrap();
        let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
        let runtime = deadpool_postgres::Runtime::Tokio1;
        deadpool_postgres::Pool::builder(manager).max_size(2).runtime(runtime).build().unwrap()
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        pool.get().await?.simple_query("SELECT 1").await?;
        Ok(())
    }

    async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
        Ok(Box::new(tokio::try_join!(pool.get(), pool.get())?))
    }

    async fn on_each(pool: &Self::Resource, statement: &'static str) -> anyhow::Result<()> {
        let (first, second) = tokio::try_join!(pool.get(), pool.get())?;
        first.simple_query(statement).await?;
        second.simple_query(statement).await?;
        Ok(())
    }
}

macro_rules! diesel_async_pool {
    ($driver:ident, $pool:ident, $get:ident, |$manager:ident| $open:expr) => {
        pub(crate) struct $driver;

        impl Driver for $driver {
            type Resource = diesel_async::pooled_connection::$pool::Pool<diesel_async::AsyncPgConnection>;

            async fn open(port: u16) -> Self::Resource {
                let $manager = AsyncDieselConnectionManager::new(url("postgres", port));
                $open
            }

            async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
                pool.get().await?.batch_execute("SELECT 1").await?;
                Ok(())
            }

            async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
                Ok(Box::new(tokio::try_join!(pool.$get(), pool.$get())?))
            }

            async fn on_each(pool: &Self::Resource, statement: &'static str) -> anyhow::Result<()> {
                let (mut first, mut second) = tokio::try_join!(pool.get(), pool.get())?;
                first.batch_execute(statement).await?;
                second.batch_execute(statement).await?;
                Ok(())
            }
        }
    };
}

diesel_async_pool!(DieselDeadpool, deadpool, get, |manager| Self::Resource::builder(manager)
    .max_size(2)
    .build()
    .unwrap());
diesel_async_pool!(DieselBb8, bb8, get_owned, |manager| Self::Resource::builder().max_size(2).build_unchecked(manager));

pub(crate) struct DieselR2d2;

impl Driver for DieselR2d2 {
    type Resource = diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<diesel::PgConnection>>;

    async fn open(port: u16) -> Self::Resource {
        let manager = diesel::r2d2::ConnectionManager::new(url("postgres", port));
        diesel::r2d2::Pool::builder().max_size(2).build_unchecked(manager)
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        let pool = pool.clone();
        web::block(move || Ok(pool.get()?.batch_execute("SELECT 1")?)).await?
    }

    async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
        let pool = pool.clone();
        let held = web::block(move || anyhow::Ok([pool.get()?, pool.get()?])).await??;
        Ok(Box::new(held))
    }

    async fn on_each(pool: &Self::Resource, statement: &'static str) -> anyhow::Result<()> {
        let pool = pool.clone();
        web::block(move || {
            for connection in &mut [pool.get()?, pool.get()?] {
                connection.batch_execute(statement)?;
            }
            Ok(())
        })
        .await?
    }
}

/// Writes a value, as the checks of redis do.
async fn set(connection: &mut impl ConnectionLike) -> anyhow::Result<()> {
    redis::cmd("SET").arg(&["application", "1"]).query_async::<()>(connection).await?;
    Ok(())
}

pub(crate) struct RedisClient;

impl Driver for RedisClient {
    type Resource = redis::Client;

    async fn open(port: u16) -> redis::Client {
        redis::Client::open(redis_url(port)).unwrap()
    }

    async fn operate(client: &redis::Client, _: u16) -> anyhow::Result<()> {
        set(&mut client.get_multiplexed_async_connection().await?).await
    }
}

pub(crate) struct RedisManager;

impl Driver for RedisManager {
    type Resource = ConnectionManager;

    async fn open(port: u16) -> Self::Resource {
        // With constant delays between attempts, because the tests measure the check.
        let config = ConnectionManagerConfig::new().set_max_delay(PAUSE).set_number_of_retries(1000);
        ConnectionManager::new_lazy_with_config(RedisClient::open(port).await, config).unwrap()
    }

    async fn operate(manager: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut manager.clone()).await
    }
}

pub(crate) struct RedisMultiplexed;

impl Driver for RedisMultiplexed {
    type Resource = redis::aio::MultiplexedConnection;

    async fn open(port: u16) -> Self::Resource {
        let client = RedisClient::open(port).await;
        opened(async || client.get_multiplexed_async_connection().await).await
    }

    async fn operate(connection: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut connection.clone()).await
    }
}

pub(crate) struct ClusterClient;

impl Driver for ClusterClient {
    type Resource = redis::cluster::ClusterClient;

    async fn open(port: u16) -> Self::Resource {
        redis::cluster::ClusterClient::new([redis_url(port)]).unwrap()
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut client.get_async_connection().await?).await
    }
}

pub(crate) struct ClusterConnection;

impl Driver for ClusterConnection {
    type Resource = redis::cluster_async::ClusterConnection;

    async fn open(port: u16) -> Self::Resource {
        let client = ClusterClient::open(port).await;
        opened(async || client.get_async_connection().await).await
    }

    async fn operate(connection: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut connection.clone()).await
    }
}

pub(crate) struct SentinelClient;

impl Driver for SentinelClient {
    type Resource = Arc<Mutex<redis::sentinel::SentinelClient>>;

    async fn open(port: u16) -> Self::Resource {
        let credentials = RedisConnectionInfo::default().set_username(USER).set_password(PASSWORD);
        let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(credentials);
        let sentinels = vec![format!("redis://127.0.0.1:{port}/")];
        let of = SentinelServerType::Master;
        let client = redis::sentinel::SentinelClient::build(sentinels, "main".to_owned(), Some(node), of);
        Arc::new(Mutex::new(client.unwrap()))
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        let mut connection = client.lock().await.get_async_connection().await?;
        set(&mut connection).await
    }
}

pub(crate) struct DeadpoolRedis;

impl Driver for DeadpoolRedis {
    type Resource = deadpool_redis::Pool;

    async fn open(port: u16) -> Self::Resource {
        let config = deadpool_redis::Config::from_url(redis_url(port));
        config.builder().unwrap().max_size(2).runtime(deadpool_redis::Runtime::Tokio1).build().unwrap()
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut pool.get().await?).await
    }

    async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
        Ok(Box::new(tokio::try_join!(pool.get(), pool.get())?))
    }
}

pub(crate) struct Bb8Redis;

impl Driver for Bb8Redis {
    type Resource = bb8::Pool<RedisConnectionManager>;

    async fn open(port: u16) -> Self::Resource {
        bb8::Pool::builder().max_size(2).build_unchecked(RedisConnectionManager::new(redis_url(port)).unwrap())
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        set(&mut *pool.get().await?).await
    }

    async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
        Ok(Box::new(tokio::try_join!(pool.get_owned(), pool.get_owned())?))
    }
}

/// Builds clients that reconnect.
fn fred_builder(port: u16) -> fred::types::Builder {
    let config = Config {
        server: ServerConfig::new_centralized("127.0.0.1", port),
        username: Some(USER.to_owned()),
        password: Some(PASSWORD.to_owned()),
        fail_fast: false,
        ..Config::default()
    };
    let mut builder = fred::types::Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 100));
    builder
}

pub(crate) struct FredClient;

impl Driver for FredClient {
    type Resource = fred::clients::Client;

    async fn open(port: u16) -> Self::Resource {
        let client = fred_builder(port).build().unwrap();
        drop(client.connect());
        client
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(client.set("application", "1", None, None, false).await?)
    }

    async fn close(client: Self::Resource) {
        let _ = client.quit().await;
    }
}

pub(crate) struct FredPool;

impl Driver for FredPool {
    type Resource = fred::clients::Pool;

    async fn open(port: u16) -> Self::Resource {
        let pool = fred_builder(port).build_pool(2).unwrap();
        drop(pool.connect());
        pool
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(pool.set("application", "1", None, None, false).await?)
    }

    async fn close(pool: Self::Resource) {
        let _ = pool.quit().await;
    }
}

pub(crate) struct MemcachedAsync;

impl Driver for MemcachedAsync {
    type Resource = memcache::exp::AsyncMemcache;

    async fn open(port: u16) -> Self::Resource {
        memcache::exp::AsyncMemcache::connect([format!("127.0.0.1:{port}")]).await.unwrap()
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(client.set("application", "1", memcache::exp::Ttl::secs(60)).await?)
    }

    /// Its pool lends no connections, but two concurrent operations use two.
    async fn fill_pool(client: &Self::Resource, port: u16) {
        let _ = tokio::join!(Self::operate(client, port), Self::operate(client, port));
    }
}

pub(crate) struct MemcachedBlocking;

impl Driver for MemcachedBlocking {
    type Resource = memcache::Client;

    async fn open(port: u16) -> Self::Resource {
        let url = memcache::Url::parse(&format!("memcache://127.0.0.1:{port}")).unwrap();
        let pool = diesel::r2d2::Pool::builder().max_size(2).min_idle(Some(1));
        memcache::Client::with_pool(pool.build_unchecked(memcache::ConnectionManager::new(url))).unwrap()
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        let client = client.clone();
        Ok(web::block(move || client.set("application", "1", 60)).await??)
    }
}

/// The properties of a connection that reconnects.
fn recovering() -> lapin::ConnectionProperties {
    lapin::ConnectionProperties::default()
        .enable_auto_recover()
        .configure_backoff(|backoff| backoff.with_min_delay(PAUSE).with_max_delay(2 * PAUSE).with_max_times(1000))
}

pub(crate) struct LapinConnection;

impl Driver for LapinConnection {
    type Resource = Arc<lapin::Connection>;

    async fn open(port: u16) -> Self::Resource {
        let url = RabbitMq::url_at(port);
        Arc::new(lapin::Connection::connect(&url, recovering()).await.unwrap())
    }

    async fn operate(connection: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(connection.create_channel().await?.close(200, "".into()).await?)
    }
}

pub(crate) struct LapinChannel;

impl Driver for LapinChannel {
    type Resource = lapin::Channel;

    async fn open(port: u16) -> Self::Resource {
        LapinConnection::open(port).await.create_channel().await.unwrap()
    }

    async fn operate(channel: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(channel.basic_qos(1, lapin::options::BasicQosOptions::default()).await?)
    }
}

pub(crate) struct DeadpoolLapin;

impl Driver for DeadpoolLapin {
    type Resource = deadpool_lapin::Pool;

    async fn open(port: u16) -> Self::Resource {
        let config = deadpool_lapin::Config { url: Some(RabbitMq::url_at(port)), ..Default::default() };
        let builder = config.builder(lapin::ConnectionProperties::default, deadpool_lapin::Runtime::Tokio1).unwrap();
        builder.max_size(2).build().unwrap()
    }

    async fn operate(pool: &Self::Resource, _: u16) -> anyhow::Result<()> {
        Ok(pool.get().await?.create_channel().await?.close(200, "".into()).await?)
    }

    async fn hold(pool: &Self::Resource) -> anyhow::Result<Held> {
        Ok(Box::new(tokio::try_join!(pool.get(), pool.get())?))
    }
}

pub(crate) struct Nats;

impl Driver for Nats {
    type Resource = async_nats::Client;

    async fn open(port: u16) -> Self::Resource {
        let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned())
            .reconnect_delay_callback(|_| PAUSE)
            .retry_on_initial_connect();
        options.connect(format!("127.0.0.1:{port}")).await.unwrap()
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        // The reply of the server itself to a request without subscribers.
        match client.request("application", "".into()).await {
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

pub(crate) struct JetStream;

impl Driver for JetStream {
    type Resource = async_nats::jetstream::Context;

    async fn open(port: u16) -> Self::Resource {
        async_nats::jetstream::new(Nats::open(port).await)
    }

    async fn operate(context: &Self::Resource, _: u16) -> anyhow::Result<()> {
        // `query_account` fails to parse the response of servers before 2.10.
        context.request::<_, _, serde_json::Value>("INFO", b"").await?;
        Ok(())
    }
}

pub(crate) struct Mqtt;

impl Driver for Mqtt {
    type Resource = rumqttc::AsyncClient;

    async fn open(port: u16) -> Self::Resource {
        let mut options = rumqttc::MqttOptions::new(format!("application-{port}"), ("127.0.0.1", port));
        options.set_credentials(USER, PASSWORD);
        let (client, mut events) = rumqttc::AsyncClient::builder(options).capacity(10).build();
        actix_web::rt::spawn(async move {
            loop {
                match events.poll().await {
                    Err(rumqttc::ConnectionError::RequestsDone) => break,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                    Ok(_) => {}
                }
            }
        });
        client
    }

    async fn operate(client: &Self::Resource, _: u16) -> anyhow::Result<()> {
        let options = rumqttc::PublishOptions::new(rumqttc::QoS::AtLeastOnce);
        client.publish_tracked("application", "1", options).await?.wait_async().await?;
        Ok(())
    }
}

pub(crate) struct Http;

/// The client of the application, and its probe.
#[derive(Clone)]
pub(crate) struct Service {
    client: reqwest::Client,
    get: Get,
}

impl Probe for Service {
    const GROUP: &'static str = Get::GROUP;

    async fn probe(&self) -> Result<(), ProbeError> {
        self.get.probe().await
    }

    fn session(&self) -> Option<Session> {
        self.get.session()
    }
}

impl Driver for Http {
    type Resource = Service;

    async fn open(port: u16) -> Service {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        Service { get: Get::new(client.clone(), http_url(port)), client }
    }

    async fn operate(service: &Service, port: u16) -> anyhow::Result<()> {
        let response = service.client.get(http_url(port)).send().await?.error_for_status()?;
        response.bytes().await?;
        Ok(())
    }

    async fn fill_pool(service: &Service, port: u16) {
        let [first, second] = [Self::operate(service, port), Self::operate(service, port)];
        let _ = tokio::join!(first, second);
    }
}

fn http_url(port: u16) -> reqwest::Url {
    format!("http://127.0.0.1:{port}/").parse().unwrap()
}
