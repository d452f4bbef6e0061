//! The derive macro of the crate [`health`](https://docs.rs/actix-health). Use it through that crate, which re-exports it.
//!
//! A struct passes through four stages, one file each: `ast` (the struct and its fields) and `attr` (their attributes),
//! `valid` (the rules that need no types) and `expand` (the generated code, including the assertions that need types). After
//! an error, `fallback` generates the impl instead. `types` and `resource_types` inspect field types as they are written.

#![deny(rustdoc::broken_intra_doc_links)]

mod ast;
mod attr;
mod errors;
mod expand;
mod fallback;
mod resource_types;
mod types;
mod valid;

use proc_macro::TokenStream;
use quote::{ToTokens as _, quote};
use syn::{DeriveInput, parse_macro_input};

use crate::{ast::Struct, errors::Errors};

/// Generates `health::HealthCheck` for a struct: a check for each field that can be probed.
///
/// A field is probed if its type implements `health::Probe`, or is a struct that derives `HealthCheck` itself, whose checks are
/// then named `field.check`. Only the type matters, not the way it is written, so aliases and re-exports work. `Arc`, `Box`,
/// `&'static`, `Option` (`None`: no check), `Vec` (`field.0`, `field.1`), `HashMap` and `BTreeMap` (`field.key`), `web::Data` and
/// `web::ThinData` are transparent. `Arc<dyn Trait>` is probed if `dyn Trait` implements `Probe`. All other fields are ignored.
///
/// A newtype, which is a tuple struct with a single field that is not skipped, adds no name of its own: its check bears the name of
/// the field that holds the newtype, or `default` if the newtype is the state itself.
///
/// A pool without a check is worse than no health check at all. So it is a compile error if
///
/// - nothing in the struct is probed,
/// - the type of a field is written like a resource but cannot be probed: its name ends in `Pool`, `Connection`, `Conn`,
///   `Collection`, `Producer` or `Transport`, or it is a `Client` or a `Session` below the path of a driver's crate, such as
///   `mongodb::Client`; also in a lock, a cell, a tuple or an array,
/// - a field contains a probe that cannot be reached, for example in a lock,
/// - the type of a field depends on a type parameter, and no attribute decides whether it is probed,
/// - the struct also implements `Probe`, because its checks would be ambiguous.
///
/// # Attributes
///
/// All are written as `#[health(…)]`. On a nested struct or a collection they apply to all its checks.
///
/// | on | attribute | meaning |
/// | --- | --- | --- |
/// | field | `skip` | The field is not probed. |
/// | field | `probe` | The field must be probed: a compile error if its type does not implement `Probe`. Required if the type is a type parameter. |
/// | field | `with = path` | Probes the field with an `async fn(&FieldType) -> Result<(), E>`, where `E` is any error that `health::Check::new` accepts. The group defaults to `service`. The check keeps a clone of the field, so a lock or a cell must be in an `Arc`. |
/// | field | `name = "…"` | Replaces the field's name. |
/// | field | `group = "…"` | Replaces the probe's group. |
/// | field | `critical` | A failure makes the service `DOWN`. The default, except for a resource whose `Probe::OPTIONS` are others, such as a mail server. |
/// | field | `optional` | A failure makes the service `DEGRADED` instead of `DOWN`. |
/// | field | `shared` | The replicas share the resource: while it is down, `/health` is `DOWN`, and `/health/ready` only until the service has started once. |
/// | field | `timeout = "250ms"` | Sets the check's own limit, in `ms` or `s`. |
/// | field | `max_age = "30s"` | Sets how long a result is reused, in `ms` or `s`. |
/// | field | `rise = 2` | Sets how many successes in a row bring the check up again. Defaults to 1. |
/// | field | `fall = 3` | Sets how many failures in a row take the check down. Defaults to 1. |
/// | field | `live` | Includes the check in liveness. Use it only for faults that a restart fixes. |
/// | field | `flatten` | Leaves the field's name out: a nested struct's checks are not prefixed, a map's are named after the key only, a `Vec`'s after the index. |
/// | struct | `strict` | Every field must be probed or marked `skip`. |
/// | struct | `name = "…"` | Is put before the names of all checks of the struct, as in `billing.db`. |
/// | struct | `crate = path` | The path of the crate `health`, if it was renamed. |
#[proc_macro_derive(HealthCheck, attributes(health))]
pub fn derive_health_check(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input).into()
}

fn derive(input: &DeriveInput) -> proc_macro2::TokenStream {
    let mut errors = Errors::default();
    let mut krate = quote!(::health);
    let parsed = Struct::parse(input, &mut errors);
    let checked = parsed.and_then(|state| {
        if let Some(path) = &state.attrs.krate {
            krate = path.to_token_stream();
        }
        valid::validate(&state, &mut errors);
        errors.finish().map(|()| state)
    });
    match checked {
        Ok(state) => expand::expand(&state, &krate),
        Err(error) => fallback::expand(input, &krate, &error),
    }
}
