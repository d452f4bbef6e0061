// README links to files. On docs.rs the same links lead to modules, because the first definition of a link counts.
#![doc = "[state]: guide::state"]
#![doc = "[custom-checks]: guide::custom_checks"]
#![doc = "[backends]: guide::backends"]
#![doc = "[kubernetes]: guide::kubernetes"]
#![doc = "[proxies]: guide::proxies"]
#![doc = "[operations]: guide::operations"]
#![doc = ""]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The path of a request, from access control to the response.
mod access;
mod door;
mod engine;
mod render;
mod report;
mod scope;
mod service;

// Checks: what they probe, where they run, and their results.
mod change;
mod check;
mod error;
mod events;
mod probe;
pub mod probes;
mod redact;
mod registry;
mod runtime;
mod weak_map;

#[cfg(doc)]
pub mod guide;

// Parts of an actix-web application: its state, its workers, its shutdown.
mod discover;
mod lifecycle;

pub use access::{AllowList, ListError, on_connect};
pub use check::Check;
pub use discover::{Checks, HealthCheck};
pub use door::Deny;
pub use error::{BoxError, ProbeError, ProbeErrorKind};
pub use events::{Transition, Transitions};
pub use health_derive::HealthCheck;
pub use ipnet::IpNet;
pub use lifecycle::{Drain, drain};
pub use probe::Probe;
pub use registry::{RegisterError, RegisterErrorKind, RegistrationGuard, Registry, register, registry, unregister};
pub use report::{Sample, Status};
pub use scope::{Scope, scope};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use access::fuzzing;

/// What the derive writes; nothing for people.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::discover::{
        Field, demand,
        dispatch::{Ignored, Look, LookInside, NotProbed, hand, same_group},
        state::StateType,
    };
    pub use crate::probe::DynProbe;
}
