// README links to files. On docs.rs the same links lead to modules, because the first definition of a link counts.
#![doc = "[guide]: guide"]
#![doc = "[getting-started]: guide::getting_started"]
#![doc = "[state]: guide::state"]
#![doc = "[custom-checks]: guide::custom_checks"]
#![doc = "[testing]: guide::testing"]
#![doc = "[backends]: guide::backends"]
#![doc = "[kubernetes]: guide::kubernetes"]
#![doc = "[docker]: guide::docker"]
#![doc = "[proxies]: guide::proxies"]
#![doc = "[operations]: guide::operations"]
#![doc = "[metrics]: guide::metrics"]
#![doc = "[troubleshooting]: guide::troubleshooting"]
#![doc = "[`Scope`]: Scope"]
#![doc = ""]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(rustdoc::broken_intra_doc_links)]

// From HTTP down to a run, and the leaves; docs/architecture.md has the order.
mod management;
mod scope;

mod access;
mod discovery;
mod engine;
mod lifecycle;
mod render;
mod report;

mod check;
mod error;
mod events;
mod observe;
mod probe;
pub mod probes;
mod registry;
mod runtime;

mod options;
mod process;
mod redact;
mod self_check;
mod status;
mod weak_map;

#[doc(hidden)]
pub mod __private;

#[cfg(doc)]
pub mod guide;

pub use access::{AllowList, ForwardingHeader, ListError};
pub use check::Check;
pub use discovery::{Checks, HealthCheck};
pub use error::{BoxError, ProbeError, ProbeErrorKind};
pub use events::{Transition, Transitions, transitions};
pub use ipnet::IpNet;
pub use lifecycle::{Drain, Hold, drain, heartbeat, hold};
pub use management::{ManagementServer, serve};
pub use observe::{Observation, observe};
pub use options::{CheckOptions, Role};
pub use probe::{Probe, Session};
pub use registry::{
    RegisterError, RegisterErrorKind, RegistrationGuard, Registry, register, register_guarded, registry, unregister,
};
pub use render::openapi::openapi;
pub use report::{Details, Entry, LastError, Report, Sample};
pub use scope::{ConfigError, ConfigErrorKind, Deny, Scope, metrics_text, on_connect, report, scope, snapshot};
pub use self_check::self_check;
pub use status::Status;

// The example stands here, because it needs this crate.
/// Finds the resources of the application state, and registers a check for each.
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
/// async fn accepts_connections(server: &SocketAddr) -> std::io::Result<()> {
///     tokio::net::TcpStream::connect(server).await.map(drop)
/// }
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     mailer: Mailer,                        // service.mailer
///     #[health(optional, timeout = "250ms")]
///     newsletters: HashMap<String, Mailer>,  // one per key, e.g. service.newsletters.monday
///     #[health(with = accepts_connections)]
///     search: SocketAddr,                    // service.search
///     title: String,                         // ignored
/// }
/// ```
pub use health_derive::HealthCheck;

#[cfg(feature = "tonic")]
pub use scope::{GrpcHealth, grpc};

#[cfg(feature = "utoipa")]
pub use render::ApiDoc;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use access::fuzzing;
