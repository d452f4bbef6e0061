//! The probes of the library, one module a backend, each behind the feature of its name: what exactly is asked, and what
//! each kind of failure means.
//!
//! They are run on a thread of the library's own. A connection that a pool opens for a check lives there, also when the
//! application uses it afterwards, and so do the pool's own hooks run there for it: one that blocks its thread holds up the other
//! checks.

// The backends' `cfg` lines are here and nowhere else.

#[cfg(feature = "bb8-redis")]
pub mod bb8_redis;
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
#[cfg(feature = "memcached")]
pub mod memcached;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "async-nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis-cluster")]
pub mod redis_cluster;
#[cfg(feature = "redis-sentinel")]
pub mod redis_sentinel;
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
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tokio-postgres")]
pub mod tokio_postgres;

mod classify;

#[cfg(any(feature = "bb8-redis", feature = "diesel-async"))]
mod bb8;
#[cfg(any(feature = "deadpool-postgres", feature = "deadpool-redis", feature = "diesel-async", feature = "lapin"))]
mod deadpool;
#[allow(dead_code, reason = "how much of it is used depends on the features")]
mod driver;
#[cfg(any(feature = "fred", feature = "memcached", feature = "redis"))]
mod key;
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
#[allow(dead_code, reason = "each backend needs a part of it")]
mod pool;
#[cfg(any(
    feature = "bb8-redis",
    feature = "deadpool-postgres",
    feature = "deadpool-redis",
    feature = "diesel-async",
    feature = "lapin"
))]
#[allow(dead_code, reason = "each backend needs a part of it")]
mod pooled;
#[cfg(any(feature = "bb8-redis", feature = "deadpool-redis"))]
mod pooled_redis;
#[cfg(any(feature = "sqlx", feature = "sqlx-0_8", feature = "tokio-postgres"))]
mod sqlstate;

// What the probes of the system and of the network share.
#[allow(dead_code, reason = "how much of it is used depends on the features")]
mod address;
#[cfg(any(feature = "disk", feature = "memory"))]
mod amount;
#[allow(dead_code, reason = "how much of it is used depends on the features")]
#[cfg(any(feature = "dns", feature = "http", feature = "tcp", feature = "tls"))]
mod destination;
#[cfg(feature = "https")]
mod https;
#[cfg(all(feature = "http", not(feature = "https")))]
#[path = "no_https.rs"]
mod https;
#[allow(dead_code, reason = "how much of it is used depends on the features")]
mod one_at_a_time;
#[cfg(any(feature = "disk", feature = "dns", feature = "http", feature = "memory", feature = "tcp", feature = "tls"))]
mod one_thread;
#[cfg(any(feature = "https", feature = "tls"))]
mod security;
#[allow(dead_code, reason = "how much of it is used depends on the features")]
mod support;

#[cfg(any(feature = "disk", feature = "memory"))]
pub use amount::Amount;
#[cfg(any(feature = "dns", feature = "http", feature = "tcp", feature = "tls"))]
pub use destination::InvalidProbe;
