//! What a field's type looks like. Whether it *is* a resource, only the compiler can tell; this is for what must not be
//! missed in silence.

use proc_macro2::Span;
use syn::{GenericArgument, Generics, Ident, PathArguments, PathSegment, ReturnType, Type, TypePath};

/// Types of resources by the last segment of their path and, where that alone would be too common a word, one before it, and
/// the demand of the runtime crate whose message fits. The first that fits counts.
const RESOURCES: [(&str, &str); 39] = [
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

/// The demand on the field, as a trait of the runtime crate, if its type looks like a resource or mentions one.
pub(crate) fn looks_like_a_resource(ty: &Type) -> Option<Ident> {
    let demand = segments(ty).find_map(|(before, segment)| {
        RESOURCES.iter().find_map(|&(path, demand)| {
            let (krate, last) = path.rsplit_once("::").map_or((None, path), |(krate, last)| (Some(krate), last));
            let is_named =
                segment.ident == last && krate.is_none_or(|krate| before.iter().any(|before| before.ident == krate));
            is_named.then_some(demand)
        })
    })?;
    Some(Ident::new(demand, Span::call_site()))
}

/// Whether the type mentions a type parameter, or is one.
pub(crate) fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    segments(ty).any(|(before, segment)| before.is_empty() && is_parameter(&segment.ident, generics))
}

fn is_parameter(ident: &Ident, generics: &Generics) -> bool {
    generics.type_params().any(|parameter| parameter.ident == *ident)
}

/// The type inside all wrappers that are seen through.
pub(crate) fn innermost(ty: &Type) -> &Type {
    unwrapped(ty).map_or(ty, |(_, inner)| innermost(inner))
}

/// The type that is the `Probe` if the field is probed: inside collections, but with the pointers directly around it, for a
/// pointer to a probe is one.
pub(crate) fn probed_type(ty: &Type) -> &Type {
    match unwrapped(ty) {
        Some((Wrapper::Collection | Wrapper::Option, inner)) => probed_type(inner),
        Some((Wrapper::Pointer, inner)) => {
            let probed = probed_type(inner);
            if std::ptr::eq(probed, inner) { ty } else { probed }
        }
        None => ty,
    }
}

/// Every type that a type mentions, itself first: what stands in it is of no use where it can't be reached.
pub(crate) fn mentioned(ty: &Type) -> Vec<&Type> {
    let inner: Vec<&Type> = match ty {
        Type::Path(TypePath { path, .. }) => {
            let walked = path.segments.iter().filter(|segment| segment.ident != "PhantomData");
            walked
                .flat_map(|segment| match &segment.arguments {
                    PathArguments::AngleBracketed(_) => arguments(segment).collect(),
                    _ => Vec::new(),
                })
                .collect()
        }
        Type::Paren(inner) => return mentioned(&inner.elem),
        Type::Group(inner) => return mentioned(&inner.elem),
        Type::Reference(inner) => vec![&inner.elem],
        Type::Array(inner) => vec![&inner.elem],
        Type::Slice(inner) => vec![&inner.elem],
        Type::Tuple(inner) => inner.elems.iter().collect(),
        // Functions and trait objects hold nothing by themselves.
        _ => return Vec::new(),
    };
    std::iter::once(ty).chain(inner.into_iter().flat_map(mentioned)).collect()
}

/// Whether there can be several of what is inside: then it can't go by names of its own.
pub(crate) fn is_collection(ty: &Type) -> bool {
    unwrapped(ty).is_some_and(|(wrapper, inner)| matches!(wrapper, Wrapper::Collection) || is_collection(inner))
}

enum Wrapper {
    Pointer,
    Option,
    Collection,
}

