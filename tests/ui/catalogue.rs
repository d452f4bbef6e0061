//! Types of the names and paths of the backends behind features, which are no probes here: each says which feature it needs.
use std::sync::Arc;

use health::HealthCheck;

mod sea_orm {
    pub struct DatabaseConnection;
}

mod tokio_postgres {
    pub struct Client;
}

mod deadpool_postgres {
    pub struct Pool;
}

mod deadpool_redis {
    pub struct Pool;
}

mod bb8 {
    pub struct Pool;
}

mod diesel {
    pub mod r2d2 {
        pub struct Pool;
    }
}

mod diesel_async {
    pub struct Pool;
}

mod cluster {
    pub struct ClusterClient;
    pub struct ClusterConnection;
}

mod sentinel {
    pub struct SentinelClient;
}

mod fred {
    pub struct Client;
    pub struct Pool;
}

mod memcache {
    pub struct Client;
    pub struct AsyncMemcache;
}

mod lapin {
    pub struct Connection;
    pub struct Channel;
}

mod deadpool_lapin {
    pub struct Pool;
}

mod async_nats {
    pub struct Client;
}

mod jetstream {
    pub struct Context;
}

mod rumqttc {
    pub struct AsyncClient;
}

mod other {
    pub struct Pool;
}

#[derive(HealthCheck)]
struct State {
    sea_orm: sea_orm::DatabaseConnection,
    tokio_postgres: Arc<tokio_postgres::Client>,
    deadpool_postgres: deadpool_postgres::Pool,
    deadpool_redis: deadpool_redis::Pool,
    bb8: bb8::Pool,
    diesel: diesel::r2d2::Pool,
    diesel_async: diesel_async::Pool,
    cluster: cluster::ClusterClient,
    cluster_connection: cluster::ClusterConnection,
    sentinel: sentinel::SentinelClient,
    fred: fred::Client,
    fred_pool: fred::Pool,
    memcached: memcache::Client,
    memcached_async: memcache::AsyncMemcache,
    lapin: Arc<lapin::Connection>,
    channel: lapin::Channel,
    lapin_pool: deadpool_lapin::Pool,
    nats: async_nats::Client,
    jetstream: jetstream::Context,
    mqtt: rumqttc::AsyncClient,
    pool: other::Pool,
}

fn main() {}
