//! Fields that must be probed: one trait per reason, whose only purpose is its error message. Every type that implements
//! `Discover` implements all of them. The derive chooses the trait by how the field's type is written.
#![allow(missing_docs, reason = "none of it is documented for users")]

use super::{checks::HealthCheck, dispatch::Discover};

macro_rules! requirements {
    ($($(#[$diagnostic:meta])* $name:ident;)*) => {$(
        $(#[$diagnostic])*
        pub trait $name<K> {
            /// Compiles if the type implements the trait.
            fn assert_impl(&self) {}
        }

        #[diagnostic::do_not_recommend]
        impl<T: Discover<K> + ?Sized, K> $name<K> for T {}
    )*};
}

/// The requirements for types that are written like a resource: what the type looks like, and how to get it probed.
macro_rules! resources {
    ($($name:ident: $message:literal, $feature:literal;)*) => {
        requirements! {$(
            #[diagnostic::on_unimplemented(
                message = $message,
                label = "this field would not be health-checked",
                note = $feature,
                note = "only the field itself and the content of `Arc`, `Box`, `Option`, `Vec`, `web::Data` and maps with `Display` keys are searched for probes",
                note = "to probe the field with a function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`"
            )]
            $name;
        )*}
    };
}

requirements! {
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be probed, but the field is marked `#[health(probe)]`",
        label = "must be probed",
        note = "implement `health::Probe` and `Clone`, or derive `HealthCheck` if the type is a struct of resources",
        note = "to probe the field with a function, write `#[health(with = path)]`"
    )]
    Probed;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be probed, and the struct is marked `#[health(strict)]`",
        label = "neither probed nor skipped",
        note = "to probe the field with a function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`"
    )]
    Strict;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` depends on a type parameter, so the derive cannot determine whether it is a resource",
        label = "probed or skipped?",
        note = "to probe the field, write `#[health(probe)]`, which adds the bound `Probe + Clone`; to leave it unprobed, `#[health(skip)]`"
    )]
    Generic;
}

resources! {
    SqlxPool:
        "`{Self}` looks like a database pool but cannot be probed",
        "pools of sqlx 0.9 are probed with the feature `sqlx` of `health`, pools of sqlx 0.8 with the feature `sqlx-0_8`; enable the feature, or check the version with `cargo tree -i sqlx`";
    SeaOrm:
        "`{Self}` looks like a database connection but cannot be probed",
        "`DatabaseConnection` of sea-orm 2 is probed with the feature `sea-orm` of `health`; enable the feature, or check the version with `cargo tree -i sea-orm`";
    Diesel:
        "`{Self}` looks like a database pool but cannot be probed",
        "r2d2 pools of diesel 2 are probed with the feature `diesel` of `health`; enable the feature, or check the version with `cargo tree -i diesel`";
    DieselAsync:
        "`{Self}` looks like a database pool but cannot be probed",
        "bb8 and deadpool pools of diesel-async 0.9 are probed with the feature `diesel-async` of `health`; enable the feature, or check the version with `cargo tree -i diesel-async`";
    TokioPostgres:
        "`{Self}` looks like a database connection but cannot be probed",
        "`Arc<Client>` of tokio-postgres 0.7 is probed with the feature `tokio-postgres` of `health`; enable the feature, or check the version with `cargo tree -i tokio-postgres`";
    DeadpoolPostgres:
        "`{Self}` looks like a database pool but cannot be probed",
        "`Pool` of deadpool-postgres 0.14 is probed with the feature `deadpool-postgres` of `health`; enable the feature, or check the version with `cargo tree -i deadpool-postgres`";
    Redis:
        "`{Self}` looks like a redis connection but cannot be probed",
        "`Client`, `aio::MultiplexedConnection` and `aio::ConnectionManager` of redis 1 are probed with the feature `redis` of `health`; enable the feature, or check the version with `cargo tree -i redis`";
    RedisCluster:
        "`{Self}` looks like a redis cluster connection but cannot be probed",
        "`ClusterClient` and `ClusterConnection` of redis 1 are probed with the feature `redis-cluster` of `health`; enable the feature, or check the version with `cargo tree -i redis`";
    RedisSentinel:
        "`{Self}` looks like a redis sentinel client but cannot be probed",
        "`Arc<tokio::sync::Mutex<SentinelClient>>` of redis 1 is probed with the feature `redis-sentinel` of `health`; enable the feature, or check the version with `cargo tree -i redis`";
    DeadpoolRedis:
        "`{Self}` looks like a redis pool but cannot be probed",
        "`Pool` of deadpool-redis 0.23 is probed with the feature `deadpool-redis` of `health`; enable the feature, or check the version with `cargo tree -i deadpool-redis`";
    Bb8:
        "`{Self}` looks like a connection pool but cannot be probed",
        "pools of bb8 0.9 are probed with the feature `bb8-redis` of `health` if they hold redis connections, with the feature `diesel-async` if they hold diesel connections; enable the feature, or check the version with `cargo tree -i bb8`";
    Fred:
        "`{Self}` looks like a redis connection but cannot be probed",
        "`Client` and `Pool` of fred 10 are probed with the feature `fred` of `health`; enable the feature, or check the version with `cargo tree -i fred`";
    Memcached:
        "`{Self}` looks like a memcached connection but cannot be probed",
        "`Client`, `exp::AsyncMemcache` and `exp::AsyncMetaClient` of memcache 0.21 are probed with the feature `memcache` of `health`; enable the feature, or check the version with `cargo tree -i memcache`";
    Lapin:
        "`{Self}` looks like a RabbitMQ connection but cannot be probed",
        "`Arc<Connection>` and `Channel` of lapin 4 and `Pool` of deadpool-lapin 0.14 are probed with the feature `lapin` of `health`; enable the feature, or check the version with `cargo tree -i lapin`";
    Nats:
        "`{Self}` looks like a NATS connection but cannot be probed",
        "`Client` and `jetstream::Context` of async-nats 0.51 are probed with the feature `async-nats` of `health`; enable the feature, or check the version with `cargo tree -i async-nats`";
    Mqtt:
        "`{Self}` looks like an MQTT client but cannot be probed",
        "`AsyncClient` of rumqttc-next 0.34 is probed with the feature `rumqttc` of `health`; enable the feature, or check the version with `cargo tree -i rumqttc-next`; the clients of rumqttc and rumqttc-v4-next are not supported, because only their event loops receive the broker's responses";
    Pool:
        "`{Self}` looks like a connection pool but cannot be probed",
        "pools of sqlx, bb8, deadpool, diesel's r2d2 and fred are probed with the features `sqlx`, `sqlx-0_8`, `bb8-redis`, `deadpool-postgres`, `deadpool-redis`, `lapin`, `diesel-async`, `diesel` and `fred` of `health`; enable the feature of your pool";
    Resource:
        "`{Self}` looks like a resource but cannot be probed",
        "for a type of your own, implement `health::Probe`";
}

/// Compiles if the type inside the wrappers of a field with `#[health(flatten)]` derives `HealthCheck`.
pub fn assert_flattenable<H: HealthCheck + ?Sized>() {}