fn unwrapped(ty: &Type) -> Option<(Wrapper, &Type)> {
    let path = match ty {
        Type::Path(TypePath { qself: None, path, .. }) => path,
        Type::Paren(inner) => return unwrapped(&inner.elem),
        Type::Group(inner) => return unwrapped(&inner.elem),
        _ => return None,
    };
    let last = path.segments.last()?;
    let mut types = arguments(last);
    let (wrapper, inner) = match &*last.ident.to_string() {
        "Arc" | "Box" | "Data" => (Wrapper::Pointer, types.next()),
        "Option" => (Wrapper::Option, types.next()),
        "Vec" => (Wrapper::Collection, types.next()),
        "HashMap" | "BTreeMap" => (Wrapper::Collection, types.nth(1)),
        _ => return None,
    };
    Some((wrapper, inner?))
}

/// Every segment of every path in a type with those before it, outermost first. `PhantomData` holds nothing.
fn segments(ty: &Type) -> Box<dyn Iterator<Item = (Vec<&PathSegment>, &PathSegment)> + '_> {
    match ty {
        Type::Path(TypePath { qself, path, .. }) => {
            let own = qself.iter().flat_map(|qself| segments(&qself.ty));
            let walked = path.segments.iter().enumerate().filter(|(_, segment)| segment.ident != "PhantomData");
            Box::new(own.chain(walked.flat_map(|(at, segment)| {
                let before = path.segments.iter().take(at).collect();
                std::iter::once((before, segment)).chain(arguments(segment).flat_map(segments))
            })))
        }
        Type::Paren(inner) => segments(&inner.elem),
        Type::Group(inner) => segments(&inner.elem),
        Type::Reference(inner) => segments(&inner.elem),
        Type::Array(inner) => segments(&inner.elem),
        Type::Slice(inner) => segments(&inner.elem),
        Type::Tuple(inner) => Box::new(inner.elems.iter().flat_map(segments)),
        // Functions and trait objects hold no resource that could be cloned out of them.
        _ => Box::new(std::iter::empty()),
    }
}

fn arguments(segment: &PathSegment) -> impl Iterator<Item = &Type> {
    let types: Vec<_> = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
            .collect(),
        PathArguments::Parenthesized(arguments) => match &arguments.output {
            ReturnType::Type(_, ty) => vec![&**ty],
            ReturnType::Default => Vec::new(),
        },
        PathArguments::None => Vec::new(),
    };
    types.into_iter()
}

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::parse_quote;

    use super::*;

    #[test]
    fn what_looks_like_a_resource_is_found_behind_any_path_and_inside_any_type() {
        let looks: [(Type, &str); 11] = [
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
        for (ty, demand) in &looks {
            assert!(looks_like_a_resource(ty).is_some_and(|found| found == demand), "{}", quote!(#ty));
        }
        let does_not: [Type; 5] = [
            parse_quote!(String),
            parse_quote!(reqwest::Client),
            parse_quote!(PhantomData<PgPool>),
            parse_quote!(fn() -> PgPool),
            parse_quote!(PgPoolOptions),
        ];
        for ty in &does_not {
            assert!(looks_like_a_resource(ty).is_none(), "{}", quote!(#ty));
        }
    }

    #[test]
    fn wrappers_are_seen_through_to_what_is_the_probe() {
        let cases: [(Type, Type, Type); 4] = [
            (parse_quote!(Option<T>), parse_quote!(T), parse_quote!(T)),
            (parse_quote!(Option<Arc<T>>), parse_quote!(T), parse_quote!(Arc<T>)),
            (parse_quote!(Arc<HashMap<String, T>>), parse_quote!(T), parse_quote!(T)),
            (parse_quote!(web::Data<Vec<Box<T>>>), parse_quote!(T), parse_quote!(Box<T>)),
        ];
        for (ty, inner, probed) in &cases {
            assert_eq!(quote!(#inner).to_string(), {
                let found = innermost(ty);
                quote!(#found).to_string()
            });
            assert_eq!(quote!(#probed).to_string(), {
                let found = probed_type(ty);
                quote!(#found).to_string()
            });
        }
    }
}
