//! Recognizes resources by type name. Whether a type *is* a resource, only the compiler knows; these are the types for which being
//! ignored is an error.

use proc_macro2::Span;
use syn::{Ident, Type};

use crate::types;

/// What the names of pools and connections end in.
const SUFFIXES: [&str; 6] = ["Pool", "Connection", "Conn", "Collection", "Producer", "Transport"];

/// How redis, memcache, rdkafka and `object_store` name theirs.
const HANDLES: [&str; 8] = [
    "ConnectionManager",
    "ClusterClient",
    "SentinelClient",
    "Memcache",
    "StreamConsumer",
    "AmazonS3",
    "GoogleCloudStorage",
    "MicrosoftAzure",
];

/// What they end in below the path of a driver's crate. Elsewhere, such as in `reqwest::Client`, these names say nothing.
const DRIVER_SUFFIXES: [&str; 5] = ["Client", "Session", "Channel", "Context", "Database"];

/// Crates of drivers, and the module `jetstream` of async-nats, which is imported on its own. A name that ends in `_` is a prefix.
const DRIVERS: &str = "aerospike async_nats aws_sdk_ cassandra_cpp cdrs_tokio clickhouse elasticsearch etcd_client fred \
                       google_cloud_ influxdb influxdb2 jetstream lapin meilisearch_sdk memcache mongodb paho_mqtt postgres \
                       redis rskafka rumqttc scylla surrealdb tiberius tikv_client tokio_postgres tonic zookeeper_client";

/// The trait whose objects are resources: that of the crate `object_store`.
const OBJECT_STORE: &str = "ObjectStore";

/// The trait of `discovery::require` that the type must implement, if it is, or mentions, a type that is written like a resource.
pub(crate) fn requirement(ty: &Type) -> Option<Ident> {
    let is_locked = |inner| types::cell(inner).is_some() && mentions_resource(inner);
    let requirement = if is_resource(types::innermost(ty)) {
        "Resource"
    } else if types::mentioned(ty).into_iter().any(is_locked) {
        "LockedResource"
    } else {
        "InnerResource"
    };
    mentions_resource(ty).then(|| Ident::new(requirement, Span::call_site()))
}

fn mentions_resource(ty: &Type) -> bool {
    types::mentioned(ty).into_iter().any(is_resource)
}

fn is_resource(ty: &Type) -> bool {
    if let Some(path) = types::object_trait(ty) {
        return path.segments.last().is_some_and(|segment| segment.ident == OBJECT_STORE);
    }
    let segments = types::path(ty).into_iter().flat_map(|path| &path.segments);
    let mut names = segments.rev().map(|segment| segment.ident.to_string());
    let Some(last) = names.next() else { return false };
    let ends_in = |suffixes: &[&str]| suffixes.iter().any(|suffix| last.ends_with(suffix));
    let is_driver = |name: String| {
        DRIVERS.split(' ').any(|driver| name == driver || driver.ends_with('_') && name.starts_with(driver))
    };
    ends_in(&SUFFIXES) || ends_in(&HANDLES) || ends_in(&DRIVER_SUFFIXES) && names.any(is_driver)
}

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::parse_quote;

    use super::*;

    #[test]
    fn resources_are_recognized_by_what_is_written_inside_any_type() {
        let recognized: [(Type, &str); 27] = [
            (parse_quote!(PgPool), "Resource"),
            (parse_quote!(sqlx::postgres::PgPool), "Resource"),
            (parse_quote!(DbPool), "Resource"),
            (parse_quote!(Pool<Manager>), "Resource"),
            (parse_quote!(diesel::r2d2::Pool<ConnectionManager<PgConnection>>), "Resource"),
            (parse_quote!(Option<Arc<ConnectionManager>>), "Resource"),
            (parse_quote!(HashMap<String, deadpool_postgres::Pool>), "Resource"),
            (parse_quote!((u8, [sea_orm::DatabaseConnection; 2])), "InnerResource"),
            (parse_quote!(Repository<PgPool>), "InnerResource"),
            (parse_quote!(&'static PgPool), "Resource"),
            (parse_quote!(mongodb::Collection<Order>), "Resource"),
            (parse_quote!(Collection<Order>), "Resource"),
            (parse_quote!(mongodb::Client), "Resource"),
            (parse_quote!(scylla::client::session::Session), "Resource"),
            (parse_quote!(Arc<aws_sdk_s3::Client>), "Resource"),
            (parse_quote!(Arc<dyn object_store::ObjectStore + Send>), "Resource"),
            (parse_quote!(Arc<object_store::aws::AmazonS3>), "Resource"),
            (parse_quote!(FutureProducer), "Resource"),
            (parse_quote!(AsyncSmtpTransport<Tokio1Executor>), "Resource"),
            (parse_quote!(jetstream::Context), "Resource"),
            (parse_quote!(tonic::transport::Channel), "Resource"),
            (parse_quote!(Arc<Mutex<PgPool>>), "LockedResource"),
            (parse_quote!(Arc<Mutex<redis::Connection>>), "LockedResource"),
            (parse_quote!(Mutex<redis::Client>), "LockedResource"),
            (parse_quote!(OnceCell<Option<PgPool>>), "LockedResource"),
            (parse_quote!(Arc<tokio::sync::Mutex<redis::sentinel::SentinelClient>>), "LockedResource"),
            (parse_quote!((Mutex<u8>, PgPool)), "InnerResource"),
        ];
        for (ty, expected) in &recognized {
            let requirement = requirement(ty).map(|requirement| requirement.to_string());
            assert_eq!(requirement.as_deref(), Some(*expected), "{}", quote!(#ty));
        }
        let others: [Type; 12] = [
            parse_quote!(String),
            parse_quote!(Client),
            parse_quote!(reqwest::Client),
            parse_quote!(reqwest_middleware::ClientWithMiddleware),
            parse_quote!(auth::Client),
            parse_quote!(actix_session::Session),
            parse_quote!(EmailClient),
            parse_quote!(redis::ConnectionInfo),
            parse_quote!(Arc<dyn Repository>),
            parse_quote!(PhantomData<PgPool>),
            parse_quote!(fn() -> PgPool),
            parse_quote!(PgPoolOptions),
        ];
        for ty in &others {
            assert!(requirement(ty).is_none(), "{}", quote!(#ty));
        }
    }
}
