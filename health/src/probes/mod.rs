//! The probes of this library, one module per backend, each behind the feature of the crate that it probes: which query a run
//! sends, and what each failure means.
//!
//! Probes run on a thread of the library. A connection that a pool opens for a check is driven by that thread, also while the
//! application uses it, and so are the pool's hooks: a hook that blocks delays the other checks.

// The backends by folder, and their features. Their public paths are flat.

/// Databases that are queried with SQL.
mod sql {
    #[cfg(feature = "bb8-postgres")]
    pub mod bb8_postgres;
    #[cfg(feature = "deadpool-postgres")]
    pub mod deadpool_postgres;
    #[cfg(feature = "diesel")]
    pub mod diesel;
    #[cfg(feature = "diesel-async")]
    pub mod diesel_async;
    #[cfg(feature = "mysql")]
    pub mod mysql;
    #[cfg(feature = "mysql_async")]
    pub mod mysql_async;
    #[cfg(feature = "r2d2_sqlite")]
    pub mod r2d2_sqlite;
    #[cfg(feature = "rusqlite")]
    pub mod rusqlite;
    #[cfg(feature = "sea-orm")]
    pub mod sea_orm;
    #[allow(dead_code, reason = "each backend uses a part of it")]
    mod sqlstate;
    #[cfg(feature = "sqlx")]
    pub mod sqlx;
    #[cfg(feature = "sqlx-0_8")]
    pub mod sqlx_0_8;
    #[cfg(feature = "tokio-postgres")]
    pub mod tokio_postgres;
}

/// Databases of documents.
mod document {
    #[cfg(feature = "mongodb")]
    pub mod mongodb;
}

/// Caches.
mod cache {
    #[cfg(feature = "bb8-redis")]
    pub mod bb8_redis;
    #[cfg(feature = "deadpool-redis")]
    pub mod deadpool_redis;
    #[cfg(feature = "fred")]
    pub mod fred;
    #[cfg(feature = "memcache")]
    pub mod memcache;
    #[cfg(any(feature = "bb8-redis", feature = "deadpool-redis"))]
    mod pooled_redis;
    #[cfg(feature = "redis")]
    pub mod redis;
    #[cfg(feature = "redis-cluster")]
    pub mod redis_cluster;
    #[cfg(feature = "redis-r2d2")]
    pub mod redis_r2d2;
    #[cfg(feature = "redis-sentinel")]
    pub mod redis_sentinel;
}

/// Mail servers.
mod mail {
    #[cfg(feature = "lettre")]
    pub mod lettre;
}

/// Brokers of messages.
mod queue {
    #[cfg(feature = "deadpool-lapin")]
    pub mod deadpool_lapin;
    #[cfg(feature = "lapin")]
    pub mod lapin;
    #[cfg(feature = "async-nats")]
    pub mod nats;
    #[cfg(feature = "rdkafka")]
    pub mod rdkafka;
    #[cfg(feature = "rskafka")]
    pub mod rskafka;
    #[cfg(feature = "rumqttc")]
    pub mod rumqttc;
}

/// Stores of objects.
mod storage {
    #[cfg(feature = "object_store")]
    pub mod object_store;
    #[cfg(feature = "aws-sdk-s3")]
    pub mod s3;
}

/// Other servers, by their protocol.
mod net {
    #[cfg(feature = "certificate")]
    pub mod certificate;
    #[cfg(feature = "dns")]
    pub mod dns;
    #[cfg(feature = "reqwest")]
    pub mod reqwest;
    #[cfg(feature = "tcp")]
    pub mod tcp;
    #[cfg(any(feature = "certificate", feature = "reqwest"))]
    mod tls;
    #[cfg(feature = "tonic")]
    pub mod tonic;
}

/// The machine that the application runs on.
mod system {
    #[cfg(feature = "disk")]
    pub mod disk;
    #[cfg(feature = "memory")]
    pub mod memory;
}

mod classify;
#[allow(dead_code, reason = "each backend uses a part of it")]
mod pool;
#[allow(dead_code, unreachable_pub, reason = "each backend uses a part of it")]
mod support;

#[cfg(any(feature = "disk", feature = "memory"))]
pub use self::support::amount::Amount;
#[cfg(any(feature = "certificate", feature = "dns", feature = "tcp"))]
pub use self::support::endpoint::InvalidProbe;
#[allow(unreachable_pub, unused_imports, reason = "without features they are empty")]
pub use self::{cache::*, document::*, mail::*, net::*, queue::*, sql::*, storage::*, system::*};
