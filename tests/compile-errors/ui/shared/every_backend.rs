// One field for each type that a feature of `health` probes, with the feature. Included by three tests: `missing_features.rs`, where
// the types only look like this, `catalogue/discovery.rs`, with the crates themselves and all features, and `features.rs`, with the
// crates and without features.
#[derive(health::HealthCheck)]
struct EveryBackend {
    sqlx: sqlx::PgPool, // sqlx
    sqlx_0_8: sqlx_0_8::PgPool, // sqlx-0_8
    sea_orm: sea_orm::DatabaseConnection, // sea-orm
    diesel: diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<diesel::SqliteConnection>>, // diesel
    diesel_async_bb8: diesel_async::pooled_connection::bb8::Pool<diesel_async::AsyncPgConnection>, // diesel-async
    diesel_async_deadpool: diesel_async::pooled_connection::deadpool::Pool<diesel_async::AsyncPgConnection>, // diesel-async
    tokio_postgres: std::sync::Arc<tokio_postgres::Client>, // tokio-postgres
    deadpool_postgres: deadpool_postgres::Pool, // deadpool-postgres
    bb8_postgres: bb8_postgres::bb8::Pool<bb8_postgres::PostgresConnectionManager<tokio_postgres::NoTls>>, // bb8-postgres
    redis: redis::Client, // redis
    redis_multiplexed: redis::aio::MultiplexedConnection, // redis
    redis_manager: redis::aio::ConnectionManager, // redis
    cluster: redis::cluster::ClusterClient, // redis-cluster
    cluster_async: redis::cluster_async::ClusterConnection, // redis-cluster
    sentinel: std::sync::Arc<tokio::sync::Mutex<redis::sentinel::SentinelClient>>, // redis-sentinel
    deadpool_redis: deadpool_redis::Pool, // deadpool-redis
    bb8_redis: bb8_redis::bb8::Pool<bb8_redis::RedisConnectionManager>, // bb8-redis
    fred: fred::clients::Client, // fred
    fred_pool: fred::clients::Pool, // fred
    memcache: memcache::Client, // memcache
    memcache_async: memcache::exp::AsyncMemcache, // memcache
    memcache_meta: memcache::exp::AsyncMetaClient, // memcache
    lapin: std::sync::Arc<lapin::Connection>, // lapin
    lapin_channel: lapin::Channel, // lapin
    deadpool_lapin: deadpool_lapin::Pool, // deadpool-lapin
    nats: async_nats::Client, // async-nats
    jetstream: async_nats::jetstream::Context, // async-nats
    mqtt: rumqttc::AsyncClient, // rumqttc
    mysql: mysql::Pool, // mysql
    mysql_async: mysql_async::Pool, // mysql_async
    r2d2_redis: r2d2::Pool<redis::Client>, // redis-r2d2
    grpc: tonic::transport::Channel, // tonic
    mongodb: mongodb::Client, // mongodb
    mongodb_database: mongodb::Database, // mongodb
    mongodb_collection: mongodb::Collection<()>, // mongodb
    lettre: lettre::AsyncSmtpTransport<lettre::Tokio1Executor>, // lettre
    lettre_blocking: lettre::SmtpTransport, // lettre
    rdkafka: rdkafka::producer::FutureProducer, // rdkafka
    rdkafka_threaded: rdkafka::producer::ThreadedProducer<rdkafka::producer::DefaultProducerContext>, // rdkafka
    rdkafka_consumer: std::sync::Arc<rdkafka::consumer::StreamConsumer>, // rdkafka
    rskafka: std::sync::Arc<rskafka::client::Client>, // rskafka
    object_store: std::sync::Arc<dyn object_store::ObjectStore>, // object_store
    rusqlite: std::sync::Arc<std::sync::Mutex<rusqlite::Connection>>, // rusqlite
    r2d2_sqlite: r2d2::Pool<r2d2_sqlite::SqliteConnectionManager>, // r2d2_sqlite
}
