//! The derive of the crate [`health`](https://docs.rs/health); use it through that crate, which re-exports it.
//!
//! Its stages are one file each: `ast`, what was written; `attr`, the attributes; `kind`, what a field's type looks like;
//! `valid`, the rules; `expand`, the code; `fallback`, what stands in for the code after a mistake.

mod ast;
mod attr;
mod errors;
mod expand;
mod fallback;
mod kind;
mod valid;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Finds the resources of a state and makes a check of each.
///
/// A field is probed if its type is a `health::Probe`, or is a struct that derives `HealthCheck` itself, whose checks come
/// along as `field.check`. It is the type that counts, not its name, so aliases and re-exports work. `Arc`, `Box`, `Option`
/// (`None`: no check), `Vec` (`field.0`, `field.1`), `HashMap` and `BTreeMap` (a check a key, named by the key) and
/// `web::Data` are seen through. Any other field is ignored.
///
/// A pool that nobody asks is worse than no health check, so it is an error when compiling if nothing in the struct is
/// probed, if a field looks like a pool or a connection and can't be probed, and if it depends on a type parameter whether
/// a field is.
///
/// # Attributes
///
/// All are written as `#[health(…)]`.
///
/// | on | attribute | meaning |
/// | --- | --- | --- |
/// | field | `skip` | never probed |
/// | field | `probe` | must be probed: an error where the type is no `Probe`. Needed where the type is a type parameter |
/// | field | `with = path` | probed by an `async fn(&FieldType) -> Result<(), E>`, with any `E` that `health::Check::new` takes; the group is `service` unless `group` says otherwise |
/// | field | `name = "…"` | instead of the field's name; on a map, before its keys |
/// | field | `group = "…"` | instead of the probe's group |
/// | field | `optional` | a failure degrades the service, and does not take it down |
/// | field | `timeout = "250ms"` | the check's own limit, in `ms` or `s`, inside the scope's deadline |
/// | field | `live` | counts for liveness too: only for what a restart mends |
/// | field | `flatten` | on a nested struct: its checks without the field's name before theirs |
/// | struct | `strict` | each field is probed or says `skip` |
/// | struct | `crate = path` | where the crate `health` is, if it was renamed |
///
/// # Examples
///
/// ```
/// use std::{collections::HashMap, net::SocketAddr};
///
/// use health::{HealthCheck, Probe, ProbeError};
///
/// #[derive(Clone)]
/// struct Mailer;
///
/// impl Probe for Mailer {
///     const GROUP: &'static str = "service";
///
///     async fn probe(&self) -> Result<(), ProbeError> {
///         Ok(())
///     }
/// }
///
/// async fn listens(server: &SocketAddr) -> std::io::Result<()> {
///     tokio::net::TcpStream::connect(server).await.map(drop)
/// }
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     mailer: Mailer,                        // service.mailer
///     #[health(optional, timeout = "250ms")]
///     newsletters: HashMap<String, Mailer>,  // one a key, e.g. service.monday
///     #[health(with = listens)]
///     search: SocketAddr,                    // service.search
///     title: String,                         // ignored
/// }
/// ```
#[proc_macro_derive(HealthCheck, attributes(health))]
pub fn derive_health_check(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::derive(&input).into()
}
