//! From an application's state to its checks.
//!
//! `checks` holds [`HealthCheck`], the trait that a state derives, and [`Checks`], which its impl fills. The impls call `dispatch`,
//! which decides by type whether a field is probed, `field`, which names the checks and applies the field's attributes, and
//! `require`, whose traits carry the error messages for fields that must be probed. `state` finds the states of an
//! application, and `missing` says what to do where there is none.

mod checks;
pub(crate) mod dispatch;
pub(crate) mod field;
pub(crate) mod missing;
pub mod require;
pub(crate) mod state;

pub use checks::{Checks, HealthCheck};
