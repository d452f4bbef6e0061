#![doc = include_str!("../../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// A request goes through these in turn.
mod access;
mod door;
mod engine;
mod render;
mod report;
mod scope;
mod service;

// What is asked, where, and what is known of it.
mod change;
mod check;
mod error;
mod events;
mod probe;
pub mod probes;
mod redact;
mod registry;
mod runtime;

#[doc(hidden)]
pub mod __private;

// What only an application of actix-web has: states, workers, an end.
mod discovery;
mod lifecycle;

pub use access::{AllowList, ListError, on_connect};
pub use check::Check;
pub use discovery::{Checks, HealthCheck};
pub use door::Deny;
pub use error::{BoxError, ProbeError, ProbeErrorKind};
pub use events::{Transition, Transitions};
pub use health_derive::HealthCheck;
pub use ipnet::IpNet;
pub use lifecycle::{Drain, drain};
pub use probe::Probe;
pub use registry::{RegisterError, RegisterErrorKind, Registered, Registry, register, registry, unregister};
pub use report::{Sample, Status};
pub use scope::{Scope, scope};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use access::fuzzing;
