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

use crate::error::ProbeErrorKind;

/// The kind of a driver's error, by its type.
pub(crate) fn classify(error: &(dyn std::error::Error + 'static)) -> Option<ProbeErrorKind> {
    #[cfg(feature = "sqlx")]
    if let Some(error) = error.downcast_ref() {
        return Some(sqlx::classify(error));
    }
    #[cfg(feature = "sqlx-0_8")]
    if let Some(error) = error.downcast_ref() {
        return Some(sqlx_0_8::classify(error));
    }
    #[cfg(feature = "redis")]
    if let Some(error) = error.downcast_ref() {
        return Some(redis::classify(error));
    }
    #[cfg(feature = "sea-orm")]
    if let Some(error) = error.downcast_ref() {
        return Some(sea_orm::classify(error));
    }
    #[cfg(feature = "tokio-postgres")]
    if let Some(error) = error.downcast_ref() {
        return Some(tokio_postgres::classify(error));
    }
    #[cfg(feature = "deadpool-postgres")]
    if let Some(kind) = error.downcast_ref().and_then(deadpool::classify::<::tokio_postgres::Error>) {
        return Some(kind);
    }
    #[cfg(feature = "deadpool-redis")]
    if let Some(kind) = error.downcast_ref().and_then(deadpool::classify::<::redis::RedisError>) {
        return Some(kind);
    }
    #[cfg(feature = "bb8-redis")]
    if let Some(kind) = error.downcast_ref().and_then(bb8::classify::<::redis::RedisError>) {
        return Some(kind);
    }
    #[cfg(feature = "diesel")]
    if let Some(kind) = diesel::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "diesel-async")]
    if let Some(kind) = diesel_async::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "http")]
    if let Some(error) = error.downcast_ref() {
        return Some(http::classify(error));
    }
    #[cfg(feature = "async-nats")]
    if let Some(kind) = nats::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "lapin")]
    if let Some(error) = error.downcast_ref() {
        return Some(lapin::classify(error));
    }
    #[cfg(feature = "mqtt")]
    if let Some(kind) = mqtt::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "fred")]
    if let Some(error) = error.downcast_ref() {
        return Some(fred::classify(error));
    }
    #[cfg(feature = "memcached")]
    if let Some(error) = error.downcast_ref() {
        return Some(memcached::classify(error));
    }
    #[cfg(feature = "memcached")]
    if let Some(error) = error.downcast_ref() {
        return Some(memcached::classify_blocking(error));
    }
    let _ = error;
    None
}
