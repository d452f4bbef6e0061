//! Fields that must be probed: one trait per reason, whose only purpose is its error message. Every type that implements
//! `Discover` implements all of them. The derive chooses the trait by how the field's type is written.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "none of it is documented for users")]

use super::dispatch::Discover;
use crate::error::BoxError;

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

requirements! {
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be probed, but the field is marked `#[health(probe)]`",
        label = "must be probed",
        note = "implement `health::Probe` and `Clone`, or derive `HealthCheck` if the type is a struct of resources",
        note = "to probe the field with a function, write `#[health(with = path)]`"
    )]
    Probed;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` has no checks, but the field is marked `#[health(flatten)]`",
        label = "neither probed nor a struct that derives `HealthCheck`",
        note = "if the type is a struct of resources, add `#[derive(health::HealthCheck)]` to it"
    )]
    Flattened;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be probed, and the struct is marked `#[health(strict)]`",
        label = "neither probed nor skipped",
        note = "to probe the field with a function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`"
    )]
    Strict;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be probed, but the field has attributes of a check",
        label = "these attributes have no effect",
        note = "implement `health::Probe` and `Clone`, or write `#[health(with = path)]` to probe the field with a function; to leave it unprobed, `#[health(skip)]`"
    )]
    Attributed;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` depends on a type parameter, so the derive cannot determine whether it is a resource",
        label = "probed or skipped?",
        note = "to probe the field, write `#[health(probe)]`, which adds the bound `Probe + Clone`; to leave it unprobed, `#[health(skip)]`"
    )]
    Generic;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` looks like a resource but cannot be probed",
        label = "this field would not be health-checked",
        note = "to probe a type of a driver, enable the feature of `health` for its crate, of the version that `cargo tree` shows: `async-nats`, `bb8-postgres`, `bb8-redis`, `deadpool-lapin`, `deadpool-postgres`, `deadpool-redis`, `diesel`, `diesel-async`, `fred`, `lapin`, `lettre`, `memcache`, `mongodb`, `mysql`, `mysql_async`, `object_store`, `r2d2_sqlite`, `rdkafka`, `redis`, `redis-cluster`, `redis-r2d2`, `redis-sentinel`, `rskafka`, `rumqttc`, `rusqlite`, `sea-orm`, `sqlx`, `sqlx-0_8`, `tokio-postgres` or `tonic`",
        note = "if that feature is enabled, put a client that is not `Clone`, such as `tokio_postgres::Client` or `rskafka::client::Client`, in an `Arc`, and a store of `object_store` in an `Arc<dyn ObjectStore>`",
        note = "to probe a type of your own, implement `health::Probe` and `Clone`; to probe the field with a function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`",
        note = "in a map, a resource is only found if the keys are `Display`"
    )]
    Resource;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` looks like a resource in a lock or a cell but cannot be probed",
        label = "this field would not be health-checked",
        note = "a pool needs no lock, because it is a handle: store the pool itself; if pools are added at run time, call `health::register` for each, and mark the field `#[health(skip)]`",
        note = "a client that needs its lock is probed with `#[health(with = path)]` and the lock in an `Arc`, a `SentinelClient` also with the feature `redis-sentinel` of `health`, a `rusqlite::Connection` in a `std::sync::Mutex` with `rusqlite`; to leave the field unprobed, write `#[health(skip)]`"
    )]
    LockedResource;
    #[diagnostic::on_unimplemented(
        message = "`{Self}` contains what looks like a resource but cannot be probed",
        label = "this field would not be health-checked",
        note = "store the resource in a field of its own, where it may be in `Arc`, `Box`, `&'static`, `Option`, `Vec`, `web::Data`, `web::ThinData`, `HashMap` or `BTreeMap`; or derive `HealthCheck` for the type that contains it",
        note = "to probe the field with a function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`"
    )]
    InnerResource;
}

/// An error that the function of `#[health(with = …)]` may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error that `#[health(with = …)]` takes",
    label = "this function must return `Result<(), E>`, where `E` is `Send + Sync` and an `std::error::Error`, an `anyhow::Error`, a `String` or a `&str`",
    note = "for any other error, for example an `actix_web::Error`, write `.map_err(|error| error.to_string())`"
)]
pub trait FunctionError {
    #[doc(hidden)]
    fn boxed(self) -> BoxError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> FunctionError for E {
    fn boxed(self) -> BoxError {
        self.into()
    }
}

/// The result of the function of `#[health(with = …)]`, whose error must be one that a check takes.
pub fn assert_error_is_taken<E: FunctionError>(result: Result<(), E>) -> Result<(), BoxError> {
    result.map_err(E::boxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_functions_keep_their_text() {
        assert!(assert_error_is_taken::<String>(Ok(())).is_ok());
        assert_eq!(assert_error_is_taken(Err("not connected yet")).unwrap_err().to_string(), "not connected yet");
    }
}
