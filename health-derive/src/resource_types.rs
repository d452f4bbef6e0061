//! Recognizes resources by type name. Whether a type *is* a resource, only the compiler knows; these are the types for which being
//! ignored is an error.

use proc_macro2::Span;
use syn::{Ident, Type};

use crate::types;

/// The types, and the trait of `discovery::require` whose message names the feature that probes them. A type is written as the
/// last segment of its path, after an earlier segment if the last one is ambiguous. The first match counts.
const RESOURCE_TYPES: [(&str, &str); 39] = [
    ("PgPool", "SqlxPool"),
    ("MySqlPool", "SqlxPool"),
    ("SqlitePool", "SqlxPool"),
    ("AnyPool", "SqlxPool"),
    ("sqlx::Pool", "SqlxPool"),
    ("DatabaseConnection", "SeaOrm"),
    ("DbConn", "SeaOrm"),
    ("diesel_async::Pool", "DieselAsync"),
    ("diesel::Pool", "Diesel"),
    ("tokio_postgres::Client", "TokioPostgres"),
    ("deadpool_postgres::Pool", "DeadpoolPostgres"),
    ("ClusterClient", "RedisCluster"),
    ("ClusterConnection", "RedisCluster"),
    ("SentinelClient", "RedisSentinel"),
    ("AsyncLockedSentinelClient", "Resource"),
    ("deadpool_redis::Pool", "DeadpoolRedis"),
    ("redis::Client", "Redis"),
    ("MultiplexedConnection", "Redis"),
    ("RedisConnectionManager", "Bb8"),
    ("ConnectionManager", "Redis"),
    ("bb8::Pool", "Bb8"),
    ("bb8_redis::Pool", "Bb8"),
    ("fred::Client", "Fred"),
    ("fred::RedisClient", "Fred"),
    ("fred::Pool", "Fred"),
    ("RedisPool", "Pool"),
    ("AsyncMemcache", "Memcached"),
    ("AsyncMetaClient", "Memcached"),
    ("memcache::Client", "Memcached"),
    ("lapin::Connection", "Lapin"),
    ("lapin::Channel", "Lapin"),
    ("deadpool_lapin::Pool", "Lapin"),
    ("async_nats::Client", "Nats"),
    ("async_nats::Context", "Nats"),
    ("jetstream::Context", "Nats"),
    ("rumqttc::AsyncClient", "Mqtt"),
    ("Pool", "Pool"),
    ("mongodb::Client", "Resource"),
    ("mongodb::Database", "Resource"),
];

/// The trait that the type must implement, if it is, or mentions, one of the resource types.
pub(crate) fn requirement(ty: &Type) -> Option<Ident> {
    let requirement = types::segments(ty).find_map(|(before, segment)| {
        RESOURCE_TYPES.iter().find_map(|&(path, requirement)| {
            let (qualifier, last) = match path.rsplit_once("::") {
                Some((qualifier, last)) => (Some(qualifier), last),
                None => (None, path),
            };
            let is_qualified =
                qualifier.is_none_or(|qualifier| before.iter().any(|earlier| earlier.ident == qualifier));
            (segment.ident == last && is_qualified).then_some(requirement)
        })
    })?;
    Some(Ident::new(requirement, Span::call_site()))
}

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::{Type, parse_quote};

    use super::*;

    #[test]
    fn resource_types_are_recognized_behind_any_path_and_inside_any_type() {
        let recognized: [(Type, &str); 11] = [
            (parse_quote!(PgPool), "SqlxPool"),
            (parse_quote!(sqlx::postgres::PgPool), "SqlxPool"),
            (parse_quote!(Option<Arc<redis::aio::ConnectionManager>>), "Redis"),
            (parse_quote!(Mutex<redis::Client>), "Redis"),
            (parse_quote!(HashMap<String, deadpool_postgres::Pool>), "DeadpoolPostgres"),
            (parse_quote!(bb8::Pool<Manager>), "Bb8"),
            (parse_quote!(diesel_async::pooled_connection::deadpool::Pool<AsyncPgConnection>), "DieselAsync"),
            (parse_quote!(diesel::r2d2::Pool<ConnectionManager<PgConnection>>), "Diesel"),
            (parse_quote!(Pool<Manager>), "Pool"),
            (parse_quote!((u8, [sea_orm::DatabaseConnection; 2])), "SeaOrm"),
            (parse_quote!(Repository<PgPool>), "SqlxPool"),
        ];
        for (ty, expected) in &recognized {
            assert!(requirement(ty).is_some_and(|requirement| requirement == expected), "{}", quote!(#ty));
        }
        let others: [Type; 5] = [
            parse_quote!(String),
            parse_quote!(reqwest::Client),
            parse_quote!(PhantomData<PgPool>),
            parse_quote!(fn() -> PgPool),
            parse_quote!(PgPoolOptions),
        ];
        for ty in &others {
            assert!(requirement(ty).is_none(), "{}", quote!(#ty));
        }
    }
}
