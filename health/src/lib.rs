#![doc = include_str!("../../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod change;
mod check;
mod discover;
mod engine;
mod error;
mod events;
mod home;
mod lifecycle;
#[cfg(test)]
mod model;
mod probe;
pub mod probes;
mod redact;
mod registry;
mod render;
mod report;
mod runs;
mod scope;
mod service;

pub use check::Check;
pub use discover::{Checks, HealthCheck};
pub use error::{BoxError, Class, ProbeError};
pub use events::{Transition, Transitions};
pub use health_derive::HealthCheck;
pub use ipnet::IpNet;
pub use lifecycle::{Drain, drain};
pub use probe::Probe;
pub use registry::{RegisterError, RegisterErrorKind, Registered, Registry, register, registry, unregister};
pub use report::{Sample, Status};
pub use scope::{Scope, scope};

/// What the derive writes; nothing for people.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::discover::{
        Field,
        dispatch::{Ignored, Look, LookInside, NotProbed, demand, hand, same_group},
        state::StateType,
    };
    pub use crate::probe::Ask;
}
