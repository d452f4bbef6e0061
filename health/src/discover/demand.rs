//! What the derive demands of fields: traits of one method, which every type has that `Discover` knows, and whose messages say
//! why this field must be one. The derive picks the trait by what is written at the field.
#![allow(missing_docs, reason = "none of it is documented for users")]

use super::{HealthCheck, dispatch::Discover};

macro_rules! demands {
    ($($(#[$diagnostic:meta])* $name:ident;)*) => {$(
        $(#[$diagnostic])*
        pub trait $name<K> {
            /// Compiles where the demand is met.
            fn met(&self) {}
        }

        #[diagnostic::do_not_recommend]
        impl<T: Discover<K> + ?Sized, K> $name<K> for T {}
    )*};
}

/// The demands on what looks like a resource: what it looks like, what nobody would ask, and the feature that probes it.
macro_rules! resources {
    ($($name:ident: $message:literal, $label:literal, $feature:literal;)*) => {
        demands! {$(
            #[diagnostic::on_unimplemented(
                message = $message,
                label = $label,
                note = "a resource is found inside of `Arc`, `Box`, `Option`, `Vec`, `web::Data`, and maps whose keys are `Display`, and of nothing else",
                note = $feature,
                note = "to ask it your own way, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`"
            )]
            $name;
        )*}
    };
}

demands! {
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not probed, but `#[health(probe)]` says it must be",
        label = "no `Probe`",
        note = "implement `health::Probe` (and `Clone`) for it, derive `HealthCheck` if it is a struct of resources, or ask it your own way: `#[health(with = path)]`"
    )]
    Probed;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not probed, and `#[health(strict)]` lets no field pass in silence",
        label = "neither probed nor skipped",
        note = "write `#[health(skip)]` on the field if there is nothing to ask, or `#[health(with = path)]` to say how to ask"
    )]
    Strict;
    #[diagnostic::on_unimplemented(
        message = "the type `{Self}` depends on a type parameter, so `HealthCheck` can't tell whether it is a resource",
        label = "probed or not?",
        note = "write `#[health(probe)]` if it is to be probed (the parameter must then be a `Probe`), else `#[health(skip)]`"
    )]
    Generic;
}

