//! The probes of the library, one module a backend, each behind the feature of its name: what exactly is asked, and what
//! each class of failure means.

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
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tokio-postgres")]
pub mod tokio_postgres;

#[cfg(any(feature = "fred", feature = "memcached", feature = "redis", feature = "sqlx"))]
#[allow(dead_code, reason = "no backend needs all of it")]
mod driver;
#[cfg(any(feature = "fred", feature = "memcached", feature = "redis"))]
mod key;

use crate::error::Class;

/// The class of a driver's error, by its type.
pub(crate) fn class_of(error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    #[cfg(feature = "sqlx")]
    if let Some(error) = error.downcast_ref() {
        return Some(sqlx::class_of(error));
    }
    #[cfg(feature = "redis")]
    if let Some(error) = error.downcast_ref() {
        return Some(redis::class_of(error));
    }
    #[cfg(feature = "fred")]
    if let Some(error) = error.downcast_ref() {
        return Some(fred::class_of(error));
    }
    #[cfg(feature = "memcached")]
    if let Some(error) = error.downcast_ref() {
        return Some(memcached::class_of(error));
    }
    #[cfg(feature = "memcached")]
    if let Some(error) = error.downcast_ref() {
        return Some(memcached::class_of_blocking(error));
    }
    let _ = error;
    None
}
