//! Types of the names and paths of the backends behind features, which are no probes here: each says which feature it needs.
use std::sync::Arc;

use health::HealthCheck;

/// Crates of other versions than those that are probed.
macro_rules! crates {
    ($($krate:ident: $($ty:ident)*;)*) => {$(mod $krate { $(pub struct $ty;)* })*};
}

crates! {
    sea_orm: DatabaseConnection DbConn;
    tokio_postgres: Client;
    deadpool_postgres: Pool;
    deadpool_redis: Pool;
    bb8: Pool;
    r2d2: Pool;
    diesel_async: Pool;
    cluster: ClusterClient ClusterConnection;
    sentinel: SentinelClient;
    fred: Client Pool;
    memcache: Client AsyncMemcache;
    lapin: Connection Channel;
    deadpool_lapin: Pool;
    async_nats: Client;
    jetstream: Context;
    rumqttc: AsyncClient;
    other: Pool;
}

#[derive(HealthCheck)]
struct State {
    sea_orm: sea_orm::DatabaseConnection,
    tokio_postgres: Arc<tokio_postgres::Client>,
    deadpool_postgres: deadpool_postgres::Pool,
    deadpool_redis: deadpool_redis::Pool,
    bb8: bb8::Pool,
    diesel: r2d2::Pool,
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