resources! {
    SqlxPool:
        "`{Self}` looks like a database pool, but `health` can't probe it",
        "nothing would ask this pool whether its database answers",
        "pools of sqlx 0.9 are probed with the feature `sqlx` of `health`, which is on by default, those of sqlx 0.8 with the feature `sqlx-0_8`: is it off, or is this another version of sqlx (`cargo tree -i sqlx`)?";
    SeaOrm:
        "`{Self}` looks like a database connection, but `health` can't probe it",
        "nothing would ask whether its database answers",
        "`DatabaseConnection` of sea-orm 2 is probed with the feature `sea-orm` of `health`: is it off, or is this another version of sea-orm?";
    Diesel:
        "`{Self}` looks like a database pool, but `health` can't probe it",
        "nothing would ask this pool whether its database answers",
        "pools of diesel 2 in r2d2 are probed with the feature `diesel` of `health`: is it off, or is this another version of diesel?";
    DieselAsync:
        "`{Self}` looks like a database pool, but `health` can't probe it",
        "nothing would ask this pool whether its database answers",
        "the bb8 and deadpool pools of diesel-async 0.9 are probed with the feature `diesel-async` of `health`: is it off, or is this another version of diesel-async?";
    TokioPostgres:
        "`{Self}` looks like a database connection, but `health` can't probe it",
        "nothing would ask whether its database answers",
        "`Arc<Client>` of tokio-postgres 0.7 is probed with the feature `tokio-postgres` of `health`: is it off, or is this another version of tokio-postgres?";
    DeadpoolPostgres:
        "`{Self}` looks like a database pool, but `health` can't probe it",
        "nothing would ask this pool whether its database answers",
        "`Pool` of deadpool-postgres 0.14 is probed with the feature `deadpool-postgres` of `health`: is it off, or is this another version of deadpool-postgres?";
    Redis:
        "`{Self}` looks like a connection to redis, but `health` can't probe it",
        "nothing would ask this server whether it answers",
        "`Client`, `aio::MultiplexedConnection` and `aio::ConnectionManager` of redis 1 are probed with the feature `redis` of `health`, which is on by default: is it off, or is this another version of redis (`cargo tree -i redis`)?";
    RedisCluster:
        "`{Self}` looks like a connection to a redis cluster, but `health` can't probe it",
        "nothing would ask these servers whether they answer",
        "`ClusterClient` and `ClusterConnection` of redis 1 are probed with the feature `redis-cluster` of `health`: is it off, or is this another version of redis (`cargo tree -i redis`)?";
    RedisSentinel:
        "`{Self}` looks like a connection to redis by way of a sentinel, but `health` can't probe it",
        "nothing would ask this server whether it answers",
        "`Arc<tokio::sync::Mutex<SentinelClient>>` of redis 1 is probed with the feature `redis-sentinel` of `health`: is it off, or is this another version of redis (`cargo tree -i redis`)?";
    DeadpoolRedis:
        "`{Self}` looks like a pool of connections to redis, but `health` can't probe it",
        "nothing would ask this pool whether its server answers",
        "`Pool` of deadpool-redis 0.23 is probed with the feature `deadpool-redis` of `health`: is it off, or is this another version of deadpool-redis?";
    Bb8:
        "`{Self}` looks like a pool, but `health` can't probe it",
        "nothing would ask this pool whether its server answers",
        "pools of bb8 0.9 are probed with the feature `bb8-redis` of `health` if they are of redis, with `diesel-async` if they are of diesel: is it off, or is this another version of bb8?";
    Fred:
        "`{Self}` looks like a connection to redis, but `health` can't probe it",
        "nothing would ask this server whether it answers",
        "`Client` and `Pool` of fred 10 are probed with the feature `fred` of `health`: is it off, or is this another version of fred?";
    Memcached:
        "`{Self}` looks like a connection to memcached, but `health` can't probe it",
        "nothing would ask this server whether it answers",
        "`Client`, `exp::AsyncMemcache` and `exp::AsyncMetaClient` of memcache 0.21 are probed with the feature `memcache` of `health`: is it off, or is this another version of memcache?";
    Lapin:
        "`{Self}` looks like a connection to RabbitMQ, but `health` can't probe it",
        "nothing would ask this broker whether it answers",
        "`Arc<Connection>` and `Channel` of lapin 4, and `Pool` of deadpool-lapin 0.14, are probed with the feature `lapin` of `health`: is it off, or is this another version of lapin?";
    Nats:
        "`{Self}` looks like a connection to NATS, but `health` can't probe it",
        "nothing would ask this server whether it answers",
        "`Client` and `jetstream::Context` of async-nats 0.51 are probed with the feature `async-nats` of `health`: is it off, or is this another version of async-nats?";
    Mqtt:
        "`{Self}` looks like an MQTT client, but `health` can't probe it",
        "nothing would ask this broker whether it answers",
        "`AsyncClient` of rumqttc-next 0.34 is probed with the feature `rumqttc` of `health`: is it off, or is this another version? That of rumqttc, and that of MQTT 3.1.1 (rumqttc-v4-next), is not probed: of the first only the event loop hears what the broker answers";
    Pool:
        "`{Self}` looks like a pool, but `health` can't probe it",
        "nothing would ask this pool whether its server answers",
        "pools of sqlx, bb8, deadpool, diesel's r2d2 and fred are probed with the features `sqlx`, `sqlx-0_8`, `bb8-redis`, `deadpool-postgres`, `deadpool-redis`, `lapin`, `diesel-async`, `diesel` and `fred` of `health`: is the one that you need off?";
    Resource:
        "`{Self}` looks like a resource, but `health` can't probe it",
        "nothing would ask it whether it answers",
        "for a type of your own, implement `health::Probe`";
}

/// What `#[health(flatten)]` demands of what is inside the wrappers of a field.
pub fn flattened<H: HealthCheck + ?Sized>() {}
