//! The probes of this library, one module per backend, each behind the feature of the crate that it probes: which query a run
//! sends, and what each failure means.
//!
//! Probes run on a thread of the library. A connection that a pool opens for a check is driven by that thread, also while the
//! application uses it, and so are the pool's hooks: a hook that blocks delays the other checks.

// All `cfg` lines of the backends are in this file.

#[cfg(feature = "bb8-redis")]
pub mod bb8_redis;
#[cfg(feature = "certificate")]
pub mod certificate;
#[cfg(feature = "deadpool-postgres")]
pub mod deadpool_postgres;
#[cfg(feature = "deadpool-redis")]
pub mod deadpool_redis;
#[cfg(feature = "diesel")]
pub mod diesel;
#[cfg(feature = "diesel-async")]
pub mod diesel_async;
#[cfg(feature = "disk")]
pub mod disk;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "fred")]
pub mod fred;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "lapin")]
pub mod lapin;
#[cfg(feature = "memcache")]
pub mod memcache;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "async-nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis-cluster")]
pub mod redis_cluster;
#[cfg(feature = "redis-sentinel")]
pub mod redis_sentinel;
#[cfg(feature = "rumqttc")]
pub mod rumqttc;
#[cfg(feature = "sea-orm")]
pub mod sea_orm;
#[cfg(feature = "sqlx")]
pub mod sqlx;
#[cfg(feature = "sqlx-0_8")]
pub mod sqlx_0_8;
#[cfg(feature = "sqlx-migrate")]
mod sqlx_migrate;
#[cfg(all(feature = "sqlx", not(feature = "sqlx-migrate")))]
mod sqlx_migrate {}
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "tokio-postgres")]
pub mod tokio_postgres;

// Shared by the probes of drivers.
#[cfg(any(feature = "bb8-redis", feature = "diesel-async"))]
mod bb8;
mod classify;
#[cfg(any(feature = "deadpool-postgres", feature = "deadpool-redis", feature = "diesel-async", feature = "lapin"))]
mod deadpool;
#[allow(dead_code, reason = "each backend uses a part of it")]
mod driver;
#[cfg(any(
    feature = "bb8-redis",
    feature = "deadpool-postgres",
    feature = "deadpool-redis",
    feature = "diesel",
    feature = "diesel-async",
    feature = "lapin",
    feature = "sqlx",
    feature = "sqlx-0_8"
))]
#[allow(dead_code, reason = "each backend uses a part of it")]
mod pool;
#[cfg(any(
    feature = "bb8-redis",
    feature = "deadpool-postgres",
    feature = "deadpool-redis",
    feature = "diesel-async",
    feature = "lapin"
))]
#[allow(dead_code, reason = "each backend uses a part of it")]
mod pooled;
#[cfg(any(feature = "bb8-redis", feature = "deadpool-redis"))]
mod pooled_redis;
#[cfg(any(feature = "sqlx", feature = "sqlx-0_8", feature = "tokio-postgres"))]
mod sqlstate;
#[cfg(any(feature = "fred", feature = "memcache", feature = "redis"))]
mod unique_key;

// Shared by the probes of the system and of the network.
#[allow(dead_code, reason = "each backend uses a part of it")]
mod address;
#[cfg(any(feature = "disk", feature = "memory"))]
mod amount;
#[cfg(any(
    feature = "certificate",
    feature = "disk",
    feature = "dns",
    feature = "http",
    feature = "memory",
    feature = "tcp"
))]
mod blocking_single_flight;
#[allow(dead_code, reason = "each backend uses a part of it")]
#[cfg(any(feature = "certificate", feature = "dns", feature = "http", feature = "tcp"))]
mod endpoint;
#[cfg(feature = "https")]
mod https;
#[cfg(all(feature = "http", not(feature = "https")))]
#[path = "no_https.rs"]
mod https;
#[allow(dead_code, reason = "each backend uses a part of it")]
mod single_flight;
#[allow(dead_code, reason = "each backend uses a part of it")]
mod support;
#[cfg(any(feature = "certificate", feature = "https"))]
mod tls;

#[cfg(any(feature = "disk", feature = "memory"))]
pub use amount::Amount;
#[cfg(any(feature = "certificate", feature = "dns", feature = "http", feature = "tcp"))]
pub use endpoint::InvalidProbe;
